"""What `countersign kubernetes` writes: the documents as they are, and nothing secret among them."""

import base64
import io
import json
import tarfile
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from countersign.cli.main import exit_code
from countersign.installation.kubernetes import Documents, TooLarge, parties, trial, vocabulary
from countersign.installation.layout import Layout
from directive import vocabulary_signature
from directive.vocabulary import Vocabulary, VocabularyError
from shared.clock import SystemClock
from shared.identity import SpiffeId
from shared.registry import TrustRoots
from support.manifests import files_of


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trial")
    trial(folder, "elsewhere", SystemClock().now())
    return folder


def documents(folder: Path) -> Documents:
    layout = Layout(folder)
    return Documents(layout.registry, layout.directives, layout.trust_roots, layout.policy)


def test_the_directives_are_all_there_and_signed(folder: Path) -> None:
    made = files_of(parties(documents(folder), "faces.example", "countersign"))
    with tarfile.open(fileobj=io.BytesIO(made["directives.tar.gz"])) as archive:
        names = set(archive.getnames())
        rules = archive.extractfile("lapd-2020-11-13/rules.cedar")
        assert rules is not None
        read = rules.read()
    directives = Layout(folder).directives
    assert read == (directives / "lapd-2020-11-13" / "rules.cedar").read_bytes()
    assert names == {str(p.relative_to(directives)) for p in directives.rglob("*") if p.is_file()}
    assert "lapd-2020-11-13/directive.sig" in names


def test_the_vocabulary_is_whole_and_signed_by_its_owner(folder: Path, tmp_path: Path) -> None:
    """What the policy service mounts is what directives and its owner signed, byte for byte."""
    for name, content in files_of(vocabulary(documents(folder), "countersign")).items():
        (tmp_path / name).write_bytes(content)
    roots = TrustRoots.load(Layout(folder).trust_roots)
    mounted = vocabulary_signature.load(tmp_path, roots.vocabulary_signers)
    original = Vocabulary.load(Layout(folder).directives)
    assert mounted.sha256 == original.sha256
    assert mounted.earlier.keys() == original.earlier.keys() > set()


def test_a_vocabulary_that_cannot_be_used_is_not_handed_out(tmp_path: Path, folder: Path) -> None:
    given = documents(folder)
    (tmp_path / "vocabulary.cedarschema").write_text("namespace Elsewhere {}\n")
    broken = Documents(given.registry, tmp_path, given.trust_roots)
    with pytest.raises(VocabularyError, match=r"vocabulary\.cedarschema"):
        vocabulary(broken, "countersign")


def test_the_same_documents_make_the_same_bytes(folder: Path) -> None:
    one, other = (parties(documents(folder), "faces.example", "countersign") for _ in range(2))
    assert one == other


def test_users_of_the_bus_are_of_the_trust_domain(folder: Path) -> None:
    made = files_of(parties(documents(folder), "faces.example", "countersign"))
    accounts = json.loads(made["nats-accounts.conf"].partition(b"\n")[2])["accounts"]
    users = {user["user"] for one in accounts.values() for user in one["users"]}
    leaves = json.loads(made["nats-leaf-users.conf"].partition(b"\n")[2])["users"]
    assert {SpiffeId.parse(user).trust_domain for user in users} == {"faces.example"}
    assert {leaf["user"] for leaf in leaves} <= users
    assert {leaf["account"] for leaf in leaves} == accounts.keys() - {"SYS", "COUNTERSIGN"}


def test_nothing_secret_is_in_the_config_map(folder: Path) -> None:
    text = json.dumps(parties(documents(folder), "faces.example", "countersign"))
    for key in Layout(folder).keys.folder.glob("*"):
        if key.suffix in (".pem", ".key"):
            lines = key.read_text().splitlines()
            assert not any(line in text for line in lines if not line.startswith("-----"))
    assert "PRIVATE KEY" not in text


def test_documents_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    large = tmp_path / "registry.toml"
    original = Layout(folder).registry.read_text()
    large.write_text(original + "# x\n" * 300_000)
    too_much = Documents(large, Layout(folder).directives, Layout(folder).trust_roots)
    with pytest.raises(TooLarge, match="1048576"):
        parties(too_much, "faces.example", "countersign")


def test_keys_stay_and_certificates_are_renewed(tmp_path: Path) -> None:
    now = SystemClock().now()
    first, second = (
        {one["metadata"]["name"]: files_of(one) for one in trial(tmp_path, "elsewhere", now)}
        for _ in range(2)
    )
    assert first["ledger-keys"] == second["ledger-keys"]
    assert first["countersign-parties"] == second["countersign-parties"]
    assert first["broker-tls"]["tls.crt"] != second["broker-tls"]["tls.crt"]


def test_certificates_name_the_service_in_its_namespace(tmp_path: Path) -> None:
    made = trial(tmp_path, "elsewhere", SystemClock().now())
    (broker,) = (files_of(one) for one in made if one["metadata"]["name"] == "broker-tls")
    certificate = x509.load_pem_x509_certificate(broker["tls.crt"])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    hosts = names.get_values_for_type(x509.DNSName)
    assert {"broker", "broker.elsewhere.svc", "*.broker-pods.elsewhere.svc"} <= set(hosts)
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://countersign.test/service/broker"
    ]


def test_the_command_writes_yaml(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = documents(folder)
    arguments = [
        *("kubernetes", "parties", "--trust-domain", "faces.example"),
        *("--registry", str(given.registry), "--directives", str(given.directives)),
        *("--trust-roots", str(given.trust_roots), "--namespace", "ours"),
    ]
    assert exit_code(arguments) == 0
    made, words = yaml.safe_load_all(capsys.readouterr().out)
    assert made["metadata"]["namespace"] == words["metadata"]["namespace"] == "ours"
    assert files_of(words) == files_of(vocabulary(given, "ours"))
    assert base64.b64decode(made["binaryData"]["directives.tar.gz"])[:2] == b"\x1f\x8b"
    assert "witnesses.policy" not in made["data"]


def test_the_command_says_what_it_cannot_read(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = documents(folder)
    broken = tmp_path / "registry.toml"
    broken.write_text("[agencies.x]\n")
    arguments = [
        *("kubernetes", "parties", "--trust-domain", "faces.example"),
        *("--registry", str(broken), "--directives", str(given.directives)),
        *("--trust-roots", str(given.trust_roots)),
    ]
    assert exit_code(arguments) == 2
    assert "registry.toml" in capsys.readouterr().err

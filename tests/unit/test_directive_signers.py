"""No process applies a directive that its party did not sign, once it is told whose signatures to ask for."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from connector.config import ConnectorSettings
from connector.expected import expectations
from countersign.installation.keys import LEDGER_ORIGIN, directive_signer, vocabulary_signer
from countersign.installation.layout import Layout
from countersign.installation.ports import Ports
from countersign.installation.prepare import ensure_documents, prepare, systems_run_here
from directive import document, signature, vocabulary_signature
from directive.signature import SIGNATURE_FILE
from directive.vocabulary import Vocabulary
from policy.__main__ import following_of
from policy.config import PolicySettings
from policy.sources import load
from shared.registry import Registry, TrustRoots
from shared.settings import SettingsError
from support.buses import BusInMemory
from support.directives import LAPD, LASD

pytestmark = pytest.mark.promise(3)

NAME = "lapd-2020-11-13"

Loads = Callable[[Layout], object]
Attack = Callable[[Layout], object]


def policy_service(layout: Layout) -> object:
    return load(PolicySettings.load(layout.config("policy")))


def connector(layout: Layout) -> object:
    settings = ConnectorSettings.load(layout.config("connector-lacris"))
    registry = Registry.load(settings.registry)
    return expectations(settings, registry, TrustRoots.load(settings.trust_roots))


@pytest.fixture(name="loads", params=[policy_service, connector])
def _loads(request: pytest.FixtureRequest) -> Loads:
    chosen: Loads = request.param
    return chosen


def install(folder: Path) -> Layout:
    layout = Layout(folder)
    known = ensure_documents(layout)
    prepare(layout, known, Ports.fixed(systems_run_here(known), 9000), on_record=False)
    return layout


@pytest.fixture(name="prepared", scope="module")
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("installation")).root


@pytest.fixture(name="layout")
def _layout(prepared: Path, tmp_path: Path) -> Layout:
    return Layout(Path(shutil.copytree(prepared, tmp_path / "installation")))


def tell(layout: Layout, signers: object) -> None:
    """Trust roots with other signers; None: without."""
    trust = json.loads(layout.trust_roots.read_text()) | {"directive_signers": signers}
    layout.trust_roots.write_text(json.dumps(trust))


def leave_it_unsigned(layout: Layout) -> None:
    (layout.directives / NAME / SIGNATURE_FILE).unlink()


def sign_as_another_party(layout: Layout) -> None:
    folder = layout.directives / NAME
    signer = directive_signer(layout.keys, LASD)
    read, words = document.read(folder), Vocabulary.load(folder.parent)
    note = signature.sign(folder, read, words, signer, LEDGER_ORIGIN)
    (folder / SIGNATURE_FILE).write_text(note)


def edit_it_after_signing(layout: Layout) -> None:
    rules = layout.directives / NAME / "rules.cedar"
    rules.write_text(rules.read_text() + "// and nobody noticed\n")


def let_its_vocabulary_have_known_a_later_word(layout: Layout) -> None:
    """The directive did not know the purpose, cannot tell, and refuses; now it would apply its permits."""
    earlier = layout.directives / "vocabulary-1.cedarschema"
    text = earlier.read_text()
    assert "fugitiveApprehension" not in text
    purposes = text.replace('"otherNonCriminal"', '"otherNonCriminal", "fugitiveApprehension"')
    assert purposes != text
    earlier.write_text(purposes)
    # Its owner has signed it: that alone must not do.
    note = vocabulary_signature.sign(
        Vocabulary.load(layout.directives), vocabulary_signer(layout.keys)
    )
    (layout.directives / vocabulary_signature.SIGNATURE_FILE).write_text(note)


def change_the_vocabulary(layout: Layout) -> None:
    path = layout.directives / "vocabulary.cedarschema"
    path.write_text(path.read_text() + "// a remark\n")


def register_no_key(layout: Layout) -> None:
    trust = json.loads(layout.trust_roots.read_text())["directive_signers"]
    tell(layout, {party: keys for party, keys in trust.items() if party != LAPD})


def register_nobody(layout: Layout) -> None:
    tell(layout, {})


ATTACKS = [
    (leave_it_unsigned, "SIGNATURE_MISSING"),
    (sign_as_another_party, "SIGNATURE_OTHER_PARTY"),
    (edit_it_after_signing, "SIGNATURE_OF_OTHER_BYTES"),
    (
        let_its_vocabulary_have_known_a_later_word,
        r"differs is vocabulary \[SIGNATURE_OF_OTHER_BYTES",
    ),
    (change_the_vocabulary, r"vocabulary\.sig: signs another vocabulary"),
    (register_no_key, "SIGNER_UNKNOWN"),
    (register_nobody, "SIGNER_UNKNOWN"),
]


@pytest.mark.parametrize(("attack", "guard"), ATTACKS, ids=[one.__name__ for one, _ in ATTACKS])
def test_attack_a_directive_that_its_party_did_not_sign(
    layout: Layout, loads: Loads, attack: Attack, guard: str
) -> None:
    loads(layout)
    attack(layout)
    with pytest.raises(SettingsError, match=guard):
        loads(layout)


def test_a_key_that_is_none_stops_the_start(layout: Layout, loads: Loads) -> None:
    tell(layout, {LAPD: ["not+a+key"]})
    with pytest.raises(SettingsError, match="trust_roots"):
        loads(layout)


def test_whoever_asks_nobody_says_so_at_each_start(
    layout: Layout, loads: Loads, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        loads(layout)
        assert not caplog.records
        tell(layout, None)
        leave_it_unsigned(layout)
        loads(layout)
    (record,) = caplog.records
    assert "without asking who signed them" in record.message


def test_an_edited_directive_of_an_installation_is_signed_anew_at_its_next_start(
    layout: Layout, loads: Loads
) -> None:
    edit_it_after_signing(layout)
    install(layout.root)
    loads(layout)


def test_an_installation_leaves_a_signature_alone_that_is_good(layout: Layout) -> None:
    files = sorted(layout.directives.glob(f"*/{SIGNATURE_FILE}"))
    before = [file.stat().st_mtime_ns for file in files]
    install(layout.root)
    assert [file.stat().st_mtime_ns for file in files] == before
    assert len(files) == 6


def test_nobody_else_on_the_machine_can_sign_for_a_party(layout: Layout) -> None:
    keys = sorted(layout.keys.folder.glob("directives-*.pem"))
    assert len(keys) == len(json.loads(layout.trust_roots.read_text())["directive_signers"])
    assert {key.stat().st_mode & 0o077 for key in keys} == {0}


def test_directives_of_the_ledger_are_not_followed_without_asking_who_signed_them(
    layout: Layout,
) -> None:
    settings = PolicySettings.load(layout.config("policy"))
    settings = settings.model_copy(update={"directives": None, "vocabulary": layout.directives})
    bus = BusInMemory()
    tell(layout, None)
    with pytest.raises(SettingsError, match="directive_signers is missing"):
        following_of(settings, bus)  # type: ignore[arg-type]  # stands in for the real bus
    tell(layout, {})
    assert following_of(settings, bus).documents.world.signers is not None  # type: ignore[arg-type]

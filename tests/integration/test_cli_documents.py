"""`countersign directive publish|withdraw` and `registry publish`, on a real ledger and policy service."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from countersign.cli.main import exit_code
from countersign.installation.files import write_secret
from policy.__main__ import RunningPolicy
from support.directives import DIRECTIVES, LAPD
from support.documents import KEYS, NAME, handed_in, write
from support.publishing import OTHERS, Scene, on_record, outcome, ready
from support.registrars import THREE, note, order
from support.registrations import demonstration, signer
from support.registrations import write as write_registration
from tlog.note import Verifier
from tlog.proof import verify_receipt

TODAY = datetime.now(UTC).date()
Said = Callable[..., Awaitable[tuple[int, str]]]


def commands(scene: Scene, policy: RunningPolicy, capsys: pytest.CaptureFixture[str]) -> Said:
    tls = scene.nats.certificates.tls("agency", LAPD)
    ports = {"ledger": (scene.folder / "port").read_text().strip(), "policy": policy.server.port}
    sections = "".join(f'[{name}]\naddress = "127.0.0.1:{ports[name]}"\n' for name in ports)
    config = scene.folder / "client.toml"
    config.write_text(
        f'trust_roots = "trust-roots.json"\n{sections}[tls]\ncertificate = "{tls.certificate}"\n'
        f'key = "{tls.key}"\nauthority = "{tls.authority}"\n'
    )

    async def said(*arguments: str | Path) -> tuple[int, str]:
        given = [*map(str, arguments), "--config", str(config)]
        code = await asyncio.to_thread(exit_code, given)
        captured = capsys.readouterr()
        return code, " ".join((captured.out + captured.err).split())

    return said


async def test_a_party_publishes_and_withdraws(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts").mkdir()
    folder = write(tmp_path / "texts", handed_in())
    key = tmp_path / "our-key.pem"
    write_secret(key, KEYS[LAPD].pem())
    async with scene.policy() as policy, scene.client(policy) as client:
        await ready(client.list)
        say = commands(scene, policy, capsys)
        code, told = await say("directive", "publish", folder)
        assert code == 1
        assert "directive.toml:" in told
        assert "EFFECT_PAST" in told
        (tmp_path / "elsewhere").mkdir()
        theirs = write(tmp_path / "elsewhere", handed_in(log="other.example/log"))
        code, told = await say("directive", "publish", theirs, "--received-late")
        assert (code, "was signed for other.example/log, and this is" in told) == (1, True)
        assert "[SIGNED_FOR_OTHER_LOG]" in told
        receipts = tmp_path / "receipts"
        publish = ("directive", "publish", folder, "--received-late")
        code, told = await say(*publish, "--receipts", receipts)
        assert (code, "Published: lapd-2020-11-13 is ledger entry 0" in told) == (0, True)
        log = Verifier.parse(
            json.loads((tmp_path / "trust-roots.json").read_text())["log_verifier_keys"][0]
        )
        proof = (receipts / f"{NAME}-published.tlog-proof").read_text()
        verify_receipt((receipts / f"{NAME}-published.leaf").read_bytes(), proof, log)
        code, told = await say(*publish)
        assert (code, "on record already: ledger entry 0" in told) == (0, True)
        code, told = await say("directive", "list")
        assert (code, NAME in told) == (0, True)
        withdraw = ("directive", "withdraw", NAME, "--key", key, "--key-name")
        code, told = await say(*withdraw, "somebody/else")
        assert (code, "SIGNATURE_OTHER_PARTY" in told) == (1, True)
        code, told = await say(*withdraw, f"{LAPD}/directives", "--json")
        assert code == 0
        assert json.loads(told)["directive"]["withdrawn_index"] == "1"
        code, told = await say("vocabulary", "test", DIRECTIVES, "--json")
        (tried,) = json.loads(told)["directives"]
        assert (code, tried["name"], tried["passed"]) == (0, NAME, True)
        code, told = await say("directive", "show", NAME)
        assert f"until {TODAY}" in told
        code, _ = await say("directive", "withdraw", "nobodys", "--key", key, "--key-name", "a/b")
        assert code == 1


@pytest.mark.promise(3)
async def test_owners_publish_what_they_register(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.registry = None
    (tmp_path / "texts").mkdir()
    async with scene.policy() as policy, scene.client(policy) as client:
        await ready(client.list)
        say = commands(scene, policy, capsys)
        for owner, (public, officers) in demonstration().items():
            folder = write_registration(tmp_path / owner, public, officers)
            code, told = await say("registry", "publish", folder)
            assert (code, "receipts verified" in told) == (0, True), told
        await on_record(policy, NAME)
        folders = [write(tmp_path / "texts", handed_in(name)) for name in OTHERS]
        code, told = await say("directive", "publish", *folders, "--received-late")
        assert (code, told.count("receipt verified")) == (0, len(folders)), told
        assert outcome(await scene.evaluated()) == "PERMITTED"
        public, officers = demonstration()[LAPD]
        suspended = officers.replace("active = true", "active = false", 1)
        folder = write_registration(tmp_path / "later", public, suspended, serial=2)
        code, told = await say("registry", "publish", folder, "--json")
        assert code == 0
        assert len(json.loads(told)["entries"]) == 1
        assert outcome(await scene.evaluated()) == "REFUSED"
        code, told = await say("registry", "publish", folder)
        assert (code, "on record already" in told) == (0, True)
        code, told = await say("registry", "publish", tmp_path / LAPD)
        assert (code, "SERIAL_OLD" in told) == (1, True)
        (folder / "agency.toml").write_text(public + "\n")
        code, told = await say("registry", "publish", folder)
        assert (code, "SIGNATURE_OF_OTHER_BYTES" in told) == (1, True)
        await registrars_act(scene, say, tmp_path)


async def registrars_act(scene: Scene, say: Said, folder: Path) -> None:
    """LAPD's officer serves again, LAPD is expelled, and is back with keys that a quorum gave it."""
    public, officers = demonstration()[LAPD]
    code, _ = await say(
        "registry", "publish", write_registration(folder / "third", public, officers, serial=3)
    )
    assert (code, outcome(await scene.evaluated())) == (0, "PERMITTED")
    out = order(LAPD, before=datetime.now(UTC).date() + timedelta(days=2))
    file = folder / "order.note"
    file.write_text(note(out, THREE[:1]))
    code, told = await say("registry", "order", file)
    assert (code, "ORDER_REFUSED" in told, "[QUORUM]" in told) == (1, True, True)
    assert outcome(await scene.evaluated()) == "PERMITTED"
    file.write_text(note(out))
    code, told = await say("registry", "order", file)
    assert (code, "expel: ledger entry" in told) == (0, True), told
    refused = await scene.evaluated()
    assert outcome(refused) == "REFUSED"
    faults = {fault for verdict in refused.decision.verdicts for fault in verdict.faults}
    assert "PARTY_EXPELLED" in faults
    code, told = await say("registry", "order", file)
    assert (code, "on record already" in told) == (0, True)
    code, told = await say("registry", "publish", folder / "third")
    assert (code, "[EXPELLED]" in told) == (1, True), told
    new = signer(LAPD, 2)
    back = order(LAPD, "recover", new.vkey, follows=out, before=out.before)
    file.write_text(note(back, THREE[1:]))
    assert (await say("registry", "order", file))[0] == 0
    assert outcome(await scene.evaluated()) == "REFUSED"
    ours = public.replace(signer(LAPD).vkey, new.vkey)
    anew = write_registration(folder / "anew", ours, officers, by=new)
    code, told = await say("registry", "publish", anew)
    assert (code, "receipts verified" in told) == (0, True), told
    assert outcome(await scene.evaluated()) == "PERMITTED"
    code, told = await say("registry", "list", "--json")
    owners = {one["owner"]: one for one in json.loads(told)["owners"]}
    assert {one["state"] for one in owners.values()} == {"registered"}
    last = owners[LAPD]["order"]
    assert (last["sha256"], last["order"]) == (back.sha256.hex(), "recover")
    assert last["signed_by"] == [one.name for one in THREE[1:]]
    assert last["entry"] < owners[LAPD]["entry"]
    code, told = await say("registry", "list")
    assert (code, "Order 26-17 of the board" in told) == (0, True)

"""Three witnesses around a log that is opened in the test's own process, there or away as it says."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from ledger.config import WitnessingSettings
from ledger.feeding import configured
from ledger.keys import LogKeys
from ledger.last_signed import FileLastSigned, beside
from ledger.log import OpenLog, Safeguards, opened
from ledger.sqlite_storage import SqliteStorage
from support.clocks import ClockThatStandsStill
from support.ledgers import SIGNER
from support.witnesses import WITNESS_SEED, serving
from tlog.cosignature import CosignatureKind, Cosigner
from witness.cosigning import Witness
from witness.store import Store

NAMES = ("w1", "w2", "w3")
COSIGNERS = {
    name: Cosigner.from_seed(
        f"witness.example/{name}", bytes([number]) * len(WITNESS_SEED), CosignatureKind.ED25519
    )
    for number, name in enumerate(NAMES)
}


class Around:
    """Three witnesses, two of which make the quorum; each is there only while it is called in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._write_policy({})

    def _write_policy(self, urls: dict[str, str]) -> None:
        lines = [f"log {SIGNER.verifier.vkey}"]
        for name in NAMES:
            # Nobody listens on the port 1.
            url = urls.get(name, "http://127.0.0.1:1")
            lines.append(f"witness {name} {COSIGNERS[name].verifier.vkey} {url}")
        lines += ["group any-two 2 w1 w2 w3", "quorum any-two", ""]
        (self.folder / "ledger.policy").write_text("\n".join(lines))

    @contextlib.asynccontextmanager
    async def there(self, *names: str, **urls: str) -> AsyncIterator[None]:
        """These witnesses answer; what they remember is kept from one time to the next."""
        async with contextlib.AsyncExitStack() as stack:
            for name in names:
                file = self.folder / f"{name}.sqlite3"
                store = Store.open(file, create=not file.exists())
                stack.callback(store.close)
                logs = {SIGNER.name: (SIGNER.verifier,)}
                witness = Witness(logs, [COSIGNERS[name]], store, ClockThatStandsStill())
                folder = self.folder / name
                folder.mkdir(exist_ok=True)
                urls[name] = await stack.enter_async_context(serving(witness, folder))
            self._write_policy(urls)
            yield
        self._write_policy({})

    @contextlib.asynccontextmanager
    async def log(
        self,
        path: Path,
        heard_at_start: str = "when_in_doubt",
        keys: LogKeys | None = None,
    ) -> AsyncIterator[OpenLog]:
        """Opens a log that asks them first."""
        keys = keys or LogKeys(SIGNER)
        settings = WitnessingSettings.model_validate(
            {
                "policy": self.folder / "ledger.policy",
                "cosigned_checkpoint": self.folder / "cosigned",
                "timeout_s": 10,
                "heard_at_start": heard_at_start,
            }
        )
        async with configured(settings, keys) as witnesses:
            assert witnesses is not None
            safeguards = Safeguards(
                lambda: FileLastSigned.open(beside(path)), witnesses=witnesses.at_start
            )
            async with opened(SqliteStorage.open(path), keys, safeguards=safeguards) as log:
                yield log

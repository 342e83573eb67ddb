"""Makes what the configuration names: the keys of the log, and what is asked before it signs."""

from pathlib import Path

from ledger.config import LedgerSettings
from ledger.keys import LogKeys, load_file_key
from ledger.last_signed import FileLastSigned
from ledger.log import Safeguards
from ledger.pkcs11 import load_pkcs11_key


def load_keys(settings: LedgerSettings) -> LogKeys:
    """Find the keys of the log; raises BadKey or SettingsError."""
    return LogKeys(
        *(
            load_file_key(one, settings.origin)
            if isinstance(one, Path)
            else load_pkcs11_key(one, settings.origin)
            for one in settings.signing_keys
        )
    )


def safeguards_of(settings: LedgerSettings, *, alone: bool = True) -> Safeguards:
    """What is asked before anything is signed, as configured; `alone` keeps every other writer out."""
    return Safeguards(lambda: FileLastSigned.open(settings.last_signed_file, alone=alone))

"""A key of the log in a hardware security module, through PKCS #11 (version 3.0: CKM_EDDSA).

The private key never leaves the module. A module that stops answering makes the log refuse to sign, batch
by batch, until it answers again; each time the session is opened anew.

Needs python-pkcs11, the optional dependency `countersign[pkcs11]`.
"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

from ledger.keys import KeyUnavailable
from shared.settings import ConfigPath, Section
from shared.signing import BadKey
from tlog.errors import TlogError
from tlog.note import Verifier, write_signature

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkcs11 import Session, SignMixin

SETUP: Final = "see docs/key-rotation.md, 'A key in a hardware module'"
_PUBLIC_KEY_BYTES: Final = 32
_DER_OCTET_STRING: Final = bytes([4, _PUBLIC_KEY_BYTES])

Result = TypeVar("Result")


class Pkcs11KeySettings(Section):
    """Where a key in a hardware module is."""

    module: ConfigPath
    """The module's PKCS #11 library (.so), from its maker."""
    token: str
    """Label of the token that holds the key."""
    label: str
    """Label of the key pair: both halves bear it, and no other key of the token does."""
    pin_file: ConfigPath
    """File whose first line is the user's PIN, readable by this user only."""


class Pkcs11Key:
    """An Ed25519 key pair in a token. Used by one thread at a time."""

    def __init__(self, settings: Pkcs11KeySettings, origin: str) -> None:
        """Find the key pair; raises BadKey, or TlogError for an origin that names no key."""
        self._settings = settings
        self._session: Session | None = None
        self._private_key: SignMixin | None = None
        self.verifier = Verifier(origin, self._asked(self._public_key, BadKey))

    @property
    def name(self) -> str:
        """The name under which it signs."""
        return self.verifier.name

    @property
    def vkey(self) -> str:
        """The verifier key that others need."""
        return self.verifier.vkey

    def sign(self, text: str) -> str:
        """Give one signature line for this text, with its line feed; raises KeyUnavailable."""
        return write_signature(self.name, self.verifier.key_id, self.sign_bytes(text.encode()))

    def sign_bytes(self, data: bytes) -> bytes:
        """Give the 64 bytes over the data; raises KeyUnavailable."""
        from pkcs11 import Mechanism

        def sign() -> bytes:
            return bytes(self._open().sign(data, mechanism=Mechanism.EDDSA))

        return self._asked(sign, KeyUnavailable)

    def close(self) -> None:
        """Log out of the token."""
        session, self._session, self._private_key = self._session, None, None
        if session is not None:
            # Whatever state the module is in, there is nothing left to be done with it.
            with contextlib.suppress(Exception):
                session.close()

    def _asked(self, question: "Callable[[], Result]", failure: type[Exception]) -> Result:
        """Ask the module; a failure closes the session, so that the next question opens another."""
        from pkcs11 import PKCS11Error

        try:
            return question()
        except (PKCS11Error, RuntimeError, OSError) as error:
            self.close()
            where = f"key {self._settings.label!r} of token {self._settings.token!r}"
            raise failure(f"{where}: {_explained(error)}; {SETUP}") from error

    def _open(self) -> "SignMixin":
        from pkcs11 import KeyType, ObjectClass, lib

        if self._private_key is None:
            if not self._settings.module.is_file():
                raise OSError(f"there is no module {self._settings.module}")
            pin = _pin(self._settings.pin_file)
            token = lib(str(self._settings.module)).get_token(token_label=self._settings.token)
            self._session = token.open(user_pin=pin)
            key = self._session.get_key(
                object_class=ObjectClass.PRIVATE_KEY,
                key_type=KeyType.EC_EDWARDS,
                label=self._settings.label,
            )
            self._private_key = cast("SignMixin", key)
        return self._private_key

    def _public_key(self) -> bytes:
        from pkcs11 import Attribute, KeyType, ObjectClass

        self._open()
        assert self._session is not None
        key = self._session.get_key(
            object_class=ObjectClass.PUBLIC_KEY,
            key_type=KeyType.EC_EDWARDS,
            label=self._settings.label,
        )
        point = bytes(key[Attribute.EC_POINT])
        # PKCS #11 3.0 wraps the point in a DER octet string; some modules give it bare.
        raw = point.removeprefix(_DER_OCTET_STRING)
        if len(raw) != _PUBLIC_KEY_BYTES:
            raise OSError("it is not an Ed25519 key")
        return raw


def _pin(path: Path) -> str:
    if path.stat().st_mode & 0o077:
        raise OSError(f"{path} can be read by others: set its mode to 0600")
    pin = path.read_text(errors="replace").partition("\n")[0].strip()
    if not pin:
        raise OSError(f"{path} has no PIN in its first line")
    return pin


def _explained(error: Exception) -> str:
    """Say what a module's error means; most bear no text of their own."""
    meanings = {
        "NoSuchToken": "there is no such token",
        "NoSuchKey": "the token has no such key pair of type Ed25519",
        "MultipleObjectsReturned": "several keys of the token bear this label",
        "PinIncorrect": "the PIN is wrong (a token locks itself after a few attempts)",
        "PinLocked": "the PIN is locked",
        "TokenNotPresent": "the token has been removed",
        "DeviceRemoved": "the token has been removed",
        "MechanismInvalid": "the module cannot sign with Ed25519",
        "AlreadyInitialized": "another PKCS #11 module is in use: all keys must be in one",
    }
    name = type(error).__name__
    return meanings.get(name) or f"{name} {error}".strip()


def load_pkcs11_key(settings: Pkcs11KeySettings, origin: str) -> Pkcs11Key:
    """Find a key; raises BadKey."""
    try:
        return Pkcs11Key(settings, origin)
    except TlogError as error:
        raise BadKey(f"origin: {error}") from error
    except ImportError as error:
        raise BadKey("a key in a hardware module needs `countersign[pkcs11]`") from error

"""Makes a search ready: the picture cleaned and sealed, and the key that will open the answer."""

import functools
import json
import os
import tempfile
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from countersign.broker.v1.broker_pb2 import SubmitSearchRequest
from countersign.type.v1.search_pb2 import SealedPayload, SearchFacts
from shared.images import ImageRefused, clean, encode_within
from shared.referral import keys_of
from shared.registry import TrustRoots
from shared.sealing import (
    SEALED_BYTES_MAX,
    SEALING_OVERHEAD_BYTES,
    PrivateKey,
    PublicKey,
    probe_info,
)
from shared.signing import BadKey

SALT_BYTES: Final = 32
_KEYS_AT_HAND: Final = 64
"""Keys of systems that are read once; trust roots hold a few."""

_public_key = functools.lru_cache(maxsize=_KEYS_AT_HAND)(PublicKey)


class ProbeRefused(Exception):
    """The search cannot be made ready: the picture, or a system without a known key."""


class NotPrepared(Exception):
    """There is no readable file with what opens this search's answer."""


@dataclass(frozen=True)
class PreparedSearch:
    """A search that can be submitted, and submitted again, always with the same bytes."""

    facts: SearchFacts
    sealed_probe: SealedPayload
    answer_key: PrivateKey
    salt: bytes

    @property
    def search_id(self) -> str:
        """Its id."""
        return self.facts.search_id

    def request(self, officer_token: str) -> SubmitSearchRequest:
        """The request, for this officer."""
        request = SubmitSearchRequest(
            officer_token=officer_token,
            answer_public_key=self.answer_key.public_key,
            salt=self.salt,
        )
        # Not by the constructor, which would have them serialised and read again.
        request.facts.CopyFrom(self.facts)
        request.sealed_probe.CopyFrom(self.sealed_probe)
        return request

    def save(self, folder: Path) -> Path:
        """Keeps it, with the key that opens the answer, in a file that only the owner can read."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{self.search_id}.json"
        text = json.dumps(
            {
                "facts": MessageToDict(self.facts),
                "sealed_probe": MessageToDict(self.sealed_probe),
                "answer_key": self.answer_key.pem().decode(),
                "salt": b64encode(self.salt).decode(),
            }
        )
        # Whole or not at all, and never readable by others, whatever was there before: without this
        # key the answer cannot be opened.
        descriptor, unfinished = tempfile.mkstemp(dir=folder, prefix=".search-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(unfinished).replace(path)
        except OSError:
            Path(unfinished).unlink(missing_ok=True)
            raise
        return path

    @classmethod
    def load(cls, folder: Path, search_id: str) -> "PreparedSearch":
        """What `save` kept. Raises NotPrepared."""
        try:
            kept = json.loads((folder / f"{search_id}.json").read_text(encoding="utf-8"))
            return cls(
                facts=ParseDict(kept["facts"], SearchFacts()),
                sealed_probe=ParseDict(kept["sealed_probe"], SealedPayload()),
                answer_key=PrivateKey.from_pem(kept["answer_key"].encode()),
                salt=b64decode(kept["salt"], validate=True),
            )
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            BadKey,
            ParseError,
        ) as error:
            raise NotPrepared(
                f"no key for search {search_id} in {folder}: its answer can only be opened where "
                "it was submitted"
            ) from error


def prepare(facts: SearchFacts, picture: bytes, trust: TrustRoots) -> PreparedSearch:
    """Cleans the picture (metadata gone, pixels bounded) and seals it to the system's connector.

    Raises ProbeRefused when the bytes are no acceptable picture or the system's key is not known.
    """
    key = sealing_key(trust, facts.system)
    return seal_search(facts, cleaned(picture), key)


def sealing_key(trust: TrustRoots, system: str) -> bytes:
    """To which probes for a system are sealed. Raises ProbeRefused when the trust roots have none."""
    keys = keys_of(trust, system)
    if keys is None:
        raise ProbeRefused(
            f"the trust roots hold no key of system {system!r}: see `countersign system list`"
        )
    return keys.sealing_public_key


def cleaned(picture: bytes) -> bytes:
    """The picture as it may be sealed. Raises ProbeRefused when the bytes are no acceptable picture."""
    try:
        return encode_within(clean(picture), SEALED_BYTES_MAX - SEALING_OVERHEAD_BYTES)
    except ImageRefused as error:
        raise ProbeRefused(f"the picture cannot be used: {error}") from error


def seal_search(facts: SearchFacts, probe: bytes, sealing_public_key: bytes) -> PreparedSearch:
    """Seals bytes as they are. For tests and load tests: `prepare` is what agency systems use."""
    info = probe_info(facts.search_id, facts.system)
    return PreparedSearch(
        facts=facts,
        sealed_probe=_public_key(sealing_public_key).seal(probe, info),
        answer_key=PrivateKey.generate(),
        salt=os.urandom(SALT_BYTES),
    )

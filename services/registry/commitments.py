"""Officers behind commitments: one for each, so that one can be shown without the others.

Invariants:
- What is public of an officer is 32 bytes that say nothing to whoever has not been given the opening,
  though who the officers of a department are and how they stand could be guessed.
- The same standing has the same commitment as long as the agency keeps its secret, so that a new version of
  the document publishes what has changed and nothing else.
- The digest of all commitments is worked out from what has changed, however many there are.
"""

import hashlib
import hmac
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from registry.findings import refused
from shared.commitments import SALT_BYTES, commit_to
from shared.registry import OfficerId, Ori, Standing

SECRET_BYTES: Final = 32
COMMITMENT_BYTES: Final = 32
STANDING_CHARACTERS_MAX: Final = 7_000
"""The ledger takes values of 8,000; the rest is for the salt."""

_FIELD: Final = "standing"
_SALT_CONTEXT: Final = b"countersign/officer-salt/v1\0"
_DIGEST_CONTEXT: Final = b"countersign/officers/v1\0"
_GROUPS: Final = 256
_NOBODY: Final = hashlib.sha256(b"").digest()


class OfficerStanding(Standing):
    """What is committed to of one officer."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    agency: Ori
    officer: OfficerId

    @property
    def canonical(self) -> str:
        """As canonical JSON: without space, keys and lists in their order."""
        said = self.model_dump(mode="json")
        said["lists"] = sorted(said["lists"])
        return json.dumps(said, sort_keys=True, separators=(",", ":"))


class _Opening(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    standing: OfficerStanding


@dataclass(frozen=True)
class Committed:
    """One officer's commitment with what opens it."""

    said: OfficerStanding
    salt: bytes
    commitment: bytes

    @property
    def opening(self) -> str:
        """What the ledger keeps behind the entry."""
        return f'{{"salt":"{self.salt.hex()}","standing":{self.said.canonical}}}'


def commit(secret: bytes, agency: str, officers: Mapping[str, Standing]) -> tuple[Committed, ...]:
    """Commits to every officer; raises RegistryRefused for one of whom too much is said."""
    assert len(secret) == SECRET_BYTES, "the secret is as it was made"
    made = []
    for officer, standing in officers.items():
        said = OfficerStanding(
            agency=agency,
            officer=officer,
            active=standing.active,
            lists=tuple(sorted(standing.lists)),
            certificates=standing.certificates,
            certificates_issued=standing.certificates_issued,
        )
        value = said.canonical
        if len(value) > STANDING_CHARACTERS_MAX:
            raise refused("STANDING_TOO_LONG", "officers.toml", "too much is said", about=officer)
        salt = hmac.digest(secret, _SALT_CONTEXT + value.encode(), "sha256")
        made.append(Committed(said, salt, commit_to(_FIELD, salt, value)))
    return tuple(made)


def opened(opening: str) -> Committed:
    """Reads what the ledger keeps; raises RegistryRefused. The caller asks which commitment it opens."""
    try:
        found = _Opening.model_validate_json(opening)
    except ValidationError as error:
        raise refused("OPENING", "opening", "is not what opens an officer's standing") from error
    salt = bytes.fromhex(found.salt)
    assert len(salt) == SALT_BYTES, "its pattern says so"
    # The value is written anew: an opening in another spelling would not open the commitment.
    return Committed(found.standing, salt, commit_to(_FIELD, salt, found.standing.canonical))


class Commitments(Collection[bytes]):
    """Commitments to all officers of one agency. Never changes."""

    def __init__(self, groups: Sequence[tuple[bytes, ...]] = ((),) * _GROUPS) -> None:
        self._groups = tuple(groups)
        self._digests = [_of_group(group) for group in self._groups]

    def __len__(self) -> int:
        return sum(map(len, self._groups))

    def __iter__(self) -> Iterator[bytes]:
        return (one for group in self._groups for one in group)

    def __contains__(self, one: object) -> bool:
        return isinstance(one, bytes) and len(one) > 0 and one in self._groups[one[0]]

    @property
    def sha256(self) -> bytes:
        """Their digest (see RegistryStatement)."""
        return hashlib.sha256(_DIGEST_CONTEXT + b"".join(self._digests)).digest()

    def changed(self, removed: Collection[bytes], added: Collection[bytes]) -> "Commitments":
        """With some removed and others added; raises RegistryRefused where they are not, or are, there."""
        by_group: dict[int, set[bytes]] = {}
        for one in removed:
            group = by_group.setdefault(one[0], set(self._groups[one[0]]))
            if one not in group:
                raise refused("COMMITMENT_UNKNOWN", "removed", "is no commitment of the agency's")
            group.remove(one)
        for one in added:
            group = by_group.setdefault(one[0], set(self._groups[one[0]]))
            if one in group:
                raise refused(
                    "COMMITMENT_TWICE", "added", "is a commitment of the agency's already"
                )
            group.add(one)
        made = Commitments.__new__(Commitments)
        groups, digests = list(self._groups), list(self._digests)
        for number, members in by_group.items():
            groups[number] = tuple(sorted(members))
            digests[number] = _of_group(groups[number])
        made._groups, made._digests = tuple(groups), digests
        return made


def _of_group(group: tuple[bytes, ...]) -> bytes:
    return hashlib.sha256(b"".join(group)).digest() if group else _NOBODY

"""C2SP tlog-policy: which logs are trusted, and which witnesses must have cosigned.

The file is a sequence of bytes: names are compared byte by byte, and whatever is not ASCII means
nothing. Every rule of the format is kept, so that a policy that other software would refuse, or would
read in another way, is refused here with the number of its line.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Final

from tlog.checkpoint import Checkpoint
from tlog.cosignature import (
    CosignatureVerifier,
    LogVerifier,
    parse_log_vkey,
    parse_witness_vkey,
)
from tlog.errors import TlogError, UnknownSigner
from tlog.note import UnverifiedNote

POLICY_BYTES_MAX: Final = 1024 * 1024
"""Hundreds of post-quantum keys of 1.8 kB; the format asks for 32 logs, witnesses and groups."""

NO_QUORUM: Final = "none"

_FORBIDDEN_BYTE = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_WHITESPACE = re.compile(rb"[ \t]+")
_THRESHOLD = re.compile("[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class PolicyLog:
    """A trusted log, and where it may be reached."""

    verifier: LogVerifier
    url: str | None = None


@dataclass(frozen=True)
class PolicyWitness:
    """A known witness under its name in this policy, and where it takes checkpoints."""

    name: str
    verifier: CosignatureVerifier
    url: str | None = None


@dataclass(frozen=True)
class PolicyGroup:
    """A group of witnesses and groups, of which so many must have cosigned."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """A checkpoint that a trusted log signed, and who else did."""

    checkpoint: Checkpoint
    log: LogVerifier
    cosigned: Mapping[str, int]
    """Policy name of each witness that cosigned, and when (POSIX seconds)."""
    quorum: bool
    shortfall: str
    """What the quorum lacks, for a person to read; empty when it lacks nothing."""


class Policy:
    """Logs, witnesses, groups and a quorum, as one file names them."""

    def __init__(
        self,
        logs: Iterable[PolicyLog],
        witnesses: Iterable[PolicyWitness] = (),
        groups: Iterable[PolicyGroup] = (),
        quorum: str = NO_QUORUM,
    ) -> None:
        """Take what has been checked: a file is read by `parse`."""
        self.logs = tuple(logs)
        self.witnesses: Mapping[str, PolicyWitness] = MappingProxyType(
            {one.name: one for one in witnesses}
        )
        self.groups = tuple(groups)
        self.quorum = quorum

    @classmethod
    def parse(cls, text: str | bytes) -> "Policy":
        """Read a policy file; raise TlogError with the number of the line that breaks a rule."""
        try:
            raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        except UnicodeError:
            raise TlogError("the policy is not a text") from None
        if len(raw) > POLICY_BYTES_MAX:
            raise TlogError(f"the policy is longer than {POLICY_BYTES_MAX} bytes")
        reader = _Reader()
        lines = raw.split(b"\n")
        for number, line in enumerate(lines, start=1):
            try:
                reader.read(line, ended=number < len(lines))
            except TlogError as error:
                raise TlogError(f"line {number}: {error}") from None
        if reader.quorum is None:
            raise TlogError("the policy has no quorum line; without witnesses it is 'quorum none'")
        return cls(reader.logs, reader.witnesses.values(), reader.groups.values(), reader.quorum)

    @classmethod
    def of_logs(cls, verifiers: Iterable[LogVerifier]) -> "Policy":
        """Make the policy that trusts these keys and asks for no witness."""
        return cls([PolicyLog(verifier) for verifier in verifiers])

    def with_logs(self, verifiers: Iterable[LogVerifier]) -> "Policy":
        """Give this policy with these logs in place of its own: a policy may leave them out."""
        logs = [PolicyLog(verifier) for verifier in verifiers]
        return Policy(logs, self.witnesses.values(), self.groups, self.quorum)

    @property
    def text(self) -> str:
        """The policy as `parse` reads it."""
        lines = [" ".join(filter(None, ("log", one.verifier.vkey, one.url))) for one in self.logs]
        lines += [
            " ".join(filter(None, ("witness", one.name, one.verifier.vkey, one.url)))
            for one in self.witnesses.values()
        ]
        lines += [
            f"group {one.name} {one.threshold} {' '.join(one.members)}" for one in self.groups
        ]
        return "".join(f"{line}\n" for line in (*lines, f"quorum {self.quorum}"))

    def satisfied_by(self, names: Collection[str]) -> bool:
        """Say whether these witnesses, by their names in the policy, make the quorum."""
        return self.quorum == NO_QUORUM or self.quorum in self._witnessed(names)

    def _witnessed(self, names: Collection[str]) -> set[str]:
        """Name the witnesses and groups that have witnessed. A group only refers to earlier ones."""
        witnessed = {name for name in names if name in self.witnesses}
        for group in self.groups:
            if sum(member in witnessed for member in group.members) >= group.threshold:
                witnessed.add(group.name)
        return witnessed

    def shortfall(self, names: Collection[str]) -> str:
        """Say what the quorum lacks with these witnesses; nothing when it is there."""
        if self.satisfied_by(names):
            return ""
        witnessed = self._witnessed(names)
        groups = {group.name: group for group in self.groups}
        said: list[str] = []
        # Groups name earlier ones only and each once, so that this ends after at most all of them.
        wanted = [self.quorum]
        for name in wanted:
            group = groups.get(name)
            if group is None:
                said.append(f"witness {shown(name)} has not cosigned")
                continue
            missing = [one for one in group.members if one not in witnessed]
            there = len(group.members) - len(missing)
            said.append(
                f"group {shown(name)} needs {group.threshold} of its {len(group.members)} members and has "
                f"{there}: without {', '.join(map(shown, missing))}"
            )
            wanted += [one for one in missing if one in groups]
        return "; ".join(said)

    def judge(self, note_text: str | bytes, log_origin: str | None = None) -> Judged:
        """Say who signed a checkpoint, and whether that is a quorum.

        1. Every line of a known key verifies, or the whole note is refused; unknown ones are ignored.
        2. A trusted log has signed it, under its own name (and under `log_origin`, when given).
        3. The witnesses that cosigned it, each with its time, make a quorum or not.

        Raises TlogError for 1 and 2 only: what 3 comes to is in the answer.
        """
        note = UnverifiedNote.parse(note_text)
        signed = self._signed(note)
        checkpoint = Checkpoint.parse(note.text)
        if log_origin is not None and checkpoint.origin != log_origin:
            raise TlogError(f"the checkpoint is of {checkpoint.origin}, not of {log_origin}")
        # Otherwise one log's key could vouch for a tree under another log's name.
        log = next(
            (
                one.verifier
                for one in self.logs
                if one.verifier.name == checkpoint.origin and _key(one.verifier) in signed
            ),
            None,
        )
        if log is None:
            raise UnknownSigner(f"no known key signed the checkpoint of {checkpoint.origin}")
        cosigned = {
            name: time_s
            for name, witness in self.witnesses.items()
            if (time_s := signed.get(_key(witness.verifier), 0))
        }
        shortfall = self.shortfall(cosigned)
        return Judged(checkpoint, log, MappingProxyType(cosigned), not shortfall, shortfall)

    def _signed(self, note: UnverifiedNote) -> dict[tuple[str, bytes], int]:
        """Verify every line of a known key; give each key's latest time (0 for a log's own)."""
        signed: dict[tuple[str, bytes], int] = {}
        for line in note.signatures:
            key = line.name, line.key_id
            verifier = self._known.get(key)
            if verifier is None:
                continue
            # A time of 0 claims nothing of the tree being the largest: it never counts as a witness's.
            time_s = verifier.verify(note.text, line.signature) or 0
            signed[key] = max(time_s, signed.get(key, 0))
        return signed

    @cached_property
    def _known(self) -> dict[tuple[str, bytes], LogVerifier]:
        return {_key(verifier): verifier for verifier in self.verifiers}

    @cached_property
    def verifiers(self) -> tuple[LogVerifier, ...]:
        """Every key that the policy knows."""
        return (
            *(one.verifier for one in self.logs),
            *(one.verifier for one in self.witnesses.values()),
        )


def _key(verifier: LogVerifier) -> tuple[str, bytes]:
    return verifier.name, verifier.key_id


def shown(name: str) -> str:
    """Give a name as a message may have it: what is no UTF-8, or commands a terminal, is not passed on."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


class _Reader:
    """Reads one line after the other, knowing the names and keys of the lines before."""

    def __init__(self) -> None:
        self.logs: list[PolicyLog] = []
        self.witnesses: dict[str, PolicyWitness] = {}
        self.groups: dict[str, PolicyGroup] = {}
        self.quorum: str | None = None
        self._log_keys: set[bytes] = set()
        self._witness_keys: dict[bytes, str] = {}
        self._grouped: dict[str, str] = {}
        self._known: dict[tuple[str, bytes], LogVerifier] = {}
        self._lines: dict[str, Callable[[list[str]], None]] = {
            "log": self._log,
            "witness": self._witness,
            "group": self._group,
            "quorum": self._quorum,
        }

    def read(self, line: bytes, *, ended: bool) -> None:
        """Take one line in."""
        if (found := _FORBIDDEN_BYTE.search(line)) is not None:
            raise TlogError(f"the control character 0x{found[0][0]:02x} is not allowed")
        stripped = line.strip(b" \t")
        # The end of a file that was cut off could name another witness than the whole one.
        if not ended and line:
            raise TlogError("the last line does not end in a line feed")
        if not stripped or stripped.startswith(b"#"):
            return
        # Bytes that are no UTF-8 keep their identity, so that comparing names compares bytes.
        items = [one.decode("utf-8", "surrogateescape") for one in _WHITESPACE.split(stripped)]
        handle = self._lines.get(items[0])
        if handle is None:
            raise TlogError(
                f"a line starts with log, witness, group, quorum or #, not with {shown(items[0])}"
            )
        handle(items[1:])

    def _log(self, items: list[str]) -> None:
        if not 1 <= len(items) <= 2:
            raise TlogError("a log line is: log <vkey> [<url>]")
        verifier = parse_log_vkey(items[0])
        if verifier.public_key in self._log_keys:
            raise TlogError("the key was given for a log before")
        self._log_keys.add(verifier.public_key)
        self._know(verifier)
        self.logs.append(PolicyLog(verifier, *items[1:]))

    def _witness(self, items: list[str]) -> None:
        if not 2 <= len(items) <= 3:
            raise TlogError("a witness line is: witness <name> <vkey> [<url>]")
        name, vkey, *url = items
        self._define(name)
        verifier = parse_witness_vkey(vkey)
        # Otherwise one witness could count as two.
        if (known := self._witness_keys.setdefault(verifier.public_key, name)) != name:
            raise TlogError(f"the key was given for witness {shown(known)} before")
        self._know(verifier)
        self.witnesses[name] = PolicyWitness(name, verifier, *url)

    def _group(self, items: list[str]) -> None:
        if len(items) < 3:
            raise TlogError("a group line is: group <name> all|any|<k> <member>...")
        name, how_many, *members = items
        self._define(name)
        seen: set[str] = set()
        for member in members:
            self._require_defined(member)
            if member in seen:
                raise TlogError(f"{shown(member)} is named twice")
            seen.add(member)
            if member in self._grouped:
                # Otherwise one witness could count in two ways.
                group = shown(self._grouped[member])
                raise TlogError(f"{shown(member)} is a member of group {group} already")
        threshold = _threshold(how_many, len(members))
        self._grouped.update(dict.fromkeys(members, name))
        self.groups[name] = PolicyGroup(name, threshold, tuple(members))

    def _quorum(self, items: list[str]) -> None:
        if len(items) != 1:
            raise TlogError("a quorum line is: quorum <name>|none")
        if self.quorum is not None:
            raise TlogError("there is a quorum line before this one")
        if items[0] != NO_QUORUM:
            self._require_defined(items[0])
        self.quorum = items[0]

    def _know(self, verifier: LogVerifier) -> None:
        # A key id is four bytes: somebody can search for a second key with the same one.
        if self._known.setdefault(_key(verifier), verifier) != verifier:
            raise TlogError("signatures of this key could not be told from those of an earlier one")

    def _define(self, name: str) -> None:
        if name == NO_QUORUM:
            raise TlogError("the name none has its own meaning")
        if name in self.witnesses or name in self.groups:
            raise TlogError(f"the name {shown(name)} was given before")

    def _require_defined(self, name: str) -> None:
        if name not in self.witnesses and name not in self.groups:
            raise TlogError(f"{shown(name)} is not a witness or group of an earlier line")


def _threshold(how_many: str, members: int) -> int:
    if how_many == "any":
        return 1
    if how_many == "all":
        return members
    if not _THRESHOLD.fullmatch(how_many):
        raise TlogError("a group needs all, any or a number of its members, without leading zeros")
    if int(how_many) > members:
        raise TlogError(f"a group of {members} members cannot need {how_many} of them")
    return int(how_many)

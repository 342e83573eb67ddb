"""What agencies say of their officers, as far as it was opened, and which officers count.

Invariants:
- An officer counts while one agency says it, once, and on lists only that this agency keeps, or whose keeper
  lets it enter its own. Any other is unknown, and its searches are refused: nobody chooses between two.
- What an expelled agency says counts for nothing: neither for an officer nor against one.
- Who counts follows from what stands now, whatever the order in which it came.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

from directive.findings import Finding
from registry.commitments import Committed
from registry.document import PublicPart
from registry.names import Names, agency_finding, count, officer_finding
from registry.parted import Parted
from shared.registry import Officer

_Claim: TypeAlias = tuple[str, bytes]
"""An agency, and one of its commitments: another may copy the commitment, not what is behind it."""


class Standings:
    """The officers of all agencies."""

    def __init__(self) -> None:
        self.known: Parted[Officer] = Parted()
        """Those that count."""
        self._said: dict[_Claim, tuple[str, Officer]] = {}
        self._claims: dict[str, tuple[_Claim, ...]] = {}
        """By officer."""
        self._doubtful: set[str] = set()
        """Those of whom something is said and who do not count."""
        self._listed: Counter[tuple[str, str]] = Counter()
        """How many officers of an agency are on a list, by list and agency."""
        self.opened: Counter[str] = Counter()
        """How many of an agency's commitments are known with what is behind them."""

    def copy(self) -> "Standings":
        """The same; what is changed in one is not in the other."""
        other = Standings()
        other.known = self.known
        other._said, other._claims = dict(self._said), dict(self._claims)
        other._doubtful, other._listed = set(self._doubtful), Counter(self._listed)
        other.opened = Counter(self.opened)
        return other

    def check(
        self,
        names: Names,
        public: PublicPart,
        removed: Collection[bytes],
        added: Sequence[Committed],
    ) -> Iterator[Finding]:
        """What is wrong with what an agency is about to say, beside what others have said."""
        owner = public.owner
        leaving = {(owner, one) for one in removed if (owner, one) in self._said}
        yield from self._left_on(names, public, leaving)
        entered: set[str] = set()
        for its in added:
            officer, about = its.said.officer, f"officers.{its.said.officer}"
            if its.said.agency != owner:
                yield Finding("OPENING", owner, about, f"is an officer of {its.said.agency}")
            known = [one for one in self._counting(names, officer) if one not in leaving]
            if any(holder != owner for holder, _ in known):
                yield officer_finding(
                    "NAME_TAKEN", owner, officer, "is an officer of another agency"
                )
            elif known or officer in entered:
                yield Finding("OFFICER_TWICE", owner, about, "is entered twice")
            entered.add(officer)
            yield from names.check_lists(public, officer, its.said.lists)

    def _left_on(
        self, names: Names, public: PublicPart, leaving: Collection[_Claim]
    ) -> Iterator[Finding]:
        """Lists that are no more, or not for everybody any more, though officers stay on them."""
        owner, before = public.owner, names.publics.get(public.owner)
        if before is None or before.lists == public.lists:
            return
        taken_off = Counter(name for one in leaving for name in self._said[one][1].lists)
        for (name, other), officers in self._listed.items():
            kept = public.lists.get(name)
            if name not in before.lists:
                continue
            if other == owner:
                if kept is None and officers > taken_off[name]:
                    message = "has officers of its keeper"
                    yield agency_finding("LIST_IN_USE", owner, f"lists.{name}", message)
            elif other not in names.expelled and (kept is None or other not in kept.entered_by):
                message = f"has officers of {other}, who must be taken off first"
                yield agency_finding("LIST_IN_USE", owner, f"lists.{name}", message)

    def change(
        self,
        names: Names,
        owner: str,
        removed: Collection[bytes],
        added: Mapping[bytes, tuple[str, Officer]],
        lists: Collection[str],
    ) -> int:
        """Takes what an agency says anew, each behind its commitment; `lists` have changed in `names`.

        How many officers, of those whom that concerns, somebody says something of and who do not count.
        """
        touched = {self._forget((owner, one)) for one in removed if (owner, one) in self._said}
        for commitment, (officer, said) in added.items():
            claim = owner, commitment
            self._said[claim] = officer, said
            self.opened[owner] += 1
            self._claims[officer] = (*self._claims.get(officer, ()), claim)
            for name in said.lists:
                count(self._listed, (name, owner), 1)
            touched.add(officer)
        if lists:
            touched |= self._doubtful | self._not_let(names, lists)
        if touched:
            self._settle(names, touched)
        return len(touched & self._doubtful)

    def settle(self, names: Names, owner: str) -> int:
        """Judges anew whom it concerns that an agency was expelled or is back; counts as `change` does."""
        own = {officer for (agency, _), (officer, _) in self._said.items() if agency == owner}
        kept = {name for name, _ in self._listed if names.owners.get(("lists", name)) == owner}
        touched = own | self._doubtful | self._not_let(names, kept)
        self._settle(names, touched)
        return len(touched & self._doubtful)

    def _counting(self, names: Names, officer: str) -> tuple[_Claim, ...]:
        """What agencies that take part say of an officer."""
        claims = self._claims.get(officer, ())
        return tuple(one for one in claims if one[0] not in names.expelled)

    def _forget(self, claim: _Claim) -> str:
        officer, said = self._said.pop(claim)
        self.opened[claim[0]] -= 1
        left = tuple(one for one in self._claims.pop(officer) if one != claim)
        if left:
            self._claims[officer] = left
        for name in said.lists:
            count(self._listed, (name, claim[0]), -1)
        return officer

    def _not_let(self, names: Names, lists: Collection[str]) -> set[str]:
        """Officers on lists on which their agency may not enter them any more."""
        lost = {
            (name, agency)
            for name, agency in self._listed
            if name in lists and not names.lets_enter(name, agency)
        }
        # All officers are looked through only when something is on record that would have been refused.
        return {
            officer
            for officer, said in (self._said.values() if lost else ())
            if any((name, said.agency) in lost for name in said.lists)
        }

    def _settle(self, names: Names, touched: Collection[str]) -> None:
        counting: dict[str, Officer] = {}
        for officer in touched:
            self._doubtful.discard(officer)
            claims = self._counting(names, officer)
            said = self._said[claims[0]][1] if len(claims) == 1 else None
            if said is not None and all(names.lets_enter(one, said.agency) for one in said.lists):
                counting[officer] = said
            elif officer in self._claims:
                self._doubtful.add(officer)
        gone = [officer for officer in touched if officer in self.known]
        self.known = self.known.changed(gone, counting)

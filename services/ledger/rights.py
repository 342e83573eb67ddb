"""Who may read openings, look through them, and have them destroyed.

An agency: its own. An oversight body: those of the agencies of its jurisdictions, as far as the registry
gives it the right, and what it gave itself as its reasons. Nobody else, whatever certificate they hold.
The public fields of entries are not spoken of here: every certificate of the installation may read them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ledger.entry import holder_name
from shared.errors import NotAllowed, NotAuthentic
from shared.identity import SpiffeId
from shared.registry import OversightRight, Registry
from shared.tokens import OfficerTokens


@dataclass(frozen=True)
class Person:
    """Who stands behind a call: of an agency its officer, of an oversight body the one seat that it has."""

    caller: SpiffeId
    officer: str = ""


class Rights:
    """What the registry gives each caller. Each question raises what `current` does."""

    def __init__(self, current: Callable[[], Registry | None]) -> None:
        """`current` gives the registry as it counts now; None where nobody has a right."""
        self._current = current

    def scope(self, caller: SpiffeId, right: OversightRight) -> list[str]:
        """Give the agencies to whose openings the caller has a right, in order."""
        registry = self._current()
        if registry is None:
            return []
        if caller.kind == "agency":
            return [caller.name] if caller.name in registry.agencies else []
        body = registry.oversight.get(caller.name) if caller.kind == "oversight" else None
        if body is None or right not in body.rights:
            return []
        return sorted(
            ori for ori, agency in registry.agencies.items() if body.watches(agency.jurisdiction)
        )

    def holders(self, caller: SpiffeId, right: OversightRight) -> frozenset[str]:
        """Give all whose openings the caller has a right to."""
        of = set(self.scope(caller, right))
        registry = self._current()
        if caller.kind == "oversight" and registry and caller.name in registry.oversight:
            of.add(holder_name(caller.kind, caller.name))
        return frozenset(of)

    def has(self, caller: SpiffeId, right: OversightRight, holder: str) -> bool:
        """Whether the caller has a right to a holder's openings."""
        return holder in self.holders(caller, right)

    def require(self, caller: SpiffeId, right: OversightRight, holder: str) -> None:
        """Raise NotAllowed unless the caller has the right."""
        if not self.has(caller, right, holder):
            raise NotAllowed(
                "NOT_ENTITLED",
                f"{caller.kind} {caller.name} has no right to this ({right}): an agency has it to its own "
                "openings, an oversight body to those of its jurisdictions as registered",
            )


class People:
    """Tells who calls."""

    def __init__(self, current: Callable[[], OfficerTokens | None]) -> None:
        """`current` gives what officers' tokens are checked by now; None when no provider is known."""
        self._current = current

    def person(self, caller: SpiffeId, officer_token: str, request_id: str) -> Person:
        """Give the person behind a call; raises NotAuthentic or NotAllowed.

        An agency is many people, so its calls bear an officer token that was issued for this request. An
        oversight body has no identity provider here: its certificate stands for one seat, and what it
        states of its own people would prove nothing.
        """
        if caller.kind != "agency":
            return Person(caller)
        if not officer_token:
            raise NotAuthentic(
                "OFFICER_TOKEN_MISSING", "an agency's call bears a token of the officer who asks"
            )
        tokens = self._current()
        if tokens is None:
            raise NotAuthentic(
                "IDENTITY_PROVIDER_UNKNOWN", "this ledger knows no identity provider of agencies"
            )
        return Person(caller, tokens.verify(officer_token, caller.name, request_id))

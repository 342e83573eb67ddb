"""Who asks: a search id, and a token by which an identity provider vouches for an officer with it."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import jwt

from countersign.client.search_ids import new_search_id
from countersign.installation.identity_provider import DevelopmentIdentityProvider
from shared.errors import NotAuthentic


@dataclass(frozen=True)
class Ticket:
    """Good for one search."""

    search_id: str
    officer: str
    token: str


def issued(provider: DevelopmentIdentityProvider, officers: Sequence[str]) -> Iterator[Ticket]:
    """As many as are wanted, the officers by turns: limits count each of them apart."""
    for officer in itertools.cycle(officers):
        search_id = new_search_id()
        yield Ticket(search_id, officer, provider.token(officer, search_id))


def of_tokens(tokens: Iterable[str]) -> list[Ticket]:
    """Those that somebody had issued before, each for the search that it is bound to.

    Raises NotAuthentic for a token that names no officer or no search. The broker verifies, we only look.
    """
    tickets = []
    for number, token in enumerate(tokens, start=1):
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
            tickets.append(Ticket(str(claims["nonce"]), str(claims["sub"]), token))
        except (jwt.InvalidTokenError, KeyError, RecursionError) as error:
            text = f"token {number} names no officer and search"
            raise NotAuthentic("OFFICER_TOKEN_INVALID", text) from error
    return tickets

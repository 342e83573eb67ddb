"""Who a process or an agency system is: a SPIFFE ID in the URI SAN of its certificate.

`spiffe://<trust domain>/<kind>/<name>` (SPIFFE ID, section 2). The kind says what the holder may be
trusted with; rules on RPCs and bus subjects are written on kind and name, never on addresses.
"""

import functools
import re
from dataclasses import dataclass
from typing import Literal, get_args

from shared.errors import NotAuthentic

Kind = Literal["service", "agency", "connector", "oversight", "operator"]

_PATTERN = re.compile(
    r"spiffe://(?P<domain>[a-z0-9._-]{1,255})/(?P<kind>[a-z]+)/(?P<name>[A-Za-z0-9._-]{1,128})"
)

_AT_HAND = 1024
"""Callers whose name is not read again at each call; there are as many as certificates."""


@dataclass(frozen=True)
class SpiffeId:
    """A SPIFFE ID of ours. An agency's name is its ORI, a connector's its system."""

    trust_domain: str
    kind: Kind
    name: str

    @classmethod
    @functools.lru_cache(maxsize=_AT_HAND)
    def parse(cls, uri: str) -> "SpiffeId":
        """Reads the URI; raises NotAuthentic when it is not one of ours."""
        match = _PATTERN.fullmatch(uri)
        if match:
            for kind in get_args(Kind):
                if match["kind"] == kind:
                    return cls(match["domain"], kind, match["name"])
        raise NotAuthentic(
            "IDENTITY_UNKNOWN",
            "the certificate's URI is not spiffe://<trust domain>/<kind>/<name> with a known kind",
        )

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/{self.kind}/{self.name}"

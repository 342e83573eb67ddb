"""Who may call what only reads public fields: everybody with a certificate of the installation."""

from typing import Final

from ledger import query_service, service
from shared.identity import SpiffeId
from shared.rpc import AccessRule


def _any_authenticated(_: SpiffeId) -> bool:
    return True


READING: Final[dict[str, AccessRule]] = {
    f"/{name}/{rpc}": _any_authenticated
    for name, rpcs in (
        (service.SERVICE, service.RPCS),
        (query_service.SERVICE, query_service.RPCS),
    )
    for rpc in rpcs
}

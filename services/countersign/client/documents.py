"""Calls to the policy service about directives and registrations, and what is handed in."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import grpc

from countersign.policy.v1 import policy_pb2 as pb
from countersign.policy.v1.policy_pb2_grpc import PolicyServiceStub
from directive.document import CASES_FILE, MANIFEST_FILE, RULES_FILE, read_file, text_of
from directive.signature import SIGNATURE_FILE
from registry.commitments import Commitments
from registry.publication import Previous, pending_entries
from registry.signature import Signed, Statement
from shared.errors import NotFound
from shared.rpc import call, open_channel
from shared.settings import TlsFiles

SERVICE: Final = "countersign.policy.v1.PolicyService"
TIMEOUT_S: Final = 10.0
REVIEW_TIMEOUT_S: Final = 150.0
"""Its cases and gates are tried before it is put on record."""
PAGES_MAX: Final = 100


def handed_in(folder: Path, *, received_late: bool = False) -> pb.PublishDirectiveRequest:
    """A directive's folder as it is handed in; raises DirectiveRefused for files that cannot be read.

    A directive that is not signed is handed in so: whether that will do is for the service to say.
    """

    def text(name: str) -> str:
        return text_of(f"{folder.name}/{name}", read_file(folder / name))

    return pb.PublishDirectiveRequest(
        manifest=text(MANIFEST_FILE),
        rules=text(RULES_FILE),
        cases=text(CASES_FILE),
        note=text(SIGNATURE_FILE) if (folder / SIGNATURE_FILE).exists() else "",
        received_late=received_late,
    )


class DirectiveClient:
    """A connection to the policy service. Every method raises ServiceError."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = PolicyServiceStub(channel)

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, address: str, tls: TlsFiles) -> AsyncIterator["DirectiveClient"]:
        """A client that is closed at the end."""
        async with open_channel(address, tls) as channel:
            yield cls(channel)

    async def list(self, party: str = "") -> list[pb.Directive]:
        """What the service has, by name."""
        found: list[pb.Directive] = []
        request = pb.ListDirectivesRequest(party=party)
        for _ in range(PAGES_MAX):
            page = await call(
                self._stub.ListDirectives,
                request,
                name=f"{SERVICE}/ListDirectives",
                timeout_s=TIMEOUT_S,
            )
            found += page.directives
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        return found

    async def get(self, name: str) -> pb.GetDirectiveResponse:
        """One directive with its text."""
        return await call(
            self._stub.GetDirective,
            pb.GetDirectiveRequest(name=name),
            name=f"{SERVICE}/GetDirective",
            timeout_s=TIMEOUT_S,
        )

    async def publish(self, request: pb.PublishDirectiveRequest) -> pb.PublishDirectiveResponse:
        """Puts a directive on record."""
        return await call(
            self._stub.PublishDirective,
            request,
            name=f"{SERVICE}/PublishDirective",
            timeout_s=REVIEW_TIMEOUT_S,
        )

    async def withdraw(self, request: pb.WithdrawDirectiveRequest) -> pb.WithdrawDirectiveResponse:
        """Ends a directive's effect."""
        return await call(
            self._stub.WithdrawDirective,
            request,
            name=f"{SERVICE}/WithdrawDirective",
            timeout_s=TIMEOUT_S,
        )


class RegistrationClient:
    """A connection to the policy service, for what owners register. Every method raises ServiceError."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = PolicyServiceStub(channel)

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, address: str, tls: TlsFiles) -> AsyncIterator["RegistrationClient"]:
        """A client that is closed at the end."""
        async with open_channel(address, tls) as channel:
            yield cls(channel)

    async def previous(self, owner: str) -> Previous | None:
        """What counts of an owner; None when it has registered nothing."""
        try:
            found = await call(
                self._stub.GetRegistration,
                pb.GetRegistrationRequest(owner=owner),
                name=f"{SERVICE}/GetRegistration",
                timeout_s=TIMEOUT_S,
            )
        except NotFound:
            return None
        commitments = Commitments().changed((), found.commitments)
        return Previous(Statement.of(found.statement), commitments)

    async def publish(self, signed: Signed) -> pb.PublishRegistrationResponse:
        """Puts on record what has changed. Raises RegistryRefused for a serial number that is past."""
        previous = await self.previous(signed.statement.owner)
        if previous is not None and previous.statement == signed.statement:
            return pb.PublishRegistrationResponse(statement=signed.as_proto)
        entries = pending_entries(signed, previous)
        for pending in entries:
            pending.idempotency_key = (
                ""  # where they stand among the documents is the service's to say
            )
        return await self.hand_in(pb.PublishRegistrationRequest(entries=entries))

    async def order(self, note: str) -> pb.PublishOrderResponse:
        """Puts an order of the registrars on record."""
        return await call(
            self._stub.PublishOrder,
            pb.PublishOrderRequest(note=note),
            name=f"{SERVICE}/PublishOrder",
            timeout_s=TIMEOUT_S,
        )

    async def hand_in(
        self, request: pb.PublishRegistrationRequest
    ) -> pb.PublishRegistrationResponse:
        """Puts these entries on record."""
        return await call(
            self._stub.PublishRegistration,
            request,
            name=f"{SERVICE}/PublishRegistration",
            timeout_s=REVIEW_TIMEOUT_S,
        )

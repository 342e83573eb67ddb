"""Agency systems under load, each of which writes down what it was told. Run as a program:

    exchange_clients PLAN.json < (until its standard input ends)

While its input is open it makes searches of every kind; then it waits until each of its own has ended,
and ends. Choices come from the plan's seed. Every line of a client's log is one JSON object, written when
the client was told, after it verified the receipts.
"""

import asyncio
import contextlib
import functools
import hashlib
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, TextIO

from countersign.broker.v1 import broker_pb2 as pb
from countersign.client import Client, ClientSettings, VerificationError, open_answer, verify_search
from countersign.client.calls import END_STATES
from countersign.client.config import Endpoint
from countersign.client.prepare import PreparedSearch, seal_search
from countersign.client.verify import checkpoint_of
from countersign.installation.identity_provider import DevelopmentIdentityProvider
from countersign.type.v1.decision_pb2 import Receipt
from countersign.type.v1.search_pb2 import SearchFacts
from shared.binding import bind, request_digest
from shared.errors import Conflict, NotFound, Overloaded, ServiceError, TooLate, Unavailable
from shared.registry import TrustRoots
from shared.signing import SigningKey
from support.brokers import own_case
from support.exchange_history import Failed, Proved, Told, Tried
from tlog.proof import TlogProof

AGAIN_S: Final = 0.2
"""Before a call is made again that could not be answered."""
IDS_REMEMBERED: Final = 50
"""Of each agency, for others to pry into."""
DOES: Final = {"answers": 60, "slow": 12, "fails once": 8, "fails": 8, "refuses": 12}
"""What the system behind the connector does, and how often."""
MANNERS: Final = {
    "plain": 44,
    "refused": 12,
    "twice at once": 10,
    "withdrawn": 14,
    "hurried": 8,
    "reused": 6,
    "pried into": 6,
}
"""How searches are made, and how often."""


@dataclass(frozen=True)
class ClientPlan:
    """One agency system."""

    config: str
    agency: str
    officer: str
    brokers: list[str]
    workers: int
    log: str


@dataclass(frozen=True)
class Plan:
    """What to do."""

    seed: int
    expires_after_s: float
    settle_s: float
    clients: list[ClientPlan]

    def save(self, path: Path) -> Path:
        """Written for the script."""
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read by the script."""
        told = json.loads(path.read_text())
        return cls(**{**told, "clients": [ClientPlan(**one) for one in told["clients"]]})


@dataclass
class World:
    """What all clients of the process share."""

    plan: Plan
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    settled_by: float = 0
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Agency and id of searches, for other agencies to pry into."""

    @property
    def goes_on(self) -> bool:
        """Whether what cannot be answered is worth asking again."""
        return not self.stopped.is_set() or time.monotonic() < self.settled_by


class AgencyUnderLoad:
    """One agency system with its log."""

    def __init__(
        self,
        plan: ClientPlan,
        settings: ClientSettings,
        clients: list[Client],
        world: World,
        log: TextIO,
    ) -> None:
        self._plan = plan
        self._clients = clients
        self._world = world
        self._chance = random.Random(f"{world.plan.seed}/{plan.agency}")
        self._log = log
        self._probes: dict[str, bytes] = {}
        assert settings.identity_provider
        key = SigningKey.load(settings.identity_provider.signing_key)
        self._provider = DevelopmentIdentityProvider(settings.identity_provider.issuer, key)

    async def work(self) -> None:
        """Makes searches, one after the other, until told to stop; then waits for the last."""
        waiting: set[asyncio.Task[None]] = set()
        while not self._world.stopped.is_set():
            waiting.add(asyncio.create_task(self._one()))
            if len(waiting) >= self._plan.workers:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*waiting)

    async def _one(self) -> None:
        chance = self._chance
        (manner,) = chance.choices([*MANNERS], [*MANNERS.values()])
        (does,) = chance.choices([*DOES], [*DOES.values()])
        prepared = self._prepared(manner, does)
        if manner == "twice at once":
            twins = (self._until_taken(prepared), self._until_taken(prepared))
            taken = [one for one in await asyncio.gather(*twins) if one is not None]
            search = taken[0] if taken else None
        else:
            search = await self._until_taken(prepared)
        if search is None:
            return
        self._world.seen = [
            *self._world.seen[-IDS_REMEMBERED:],
            (self._plan.agency, prepared.search_id),
        ]
        if manner == "withdrawn":
            await asyncio.sleep(chance.random())
            await self._retried(prepared, lambda: self._client.cancel(prepared.search_id))
        if manner == "reused":
            await self._reuse(prepared)
        if manner == "pried into":
            await self._pry()
        if search.state not in END_STATES:
            await self._followed(prepared)

    def _prepared(self, manner: str, does: str) -> PreparedSearch:
        facts = own_case(origin_agency=self._plan.agency, beneficiary_agency=self._plan.agency)
        if manner == "refused":
            facts.case_number = ""
        hurried = manner == "hurried"
        outlived = manner in ("hurried", "withdrawn")
        facts.expires_after.FromMilliseconds(
            int((1.0 if hurried else self._world.plan.expires_after_s) * 1000)
        )
        slow_s = self._chance.uniform(0.3, 2.0) if does == "slow" or outlived else 0.0
        probe = _probe(facts, does, slow_s)
        self._probes[facts.search_id] = hashlib.sha256(probe).digest()
        return self._sealed(facts, probe)

    def _sealed(self, facts: SearchFacts, probe: bytes) -> PreparedSearch:
        keys = self._clients[0].trust.systems[facts.system]
        return seal_search(facts, probe, keys.sealing_public_key)

    @property
    def _client(self) -> Client:
        """Any of the brokers."""
        return self._chance.choice(self._clients)

    def _token(self, search_id: str) -> str:
        return self._provider.token(self._plan.officer, search_id)

    async def _until_taken(self, prepared: PreparedSearch) -> pb.Search | None:
        wait_s = self._chance.choice((0.0, 0.0, 0.5, 3.0))

        async def submit() -> pb.Search:
            return await self._client.submit(prepared, self._token(prepared.search_id), wait_s)

        return await self._retried(prepared, submit)

    async def _followed(self, prepared: PreparedSearch) -> None:
        """Until it has ended; some ask, and some watch. Whoever watched asks for the answer too."""
        if self._chance.random() < 0.3:
            asked = time.time()
            with contextlib.suppress(ServiceError):
                watching = self._client.watch(prepared.search_id, self._world.plan.settle_s)
                async with contextlib.aclosing(watching):
                    async for search in watching:
                        self._tell(prepared, search, asked)
        while self._world.goes_on:
            wait_s = self._chance.choice((0.0, 1.0, 10.0))
            ask = functools.partial(self._client.get, prepared.search_id, wait_s)
            found = await self._retried(prepared, ask)
            if found is None or found.state in END_STATES:
                return
            await asyncio.sleep(AGAIN_S)

    async def _retried(
        self, prepared: PreparedSearch, ask: Callable[[], Awaitable[pb.Search]]
    ) -> pb.Search | None:
        """What the broker says in the end; None when it says nothing for the rest of the time."""
        while self._world.goes_on:
            asked = time.time()
            try:
                search = await ask()
            except ServiceError as error:
                self._say(self._failed(prepared.search_id, error))
                if not isinstance(error, Unavailable | Overloaded | TooLate):
                    return None
                await asyncio.sleep(error.retry_after_s or AGAIN_S)
            else:
                self._tell(prepared, search, asked)
                return search
        return None

    async def _reuse(self, prepared: PreparedSearch) -> None:
        """The same id for another request: the probe is another."""
        other = self._sealed(prepared.facts, _probe(prepared.facts, "answers", 0.001))
        while self._world.goes_on:
            try:
                await self._client.submit(other, self._token(other.search_id))
            except (Unavailable, Overloaded, TooLate):
                await asyncio.sleep(AGAIN_S)
                continue
            except ServiceError as error:
                told = error.reason if isinstance(error, Conflict) else type(error).__name__
            else:
                told = "taken"
            self._say(self._tried("reuse", other.search_id, told))
            return

    async def _pry(self) -> None:
        """Another agency's search, by its id."""
        others = [seen for agency, seen in self._world.seen if agency != self._plan.agency]
        if not others:
            return
        search_id = self._chance.choice(others)
        ask = self._chance.choice((self._client.get, self._client.cancel))
        while self._world.goes_on:
            try:
                await ask(search_id)
            except (Unavailable, Overloaded, TooLate):
                await asyncio.sleep(AGAIN_S)
                continue
            except ServiceError as error:
                told = error.reason if isinstance(error, NotFound) else type(error).__name__
            else:
                told = "all of it"
            self._say(self._tried("peek", search_id, told))
            return

    # What is written down

    def _tell(self, prepared: PreparedSearch, search: pb.Search, asked: float) -> None:
        trust, doubt = self._clients[0].trust, ""
        try:
            verify_search(search, prepared.search_id, trust, prepared, self._plan.officer)
            if search.HasField("answer"):
                opened = open_answer(prepared, search, self._plan.officer, trust)
                if opened.candidates is not None:
                    own = opened.candidates.probe_sha256 == self._probes[prepared.search_id]
                    doubt = "" if own else "CANDIDATES_OF_ANOTHER_PROBE"
            decided = _proved(search.decision_receipt, trust)
            end = _proved(search.end_receipt, trust) if search.HasField("end_receipt") else None
        except VerificationError as error:
            doubt, decided, end = error.reason, Proved(-1, "", 0, ""), None
        answer = search.answer.answer if search.HasField("answer") else b""
        told = Told(
            client=self._plan.agency,
            at=time.time(),
            search_id=prepared.search_id,
            request_sha256=_digest(prepared, self._plan.officer),
            state=pb.SearchState.Name(search.state).removeprefix("SEARCH_STATE_").lower(),
            decided=decided,
            end=end,
            answer_sha256=hashlib.sha256(answer).hexdigest() if answer else "",
            doubt=doubt,
            asked=asked,
        )
        self._say(told)

    def _failed(self, search_id: str, error: ServiceError) -> Failed:
        what, now = type(error).__name__, time.time()
        return Failed(self._plan.agency, now, search_id, what, error.reason, error.message)

    def _tried(self, what: str, search_id: str, told: str) -> Tried:
        return Tried(self._plan.agency, time.time(), search_id, what, told)

    def _say(self, what: Told | Tried | Failed) -> None:
        self._log.write(json.dumps({"kind": type(what).__name__, **asdict(what)}) + "\n")


def _probe(facts: SearchFacts, does: str, wait_s: float) -> bytes:
    """As `connector_that_struggles` reads it."""
    return json.dumps({"search": facts.search_id, "does": does, "wait_s": wait_s}).encode()


def _digest(prepared: PreparedSearch, officer: str) -> str:
    bound = bind(
        prepared.facts,
        officer,
        prepared.sealed_probe,
        prepared.answer_key.public_key,
        prepared.salt,
    )
    return request_digest(bound).hex()


def _proved(receipt: Receipt, trust: TrustRoots) -> Proved:
    tree = checkpoint_of(TlogProof.parse(receipt.tlog_proof).checkpoint, trust)
    digest = hashlib.sha256(receipt.leaf).hexdigest()
    return Proved(receipt.index, digest, tree.size, tree.root.hex())


async def _agency(
    plan: ClientPlan, world: World, log: TextIO, stack: contextlib.AsyncExitStack
) -> AgencyUnderLoad:
    settings = ClientSettings.load(Path(plan.config))
    clients = [
        await stack.enter_async_context(
            Client.connect(settings.model_copy(update={"broker": Endpoint(address=broker)}))
        )
        for broker in plan.brokers
    ]
    return AgencyUnderLoad(plan, settings, clients, world, log)


async def _live(plan: Plan, logs: Sequence[TextIO]) -> None:
    world = World(plan)
    async with contextlib.AsyncExitStack() as stack:
        agencies = [
            await _agency(one, world, log, stack)
            for one, log in zip(plan.clients, logs, strict=True)
        ]
        working = [asyncio.create_task(agency.work()) for agency in agencies]
        await asyncio.to_thread(sys.stdin.read)
        world.settled_by = time.monotonic() + plan.settle_s
        world.stopped.set()
        await asyncio.gather(*working)


def main() -> None:
    """Does what the plan says."""
    plan = Plan.load(Path(sys.argv[1]))
    with contextlib.ExitStack() as stack:
        logs = [stack.enter_context(Path(one.log).open("a", buffering=1)) for one in plan.clients]
        asyncio.run(_live(plan, logs))


if __name__ == "__main__":
    main()

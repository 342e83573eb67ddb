"""A broker without sockets: its real parts around a bus in memory."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from broker.admission import Admission, Call
from broker.answers import Answers
from broker.discharging import Discharging
from broker.ending import Ending
from broker.ledger import Ledger
from broker.limits import Limits, LimitSettings
from broker.participants import Known, of_file
from broker.peer_client import PeerClient
from broker.policy import Policy
from broker.referring import Referring
from broker.searching import Searching
from broker.service import BrokerServicer
from broker.streams import answer_subject
from broker.watch import KnownSearches
from countersign.broker.v1.broker_pb2 import SubmitSearchRequest
from countersign.client.prepare import PreparedSearch, seal_search
from countersign.connector.v1.connector_pb2 import (
    CandidatesFound,
    SearchAnswer,
    SearchOrder,
    SignedAnswer,
    SignedOrder,
)
from countersign.installation.identity_provider import DevelopmentIdentityProvider
from countersign.type.v1 import search_pb2 as s
from shared.binding import request_digest
from shared.bus import Delivery
from shared.identity import SpiffeId
from shared.registry import (
    Agency,
    Gallery,
    IdentityProvider,
    Peer,
    Registry,
    System,
    SystemKeys,
    TrustRoots,
)
from shared.rejections import Rejections
from shared.sealing import PrivateKey
from shared.signing import ANSWER_CONTEXT, SigningKey
from shared.tokens import OfficerTokens
from support.buses import BusInMemory
from support.clocks import ClockThatStandsStill
from support.orders import log_signer

WIDE = LimitSettings(
    agency_searches_burst=10_000, officer_searches_burst=10_000, officer_in_flight_max=10_000
)
"""Limits that a test of something else does not meet."""

LAPD, LASD = "CA0194200", "CA0190000"
OFFICER = "lapd-40123"


def own_case(**changes: object) -> s.SearchFacts:
    """An LAPD robbery case on LACRIS, with changes."""
    facts = s.SearchFacts(
        search_id=str(uuid.uuid4()),
        origin_agency=LAPD,
        beneficiary_agency=LAPD,
        system="lacris",
        gallery="lacris-booking",
        purpose=s.PURPOSE_CRIMINAL_INVESTIGATION,
        suspicion=s.SUSPICION_LEVEL_REASONABLE_SUSPICION,
        offence=s.Offence(
            nibrs_code="120", statute="Cal. Penal Code s. 211", severity=s.OFFENCE_SEVERITY_FELONY
        ),
        provenance=s.PROBE_PROVENANCE_CRIME_SCENE_RECORDING,
        capture_mode=s.CAPTURE_MODE_STORED_VIDEO_FRAME,
        case_number="26-0001",
        narrative="A shop was robbed.",
    )
    for name, value in changes.items():
        if value is None:
            facts.ClearField(name)  # type: ignore[arg-type]  # any field of the message
        else:
            setattr(facts, name, value)
    return facts


def registry() -> Registry:
    """LAPD asks, LASD runs LACRIS."""
    return Registry(
        agencies={
            LAPD: Agency(name="Los Angeles Police Department", jurisdiction="US-CA"),
            LASD: Agency(name="Los Angeles County Sheriff", jurisdiction="US-CA"),
        },
        systems={"lacris": System(name="LACRIS", operator=LASD, commercial=False)},
        galleries={
            "lacris-booking": Gallery(
                name="Booking photographs",
                system="lacris",
                owner=LASD,
                gallery_class="booking_photos",
            )
        },
    )


@dataclass
class BrokerOnTheTable:
    """Everything of a broker that a test may want to touch."""

    bus: BusInMemory = field(default_factory=BusInMemory)
    clock: ClockThatStandsStill = field(default_factory=ClockThatStandsStill)
    connector_key: SigningKey = field(default_factory=SigningKey.generate)
    sealing_key: PrivateKey = field(default_factory=PrivateKey.generate)
    order_key: SigningKey = field(default_factory=SigningKey.generate)
    provider_key: SigningKey = field(default_factory=SigningKey.generate)
    limit_settings: LimitSettings = WIDE
    follows: Known | None = None
    """Who takes part, when that is no file."""
    witnesses_wait_s: float = 0.0
    peers: tuple[Peer, ...] = ()
    """Where the system is, if it is not here."""
    clients: Mapping[str, PeerClient] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.provider = DevelopmentIdentityProvider(
            "https://id.lapd.test", self.provider_key, self.clock
        )
        registered = self.provider.registration()
        keys = SystemKeys(
            sealing_public_key=self.sealing_key.public_key,
            answer_verify_key=self.connector_key.verify_key.raw,
        )
        self.trust = TrustRoots(
            log_verifier_keys=(log_signer().verifier.vkey,),
            broker_verify_keys=(self.order_key.verify_key.raw,),
            systems={} if self.peers else {"lacris": keys},
            peers=tuple(
                peer.model_copy(update={"systems": {"lacris": keys}}) for peer in self.peers
            ),
            identity_providers={LAPD: IdentityProvider.model_validate(registered)},
        )
        self.registry = registry()
        self.restart()

    def replica(self) -> "BrokerOnTheTable":
        """Another broker on the same bus, with the same keys."""
        return replace(self)

    def restart(self) -> None:
        """A fresh broker on the same bus and ledger: everything at hand is gone."""
        self.known = KnownSearches()
        bus = self.bus
        self.ledger = Ledger(bus)  # type: ignore[arg-type]  # stands in for the real bus
        tokens = OfficerTokens(self.registry, self.trust, self.clock)
        self.limits = Limits(self.limit_settings, self.known, self.clock)
        self.rejections = Rejections(self.clock)
        self.participants = self.follows or of_file(self.registry, tokens)
        self.ending = Ending(
            bus=bus,  # type: ignore[arg-type]  # likewise
            ledger=self.ledger,
            known=self.known,
            clock=self.clock,
        )
        self.referring = Referring(
            ledger=self.ledger,
            known=self.known,
            trust=self.trust,
            clients=self.clients,
            clock=self.clock,
        )
        admission = Admission(self.participants, self.ledger, self.limits, self.rejections)
        policy = Policy(bus)  # type: ignore[arg-type]  # likewise
        self.searching = Searching(
            bus=bus,  # type: ignore[arg-type]  # likewise
            ledger=self.ledger,
            policy=policy,
            admission=admission,
            limits=self.limits,
            known=self.known,
            ending=self.ending,
            trust=self.trust,
            signing_key=self.order_key,
            clock=self.clock,
            default_wait_s=900,
            witnesses_wait_s=self.witnesses_wait_s,
            make_queue=self.bus.make_queue,
            referring=self.referring,
        )
        self.answers = Answers(
            bus=bus,  # type: ignore[arg-type]  # likewise
            ledger=self.ledger,
            known=self.known,
            trust=self.trust,
            trust_domain="countersign.test",
            rejections=self.rejections,
        )
        self.servicer = BrokerServicer(
            searching=self.searching,
            answers=self.answers,
            ending=self.ending,
            ledger=self.ledger,
            known=self.known,
            participants=self.participants,
            trust=self.trust,
            referring=self.referring,
            discharging=Discharging(self.ledger, admission, policy),
        )

    def call(self, agency: str = LAPD, rpc: str = "SubmitSearch") -> Call:
        """A call by an agency's system."""
        return Call(SpiffeId("countersign.test", "agency", agency), rpc)

    def prepared(self, facts: s.SearchFacts | None = None) -> PreparedSearch:
        """A sealed search."""
        return seal_search(facts or own_case(), b"a picture", self.sealing_key.public_key)

    def request(self, prepared: PreparedSearch) -> SubmitSearchRequest:
        """A submission with a good token."""
        return prepared.request(self.provider.token(OFFICER, prepared.search_id))

    def order(self, search_id: str) -> SearchOrder:
        """The order that was published."""
        signed = SignedOrder.FromString(self.bus.published[f"orders.lacris.{search_id}"])
        return SearchOrder.FromString(signed.order)

    def answer(self, search_id: str, /, **changes: object) -> SignedAnswer:
        """A connector's answer to the published order, with changes before it is signed."""
        answer = SearchAnswer(
            search_id=search_id,
            system="lacris",
            gallery="lacris-booking",
            request_sha256=request_digest(self.order(search_id).bound_request),
            found=CandidatesFound(returned=3, above_threshold=1, gallery_size=80),
        )
        for name, value in changes.items():
            setattr(answer, name, value)
        data = answer.SerializeToString()
        return SignedAnswer(
            answer=data,
            key_id=self.connector_key.key_id,
            signature=self.connector_key.sign(ANSWER_CONTEXT, data),
        )

    def delivery(
        self, search_id: str, signed: SignedAnswer, system: str = "lacris", deliveries: int = 1
    ) -> Delivery:
        """The answer as the bus brings it."""
        subject = answer_subject(system, search_id)
        self.bus.published[subject] = signed.SerializeToString()

        async def in_progress() -> None:
            return None

        data = self.bus.published[subject]
        number = self.bus.sequence_of(subject)
        return Delivery(subject, data, deliveries, number, in_progress)

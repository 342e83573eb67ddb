"""The policy service as a process would run it: real gRPC with mutual TLS, real NATS."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from countersign.cli.main import exit_code
from countersign.policy.v1 import policy_pb2 as pb
from countersign.policy.v1.policy_pb2_grpc import PolicyServiceStub
from countersign.type.v1.decision_pb2 import DecisionOutcome
from policy.__main__ import RunningPolicy, running
from policy.service import SERVICE
from shared.bus import connected
from shared.errors import InvalidRequest, NotAllowed, NotFound
from shared.rpc import call, open_channel
from support.directives import DIRECTIVES, NOON, TRAINED, ordinary, shipped_book
from support.nats_servers import NatsUnderTest
from support.policies import policy_settings

TIMEOUT_S = 120.0


@contextlib.asynccontextmanager
async def asking(
    policy: RunningPolicy, nats: NatsUnderTest, kind: Any, name: str
) -> AsyncIterator[PolicyServiceStub]:
    tls = nats.certificates.tls(kind, name)
    async with open_channel(f"127.0.0.1:{policy.server.port}", tls) as channel:
        yield PolicyServiceStub(channel)


def question() -> pb.EvaluateRequest:
    request = pb.EvaluateRequest(facts=ordinary(), officer=TRAINED)
    request.at.FromDatetime(NOON)
    return request


async def evaluate(stub: PolicyServiceStub, request: pb.EvaluateRequest) -> pb.EvaluateResponse:
    name = f"{SERVICE}/Evaluate"
    return await call(stub.Evaluate, request, name=name, timeout_s=TIMEOUT_S)


async def test_the_broker_is_answered_over_the_bus_and_over_grpc_alike(
    nats_server: NatsUnderTest,
) -> None:
    async with (
        running(policy_settings(nats_server)) as policy,
        connected(nats_server.bus_settings("service", "broker"), "broker") as bus,
        asking(policy, nats_server, "service", "broker") as stub,
    ):

        async def ask(*questions: pb.EvaluateRequest) -> Sequence[pb.EvaluateResponse]:
            batch = pb.EvaluateBatchRequest(requests=questions)
            heard = await bus.request("policy.evaluate", batch, pb.EvaluateBatchResponse, TIMEOUT_S)
            return heard.responses

        heard = await ask(question(), question())
        assert heard[0].decision.outcome == DecisionOutcome.DECISION_OUTCOME_PERMITTED
        assert [await evaluate(stub, question())] * 2 == list(heard)
        for unacceptable in ([], [question()] * 65, [question(), pb.EvaluateRequest()]):
            with pytest.raises(InvalidRequest):
                await ask(*unacceptable)


@pytest.mark.parametrize(("kind", "name"), [("agency", "CA0194200"), ("service", "ledger")])
async def test_anyone_may_read_directives_and_nobody_else_may_evaluate(
    nats_server: NatsUnderTest, kind: str, name: str
) -> None:
    async with (
        running(policy_settings(nats_server)) as policy,
        asking(policy, nats_server, kind, name) as stub,
    ):
        with pytest.raises(NotAllowed):
            await evaluate(stub, question())
        shown = await call(
            stub.GetDirective,
            pb.GetDirectiveRequest(name="lapd-2020-11-13"),
            name=f"{SERVICE}/GetDirective",
            timeout_s=TIMEOUT_S,
        )
        assert shown.directive.party == "CA0194200"
        with pytest.raises(NotFound):
            await call(
                stub.GetDirective,
                pb.GetDirectiveRequest(name="nothing"),
                name=f"{SERVICE}/GetDirective",
                timeout_s=TIMEOUT_S,
            )
        with pytest.raises(InvalidRequest):
            await call(
                stub.ListDirectives,
                pb.ListDirectivesRequest(page_size=1000),
                name=f"{SERVICE}/ListDirectives",
                timeout_s=TIMEOUT_S,
            )


async def test_the_command_line_lists_and_shows_what_is_loaded(
    nats_server: NatsUnderTest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(policy_settings(nats_server)) as policy:
        config = ["--config", str(client_file(tmp_path, nats_server, policy.server.port))]

        async def said(*arguments: str) -> tuple[int, str]:
            code = await asyncio.to_thread(exit_code, ["directive", *arguments, *config])
            return code, capsys.readouterr().out

        code, listed = await said("list", "--party", "CA0194200")
        assert code == 0
        assert "lapd-2020-11-13" in listed
        assert "lasd-lacris-operator" not in listed
        code, shown = await said("show", "lapd-2020-11-13")
        assert code == 0
        assert "LAPD-3" in shown
        code, rules = await said("show", "lapd-2020-11-13", "--rules")
        assert rules == (DIRECTIVES / "lapd-2020-11-13" / "rules.cedar").read_text()
        code, document = await said("list", "--json")
        assert len(json.loads(document)["directives"]) == len(shipped_book().directives)
        code, _ = await said("show", "nothing")
        assert code == 3


def client_file(folder: Path, nats: NatsUnderTest, port: int) -> Path:
    tls = nats.certificates.tls("agency", "CA0194200")
    sections = "".join(
        f'[{name}]\naddress = "127.0.0.1:{port}"\n' for name in ("broker", "ledger", "policy")
    )
    file = folder / "client.toml"
    file.write_text(
        f'agency = "CA0194200"\ntrust_roots = "unused.json"\n{sections}'
        f'[tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\n'
        f'authority = "{tls.authority}"\n'
    )
    return file

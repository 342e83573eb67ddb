"""Where telemetry goes: nowhere by default, to the console or a collector if asked, and never late."""

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc
from opentelemetry.sdk.trace import TracerProvider

from shared.telemetry import SHUTDOWN_TIMEOUT_S, Telemetry
from shared.telemetry_sdk import describe
from support.nats_servers import free_port
from support.process_under_test import __file__ as program

TIMEOUT_S = 120.0


async def report(tmp_path: Path, exporter: str, **variables: str) -> tuple[str, list[Any]]:
    """Runs a process that does one piece of work, until it is told to stop: its output and logs."""
    config = tmp_path / "config.toml"
    config.write_text(f"does = 'reports'\n[telemetry]\nexporter = '{exporter}'\n")
    mine = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, program, config),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=mine | variables,
    )
    assert process.stderr
    lines: list[bytes] = []
    async with asyncio.timeout(TIMEOUT_S):
        while not lines or b'"ready"' not in lines[-1]:
            lines.append(await process.stderr.readline())
            assert lines[-1], lines
        process.terminate()
        out, err = await process.communicate()
    assert process.returncode == 0
    logs = [*lines, *err.splitlines()]
    return out.decode(), [json.loads(line) for line in logs]


class Collector(trace_grpc.TraceServiceServicer, metrics_grpc.MetricsServiceServicer):
    """Takes spans and metrics by OTLP."""

    def __init__(self) -> None:
        self.resources: list[dict[str, str]] = []
        self.spans: list[str] = []
        self.metrics: list[str] = []

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # named by OTLP
        """Keeps names."""
        del context
        if isinstance(request, trace_pb.ExportTraceServiceRequest):
            for resource in request.resource_spans:
                self._keep(resource.resource)
                self.spans += [s.name for scope in resource.scope_spans for s in scope.spans]
            return trace_pb.ExportTraceServiceResponse()
        for resource in request.resource_metrics:
            self._keep(resource.resource)
            self.metrics += [m.name for scope in resource.scope_metrics for m in scope.metrics]
        return metrics_pb.ExportMetricsServiceResponse()

    def _keep(self, resource: Any) -> None:
        self.resources.append({a.key: a.value.string_value for a in resource.attributes})


@pytest.fixture
async def collector() -> AsyncIterator[tuple[Collector, int]]:
    server, collector = grpc.aio.server(), Collector()
    # OpenTelemetry's generated code has no types.
    trace_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    metrics_grpc.add_MetricsServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield collector, port
    await server.stop(0)


async def test_by_default_there_is_no_provider_no_thread_and_no_span(tmp_path: Path) -> None:
    out, logs = await report(tmp_path, "none", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    line = next(line for line in logs if line["message"] == "reports")
    assert (line["sdk"], line["threads"]) == ([], ["MainThread"])
    assert "trace_id" not in line
    assert out == "closed\n"


async def test_console_shows_spans_and_metrics_before_the_process_ends(tmp_path: Path) -> None:
    out, logs = await report(tmp_path, "console")
    assert '"name": "a piece of work"' in out
    assert "countersign.pieces" in out
    line = next(line for line in logs if line["message"] == "reports")
    assert f"0x{line['trace_id']}" in out


async def test_collector_gets_spans_metrics_and_who_sends_them(
    tmp_path: Path, collector: tuple[Collector, int]
) -> None:
    got, port = collector
    await report(
        tmp_path,
        "otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test,service.namespace=lapd",
    )
    assert got.spans == ["a piece of work"]
    assert "countersign.pieces" in got.metrics
    for resource in got.resources:
        assert resource["service.name"] == "countersign-test"
        assert resource["service.namespace"] == "lapd"
        assert resource["deployment.environment.name"] == "test"
        assert resource["service.version"]
        assert resource["service.instance.id"]


async def test_standard_switch_turns_it_off(
    tmp_path: Path, collector: tuple[Collector, int]
) -> None:
    got, port = collector
    endpoint = f"http://127.0.0.1:{port}"
    await report(tmp_path, "otlp", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_SDK_DISABLED="true")
    assert (got.spans, got.metrics) == ([], [])


async def test_collector_that_is_not_there_is_a_warning_and_no_failure(tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    _, logs = await report(tmp_path, "otlp", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    assert any(line["logger"].startswith("opentelemetry") for line in logs)


class ProviderThatHangs(TracerProvider):
    """Its collector took the connection and says nothing."""

    def __init__(self) -> None:
        super().__init__(shutdown_on_exit=False)
        self.released = threading.Event()
        self.left = threading.Event()

    def shutdown(self) -> None:
        """Waits for ever."""
        self.released.wait()
        self.left.set()


def test_end_does_not_wait_for_a_collector_that_says_nothing() -> None:
    hanging = [ProviderThatHangs(), ProviderThatHangs()]
    Telemetry(tuple(hanging)).stop()
    assert not any(provider.left.is_set() for provider in hanging)
    for provider in hanging:
        provider.released.set()
    assert all(provider.left.wait(TIMEOUT_S) for provider in hanging)
    assert SHUTDOWN_TIMEOUT_S <= 5


def test_each_process_describes_itself_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "renamed")
    one, two = describe("countersign-broker"), describe("countersign-broker")
    assert one.attributes["service.name"] == "renamed"
    assert one.attributes["service.instance.id"] != two.attributes["service.instance.id"]

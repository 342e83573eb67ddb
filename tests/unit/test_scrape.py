"""What Prometheus fetches of a process: both forms of text, and the door."""

import http.client
import os
import subprocess
from collections.abc import Iterator

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from shared import telemetry
from shared.scrape import OPEN, PLAIN, Scraped, ScrapedReader
from shared.settings import SettingsError, TelemetrySettings
from support.waiting import WAIT_S_MAX

TRACE_ID, SPAN_ID = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331


@pytest.fixture(name="reader")
def _reader() -> ScrapedReader:
    """Of a process that has measured one of everything."""
    reader = ScrapedReader()
    provider = MeterProvider(
        metric_readers=[reader],
        resource=Resource({"service.name": "test"}),
        shutdown_on_exit=False,
    )
    meter = provider.get_meter("countersign")
    meter.create_counter("countersign.decisions", "{decision}", "Decisions").add(
        2, {"outcome": 'a "quoted" \\ word\nand another'}
    )
    meter.create_gauge("countersign.certificate.left", "d", "Days").set(12.5, {"role": "bus"})
    duration = meter.create_histogram(
        "rpc.server.call.duration", "s", "Calls", explicit_bucket_boundaries_advisory=[0.25, 1]
    )
    sampled = SpanContext(TRACE_ID, SPAN_ID, is_remote=False, trace_flags=TraceFlags(1))
    within = trace.set_span_in_context(NonRecordingSpan(sampled))
    duration.record(0.25, {"rpc.method": "x/Y"}, context=within)
    duration.record(7, {"rpc.method": "x/Y"}, context=context.Context())
    return reader


def test_text_has_prometheus_names_and_cumulative_buckets(reader: ScrapedReader) -> None:
    lines = reader.text(openly=False).splitlines()
    assert "# TYPE countersign_decisions_total counter" in lines
    assert (
        'countersign_decisions_total{outcome="a \\"quoted\\" \\\\ word\\nand another"} 2' in lines
    )
    assert 'countersign_certificate_left_days{role="bus"} 12.5' in lines
    assert 'rpc_server_call_duration_seconds_bucket{rpc_method="x/Y",le="0.25"} 1' in lines
    assert 'rpc_server_call_duration_seconds_bucket{rpc_method="x/Y",le="1.0"} 1' in lines
    assert 'rpc_server_call_duration_seconds_bucket{rpc_method="x/Y",le="+Inf"} 2' in lines
    assert 'rpc_server_call_duration_seconds_sum{rpc_method="x/Y"} 7.25' in lines
    assert 'rpc_server_call_duration_seconds_count{rpc_method="x/Y"} 2' in lines
    assert 'target_info{service_name="test"} 1' in lines
    assert not [line for line in lines if "trace_id" in line], "this form has no exemplars"


def test_openmetrics_leads_from_a_slow_call_to_its_trace(reader: ScrapedReader) -> None:
    lines = reader.text(openly=True).splitlines()
    assert lines[-1] == "# EOF"
    assert "# TYPE countersign_decisions counter" in lines
    assert "# UNIT rpc_server_call_duration_seconds seconds" in lines
    (with_exemplar,) = [line for line in lines if " # {" in line]
    sample, _, exemplar = with_exemplar.partition(" # ")
    assert sample == 'rpc_server_call_duration_seconds_bucket{rpc_method="x/Y",le="0.25"} 1'
    ids = f'{{trace_id="{TRACE_ID:032x}",span_id="{SPAN_ID:016x}"}}'
    assert exemplar.startswith(f"{ids} 0.25 ")


def test_promtool_finds_nothing_wrong_with_the_text(reader: ScrapedReader) -> None:
    text = reader.text(openly=False)
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    complaints = [line for line in checked.stderr.splitlines() if "days" not in line]
    assert not complaints, (
        "days are what people count for certificates; all else as Prometheus wants it"
    )


@pytest.fixture(name="door")
def _door(reader: ScrapedReader) -> Iterator[Scraped]:
    door = Scraped("127.0.0.1:0", reader)
    yield door
    door.shutdown()


def fetched(door: Scraped, path: str = "/metrics", **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=WAIT_S_MAX)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type", ""), response.read().decode()
    finally:
        connection.close()


def test_door_speaks_the_form_that_is_asked_for(door: Scraped, reader: ScrapedReader) -> None:
    assert fetched(door) == (200, PLAIN, reader.text(openly=False))
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    assert fetched(door, Accept=accept) == (200, OPEN, reader.text(openly=True))
    assert fetched(door, "/")[0] == 404


def test_address_that_is_taken_stops_the_start_and_is_named(door: Scraped) -> None:
    settings = TelemetrySettings(scrape=f"127.0.0.1:{door.port}")
    with pytest.raises(SettingsError, match=rf"telemetry\.scrape: .*{door.port}"):
        telemetry.start("test", settings)
    for unusable in ("nowhere", "127.0.0.1:", "127.0.0.1:70000"):
        with pytest.raises(SettingsError, match=r"telemetry\.scrape"):
            telemetry.start("test", TelemetrySettings(scrape=unusable))


def test_standard_switch_turns_the_door_off_too(
    door: Scraped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address is taken, so a second door would be an error."""
    assert "OTEL_SDK_DISABLED" not in os.environ
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    settings = TelemetrySettings(scrape=f"127.0.0.1:{door.port}")
    assert telemetry.start("test", settings).providers == ()

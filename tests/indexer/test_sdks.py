"""What stock SDKs send arrives whole: those of Python, Node, Go and Java, as an operator's program uses them;
and what they send through a stock Collector."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from grpc import Compression as GrpcCompression
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import StatusCode

from cli.token import run as mint
from devnet.anvil import free_port
from indexer import refusals
from nektar import senders
from nektar.arrow import pa
from nektar.bus.port import BusError
from nektar.bus.sqlite import SqliteBus
from nektar.config import Quota
from nektar.log import NETWORK, OTLP_LOGS, OTLP_METRICS, OTLP_SPANS, ToldBatch, decode
from nektar.model import Heartbeat, Report
from nektar.otlp import LOGS, METRICS, SPANS, parse
from nektar.senders import Sender
from nektar.store.otel import rows, tables
from nektar.telemetry import Step
from nektar.telemetry.tasks import Tasks
from tests.indexer.senders import TOKENS, as_of, has_key, say
from tests.indexer.test_collector import Faulty, serving, told
from tests.indexer.test_heard import HOME, MANAGER
from tests.indexer.test_heard import attributes as signed
from tests.indexer.test_otlp_grpc import serving as serving_by_grpc
from tests.nektar.bus.reading import until
from tests.programs import OTELCOL, build, compiled

ROOT = Path(__file__).parent.parent.parent
TOKEN = TOKENS["operator-1"]
SENDER = Sender("operator-1", "observer", HOME.name)


def spans_on(bus: SqliteBus, sender: Sender = SENDER) -> list[dict[str, Any]]:
    """Every span on the bus as a row of the store."""
    found = []
    for message in told(bus, OTLP_SPANS):
        assert senders.of(message.headers) == sender
        found += _values(rows(SPANS, parse(SPANS, message.value), sender))
    return found


def _values(rows: Any) -> list[dict[str, Any]]:
    """Rows as Python's values, times in ns since 1970: Python's own have no nanoseconds."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type):
            rows = rows.set_column(place, field.name, rows.column(place).cast(pa.int64()))
        elif pa.types.is_list(field.type) and pa.types.is_timestamp(field.type.value_type):
            rows = rows.set_column(place, field.name, rows.column(place).cast(pa.list_(pa.int64())))
    found: list[dict[str, Any]] = rows.to_pylist()
    return found


Exporters = Callable[[str, dict[str, str], bool], tuple[Any, Any]]
"""(address, headers, whether they compress) → those of spans and of log records."""


def by_http(address: str, headers: dict[str, str], compress: bool) -> tuple[Any, Any]:
    said: Any = {"headers": headers, "compression": Compression.Gzip if compress else None}
    url = f"http://{address}/v1"
    return OTLPSpanExporter(f"{url}/traces", **said), OTLPLogExporter(f"{url}/logs", **said)


def by_grpc(address: str, headers: dict[str, str], compress: bool) -> tuple[Any, Any]:
    said: Any = {"headers": headers, "compression": GrpcCompression.Gzip if compress else None}
    return GrpcSpanExporter(f"http://{address}", **said), GrpcLogExporter(f"http://{address}", **said)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(("serve", "exporters"), [(serving, by_http), (serving_by_grpc, by_grpc)])
def test_the_python_sdk(bus: SqliteBus, serve: Any, exporters: Exporters, compress: bool) -> None:
    with serve(bus, TOKENS, (HOME,)) as address:
        resource = Resource({"service.name": "operator-in-python"})
        exporter, of_records = exporters(address, {"authorization": f"Bearer {TOKEN}"}, compress)
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=60_000))
        tracer = provider.get_tracer("python", "1")
        ids = set()
        for i in range(600):  # more than a batch
            with tracer.start_as_current_span(f"task {i}") as span:
                span.set_attributes({"n": 2**40, "half": 0.5, "ok": True, "list": ["a", "ä"]})
                span.add_event("seen", {"block": i})
                span.set_status(StatusCode.ERROR, "late")
                ids.add(f"{span.get_span_context().span_id:016x}")
        with tracer.start_as_current_span("attest") as span:
            span.set_attributes(dict(signed(7)))
        provider.shutdown()

        loggers = LoggerProvider(resource=resource)
        loggers.add_log_record_processor(SimpleLogRecordProcessor(of_records))
        loggers.get_logger("operator").emit(
            LogRecord(timestamp=time.time_ns(), severity_text="WARN", body="no peer answers")
        )
        loggers.shutdown()
    found = spans_on(bus)
    assert len(found) == 601
    assert {row["SpanId"] for row in found if row["SpanName"] != "attest"} == ids
    (one,) = (row for row in found if row["SpanName"] == "task 17")
    assert dict(one["SpanAttributes"]) == {
        "n": "1099511627776",
        "half": "0.5",
        "ok": "true",
        "list": '["a","ä"]',
    }
    assert (one["ServiceName"], one["StatusCode"], one["StatusMessage"]) == (
        "operator-in-python",
        "Error",
        "late",
    )
    assert (one["Events.Name"], dict(one["Events.Attributes"][0])) == (["seen"], {"block": "17"})
    assert len(told(bus, NETWORK)) == 1
    (record,) = told(bus, OTLP_LOGS)
    (line,) = _values(rows(LOGS, parse(LOGS, record.value), Sender("x")))
    assert (line["Body"], line["SeverityText"], line["ServiceName"]) == (
        "no peer answers",
        "WARN",
        "operator-in-python",
    )


@pytest.mark.parametrize("serve", [serving, serving_by_grpc])
def test_the_python_sdks_metrics(bus: SqliteBus, serve: Any) -> None:
    with serve(bus, TOKENS, (HOME,)) as address:
        headers = {"authorization": f"Bearer {TOKEN}"}
        if serve is serving:
            exporter: Any = OTLPMetricExporter(f"http://{address}/v1/metrics", headers=headers)
        else:
            exporter = GrpcMetricExporter(f"http://{address}", headers=headers)
        resource = Resource({"service.name": "operator-in-python"})
        buckets = View(instrument_name="spread", aggregation=ExponentialBucketHistogramAggregation())
        provider = MeterProvider([PeriodicExportingMetricReader(exporter)], resource, views=[buckets])
        meter = provider.get_meter("python", "1")
        meter.create_counter("tasks", "{task}", "Tasks done").add(3, {"state": "signed"})
        meter.create_gauge("stake").set(0.5)
        for name in ("latency", "spread"):
            of = meter.create_histogram(name, "s")
            for seconds in (0.25, 4.0, 5_000.0):
                of.record(seconds)
        provider.shutdown()
    found: dict[str, list[dict[str, Any]]] = {}
    for message in told(bus, OTLP_METRICS):
        for table, rows_ in tables(METRICS, parse(METRICS, message.value), Sender("x")).items():
            found.setdefault(table, []).extend(_values(rows_))
    (total,) = found["otel_metrics_sum"]
    assert (total["MetricName"], total["MetricUnit"], total["Value"]) == ("tasks", "{task}", 3)
    assert (total["IsMonotonic"], dict(total["Attributes"])) == (True, {"state": "signed"})
    assert [(row["MetricName"], row["Value"]) for row in found["otel_metrics_gauge"]] == [("stake", 0.5)]
    (latency,) = found["otel_metrics_histogram"]
    assert (latency["Count"], latency["Sum"], latency["Min"], latency["Max"]) == (3, 5004.25, 0.25, 5000)
    assert (sum(latency["BucketCounts"]), len(latency["BucketCounts"])) == (3, 16)
    (spread,) = found["otel_metrics_exponential_histogram"]
    assert (spread["Count"], sum(spread["PositiveBucketCounts"])) == (3, 3)
    assert {row["ServiceName"] for rows_ in found.values() for row in rows_} == {"operator-in-python"}


@pytest.mark.parametrize(("serve", "exporters"), [(serving, by_http), (serving_by_grpc, by_grpc)])
def test_the_python_sdk_is_told_of_a_token_that_is_wrong(
    bus: SqliteBus, serve: Any, exporters: Exporters
) -> None:
    with serve(bus, TOKENS) as address:
        exporter, _ = exporters(address, {"authorization": "Bearer no"}, False)
        provider = TracerProvider()
        results: list[SpanExportResult] = []
        export = exporter.export
        exporter.export = lambda spans: results.append(export(spans)) or results[-1]
        provider.add_span_processor(BatchSpanProcessor(exporter))
        with provider.get_tracer("x").start_as_current_span("s"):
            pass
        provider.shutdown()
    assert results == [SpanExportResult.FAILURE]
    assert told(bus) == []


@pytest.mark.parametrize(("serve", "exporters"), [(serving, by_http), (serving_by_grpc, by_grpc)])
def test_the_python_sdk_sends_again_what_the_bus_did_not_take(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch, serve: Any, exporters: Exporters
) -> None:
    monkeypatch.setattr(refusals, "AFTER", 0.05)
    faulty = Faulty(bus)
    faulty.fault[OTLP_SPANS] = BusError("down")
    with serve(faulty, TOKENS) as address, ThreadPoolExecutor(1) as pool:
        exporter, _ = exporters(address, {"authorization": f"Bearer {TOKEN}"}, False)
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(exporter))
        with provider.get_tracer("x").start_as_current_span("s"):
            pass
        flushing = pool.submit(provider.force_flush)
        until(lambda: faulty.refused >= 1)
        assert not flushing.done()
        faulty.fault.clear()
        assert flushing.result()
        provider.shutdown()
    assert [row["SpanName"] for row in spans_on(bus)] == ["s"]


# --- programs, told by their environment ------------------------------------------------------------

OPERATOR = Sender("0x" + "a1" * 20, "operator", HOME.name)


@pytest.fixture
def headers(bus: SqliteBus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `nektar token` prints for an Operator that is registered: OTEL_EXPORTER_OTLP_HEADERS."""
    say(bus, has_key(OPERATOR.name, 0x2A), as_of())
    key = tmp_path / "key"
    key.write_text("0x2a")
    mint("operator", OPERATOR.name, f"file:{key}", 1, HOME.name, HOME.chain_id, "here", None, None)
    return capsys.readouterr().out.strip()


def environment(address: str, headers: str, compression: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}",
        "OTEL_EXPORTER_OTLP_HEADERS": headers,
        "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
    }


def ran(*command: str | Path, **variables: str) -> Any:
    """What the program prints, whose environment has these variables."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=clean | variables
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def same(found: list[dict[str, Any]], sent: Any, service: str) -> None:
    """The rows are of the spans that programs in Node, Go and Java send, which have these ids."""
    children = [row for row in found if row["SpanName"] == "compute"]
    assert sorted([r["TraceId"], r["SpanId"], r["ParentSpanId"]] for r in children) == sorted(sent)
    assert Counter(row["SpanKind"] for row in found) == {"Internal": 5, "Server": 5}
    for row in children:
        assert dict(row["SpanAttributes"]) == {
            "n": "1099511627776",
            "half": "0.5",
            "ok": "true",
            "list": '["a","ä"]',
        }
        assert (row["StatusCode"], row["ServiceName"]) == ("Error", service)
        assert dict(row["Events.Attributes"][0]) == {"digest": "0x00"}


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize(
    ("serve", "exporter"), [(serving, OTLPSpanExporter), (serving_by_grpc, GrpcSpanExporter)]
)
def test_the_python_sdk_by_its_environment(
    bus: SqliteBus, headers: str, monkeypatch: pytest.MonkeyPatch, serve: Any, exporter: Any, compression: str
) -> None:
    with serve(bus, TOKENS) as address:
        for name, value in environment(address, headers, compression).items():
            if value != "none":  # which only other SDKs know
                monkeypatch.setenv(name, value)
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(exporter()))
        with provider.get_tracer("x").start_as_current_span("s"):
            pass
        provider.shutdown()
    assert [row["SpanName"] for row in spans_on(bus, OPERATOR)] == ["s"]


@pytest.mark.parametrize(("form", "compression"), [("proto", "none"), ("proto", "gzip"), ("json", "gzip")])
@pytest.mark.real
def test_the_node_sdk(bus: SqliteBus, headers: str, form: str, compression: str) -> None:
    node = shutil.which("node")
    if node is None or not (ROOT / "node_modules" / "@opentelemetry").is_dir():
        pytest.skip("needs anvil: Node, and what `npm install` brings")
    with serving(bus, TOKENS) as address:
        told_so = environment(address, headers, compression)
        sent = ran(node, Path(__file__).with_name("export.mjs"), form, **told_so)
    same(spans_on(bus, OPERATOR), sent, "operator-in-node")
    (record,) = told(bus, OTLP_LOGS)
    (line,) = _values(rows(LOGS, parse(LOGS, record.value), Sender("x")))
    assert (line["Body"], dict(line["LogAttributes"])) == ("hello", {"k": "v"})


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program in Go that exports."""
    return build(tmp_path_factory.mktemp("go") / "export", "build", "./export")


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize(("protocol", "serve"), [("http", serving), ("grpc", serving_by_grpc)])
def test_the_go_sdk(
    bus: SqliteBus, headers: str, exporter: Path, protocol: str, serve: Any, compression: str
) -> None:
    with serve(bus, TOKENS) as address:
        sent = ran(exporter, protocol, **environment(address, headers, compression))
    same(spans_on(bus, OPERATOR), sent, "operator-in-go")


@pytest.mark.parametrize(("protocol", "serve"), [("http", serving), ("grpc", serving_by_grpc)])
def test_the_go_sdk_sends_again_what_the_bus_did_not_take_or_was_too_much(
    bus: SqliteBus,
    headers: str,
    exporter: Path,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
    serve: Any,
) -> None:
    monkeypatch.setattr(refusals, "AFTER", 0.05)
    faulty = Faulty(bus)
    faulty.fault[OTLP_SPANS] = BusError("down")
    quota = Quota(items_per_second=10, burst=1)  # the program sends 10 twice
    with (
        serve(faulty, TOKENS, quota=quota) as address,
        ThreadPoolExecutor(1) as pool,
    ):
        of = environment(address, headers, "gzip")
        sending = pool.submit(ran, exporter, protocol, **of)
        until(lambda: faulty.refused >= 1)
        assert not sending.done()
        faulty.fault.clear()
        sent = sending.result()
        same(spans_on(bus, OPERATOR), sent, "operator-in-go")
        again = [ran(exporter, protocol, **of) for _ in range(2)]
    found = {(row["TraceId"], row["SpanId"]) for row in spans_on(bus, OPERATOR)}
    assert found >= {(trace_id, span_id) for each in again for trace_id, span_id, _ in each}


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str | Path]:
    """A program in Java that exports."""
    return compiled("Export", tmp_path_factory.mktemp("java"))


@pytest.mark.parametrize(
    ("protocol", "serve"), [("http/protobuf", serving), ("grpc", serving_by_grpc)], ids=["http", "grpc"]
)
def test_the_java_sdk_whose_spans_the_bus_did_not_take_at_first(
    bus: SqliteBus, headers: str, java: Sequence[str | Path], protocol: str, serve: Any
) -> None:
    faulty = Faulty(bus)
    faulty.fault[OTLP_SPANS] = BusError("down")
    with serve(faulty, TOKENS) as address, ThreadPoolExecutor(1) as pool:
        told_so = environment(address, headers, "gzip") | {
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_SERVICE_NAME": "operator-in-java",
        }
        sending = pool.submit(ran, *java, **told_so)
        until(lambda: faulty.refused >= 1 or sending.done())
        assert not sending.done()
        faulty.fault.clear()
        sent = sending.result()
    same(spans_on(bus, OPERATOR), sent, "operator-in-java")
    (record,) = told(bus, OTLP_LOGS)
    (line,) = _values(rows(LOGS, parse(LOGS, record.value), Sender("x")))
    assert (line["Body"], dict(line["LogAttributes"])) == ("hello", {"k": "v"})
    (measured,) = told(bus, OTLP_METRICS)
    found = tables(METRICS, parse(METRICS, measured.value), Sender("x"))
    assert "tasks" in {row["MetricName"] for row in _values(found["otel_metrics_sum"])}


# --- with a stock Collector in between ----------------------------------------------------------------


@pytest.fixture(scope="module")
def otelcol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stock Collector."""
    return build(tmp_path_factory.mktemp("otelcol") / "otelcol", "build", ".", module=OTELCOL)


@contextmanager
def passing_on(otelcol: Path, address: str, exporter: str, headers: str) -> Iterator[dict[str, str]]:
    """Where a Collector takes telemetry, by protocol, that brings all to `address` by one of its exporters.
    It has the token, and whoever sends to it needs none."""
    ports = {"http": str(free_port()), "grpc": str(free_port())}
    variables = {
        **{f"{protocol.upper()}_PORT": port for protocol, port in ports.items()},
        "COLLECTOR": address,
        "EXPORTER": exporter,
        "AUTHORIZATION": unquote(headers.removeprefix("authorization=")),
    }
    command = [otelcol, "--config", OTELCOL / "config.yaml"]
    with (
        subprocess.Popen(command, env=os.environ | variables, stderr=subprocess.PIPE, text=True) as running,
        ThreadPoolExecutor(1) as pool,
    ):
        assert running.stderr is not None
        lines = iter(running.stderr.readline, "")
        try:
            assert any("Everything is ready" in line for line in lines)
            pool.submit(list, lines)  # or it would wait until somebody reads them
            yield {protocol: f"127.0.0.1:{port}" for protocol, port in ports.items()}
        finally:
            running.terminate()


@pytest.mark.slow
@pytest.mark.parametrize(("exporter_of", "serve"), [("otlp_http", serving), ("otlp_grpc", serving_by_grpc)])
def test_what_a_stock_collector_passes_on_arrives_once_though_the_bus_was_down(
    bus: SqliteBus, headers: str, exporter: Path, otelcol: Path, exporter_of: str, serve: Any
) -> None:
    faulty = Faulty(bus)
    faulty.fault = {stream: BusError("down") for stream in (OTLP_SPANS, OTLP_LOGS, OTLP_METRICS)}
    with serve(faulty, TOKENS) as address, passing_on(otelcol, address, exporter_of, headers) as takes:
        sent = [ran(exporter, by, **environment(takes[by], "", "gzip")) for by in ("http", "grpc")]

        tracers, loggers = TracerProvider(), LoggerProvider()
        tracers.add_span_processor(BatchSpanProcessor(GrpcSpanExporter(f"http://{takes['grpc']}")))
        loggers.add_log_record_processor(
            SimpleLogRecordProcessor(OTLPLogExporter(f"http://{takes['http']}/v1/logs"))
        )
        tasks = Tasks(HOME.chain_id, MANAGER, OPERATOR.name, tracers, loggers)
        tasks.head(7)
        with tasks.step(Step.EXECUTE, bytes(32)):
            pass
        tasks.close()
        metrics = OTLPMetricExporter(f"http://{takes['http']}/v1/metrics")
        meters = MeterProvider([PeriodicExportingMetricReader(metrics)])
        meters.get_meter("python").create_counter("tasks").add(3)
        meters.shutdown()

        until(lambda: faulty.refused >= 6)
        faulty.fault.clear()
        until(lambda: len(spans_on(bus, OPERATOR)) >= 21 and len(told(bus, NETWORK)) >= 2)
        until(lambda: len(told(bus, OTLP_METRICS)) >= 1)
    found = spans_on(bus, OPERATOR)
    assert len(found) == 21
    for each in sent:
        traces = {trace_id for trace_id, _, _ in each}
        same([row for row in found if row["TraceId"] in traces], each, "operator-in-go")
    batches = [decode(message.value) for message in told(bus, NETWORK)]
    assert all(isinstance(batch, ToldBatch) for batch in batches)
    assert Counter(type(each) for batch in batches for each in batch.told) == {Heartbeat: 1, Report: 1}
    (record,), (measured,) = told(bus, OTLP_LOGS), told(bus, OTLP_METRICS)
    assert [row["EventName"] for row in _values(rows(LOGS, parse(LOGS, record.value), Sender("x")))] == [
        "nektar.heartbeat"
    ]
    assert list(tables(METRICS, parse(METRICS, measured.value), Sender("x"))) == ["otel_metrics_sum"]

"""The collector killed at any moment: what it said yes to is stored once, however often it is sent."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
import urllib.error
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from devnet.kafka import Cluster
from nektar.bus import open as open_bus
from nektar.config import load
from nektar.log import NETWORK, SignedBatch, decode
from nektar.otlp import SPANS
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from processors.telemetry import Telemetry
from tests import otlp
from tests.indexer.test_collector import Client, told
from tests.indexer.test_heard import HOME, MANAGER, attributes
from tests.nektar.bus.reading import until
from tests.seeds import seeds, thorough

REQUESTS, KILLS, PATIENCE = 90, 3, 60.0


def free_address() -> str:
    from nektar.http import bind

    with bind("127.0.0.1:0", "listen.otlp") as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Role:
    """`nektar up ROLE`, killed, and started again wherever it ends, as whoever minds it does."""

    def __init__(self, path: Path, role: str = "collector") -> None:
        self._command = [sys.executable, "-m", "cli.main", "up", role, "--config", str(path)]
        self._start()
        self._over = threading.Event()
        self._minding = threading.Thread(target=self._mind, daemon=True)
        self._minding.start()

    def _start(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)

    def _mind(self) -> None:
        while not self._over.is_set():
            self._process.wait()
            self._start()
        self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        self._over.set()
        self.kill()
        self._minding.join()


def write(folder: Path, bus: str = "", **listen: str) -> Path:
    """The configuration of a collector that listens there."""
    network = {
        "name": "home",
        "chain_id": HOME.chain_id,
        "rpc": ["a"],
        "contracts": {"task_manager": MANAGER},
    }
    config = {
        "data_dir": "data",
        "bus": bus,
        "providers": {"a": {"url": "http://127.0.0.1:1"}},
        "networks": [network],
        "listen": {"metrics": "127.0.0.1:0"} | listen,
        "telemetry": {"unauthenticated": True},
    }
    path = folder / "nektar.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def stored(path: Path) -> tuple[Counter[str], list[Any]]:
    """The ids of spans that are in a store which takes all that is on the bus; and what is on the log."""
    config = load(path)
    with open_bus(config.bus_url) as bus, open_store(config.store_url) as store:
        migrate(store, [])
        with Telemetry(store, bus) as telemetry:
            began = time.time()
            until(lambda: not telemetry.turn() and (telemetry.level_at or 0.0) > began)
        ids = Counter(id_ for (id_,) in store.rows("SELECT SpanId FROM otel_traces"))
        return ids, [decode(message.value) for message in told(bus, NETWORK)]


@pytest.mark.parametrize("seed", range(seeds(1, 5)))
def test_kill_9_loses_nothing_that_was_acknowledged_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    address = free_address()
    path = write(tmp_path, otlp=address, otlp_grpc="")
    bodies = [
        otlp.spans(5, time.time_ns(), seed=(seed, i), attributes=attributes(i)).SerializeToString()
        for i in range(REQUESTS)
    ]
    acknowledged = threading.Semaphore(0)

    def send(body: bytes) -> None:
        """As an exporter does: again, until it is taken."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                status = Client(address).post(body).status
            except (urllib.error.URLError, HTTPException, OSError):
                status = 0
            if status == 200:
                acknowledged.release()
                return
            assert status in (0, 503)
            assert time.monotonic() < deadline
            time.sleep(0.02)

    rng = random.Random(seed)
    role = Role(path)
    try:
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(send, body) for body in bodies]
            for _ in range(KILLS):  # each in the middle of some requests, however fast they are
                for _ in range(rng.randrange(1, REQUESTS // KILLS)):
                    assert acknowledged.acquire(timeout=PATIENCE)
                time.sleep(rng.uniform(0, 0.01))
                role.kill()
            for each in waiting:
                each.result()
    finally:
        role.end()

    ids, signed = stored(path)
    sent = {
        span.span_id.hex()
        for body in bodies
        for span in SPANS.request.FromString(body).resource_spans[0].scope_spans[0].spans
    }
    assert ids == dict.fromkeys(sent, 1)
    responses = [s.response for batch in signed if isinstance(batch, SignedBatch) for s in batch.responses]
    assert set(responses) == {i.to_bytes(64, "big") for i in range(REQUESTS)}
    assert (
        len(responses) <= REQUESTS + 4 * KILLS
    )  # what was under way may stand there twice, which is nothing


@thorough
def test_the_python_sdk_over_grpc_outlives_kill_9(tmp_path: Path) -> None:
    address = free_address()
    path = write(tmp_path, otlp="127.0.0.1:0", otlp_grpc=address)
    made, batches = set[str](), 12
    results: list[SpanExportResult] = []
    done = threading.Semaphore(0)

    class Exporter(OTLPSpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            results.append(super().export(spans))
            done.release()
            return results[-1]

    role = Role(path)
    try:
        provider = TracerProvider()
        exporter = Exporter(f"http://{address}", timeout=PATIENCE)
        provider.add_span_processor(BatchSpanProcessor(exporter, max_export_batch_size=10))
        tracer = provider.get_tracer("x")
        for _ in range(batches * 10):
            with tracer.start_as_current_span("step") as span:
                made.add(f"{span.get_span_context().span_id:016x}")
        with ThreadPoolExecutor(1) as pool:
            flushing = pool.submit(provider.force_flush, PATIENCE * 1000)
            for _ in range(2):
                for _ in range(batches // 4):
                    assert done.acquire(timeout=PATIENCE)
                role.kill()
            assert flushing.result()
        provider.shutdown()
    finally:
        role.end()
    assert results == [SpanExportResult.SUCCESS] * batches
    ids, _ = stored(path)
    assert ids == dict.fromkeys(made, 1)


# Seconds for which a stock exporter tries again what it was told no answer to, or to come later with.
TRIED = 180.0


class Told:
    """What stock exporters were told of the spans that they sent."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.taken, self.refused = set[str](), set[str]()  # ids

    def listening(self, exporter: Any) -> Any:
        """The exporter, whose results are kept."""
        export = exporter.export

        def told(spans: Any) -> SpanExportResult:
            result: SpanExportResult = export(spans)
            ids = {f"{span.context.span_id:016x}" for span in spans}
            with self._changed:
                (self.taken if result is SpanExportResult.SUCCESS else self.refused).update(ids)
                self._changed.notify_all()
            return result

        exporter.export = told
        return exporter

    def wait_for_more(self) -> None:
        with self._changed:
            before = len(self.taken)
            assert self._changed.wait_for(lambda: len(self.taken) > before, TRIED)


class Working:
    """A program that makes spans all the while, and sends them by a stock exporter."""

    def __init__(self, exporter: Any) -> None:
        self.provider = TracerProvider()
        self.provider.add_span_processor(
            BatchSpanProcessor(
                exporter, max_queue_size=1_000_000, max_export_batch_size=20, schedule_delay_millis=50
            )
        )
        self.made = set[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        tracer = self.provider.get_tracer("x")
        while not self._stop.wait(0.02):
            with tracer.start_as_current_span("step") as span:
                self.made.add(f"{span.get_span_context().span_id:016x}")

    def end(self) -> None:
        """Make no more, and send what there is."""
        self._stop.set()
        self._thread.join()
        assert self.provider.force_flush(int(TRIED * 1000))
        self.provider.shutdown()


def a_stopped_bus(seed: int, seconds: float, kills: int, cluster: Cluster, folder: Path) -> str:
    """The bus stopped for so long, and the collector and the store killed then, or after it, and later, while
    stock exporters go on.

    Raises AssertionError where anything is lost that they were told yes to, or is doubled; else a line
    that says what was done.
    """
    folder.mkdir()
    rng = random.Random(f"a stopped bus {seed}")
    http, by_grpc = free_address(), free_address()
    url = f"{cluster.url}?prefix=stop{os.getpid()}.{seed}.&partitions=2&lease=5"
    path = write(folder, url, otlp=http, otlp_grpc=by_grpc, sql=free_address())
    told, (broker,) = Told(), cluster.brokers
    with ExitStack() as ending:
        roles = [Role(path), Role(path, "store")]
        for role in roles:
            ending.callback(role.end)

        def kill() -> None:
            for role in roles:
                role.kill()

        exporters = [HttpSpanExporter(f"http://{http}/v1/traces", timeout=TRIED) for _ in range(3)]
        exporters += [OTLPSpanExporter(f"http://{by_grpc}", timeout=TRIED) for _ in range(3)]
        working = [Working(told.listening(each)) for each in exporters]
        told.wait_for_more()
        broker.freeze()
        ending.callback(broker.thaw)
        stands_for = rng.uniform(0, seconds) if seed % 2 else seconds
        time.sleep(stands_for)
        if stands_for < seconds:
            kill()
            time.sleep(seconds - stands_for)
        broker.thaw()
        for _ in range(kills):
            told.wait_for_more()
            time.sleep(rng.uniform(0, 1))
            kill()
        told.wait_for_more()
        for each in working:
            each.end()
    made = set().union(*(each.made for each in working))
    assert told.taken | told.refused == made
    ids, _ = stored(path)
    assert {id_: ids[id_] for id_ in told.taken} == dict.fromkeys(told.taken, 1)
    assert ids.keys() <= made
    assert set(ids.values()) == {1}
    return (
        f"seed {seed}: the bus stopped for {seconds:.0f} s; of {len(made)} spans {len(told.taken)} were "
        f"taken, and {ids.total()} are stored, each once"
    )


def test_what_was_taken_outlives_a_bus_that_stops_and_kill_9(kafka_cluster: Cluster, tmp_path: Path) -> None:
    a_stopped_bus(1, 4.0, 0, kafka_cluster, tmp_path / "1")


@pytest.mark.slow
def test_what_was_taken_outlives_a_bus_that_stops_for_half_a_minute_and_kill_9(
    kafka_cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(6):
        said = a_stopped_bus(seed, 30.0, 5, kafka_cluster, tmp_path / str(seed))
        with capsys.disabled():
            print(f"\n{said}", end="", flush=True)

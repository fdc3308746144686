"""The collector killed at any moment: what it said yes to is stored once, however often it is sent."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
import urllib.error
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

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

REQUESTS, KILLS, PATIENCE = 90, 3, 60.0


def free_address() -> str:
    from nektar.http import bind

    with bind("127.0.0.1:0", "listen.otlp") as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Role:
    """`nektar up collector`, killed and started again."""

    def __init__(self, path: Path) -> None:
        self._command = [sys.executable, "-m", "cli.main", "up", "collector", "--config", str(path)]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def write(folder: Path, **listen: str) -> Path:
    """The configuration of a collector that listens there."""
    network = {
        "name": "home",
        "chain_id": HOME.chain_id,
        "rpc": ["a"],
        "contracts": {"task_manager": MANAGER},
    }
    config = {
        "data_dir": "data",
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
    bus = open_bus(load(path).bus_url)
    with bus, open_store(f"chdb://{path.parent / 'store'}") as store:
        migrate(store, [])
        with Telemetry(store, bus) as telemetry:
            while telemetry.turn():
                pass
        ids = Counter(id_ for (id_,) in store.rows("SELECT SpanId FROM otel_traces"))
        return ids, [decode(message.value) for message in told(bus, NETWORK)]


@pytest.mark.parametrize("seed", range(2))
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
                role.start()
            for each in waiting:
                each.result()
    finally:
        role.kill()

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
                role.start()
            assert flushing.result()
        provider.shutdown()
    finally:
        role.kill()
    assert results == [SpanExportResult.SUCCESS] * batches
    ids, _ = stored(path)
    assert ids == dict.fromkeys(made, 1)

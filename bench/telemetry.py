"""Telemetry measured: spans a second through the collector onto the bus, and from the bus into the store.

    python -m bench.telemetry

Bodies are encoded beforehand, as a stock exporter sends them: 512 spans, ten attributes and an event each.
Clients and the collector are processes of their own; figures name the bus and the store that they came from.
"""

from __future__ import annotations

import http.client
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import nektar.bus
from nektar.bus.port import Bus, Message
from nektar.http import bind
from nektar.log import OTLP_SPANS
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from processors.telemetry import Telemetry
from tests import otlp

SPANS = 512
BODIES = 200
CLIENTS = 4


def main() -> None:
    """Measure on the embedded bus and store."""
    with tempfile.TemporaryDirectory(prefix="nektar-bench-") as directory:
        print("bus: sqlite, store: chdb")
        for spans, count in ((SPANS, BODIES), (1, 2000)):
            bodies = [body(spans, i) for i in range(count)]
            for kind in ("protobuf", "json") if spans > 1 else ("protobuf",):
                through_the_collector(Path(directory), kind, bodies)
        into_the_store(Path(directory), SPANS, BODIES // 2)
        into_the_store(Path(directory), 1, 200)


def body(spans: int, seed: int) -> bytes:
    """A request, encoded."""
    attributes = [(f"nektar.attribute.{i}", f"0x{i:064x}" if i % 2 else i) for i in range(10)]
    request = otlp.spans(spans, time.time_ns(), seed=seed, attributes=attributes)
    for span in request.resource_spans[0].scope_spans[0].spans:
        span.events.add(name="signed", time_unix_nano=span.start_time_unix_nano)
    return bytes(request.SerializeToString())


def through_the_collector(directory: Path, kind: str, bodies: list[bytes]) -> None:
    """Post all bodies by some clients at once; what the collector took of memory and processor for it."""
    spans = len(otlp.SPANS.request.FromString(bodies[0]).resource_spans[0].scope_spans[0].spans)
    if kind == "json":
        bodies = [otlp.to_json(otlp.SPANS.request.FromString(each)) for each in bodies[:40]]
    with bind("127.0.0.1:0", "listen.otlp") as probe:
        port = probe.getsockname()[1]
    path = directory / "nektar.yaml"
    path.write_text(
        f"data_dir: data-{kind}-{spans}\nproviders: {{a: {{url: x}}}}\n"
        f"listen: {{otlp: '127.0.0.1:{port}', otlp_grpc: ''}}\n"
        "networks: [{name: n, chain_id: 1, rpc: [a], contracts: {}}]\ntelemetry: {unauthenticated: true}\n"
    )
    command = [sys.executable, "-m", "cli.main", "up", "collector", "--config", str(path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            while not answers(port):
                time.sleep(0.05)
            resting = memory(process.pid)
            began, used = time.perf_counter(), processor(process.pid)
            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(lambda i: post(port, kind, bodies[i::CLIENTS]), range(CLIENTS)))
            seconds, used = time.perf_counter() - began, processor(process.pid) - used
            total = spans * len(bodies)
            print(
                f"{len(bodies)} requests of {spans} spans in {kind}, {sum(map(len, bodies)) // total} bytes "
                f"a span: {total / seconds:,.0f} spans/s onto the bus, {total / used:,.0f} a second of the "
                f"collector's processor; it holds {memory(process.pid)} MB, {resting} at rest"
            )
        finally:
            process.terminate()


def answers(port: int) -> bool:
    try:
        return post(port, "protobuf", [b""]) is None
    except OSError:
        return False


def post(port: int, kind: str, bodies: list[bytes]) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        for each in bodies:
            headers = {"content-type": "application/json" if kind == "json" else "application/x-protobuf"}
            connection.request("POST", "/v1/traces", each, headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status


def memory(pid: int) -> int:
    """Resident, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024


def processor(pid: int) -> float:
    """Seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def into_the_store(directory: Path, spans: int, count: int) -> None:
    """Store so many messages that are on the bus."""
    with closing(nektar.bus.open(f"sqlite://{directory}/bus-{spans}")) as bus:
        fill(bus, spans, count)
        with open_store(f"chdb://{directory}/store-{spans}") as store:
            migrate(store, [])
            before = resource.getrusage(resource.RUSAGE_SELF)
            began = time.perf_counter()
            with Telemetry(store, bus) as telemetry:
                while telemetry.turn():
                    pass
            seconds = time.perf_counter() - began
            after = resource.getrusage(resource.RUSAGE_SELF)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            (stored,) = store.rows("SELECT count() FROM otel_traces")[0]
        assert stored == spans * count
    print(
        f"{count} messages of {spans} spans: {stored / seconds:,.0f} spans/s into the store, "
        f"{count / seconds:,.0f} messages/s, {1e3 * used / count:.1f} ms of processor a message"
    )


def fill(bus: Bus, spans: int, count: int) -> None:
    with bus.writer("bench", 0) as writer:
        for i in range(count):
            writer.transaction([Message(OTLP_SPANS, b"", body(spans, i), {"sender": b"bench"})])


if __name__ == "__main__":
    main()

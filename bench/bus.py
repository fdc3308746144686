"""The bus measured: messages and bytes a second, and how long after a commit another process has it.

    python -m bench.bus [URL]        default: the embedded bus, and a Kafka of one broker where one can run

Figures say which bus they came from. Latency is from just before `transaction` is called to `poll` having
returned in another process, by the clock that processes of one machine share.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing

import nektar.bus
from devnet.chain import DevnetError
from devnet.kafka import copied, kafka
from nektar.bus.port import Bus, Message

SMALL = 200  # bytes of a message as findings and small records are
LARGE = 900_000  # bytes of a message as batches of rows are


def main(url: str | None = None) -> None:
    """Measure the bus at the URL, or both."""
    if url:
        measure(url)
        return
    with tempfile.TemporaryDirectory(prefix="nektar-bench-") as directory:
        measure(f"sqlite://{directory}/bus")
    try:
        copied()
    except DevnetError as error:
        print(f"bus: kafka is not measured: {error}")
        return
    with kafka() as cluster:
        measure(cluster.url)


def measure(url: str) -> None:
    print(f"bus: {url.partition('://')[0]}")
    with closing(nektar.bus.open(url)) as bus:
        throughput(bus, "transactions of 1 small message", SMALL, 1, 2000)
        throughput(bus, "transactions of 100 small messages", SMALL, 100, 300)
        throughput(bus, "transactions of 1 large message", LARGE, 1, 300)
        throughput(bus, "transactions of 10 large messages", LARGE, 10, 30)
        transform(bus, 500)
        latency(bus, url, gap=0.05, count=100)
        latency(bus, url, gap=0.0, count=1000)
    idle(url, seconds=3)


def timed(work: Callable[[], int]) -> tuple[int, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def throughput(bus: Bus, what: str, size: int, messages: int, transactions: int) -> None:
    """Write that many transactions into a partition, and read them back by a consumer."""
    stream = f"bench.{size}.{messages}"
    batch = [Message(stream, b"bench/1", bytes(size))] * messages
    total = messages * transactions

    def write() -> int:
        with bus.writer("bench", 0) as writer:
            for _ in range(transactions):
                writer.transaction(batch)
        return total

    def read() -> int:
        got = 0
        with bus.consumer(f"bench-{stream}", [stream]) as consumer:
            while got < total:
                got += len(consumer.poll(1))
        return got

    for verb, work in (("written", write), ("read", read)):
        count, seconds = timed(work)
        rate = count / seconds
        line = f"{what:36} {verb:8} {rate:10,.0f} messages/s {rate * size / 1e6:10,.1f} MB/s"
        print(line + (f" {rate / messages:8,.0f} transactions/s" if verb == "written" else ""))


def transform(bus: Bus, count: int) -> None:
    """Take a message, put one out and commit the offset with it, one by one."""
    taken = []
    with bus.writer("bench-source", 0) as source, bus.writer("bench-transform", 0) as writer:
        source.transaction([Message("bench.source", b"bench/1", bytes(SMALL))] * count)
        with bus.consumer("bench-transform", ["bench.source"]) as consumer:
            while len(taken) < count:
                for message in consumer.poll(1, 20):
                    began = time.perf_counter()
                    out = Message("bench.target", message.key, message.value)
                    writer.transaction([out], {"bench.source": message.offset + 1}, "bench-transform")
                    taken.append(time.perf_counter() - began)
    taken.sort()
    p50, p99 = (taken[int(len(taken) * q)] * 1e3 for q in (0.5, 0.99))
    print(f"consume, transform, produce: p50 {p50:.2f} ms, p99 {p99:.2f} ms a transaction")


def latency(bus: Bus, url: str, gap: float, count: int) -> None:
    """Commit `count` messages, each `gap` s after the last was heard; a child says when it had each."""
    stream = f"bench.latency.{count}"
    command = [sys.executable, "-m", "bench.bus", "--listen", url, stream]
    taken = []
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child,
        bus.writer("bench", 1) as writer,
    ):
        assert child.stdout is not None
        try:
            child.stdout.readline()
            for _ in range(count):
                time.sleep(gap)
                began = time.monotonic_ns()
                writer.transaction([Message(stream, b"bench/1", bytes(SMALL))])
                taken.append(int(child.stdout.readline()) - began)
        finally:
            child.kill()
    taken.sort()
    p50, p99 = (taken[int(len(taken) * q)] / 1e6 for q in (0.5, 0.99))
    print(f"commit to poll in another process, {gap * 1e3:.0f} ms apart: p50 {p50:.2f} ms, p99 {p99:.2f} ms")


def idle(url: str, seconds: int) -> None:
    """How much processor a process takes that waits for messages which do not come."""
    command = [sys.executable, "-m", "bench.bus", "--idle", url, str(seconds)]
    share = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    print(f"waiting takes {share} % of a core")


def _listen(url: str, stream: str) -> None:
    with closing(nektar.bus.open(url)) as bus, bus.consumer("bench-latency", [stream]) as consumer:
        while not consumer.assignment():
            consumer.poll(0.1)
        print("ready", flush=True)
        while True:
            for _ in consumer.poll(10):
                print(time.monotonic_ns(), flush=True)


def _idle(url: str, seconds: str) -> None:
    with closing(nektar.bus.open(url)) as bus, bus.consumer("bench-idle", ["bench.idle"]) as consumer:
        consumer.poll(0.5)
        before = resource.getrusage(resource.RUSAGE_SELF)
        consumer.poll(float(seconds))
        after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{100 * used / float(seconds):.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--listen"]:
        _listen(*sys.argv[2:])
    elif sys.argv[1:2] == ["--idle"]:
        _idle(*sys.argv[2:])
    else:
        main(*sys.argv[1:2])

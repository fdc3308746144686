"""How long a block took on each hop of a run, from moments that others wrote down.

A subscriber's own `newHeads` and an SQL client in another process give the first and the last moment; the bus
keeps when each message was produced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from nektar import bus as buses
from nektar.bus.port import Delivered, partition_of, read_all
from nektar.chain.table import values
from nektar.config import Config
from nektar.log import NETWORK, ROWS, New, Reading, decode
from nektar.rows import ProgressRow

Milliseconds = float


def latencies(
    config: Config, seen: Mapping[str, Sequence[float]], network: str | None = None
) -> dict[str, dict[str, float]]:
    """Hop → {p50, p99, n}. `seen` is block hash → (announced, there), seconds since 1970.

    `log_to_fold` ends when the slowest processor has put out all that follows from the block.
    """
    bus = buses.open(config.bus_url)
    try:
        partition = partition_of(config.network(network).name, bus.partitions)
        logged = dict(_logged(read_all(bus, NETWORK, partition)))
        folded = dict(_folded(read_all(bus, ROWS, partition)))
    finally:
        bus.close()
    announced = {block: moments[0] for block, moments in seen.items()}
    there = {block: moments[1] for block, moments in seen.items()}
    return {
        "block_to_store": figures(_between(announced, there)),
        "block_to_log": figures(_between(announced, logged)),
        # Of the same blocks: those before the first one were folded while roles started.
        "log_to_fold": figures(_between({b: logged[b] for b in announced.keys() & logged.keys()}, folded)),
        "log_to_store": figures(_between(logged, there)),
    }


def _logged(messages: Iterable[Delivered]) -> Iterator[tuple[str, float]]:
    """(block hash, when it was on the log)."""
    read = Reading()
    for message in messages:
        for whole in read(message):
            record = decode(whole.value)
            if isinstance(record, New):
                for block in record.blocks:
                    yield "0x" + block.hash.hex(), message.time


def _folded(messages: Iterable[Delivered]) -> Iterator[tuple[str, float]]:
    """(block hash, when a processor had folded it), in the order of the bus: the slowest processor's last."""
    for message in messages:
        if message.headers.get("table") == ProgressRow.table.encode():
            for row in values(message.value):
                if not row["is_deleted"]:
                    yield "0x" + row["block_hash"].hex(), message.time


def _between(start: Mapping[str, float], end: Mapping[str, float]) -> list[Milliseconds]:
    # A block that returned after a reorg is on the log twice: what counts is the way from start to end.
    return sorted((end[b] - start[b]) * 1000 for b in start.keys() & end.keys() if end[b] >= start[b])


def figures(ordered: Sequence[Milliseconds]) -> dict[str, float]:
    """{p50, p99, n} of durations from the shortest to the longest."""

    def percentile(p: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(p * len(ordered)))], 1) if ordered else 0.0

    return {"p50": percentile(0.5), "p99": percentile(0.99), "n": len(ordered)}

"""Replay: fold a Network's whole log again, in memory, and see that it says what stands on the bus.

It joins no group and writes nothing, so it may run beside the processors; what they put out while it runs
is not compared. Memory is that of one fold, whatever the log's length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from nektar import log
from nektar.bus.port import Bus, Delivered, Message, partition_of, read_all
from nektar.errors import NektarError
from nektar.fold import Fold
from nektar.log import FINDINGS, NETWORK, ROWS, Reading
from nektar.model import Network
from nektar.networks.adapter import Adapter
from processors.handover import HANDOVER_HEADER
from processors.processor import Interpreter, Processor, broken_at


class Replayed(NamedTuple):
    """What a replay met. `digest` is a SHA-256 over all that the fold says of the log; equal logs folded by
    equal versions have equal digests."""

    records: int
    blocks: int  # those undone later included
    events: int
    digest: str
    behind: int  # messages that the log gives and the bus does not hold yet
    difference: str | None  # where the bus first holds something else

    @property
    def agrees(self) -> bool:
        """Whether what stands on the bus is what the log gives, as far as the processor has come."""
        return self.difference is None


def replay(bus: Bus, network: Network, adapter: Adapter, fold: Fold[Any]) -> Replayed:
    """Fold the log of `network` from its first record and compare. Raises BrokenLog, BusError."""
    partition = partition_of(network.name, bus.partitions)
    # The ends of what was put out first, then the log: so everything compared has its cause in the log.
    stands = {stream: _standing(bus, stream, partition, network, fold.name) for stream in (ROWS, FINDINGS)}
    processor = Processor(fold, network, Interpreter(network, adapter))
    digest = hashlib.sha256()
    records = behind = 0
    difference: str | None = None
    read, key = Reading(), log.key(network.name, network.generation)
    for delivered in read_all(bus, NETWORK, partition, end=bus.end(NETWORK, partition)):
        if delivered.key != key:
            continue
        said: list[tuple[int, Message]] = []
        try:
            for record in read(delivered):
                _, messages = processor.take(record)
                said += [(record.offset, message) for message in messages]
                records += 1
        except NektarError as error:
            raise broken_at(delivered, error) from error
        for offset, message in said:
            if message.stream not in stands:
                continue  # of which the newest alone is kept
            for part in (
                message.stream.encode(),
                *map(_line, sorted(message.headers.items())),
                message.value,
            ):
                digest.update(len(part).to_bytes(8, "big") + part)
            found = next(stands[message.stream], None)
            if found is None:
                behind += 1
            elif (dict(found.headers), found.value) != (message.headers, message.value):
                difference = difference or (
                    f"{found.stream}, partition {partition}, offset {found.offset} holds other bytes than "
                    f"the log's record at offset {offset} gives"
                )
    for stream, rest in stands.items():
        for found in rest:
            difference = difference or (
                f"{stream}, partition {partition}, offset {found.offset} has no cause in the log"
            )
    return Replayed(records, processor.blocks, processor.events, digest.hexdigest(), behind, difference)


def _standing(bus: Bus, stream: str, partition: int, network: Network, processor: str) -> Iterator[Delivered]:
    """What the processor has put out for the Network, as of now, but for what a handover made it say."""
    mine = {"generation": str(network.generation).encode(), "processor": processor.encode()}
    end = bus.end(stream, partition)
    return (
        delivered
        for delivered in read_all(bus, stream, partition, end=end)
        if delivered.key == network.name.encode()
        and mine.items() <= dict(delivered.headers).items()
        and HANDOVER_HEADER not in delivered.headers
    )


def _line(header: tuple[str, bytes]) -> bytes:
    name, value = header
    return name.encode() + b":" + value

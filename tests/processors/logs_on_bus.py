"""Logs written to a real bus, and what processors put out for them."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nektar import bus as buses
from nektar import log
from nektar.bus.port import Bus, Message, partition_of
from nektar.bus.sqlite import SqliteBus
from nektar.log import FINDINGS, NETWORK, ROWS, Record
from nektar.model import Network
from processors.processor import Interpreter
from processors.runner import Runner
from tests.nektar.logs import Gossip, Plain, random_log

RECORDS = 60

Put = list[tuple[str, bytes, dict[str, bytes], bytes]]


@functools.cache
def records(seed: int) -> list[Record]:
    """The log of a seed: `RECORDS` of them."""
    return [written.record for written in random_log(random.Random(seed), RECORDS)]


def open_bus(directory: Path, partitions: int = 1) -> SqliteBus:
    bus = buses.open(f"sqlite://{directory}?lease=5&partitions={partitions}")
    assert isinstance(bus, SqliteBus)
    return bus


def write(
    bus: Bus,
    network: Network,
    records: Iterable[Record],
    part_bytes: int = log.PART_BYTES,
    said: Mapping[str, bytes] = {},
) -> None:
    """Append to the Network's log, as an indexer does: a record, whole or in parts, a transaction. All have
    the headers `said`."""
    key = log.key(network.name, network.generation)
    with bus.writer(f"indexer.{network.name}", partition_of(network.name, bus.partitions)) as writer:
        for record in records:
            parts = log.split(log.encode(record), part_bytes)
            writer.transaction(Message(NETWORK, key, part, {**headers, **said}) for part, headers in parts)


def runner(bus: Bus, networks: Sequence[Network]) -> Runner:
    interpreters = {
        log.key(network.name, network.generation): Interpreter(network, Plain()) for network in networks
    }
    return Runner(bus, [Gossip()], networks, interpreters)


def run_to_end(bus: Bus, networks: Sequence[Network]) -> None:
    """Fold all there is. Raises what ended the last Network."""
    with runner(bus, networks) as each:
        while each.turn(0.0):
            pass
        if each.ended:
            raise each.ended


def put_out(bus: Bus, network: Network, stream: str) -> Put:
    """Every message of the Network on `stream`, in order."""
    found: Put = []
    start, partition = 0, partition_of(network.name, bus.partitions)
    while batch := bus.read(stream, partition, start):
        start = batch[-1].offset + 1
        found += [
            (m.stream, m.key, dict(m.headers), m.value) for m in batch if m.key == network.name.encode()
        ]
    return found


def outputs(bus: Bus, *networks: Network) -> list[Put]:
    return [put_out(bus, network, stream) for network in networks for stream in (ROWS, FINDINGS)]

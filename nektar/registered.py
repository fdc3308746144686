"""What key each Operator has now, for whoever has to know it at once: small messages of `nektar.checkpoints`,
of which the newest of each key stays. The fold `operators` says so of each log that it follows.

    registered/NETWORK/GENERATION/ADDRESS   the key, said when it changes, by an undo too; empty: none speaks
                                            for the Operator, who is not registered, or no more
    registered/NETWORK/GENERATION           as of when all this is so of the chain, in seconds since 1970;
                                            where there is none, not every key has been said

What a record of the log changes of both is one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nektar.bus.port import Bus, Delivered, Message, partition_of
from nektar.log import CHECKPOINTS, BrokenLog, key, parse_key
from nektar.model import G1, Address
from nektar.operators import Registry
from nektar.rows import Change, OperatorRow, Row

# The fold that says so.
FOLD = "operators"

_PREFIX = b"registered/"


class Said(NamedTuple):
    """What a message says of a log: of an Operator its key, or of all of them the time."""

    network: str
    generation: int
    operator: Address | None
    key: G1 | None
    time: int = 0


def messages(network: str, generation: int, change: Change) -> list[Message]:
    """What the change of an OperatorRow says; nothing, where the key is the same as before."""
    before, after = _key(change.before), _key(change.after)
    row = change.after or change.before
    if before == after or not isinstance(row, OperatorRow):
        return []
    return [_of(network, generation, row.operator, after)]


def everyone(network: str, generation: int, registry: Registry) -> Iterator[Message]:
    """What is so of each Operator that ever registered, where an earlier version has not said it."""
    for address, operator in registry.operators.items():
        yield _of(network, generation, address, b"" if operator.deregistered else operator.key)


def as_of(network: str, generation: int, time: int) -> Message:
    """Says that all keys of this log are said, and the log was level with its chain then."""
    return Message(CHECKPOINTS, _name(network, generation), str(time).encode())


def is_said(bus: Bus, network: str, generation: int) -> bool:
    """Whether all keys of this log are said. Raises BusError."""
    partition = partition_of(network, bus.partitions)
    return bus.last(CHECKPOINTS, partition, _name(network, generation)) is not None


def read(message: Delivered) -> Said | None:
    """What a message of `nektar.checkpoints` says of keys; None: nothing."""
    if not message.key.startswith(_PREFIX):
        return None
    log, _, address = message.key.removeprefix(_PREFIX).partition(b"/0x")
    try:
        network, generation = parse_key(log)
        if not address:
            return Said(network, generation, None, None, int(message.value))
        operator = Address(bytes.fromhex(address.decode()))
    except (BrokenLog, ValueError):
        return None
    return Said(network, generation, operator, G1(message.value) if message.value else None)


def _key(row: Row | None) -> bytes:
    return row.bls_key if isinstance(row, OperatorRow) and not row.deregistered_block else b""


def _of(network: str, generation: int, operator: bytes, has: bytes) -> Message:
    return Message(CHECKPOINTS, _name(network, generation) + b"/0x" + operator.hex().encode(), has)


def _name(network: str, generation: int) -> bytes:
    return _PREFIX + key(network, generation)

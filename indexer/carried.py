"""What telemetry brought to a Network's log, carried over into the next generation of it.

A new generation's log is made of the chain anew; the responses that Operators signed stand on the older log
alone. All at once, before the first block, they would push each other out of the folds' queues
(`processors/early.py`), so they are put between the blocks where they stood: each after the newest block that
stood before it. Those that the collector brings meanwhile, or a moment after the handover, come the same way.

How far that has come is one small message under `carried/NETWORK/GENERATION` of `nektar.checkpoints`, written
in the transaction that carries: so each is carried once, whenever the process dies.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from nektar.bus.port import Bus, Delivered, Message, partition_of
from nektar.log import CHECKPOINTS, NETWORK, BrokenLog, Gap, New, Reading, SignedBatch, ToldBatch, decode, key

# Messages of at most about 1 MB that are read at once, and carried in one transaction.
PAGE = 64
# Seconds after a handover, and after a start since, for which the older log is looked at: who writes to it
# learns of the handover within moments.
SECONDS_AFTER = 60.0

Item = TypeVar("Item")


class Due(NamedTuple):
    """A record to be carried, and the newest block that stood before it; -1: none did."""

    block: int
    record: Delivered


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """All that stands below `offset` is carried; `block` is the newest one before it."""

    offset: int = 0
    block: int = -1
    over: bool = False


class Carried:
    """The `signed` records of an older log, in order. Not safe to share between threads."""

    def __init__(self, bus: Bus, network: str, older: int, newer: int) -> None:
        """Raises BusError."""
        self._bus = bus
        self._partition = partition_of(network, bus.partitions)
        self._older = key(network, older)
        self._name = f"carried/{network}/{newer}".encode()
        found = bus.last(CHECKPOINTS, self._partition, self._name)
        place = msgspec.json.decode(found.value, type=_Place) if found else _Place()
        self.over = place.over  # nothing more is to be carried
        self._block = place.block
        self._read = place.offset
        self._reading = Reading(place.offset)
        self._due = deque[Due]()

    def due(self, block: int | None = None) -> list[Due]:
        """Those that stood up to this block, or all; they stay due until they are `done`. Raises BusError."""
        while (block is None or self._block <= block) and (
            page := self._bus.read(NETWORK, self._partition, self._read, PAGE)
        ):
            for message in page:
                if message.key == self._older:
                    self._take(message)
            self._read = page[-1].offset + 1
        return list(itertools.takewhile(lambda due: block is None or due.block <= block, self._due))

    def _take(self, message: Delivered) -> None:
        try:
            records = self._reading(message)
        except BrokenLog:  # the older log may be why there is a newer one
            records = self._reading.give_up()
            self._reading = Reading()
        for each in records:
            try:
                record = decode(each.value)
            except BrokenLog:
                continue
            if isinstance(record, New) and record.blocks:
                self._block = max(self._block, record.blocks[-1].number)
            elif isinstance(record, Gap):
                self._block = max(self._block, record.last)
            elif isinstance(record, SignedBatch | ToldBatch):
                self._due.append(Due(self._block, each))

    def so_far(self, due: Sequence[Due]) -> list[Message]:
        """What says on the bus, in their transaction, that these are carried."""
        return [self._message(_Place(due[-1].record.offset + 1, due[-1].block))] if due else []

    def ended(self) -> list[Message]:
        """What says that nothing more is to be carried."""
        return [self._message(_Place(over=True))]

    def done(self, due: Sequence[Due]) -> None:
        """These, the first ones, are carried."""
        for _ in due:
            self._due.popleft()

    def _message(self, place: _Place) -> Message:
        return Message(CHECKPOINTS, self._name, msgspec.json.encode(place))


def between(
    first: int, blocks: Sequence[Item], due: Sequence[Due]
) -> Iterator[tuple[Sequence[Item], list[Due]]]:
    """`blocks`, consecutive from number `first` on, in parts, and what stands after each part: so little that
    a transaction can hold it, so that a part may be of no blocks."""
    at = 0
    last = first + len(blocks) - 1
    for number, group in itertools.groupby(due, lambda each: min(max(each.block, first), last)):
        for those in pages(list(group)):
            yield blocks[at : number - first + 1], those
            at = number - first + 1
    if at < len(blocks):
        yield blocks[at:], []


def pages(due: Sequence[Due]) -> Iterator[list[Due]]:
    """`due`, so many at a time as one transaction carries."""
    return (list(due[at : at + PAGE]) for at in range(0, len(due), PAGE))

"""A real bus whose user dies at a chosen moment of the order of operations (docs/DESIGN.md)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from nektar.bus.port import Bus, Consumer, Delivered, Message, Writer

WRITER_OPENED = "writer opened"
OFFSET_READ = "offset read"
CHECKPOINT_READ = "checkpoint read"
SOUGHT = "sought"
POLLED = "batch polled"
FOLDED = "batch folded"
INSIDE = "inside the transaction"  # SQLite alone: before its COMMIT
COMMITTED = "transaction done"
POINTS = (WRITER_OPENED, OFFSET_READ, CHECKPOINT_READ, SOUGHT, POLLED, FOLDED, INSIDE, COMMITTED)


class Died(BaseException):
    """The end of the process, where the test itself must live on."""


def raise_died() -> NoReturn:
    raise Died


class DyingBus:
    """`bus`, until `point` is passed for the `n`-th time: then `die` is called."""

    def __init__(self, bus: Bus, point: str, n: int, die: Callable[[], NoReturn] = raise_died) -> None:
        self._bus = bus
        self._point = point
        self._left = n
        self._die = die
        self.id, self.partitions = bus.id, bus.partitions

    def passed(self, point: str) -> None:
        if point == self._point:
            self._left -= 1
            if self._left == 0:
                self._die()

    def writer(self, transactional_id: str, partition: int) -> DyingWriter:
        writer = DyingWriter(self, self._bus.writer(transactional_id, partition))
        self.passed(WRITER_OPENED)
        return writer

    def consumer(self, group: str, streams: Sequence[str], **callbacks: Any) -> DyingConsumer:
        return DyingConsumer(self, self._bus.consumer(group, streams, **callbacks))

    def last(self, stream: str, partition: int, key: bytes) -> Delivered | None:
        found = self._bus.last(stream, partition, key)
        self.passed(CHECKPOINT_READ)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


class DyingWriter:
    def __init__(self, bus: DyingBus, writer: Writer) -> None:
        self._bus = bus
        self._writer = writer

    def transaction(
        self, messages: Iterable[Message], offsets: Mapping[str, int] | None = None, group: str | None = None
    ) -> None:
        self._bus.passed(FOLDED)
        DyingConnection.bus = self._bus
        self._writer.transaction(messages, offsets, group)
        DyingConnection.bus = None
        self._bus.passed(COMMITTED)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


class DyingConsumer:
    def __init__(self, bus: DyingBus, consumer: Consumer) -> None:
        self._bus = bus
        self._consumer = consumer

    def poll(self, timeout: float, max_messages: int = 500) -> Sequence[Delivered]:
        batch = self._consumer.poll(timeout, max_messages)
        if batch:
            self._bus.passed(POLLED)
        return batch

    def committed(self, stream: str, partition: int) -> int | None:
        offset = self._consumer.committed(stream, partition)
        self._bus.passed(OFFSET_READ)
        return offset

    def seek(self, stream: str, partition: int, offset: int) -> None:
        self._consumer.seek(stream, partition, offset)
        self._bus.passed(SOUGHT)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


class DyingConnection(sqlite3.Connection):
    """A connection that may not live to see its transaction's COMMIT."""

    bus: DyingBus | None = None

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == "COMMIT" and DyingConnection.bus:
            DyingConnection.bus.passed(INSIDE)
        return super().execute(sql, *parameters)

"""The store role's other half: telemetry from the bus into `otel_traces`, `otel_logs` and `otel_metrics_…`.

A message is one insert into each table that it has rows of, with a token made of its bytes and its sender, so
that what is read twice, or was sent twice by a client that got no answer, is stored once. What can't be
stored goes to `nektar.dead`, whole, and the next one is taken: nothing that telemetry holds stops the store.
A store that can't take parts as fast as they come takes no telemetry for a moment; the Networks go on.

A message is the bus's and a letter is a Network's stream, so no transaction moves both: a letter is written
before its message is done with, and not again where it is there.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import deque
from typing import Self

from nektar import senders
from nektar.arrow import pa
from nektar.bus.level import Level
from nektar.bus.port import Bus, Delivered, Fenced, Writer
from nektar.errors import NektarError
from nektar.log import DEAD, TELEMETRY
from nektar.otlp import SIGNALS, BadRequest, Signal, parse
from nektar.senders import Sender
from nektar.store.otel import tables
from nektar.store.port import TOO_MANY_PARTS, SqlError, Store, StoreDown
from processors.letters import letter, letter_key, where
from processors.stored import rows_stored

log = logging.getLogger(__name__)

GROUP = "store.telemetry"
# Messages read ahead, of up to 1 MB each.
AHEAD = 32
# Seconds of inserts after which offsets are committed: what a crash repeats.
COMMIT_EVERY = 0.25
# Seconds to leave a store alone whose merges are behind.
PAUSE = 1.0

_SIGNALS = {signal.stream: signal for signal in SIGNALS}


class Telemetry:
    """A member of group `store.telemetry`. Entering joins it, leaving gives its partitions back."""

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._read: deque[Delivered] = deque()  # and not yet stored
        self._done: dict[tuple[str, int], int] = {}  # offset to commit: all before it is stored
        self._committed = time.monotonic()
        self._paused_until = 0.0
        self._writers: dict[int, Writer] = {}

    def __enter__(self) -> Self:
        self._consumer = self._bus.consumer(GROUP, TELEMETRY)
        self._level = Level(self._consumer, TELEMETRY)
        return self

    def __exit__(self, *exc: object) -> None:
        for writer in self._writers.values():
            writer.close()
        self._consumer.close()

    @property
    def level_at(self) -> float | None:
        """When the bus had nothing more than what is stored, in seconds since 1970, as far as is known."""
        return self._level.at

    @property
    def paused(self) -> bool:
        """Whether the store is left alone for a moment."""
        return time.monotonic() < self._paused_until

    def turn(self) -> bool:
        """Store one message, if there is one now; whether there was. Raises StoreDown, BusError."""
        if self.paused:
            return False
        if not self._read:
            self._commit()  # before polling, which may take partitions away
            self._read.extend(self._level.poll(0.0, AHEAD))
        if not self._read:
            return False
        message = self._read[0]
        try:
            self._store_one(message)
        except StoreDown as error:
            if error.code != TOO_MANY_PARTS:
                raise
            log.warning("telemetry waits %.0f s: %s", PAUSE, error)
            self._paused_until = time.monotonic() + PAUSE
            return False
        except Fenced as error:
            # Another member has had the partition meanwhile. Where it has come back to us, or the other ended
            # before it wrote this letter, it is ours to write.
            log.warning("%s", error)
            if writer := self._writers.pop(message.partition, None):  # none where opening it was refused
                writer.close()
            return False
        self._read.popleft()
        self._level.took([message])
        self._done[message.stream, message.partition] = message.offset + 1
        if time.monotonic() - self._committed > COMMIT_EVERY:
            self._commit()
        return True

    def _store_one(self, message: Delivered) -> None:
        signal = _SIGNALS[message.stream]
        sender = senders.of(message.headers)
        try:
            found = _tables(signal, message.value, sender)
            said = "\0".join((*sender, "")).encode()
            digest = hashlib.sha256(said + message.value).hexdigest()
            for name, table in found.items():
                if table.num_rows:
                    self._store.insert(name, table, f"{signal.name}:{digest}")
                    rows_stored.add(table.num_rows, {"table": name})
        except (BadRequest, SqlError) as error:
            self._bury(message, error)

    def _bury(self, message: Delivered, error: NektarError) -> None:
        if self._bus.last(DEAD, message.partition, letter_key(message)):
            return
        log.error("%s is a dead letter: %s", where(message), error)
        writer = self._writers.get(message.partition)
        if writer is None:
            name = f"{GROUP}-{message.partition}"
            writer = self._writers[message.partition] = self._bus.writer(name, message.partition)
        writer.transaction(letter(message, message.value, error))

    def _commit(self) -> None:
        self._committed = time.monotonic()
        for (stream, partition), offset in self._done.items():
            try:
                self._consumer.commit(stream, partition, offset)
            except Fenced as error:
                log.warning("%s", error)  # whoever has it now reads again what was not committed
        self._done.clear()


def _tables(signal: Signal, value: bytes, sender: Sender) -> dict[str, pa.Table]:
    """The rows of a message. Raises BadRequest, whatever is wrong with it: who wrote it may be anybody."""
    try:
        return tables(signal, parse(signal, value), sender)
    except (
        pa.ArrowException,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise BadRequest(f"{type(error).__name__}: {error}") from error

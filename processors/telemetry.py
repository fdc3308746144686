"""The store role's other half: telemetry from the bus into `otel_traces`, `otel_logs` and `otel_metrics_…`.

What lies on the bus when it looks is stored in batches (`batches.py`), each one insert into every table that
it has rows of; and it looks every two seconds, unless there is more than it takes at once. What is read
twice, or was sent twice by a client that got no answer, is stored once. What can't be stored goes to
`nektar.dead`, whole, and the next one is taken: nothing that telemetry holds stops the store. A store that
can't take parts as fast as they come takes no telemetry for a moment; the Networks go on.

A message is telemetry's and a letter is a Network's stream, so no transaction moves both: a letter is written
before its message is done with, and not again where it is there.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, Self

from nektar import senders
from nektar.arrow import pa
from nektar.bus.level import Level
from nektar.bus.port import Bus, Delivered, Fenced, Writer, read_all
from nektar.errors import NektarError
from nektar.log import DEAD, TELEMETRY
from nektar.otlp import SIGNALS, BadRequest, Signal, parse
from nektar.senders import Sender
from nektar.store.otel import tables
from nektar.store.port import TOO_MANY_PARTS, SqlError, Store, StoreDown
from processors.batches import Batch, Known, Rows, Source, agreed, digest, joined, token
from processors.letters import letter, letter_key, where
from processors.stored import rows_stored

log = logging.getLogger(__name__)

GROUP = "store.telemetry"
# Messages read ahead, of up to 1 MB each.
AHEAD = 96
# Seconds until it looks again, unless it has found as many: so that more of a partition comes together.
EVERY = 2.0
# Seconds to leave a store alone whose merges are behind.
PAUSE = 1.0

_SIGNALS = {signal.stream: signal for signal in SIGNALS}


@dataclass
class _Held:
    """A source that is ours, of which all before offset `next` is stored or being inserted."""

    next: int
    known: Known


class _UnderWay(NamedTuple):
    """A batch that is agreed, and what becomes of its insert: what of it can't be stored, and why. None: that
    is still to begin."""

    batch: Batch
    insert: Future[list[tuple[Rows, SqlError]]] | None = None


class Telemetry:
    """A member of group `store.telemetry`. Entering joins it, leaving gives its partitions back."""

    def __init__(self, store: Store, bus: Bus, inserting: Executor | None = None) -> None:
        """`inserting` has one thread; None: one is made."""
        self._store = store
        self._bus = bus
        self._read: deque[Delivered] = deque()  # and in no batch yet; source by source
        self._batch: Batch | None = None  # that is being made
        self._under_way: _UnderWay | None = None
        self._held: dict[Source, _Held] = {}  # of which there was a message
        self._writers: dict[int, Writer] = {}
        self._inserting = inserting or ThreadPoolExecutor(1, "telemetry")
        self._looks_at = 0.0
        self._paused_until = 0.0

    def __enter__(self) -> Self:
        self._consumer = self._bus.consumer(GROUP, TELEMETRY, on_revoked=self._revoked)
        self._level = Level(self._consumer, TELEMETRY)
        return self

    def __exit__(self, *exc: object) -> None:
        self._inserting.shutdown()
        for writer in self._writers.values():
            writer.close()
        self._consumer.close()

    @property
    def level_at(self) -> float | None:
        """When the bus had nothing more than what is stored, in seconds since 1970, as far as is known."""
        level = self._level.at
        if level is None or self._under_way is None:
            return level
        return min(level, self._under_way.batch.messages[0].time)

    @property
    def inserts(self) -> bool:
        """Whether a batch is being inserted."""
        return self._under_way is not None and not self.paused

    @property
    def paused(self) -> bool:
        """Whether the store is left alone for a moment."""
        return time.monotonic() < self._paused_until

    def turn(self) -> bool:
        """Make rows of one message, or begin or end with a batch of them, if there is one now; whether there
        was. Raises StoreDown, BusError."""
        if self.paused:
            return False
        try:
            return self._step()
        except StoreDown as error:
            if error.code != TOO_MANY_PARTS:
                raise
            log.warning("telemetry waits %.0f s: %s", PAUSE, error)
            self._paused_until = time.monotonic() + PAUSE
        except Fenced as error:
            # Another member has had a partition meanwhile. Where it has come back to us, or the other ended
            # before it had done anything, it is ours to begin again where the group is.
            log.warning("%s", error)
            self._begin_anew()
        return False

    def _step(self) -> bool:
        match self._under_way:
            case _UnderWay(batch, None):
                self._under_way = _UnderWay(batch, self._inserting.submit(self._insert, batch.rows))
                return True
            case _UnderWay(batch, Future() as insert) if insert.done():
                self._end(batch, insert)
                return True
        if self._batch and (self._batch.is_full or self._source != self._batch.source):
            if self._under_way:
                return False
            self._begin(self._batch)
            return True
        if source := self._source or self._look():
            self._gather(source)
            return True
        return False

    @property
    def _source(self) -> Source | None:
        """Of the next message, where one is read."""
        return _source(self._read[0]) if self._read else None

    def _look(self) -> Source | None:
        """Read what there is; of what the first of it is."""
        if time.monotonic() < self._looks_at:
            return None
        self._read.extend(sorted(self._level.poll(0.0, AHEAD), key=_source))
        if 0 < len(self._read) < AHEAD:
            self._looks_at = time.monotonic() + EVERY
        return self._source

    def _gather(self, source: Source) -> None:
        """Add the next message of this source to the batch."""
        held = self._held.get(source) or self._take_up(source)
        message = self._read[0]
        if message.offset >= held.next:
            batch = self._batch or Batch(source, held.next)
            rows = self._rows(message)
            if rows and not batch.takes(rows.tables):
                batch.is_full = True
                return
            batch.add(message, None if rows and rows.digest in held.known else rows)
            self._batch = batch
        self._read.popleft()

    def _take_up(self, source: Source) -> _Held:
        """Begin with a source: whoever had it before agrees to nothing more, and what was agreed is done."""
        self._writer(source.partition)
        last = agreed(self._bus, source)
        held = _Held(self._consumer.committed(*source) or 0, Known(last.known))
        if last.first == held.next < last.end:
            batch, of_it = Batch(source, last.first), Known(last.digests)
            for message in read_all(self._bus, *source, last.first, last.end):
                rows = self._rows(message)
                batch.add(message, rows if rows and rows.digest in of_it else None)
            self._commit(batch, self._insert(batch.rows))
            held.next = batch.end
        held.known.add(last.digests)
        self._held[source] = held
        return held

    def _begin(self, batch: Batch) -> None:
        """Agree on the batch that was made; then it is inserted."""
        held = self._held[batch.source]
        self._writer(batch.source.partition).transaction([batch.agreement(held.known)])
        held.next = batch.end
        held.known.add(batch.digests)
        self._batch, self._under_way = None, _UnderWay(batch)

    def _end(self, batch: Batch, insert: Future[list[tuple[Rows, SqlError]]]) -> None:
        """Be done with a batch that was inserted; else it is inserted again."""
        self._under_way = _UnderWay(batch)
        self._commit(batch, insert.result())
        self._under_way = None

    def _commit(self, batch: Batch, refused: Sequence[tuple[Rows, SqlError]]) -> None:
        for rows, error in refused:
            self._bury(rows.message, error)
        self._consumer.commit(*batch.source, batch.end)
        self._level.took(batch.messages)

    def _insert(self, of: Sequence[Rows]) -> list[tuple[Rows, SqlError]]:
        """Each table's rows at once; where these can't be stored together, message by message. What can't be
        stored, and why. Raises StoreDown."""
        names = dict.fromkeys(name for rows in of for name in rows.tables)
        return [
            refused
            for name in names
            for refused in self._insert_into(name, [rows for rows in of if name in rows.tables])
        ]

    def _insert_into(self, name: str, of: Sequence[Rows]) -> list[tuple[Rows, SqlError]]:
        table = joined([rows.tables[name] for rows in of])
        try:
            self._store.insert(name, table, token(of))
        except SqlError as error:
            if len(of) == 1:
                return [(of[0], error)]
            return [refused for rows in of for refused in self._insert_into(name, [rows])]
        rows_stored.add(table.num_rows, {"table": name})
        return []

    def _rows(self, message: Delivered) -> Rows | None:
        """What is to be inserted of a message; None: it is a dead letter."""
        try:
            found = _tables(_SIGNALS[message.stream], message.value, senders.of(message.headers))
        except BadRequest as error:
            self._bury(message, error)
            return None
        return Rows(message, digest(message), {name: rows for name, rows in found.items() if rows.num_rows})

    def _bury(self, message: Delivered, error: NektarError) -> None:
        if self._bus.last(DEAD, message.partition, letter_key(message)):
            return
        log.error("%s is a dead letter: %s", where(message), error)
        self._writer(message.partition).transaction(letter(message, message.value, error))

    def _writer(self, partition: int) -> Writer:
        if partition not in self._writers:
            self._writers[partition] = self._bus.writer(f"{GROUP}-{partition}", partition)
        return self._writers[partition]

    def _begin_anew(self) -> None:
        """Read again, in all that is ours, what is not committed."""
        held = self._consumer.assignment()
        self._revoked(held | self._writers.keys())
        for stream, partition in product(TELEMETRY, held):
            self._consumer.seek(stream, partition, self._consumer.committed(stream, partition) or 0)

    def _revoked(self, partitions: frozenset[int]) -> None:
        self._read = deque(message for message in self._read if message.partition not in partitions)
        if self._batch and self._batch.source.partition in partitions:
            self._batch = None
        match self._under_way:
            case _UnderWay(batch, insert) if batch.source.partition in partitions:
                wait([insert] if insert else [])  # it is agreed: whoever has it next inserts the same
                self._under_way = None
        for partition in partitions & self._writers.keys():
            self._writers.pop(partition).close()
        self._held = {
            source: held for source, held in self._held.items() if source.partition not in partitions
        }


def _source(message: Delivered) -> Source:
    return Source(message.stream, message.partition)


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

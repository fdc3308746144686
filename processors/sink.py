"""The store role: puts what the bus carries into the store, and answers SQL meanwhile.

At least once, with effect exactly once. The record is the unit: one insert per record and table, with the
token `generation:stream:partition:offset:table:digest`, by which the store drops an insert that it has
seen; and with `version = generation << 48 | offset`, so that even one that it has forgotten changes nothing.
Of processors' progress there is one insert for all records that came together, whose rows have those
versions: read again in other company they stand twice until parts are merged, and count once.
Offsets are committed after the inserts. Killed anywhere in between, it reads the same records again; and so
it does where the store lacks what is committed (`stored.py`).

What a reader may rely on:

* a block in `blocks` has all its events and calls in the store: its row is written last, struck out first;
* a processor's `progress` names a block whose consequences are all in the store, findings included;
* a row that an `undo` took back is struck out by the same row with a later version.

A record that can't be stored goes to `nektar.dead`, whole, with the reason, and the next one is taken. A
store that is down or full is no fault of a record: the role stops and says so, and nothing is lost.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from typing import NamedTuple, Self

from opentelemetry.trace import use_span
from opentelemetry.util.types import AttributeValue

from nektar import generations, trace
from nektar.bus.level import Level
from nektar.bus.port import Bus, Consumer, Delivered, Fenced, Writer, partition_of
from nektar.config import Config
from nektar.errors import NektarError
from nektar.health import Health
from nektar.log import AHEAD_HEADER, FINDINGS, NETWORK, ROWS, BrokenLog, Readings
from nektar.networks.adapter import Adapter
from nektar.role import give_up
from nektar.rows import ChainSpan, ProgressRow
from nektar.store.client import open_store
from nektar.store.migrate import abi_tables, migrate
from nektar.store.otel import delete_chain_spans
from nektar.store.port import SqlError, Store, StoreDown, StoreHeld, chdb_path, shown
from nektar.store.schema import Table
from nektar.store.serve import serve
from nektar.store.service import say_objectives
from processors.inserts import BrokenRecord, Insert, Place, inserts, is_of, joined, place_of
from processors.letters import letter, where
from processors.said import whole
from processors.stored import GENERATIONS, Generations, positions, read_again, rows_stored
from processors.telemetry import Telemetry

log = logging.getLogger(__name__)

# The parts of the role, in its health.
NETWORKS, TELEMETRY = "networks", "telemetry"

GROUP = "store"
STREAMS = (NETWORK, FINDINGS, ROWS)
# Seconds to wait for the Networks' streams when there is no telemetry, which is looked for in between.
IDLE = 0.05
# … and while telemetry is being inserted.
SOON = 0.005
# Messages read at once, when no more are left of those before.
AT_ONCE = 16
# Seconds of inserts after which it looks for blocks again, which stand behind no queue of what folds put out.
# An insert takes some milliseconds, and several ten on a busy machine.
LOOK_EVERY = 0.03
# Seconds of inserts after which offsets are committed, while there is more to read: what a crash repeats.
COMMIT_EVERY = 0.25
# Seconds that what processors say of their progress waits for what others say of the same block, while
# something comes, and no longer than the turn that is under way then.
MOST_WAIT = 0.1
# Seconds for which whoever reads waits for the interpreter, again and again, while rows are made of
# telemetry. By Python's own 0.005 one small query in a hundred took a third longer.
SWITCH_SECONDS = 0.0005
# Readers' queries take moments; whoever holds the store longer is another store role.
HELD_SECONDS = 5.0

# Of the row that says that a generation is shown: above whatever said that it has begun.
LAST_OFFSET = (1 << 48) - 1


def run(
    config: Config,
    adapters: Mapping[str, Adapter],
    bus: Bus,
    stop: threading.Event,
    health: Health,
    processors: Collection[str] | None = None,
) -> None:
    """Be the store role until `stop`; `processors` as of `Sink`.

    Raises StoreDown where the store can't be opened, or goes down or full; StoreError, BusError.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    for part in (NETWORKS, TELEMETRY):
        health.opened(part)
    with _opened(config.store_url, stop) as store:
        for name in migrate(store, adapters.values()):
            log.info("migration %s applied", name)
        say_objectives(store, {network.name: network.objective for network in config.networks})
        # A server's queries do not run in this process, so nothing would come of its end.
        on_stuck = give_up if chdb_path(config.store_url) else None
        with serve(store, config.listen.sql, on_stuck) as endpoint:
            log.info("%s is open; SQL at http://%s", shown(config.store_url), endpoint.address)
            known = abi_tables(adapters.values())
            moved = partial(health.moved, NETWORKS)
            with Sink(store, bus, known, moved, processors) as sink, Telemetry(store, bus) as telemetry:
                take_turns(sink, telemetry, stop, health)


def take_turns(networks: Sink, telemetry: Telemetry, stop: threading.Event, health: Health) -> None:
    """Store what both have until `stop`: rows are made of one message of telemetry between two looks at the
    Networks, which wait for no more than that, and of so much even while these have more. Raises StoreDown,
    BusError."""
    brought = False
    while not stop.is_set():
        busy = telemetry.turn()
        if telemetry.paused:
            health.waits(TELEMETRY, "the store's merges are behind")
        else:
            health.level(TELEMETRY, telemetry.level_at)
        # Before it waits it looks whether there is more, unless what it has waits for that.
        at_once = busy or (brought and not networks.waits)
        brought = networks.turn(0.0 if at_once else SOON if telemetry.inserts else IDLE, stop)
        health.level(NETWORKS, networks.level_at)


def _opened(url: str, stop: threading.Event) -> Store:
    """The store, waited for while a reader has it: who finds no store role opens it for a query."""
    deadline = time.monotonic() + HELD_SECONDS
    while True:
        try:
            return open_store(url)
        except StoreHeld:
            if time.monotonic() > deadline or stop.wait(0.02):
                raise


class Sink:
    """A member of group `store`: reads the bus and writes the store. One thread.

    Entering joins the group, leaving gives its partitions back.
    """

    def __init__(
        self,
        store: Store,
        bus: Bus,
        known: Mapping[str, Table],
        moved: Callable[[], None] = lambda: None,
        processors: Collection[str] | None = None,
    ) -> None:
        """`moved` is called with each record that is stored. `processors` are those that there are; None: all
        that have said something."""
        self._store = store
        self._processors = processors
        self._moved = moved
        self._bus = bus
        self._known = known
        self._generations: Generations  # read anew with each partition, which another member may have had
        self._standing = set[tuple[str, int]]()  # (Network, generation) of records that were not ahead
        self._stored = False  # … something, since it was last looked whether a newer generation is complete
        self._consumer: Consumer
        self._level: Level
        self._writers: dict[int, Writer] = {}
        self._queue: list[Delivered] = []  # read and not yet taken, blocks first
        self._half: dict[tuple[str, int], Readings] = {}  # records half read
        self._taken: dict[tuple[str, int], int] = {}  # next offset to take
        self._done: dict[tuple[str, int], int] = {}  # offset to commit: all before it is stored
        self._buried_below: dict[tuple[str, int], int] = {}  # dead letters below it have been written
        self._drained = set[int]()  # partitions whose findings are taken as far as this poll knows of any
        self._behind = set[int]()  # partitions of which the store lacks findings
        self._progress: list[_Progress] = []  # that waits for what others say of the same block
        self._committed = time.monotonic()
        self._stop: threading.Event | None = None

    def __enter__(self) -> Self:
        self._consumer = self._bus.consumer(
            GROUP, STREAMS, on_assigned=self._assigned, on_revoked=self._revoked
        )
        self._level = Level(self._consumer, STREAMS)
        return self

    def __exit__(self, failed: type[BaseException] | None, *exc: object) -> None:
        try:
            if failed is None:  # what is taken is not left to whoever opens it next
                self._end()
        finally:
            for writer in self._writers.values():
                writer.close()
            self._consumer.close()

    def _end(self) -> None:
        with suppress(Fenced, _Stopped):  # then whoever has it next reads again what is not committed
            self._put_progress()
        self._commit()

    @property
    def waits(self) -> bool:
        """Whether something is not stored yet, for what may come with it."""
        return bool(self._progress)

    @property
    def level_at(self) -> float | None:
        """When the bus had nothing more than what is stored, in seconds since 1970, as far as is known."""
        level = self._level.at
        return level and min((level, *(message.time for message in self._queue)))

    def turn(self, timeout: float, stop: threading.Event | None = None) -> bool:
        """Look what there is, waiting up to `timeout` s where it has nothing, and for a moment store of that,
        blocks first; whether there was anything."""
        if len(self._queue) <= AT_ONCE:
            more = self._level.poll(0.0 if self._queue else timeout, AT_ONCE)
            self._queue = sorted((*self._queue, *more), key=_after_blocks)
        busy = bool(self._queue)
        self._drained.clear()
        self._stop = stop
        try:
            self._take_some()
            if self._progress and not (busy and time.monotonic() - self._progress[0].since < MOST_WAIT):
                self._put_progress()
            if self._stored and not self._progress:  # which tells what a generation lacks
                self._look_whether_to_cut_over()
        except _Stopped:
            self._commit()
            return True
        except Fenced as error:  # another has had a partition meanwhile, whose letters it wrote
            log.warning("%s", error)
            self._begin_anew()
            return True
        if not self._queue:
            self._commit()
        return busy

    def _take_some(self) -> None:
        """Store the first of what is read, and more while it is not time to look for blocks again."""
        looks_at = time.monotonic() + LOOK_EVERY
        taken: list[Delivered] = []
        while self._queue and (not taken or time.monotonic() < looks_at):
            taken.append(self._queue.pop(0))
            self._take(taken[-1])
            self._between()
        self._level.took(taken)

    def _between(self) -> None:
        """Between two messages: say that it goes on, and commit now and then, by which the bus sees so, too.
        Raises _Stopped."""
        self._moved()
        if time.monotonic() - self._committed > COMMIT_EVERY:
            self._commit()
        if self._stop is not None and self._stop.is_set():
            raise _Stopped

    def _take(self, message: Delivered) -> None:
        """Store what is whole with one message, unless it has been."""
        source = message.stream, message.partition
        if message.offset < self._taken.get(source, 0):
            return
        self._taken[source] = message.offset + 1
        readings = self._half.setdefault(source, Readings())
        records, error = readings(message)
        done = None if readings.began is not None else message.offset + 1
        if error is not None:
            for held_back in records:
                self._put(held_back, None)
            self._bury(message, done, error)
            return
        for record in records:
            self._put(record, done if record is records[-1] else None)

    def _put(self, record: Delivered, done: int | None) -> None:
        """Store a whole record, or bury it. All before offset `done` is stored then, where that is known."""
        said: dict[str, AttributeValue] = {"nektar.stream": record.stream, trace.OFFSET: record.offset}
        with use_span(trace.under("store", trace.carried(record.headers), said), end_on_exit=True):
            self._put_in(record, done)

    def _put_in(self, record: Delivered, done: int | None) -> None:
        try:
            # Rows tell whether the store is behind (`read_again`): none before the findings that it lacks.
            if record.stream == ROWS and record.partition in self._behind:
                self._drain_findings(record.partition)
                self._behind.discard(record.partition)
            if to_store := inserts(record, record.value, self._known):
                place, ahead = place_of(record), AHEAD_HEADER in record.headers
                self._begin(place.network, place.generation, place.partition, ahead)
                if not ahead:
                    self._standing.add((place.network, place.generation))
                if is_of(record, ProgressRow):
                    (row,) = to_store
                    self._progress.append(_Progress(record, done, row, time.monotonic()))
                elif not is_of(record, ChainSpan) or place.generation == self._generations.shown(
                    place.network
                ):
                    if record.stream == ROWS:  # what the store has of rows is all below the last of them
                        self._put_progress()
                    self._insert(to_store)
                self._stored = True
        except (BrokenRecord, BrokenLog, SqlError) as error:
            self._bury(record, done, error)
            return
        if done is not None:
            self._done[record.stream, record.partition] = done

    def _put_progress(self) -> None:
        """Store what processors said of their progress, all at once: after each block they say so one after
        the other, and an insert of one row takes as long as one of ten. Each row has its record's version."""
        if not self._progress:
            return
        for partition in {each.record.partition for each in self._progress}:
            self._drain_findings(partition)
        try:
            self._insert([joined([each.insert for each in self._progress])])
            self._progress = []
        except SqlError:
            while self._progress:  # to find which of them it is
                each = self._progress[0]
                try:
                    self._insert([each.insert])
                except SqlError as error:
                    self._write_off(each.record, each.done, error)
                del self._progress[0]

    def _insert(self, inserts: Sequence[Insert]) -> None:
        for table, rows, token in inserts:
            self._store.insert(table, rows, token)
            rows_stored.add(rows.num_rows, {"table": table})

    def _begin(self, network: str, generation: int, partition: int, ahead: bool) -> None:
        """Say that there is this generation of the Network's log, before the first rows of it."""
        if (row := self._generations.begin(network, generation, ahead)) is not None:
            place = Place(network, generation, NETWORK, partition, 0)
            self._store.insert(*place.insert(GENERATIONS, row, False, "begun"))

    def _look_whether_to_cut_over(self) -> None:
        """Streams come in an order of their own, so that it may be anything that was lacking last."""
        for network, generation in self._generations.newer():
            partition = partition_of(network, self._bus.partitions)
            stands = (network, generation) in self._standing
            if (ROWS, partition) in self._taken and self._generations.complete(
                network, generation, self._processors, stands=stands
            ):
                self._cut_over(Place(network, generation, ROWS, partition, LAST_OFFSET))
        self._stored = False

    def _cut_over(self, place: Place) -> None:
        """Show this generation, which is newer than the one shown, and all of which is there.

        What the chain tells of Tasks stands among spans, where no view chooses: so far only what the older
        generation told is there. Now what this one has told goes there, and that of older ones away; last
        comes the row by which views turn, so that whoever is killed in between does it again.
        """
        for record in self._chain_spans(place):
            try:
                self._insert(inserts(record, record.value, self._known))
            except (BrokenRecord, BrokenLog):
                continue  # it has been a dead letter since it came
            except SqlError as error:
                self._write_letter(record, None, error)
            self._between()
        self._forget_chain_spans(place)
        self._store.insert(
            *place.insert(
                GENERATIONS, self._generations.stand(place.network, place.generation), False, "stands"
            )
        )
        log.info("%s: generation %d is shown from now on", place.network, place.generation)

    def _chain_spans(self, place: Place) -> Iterator[Delivered]:
        """The records of spans of the chain that this generation has told so far."""
        headers = {"table": ChainSpan.table.encode(), "generation": str(place.generation).encode()}
        begins = generations.begins(generations.read(self._bus, place.network), place.generation, ROWS)
        taken, key = self._taken[ROWS, place.partition], place.network.encode()
        return whole(self._bus, ROWS, place.partition, taken, key, headers, begins, self._between)

    def _forget_chain_spans(self, place: Place) -> None:
        try:
            self._store.command(delete_chain_spans(place.network, place.generation))
        except SqlError as error:  # no fault of the record's
            raise StoreDown(f"store {shown(self._store.url)}: deleting spans failed: {error}") from error

    def _drain_findings(self, partition: int) -> None:
        """Take the findings that came before this progress, or with it: other streams have an order of their
        own, and what one transaction wrote to two may be read in one of them before the other. Once a poll,
        since all that it brought was committed before."""
        if partition in self._drained:
            return
        source = FINDINGS, partition
        end = self._bus.end(FINDINGS, partition)
        while self._taken[source] < end and (
            messages := self._bus.read(FINDINGS, partition, self._taken[source])
        ):
            for message in messages:
                self._take(message)
                self._between()
        self._taken[source] = max(end, self._taken[source])
        self._drained.add(partition)

    def _bury(self, message: Delivered, done: int | None, error: NektarError) -> None:
        """Write a dead letter, and with it that all before offset `done` is done with: not within a record
        that is half read, so that a letter may be written again by whoever is killed there."""
        if message.stream == ROWS:  # of which the letter says how far it is stored
            self._put_progress()
        self._write_off(message, done, error)

    def _write_off(self, message: Delivered, done: int | None, error: NektarError) -> None:
        source = message.stream, message.partition
        if message.offset >= self._buried_below.get(source, 0):
            self._write_letter(message, done, error)
        elif done is not None:  # read again, and buried before
            self._done[source] = max(done, self._done.get(source, 0))

    def _write_letter(self, message: Delivered, done: int | None, error: NektarError) -> None:
        log.error("%s is a dead letter: %s", where(message), error)
        if message.partition not in self._writers:
            self._writers[message.partition] = self._bus.writer(
                f"store-{message.partition}", message.partition
            )
        offsets = {message.stream: done} if done is not None else None
        letters = letter(message, message.value, error, message.key.partition(b"/")[0])
        self._writers[message.partition].transaction(letters, offsets, GROUP)
        source = message.stream, message.partition
        if done is not None and self._done.get(source, 0) <= done:
            self._done.pop(source, None)

    def _commit(self) -> None:
        """Commit what is stored: of rows nothing, while progress among them waits; and of what is read again
        nothing, since how far letters were written once must not be forgotten."""
        waiting = {(ROWS, each.record.partition) for each in self._progress}
        for source in self._done.keys() - waiting:
            offset = self._done.pop(source)
            if offset <= self._buried_below.get(source, 0):
                continue
            try:
                self._consumer.commit(*source, offset)
            except Fenced as error:
                log.warning("%s", error)  # whoever has it now reads again what was not committed
        self._committed = time.monotonic()

    def _begin_anew(self) -> None:
        """Read again, in all that is ours, what is not committed."""
        self._commit()
        while self._writers:
            self._writers.popitem()[1].close()
        held = self._consumer.assignment()
        for stream, partition in product(STREAMS, held):
            self._consumer.seek(stream, partition, self._consumer.committed(stream, partition) or 0)
        buried = dict(self._buried_below)
        self._assigned(held)
        for source, offset in self._buried_below.items():
            self._buried_below[source] = max(offset, buried.get(source, 0))

    def _assigned(self, partitions: frozenset[int]) -> None:
        self._forget(partitions)
        stored = positions(self._store, self._bus)
        self._generations = Generations(self._store, self._bus)
        self._stored = True  # who had the partition may have been killed before it looked
        for partition in sorted(partitions):
            known = {stream: self._consumer.committed(stream, partition) or 0 for stream in STREAMS}
            again = read_again(stored, partition, self._bus.partitions, known)
            if FINDINGS in again:
                self._behind.add(partition)
            for stream, start in again.items():
                if stream != NETWORK or start == 0:
                    log.info(
                        "the store may lack rows of %s, partition %d: reading again from offset %d to %d",
                        stream,
                        partition,
                        start,
                        known[stream],
                    )
                self._consumer.seek(stream, partition, start)
            for stream, offset in known.items():
                self._taken[stream, partition] = again.get(stream, offset)
                self._buried_below[stream, partition] = offset

    def _revoked(self, partitions: frozenset[int]) -> None:
        self._commit()
        for partition in partitions & self._writers.keys():
            self._writers.pop(partition).close()
        self._forget(partitions)

    def _forget(self, partitions: frozenset[int]) -> None:
        """What a partition's reading has to begin anew with."""
        self._queue = [message for message in self._queue if message.partition not in partitions]
        self._behind -= partitions
        self._progress = [each for each in self._progress if each.record.partition not in partitions]
        for state in (self._half, self._taken, self._done, self._buried_below):
            for source in [s for s in state if s[1] in partitions]:
                del state[source]


class _Progress(NamedTuple):
    """A record of progress that is still to be stored."""

    record: Delivered
    done: int | None  # offset below which all is stored then
    insert: Insert
    since: float  # of the monotonic clock


class _Stopped(Exception):
    """It is told to stop, between two messages."""


def _after_blocks(message: Delivered) -> bool:
    """Between streams there is no order to keep; within each one it stays."""
    return message.stream != NETWORK

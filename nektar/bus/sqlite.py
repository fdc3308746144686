"""The embedded bus: SQLite files in one directory, shared by several processes of one machine.

    DIR/partition-3.db    the Networks' streams of partition 3 (`partition.py`), made with its first writer
    DIR/telemetry-3.db    telemetry's, likewise
    DIR/groups.db         members and leases of all groups (`leases.py`), and the number of partitions
    DIR/bells/            a FIFO per consumer, so that a commit wakes whoever waits (`bell.py`)

A file per partition and kind, since writers of one SQLite file wait for each other: a Network's bulk writing
then holds up nobody else's, and telemetry holds up no Network. One transaction is in one file. What a commit
survives and what power loss may take back: see `database.py`.

Consumed offsets are committed in the partition's own file, under the epoch of the lease: of a member that
slept and a member that has taken over, only the second can commit, whatever the first one believes. The
lease has moved when the new holder has shown its epoch in that file, which it does before it first reads.

Writers, consumers and the bus itself may be used from any thread, each by one thread at a time.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from nektar.bus.bell import Ringer
from nektar.bus.database import Database
from nektar.bus.leases import SCHEMA as GROUPS_SCHEMA
from nektar.bus.leases import Member
from nektar.bus.partition import FETCH_BYTES, Partition
from nektar.bus.port import PARTITIONS, BusError, Delivered, Fenced, Message
from nektar.bus.rules import check_lease, check_offset, check_stream, checked, is_telemetry

# Seconds without a sign of life after which a member's partitions go to others. A member that died is seen
# at once (its bell is gone), so this is only for one that hangs; folding a large record is no hanging.
LEASE = 10.0

# Each partition in use costs three open files a reader; a machine that needs more partitions needs Kafka.
MAX_PARTITIONS = 64

# How long a consumer waits for its bell before it looks by itself: only a process killed between its commit
# and its ring makes a difference.
LOOK_AGAIN = 0.1


class SqliteBus:
    """A bus in `directory`. `nektar.bus.open("sqlite:///DIR?lease=10&partitions=8")` opens one."""

    def __init__(self, directory: str | Path, *, lease: float = LEASE, partitions: int | None = None) -> None:
        """Open the bus, made where there is none, with `partitions` (default 8), fixed from then on.

        `lease`: seconds that this process's consumers may go without polling or committing.
        Raises BusError, BusFull.
        """
        if not str(directory):
            raise BusError("bus: expected sqlite:///DIRECTORY; got no directory")
        check_lease(lease)
        if partitions is not None and not 1 <= partitions <= MAX_PARTITIONS:
            raise BusError(f"bus: expected 1 to {MAX_PARTITIONS} partitions; got {partitions}")
        self._directory = Path(directory).absolute()
        self.lease = lease
        self._ringer = Ringer(self._directory / "bells")
        self._writers: set[SqliteWriter] = set()
        self._consumers: set[SqliteConsumer] = set()
        self._reading: dict[tuple[int, bool], Partition] = {}
        self._lock = threading.Lock()
        self.id, self.partitions = self._settle(partitions)

    def _settle(self, wanted: int | None) -> tuple[str, int]:
        """The bus's id and number of partitions, which are drawn when it is made."""
        groups = Database(self._groups, GROUPS_SCHEMA)
        try:
            with groups.writing() as connection:
                row = connection.execute("SELECT id, partitions FROM bus").fetchone()
                if row is None:
                    row = (secrets.token_hex(8), wanted or PARTITIONS)
                    connection.execute("INSERT INTO bus VALUES (?, ?)", row)
        finally:
            groups.close()
        id_, partitions = row
        if wanted not in (None, partitions):
            raise BusError(
                f"{self._directory}: this bus was made with {partitions} partitions, which can't change; "
                f"got partitions={wanted}"
            )
        return str(id_), int(partitions)

    @property
    def _groups(self) -> Path:
        return self._directory / "groups.db"

    def writer(self, transactional_id: str, partition: int) -> SqliteWriter:
        """Open (and fence any earlier) writer of this id; an id belongs to one partition."""
        writer = SqliteWriter(self, transactional_id, partition)
        self._writers.add(writer)
        return writer

    def consumer(
        self,
        group: str,
        streams: Sequence[str],
        *,
        on_assigned: Callable[[frozenset[int]], None] | None = None,
        on_revoked: Callable[[frozenset[int]], None] | None = None,
    ) -> SqliteConsumer:
        """Join `group`, all of whose members read the same `streams`."""
        for stream in streams:
            check_stream(stream)
        telemetry = is_telemetry(streams)
        member = Member(
            self._groups, self._directory / "bells", self._ringer, group, self.lease, self.partitions
        )
        consumer = SqliteConsumer(self, member, group, streams, telemetry, on_assigned, on_revoked)
        self._consumers.add(consumer)
        return consumer

    def read(
        self, stream: str, partition: int, start: int = 0, max_messages: int = 500
    ) -> Sequence[Delivered]:
        """Committed messages from `start` on; about 16 MB at most, empty only at the end."""
        with self._lock:
            file = self._readable(stream, partition)
            return file.read(stream, start, max_messages) if file else ()

    def end(self, stream: str, partition: int) -> int:
        with self._lock:
            file = self._readable(stream, partition)
            return file.end(stream) if file else 0

    def last(self, stream: str, partition: int, key: bytes) -> Delivered | None:
        with self._lock:
            file = self._readable(stream, partition)
            return file.last(stream, key) if file else None

    def check(self) -> None:
        """Files keep what is written."""

    def close(self) -> None:
        """Close every writer and consumer that this object opened, and leave their groups."""
        for consumer in list(self._consumers):
            consumer.close()
        for writer in list(self._writers):
            writer.close()
        with self._lock:
            for file in self._reading.values():
                file.close()
            self._reading.clear()
        self._ringer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _readable(self, stream: str, partition: int) -> Partition | None:
        name = partition, is_telemetry([stream])
        if name not in self._reading:
            if not self._path(*name).exists():
                return None
            self._reading[name] = self._partition(*name)
        return self._reading[name]

    def _partition(self, number: int, telemetry: bool) -> Partition:
        """A new connection to the partition's file of this kind, which is made where there is none yet."""
        return Partition(self._path(number, telemetry), number)

    def _path(self, partition: int, telemetry: bool) -> Path:
        if not 0 <= partition < self.partitions:
            raise BusError(f"partition: expected 0 to {self.partitions - 1}; got {partition}")
        return self._directory / f"{'telemetry' if telemetry else 'partition'}-{partition}.db"

    def _holder(self, group: str, partition: int, telemetry: bool) -> SqliteConsumer:
        """This bus's consumer of `group` that holds `partition`. Raises Fenced where there is none."""
        for consumer in self._consumers:
            reads = (consumer.group, consumer.telemetry) == (group, telemetry)
            if reads and partition in consumer.assignment():
                return consumer
        raise Fenced(
            f"partition {partition}: no consumer of group {group!r} on this bus holds it, so its offsets are "
            "not ours to commit; poll again to see what is"
        )


class SqliteWriter:
    """A transactional producer for one partition. Open it with `SqliteBus.writer`.

    It has one epoch in both files: given out by the Networks', shown in telemetry's before it is used.
    """

    def __init__(self, bus: SqliteBus, transactional_id: str, partition: int) -> None:
        self._bus = bus
        self._partition = partition
        self._fence = f"writer:{transactional_id}"
        self._files: dict[bool, Partition] = {}  # whether it is telemetry's → the file
        try:
            for telemetry in (False, True):
                self._files[telemetry] = bus._partition(partition, telemetry)
            above = self._files[True].epoch(self._fence)  # higher only where power loss took ours back
            self._epoch = self._files[False].raise_fence(self._fence, above)
            self._files[True].hold(self._fence, self._epoch)
        except BaseException:
            self.close()
            raise

    def transaction(
        self,
        messages: Iterable[Message],
        offsets: Mapping[str, int] | None = None,
        group: str | None = None,
    ) -> None:
        """Write `messages` and commit `offsets` of `group`, all or nothing; see the port.

        Offsets are committed under the lease of a consumer of `group` that was opened on the same bus
        object and holds the partition (Kafka: `send_offsets_to_transaction` with that consumer's group
        metadata); where there is none, or its lease has moved, the transaction is Fenced.
        """
        batch = checked(messages)
        telemetry = is_telemetry({message.stream for message in batch} | (offsets or {}).keys())
        file = self._files[telemetry]
        fences = {self._fence: self._epoch}
        holder = None
        if offsets:
            if group is None:
                raise BusError("transaction: expected the group whose offsets to commit; got offsets alone")
            holder = self._bus._holder(group, self._partition, telemetry)
            fences |= holder.fence(self._partition)
            for stream, offset in offsets.items():
                check_offset(stream, offset)
        file.write(batch, offsets or {}, group or "", fences)
        self._bus._ringer.ring()
        if holder:
            holder.renew()

    def close(self) -> None:
        self._bus._writers.discard(self)
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class SqliteConsumer:
    """A member of a group. Open it with `SqliteBus.consumer`.

    What it holds changes within `poll` only; `on_revoked` runs while the partitions can still be committed,
    unless they were taken because this member had not called for a whole lease.
    """

    def __init__(
        self,
        bus: SqliteBus,
        member: Member,
        group: str,
        streams: Sequence[str],
        telemetry: bool,
        on_assigned: Callable[[frozenset[int]], None] | None,
        on_revoked: Callable[[frozenset[int]], None] | None,
    ) -> None:
        self.group = group
        self.telemetry = telemetry
        self._bus = bus
        self._member = member
        self._streams = tuple(streams)
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._epochs: dict[int, int] = {}  # partition → epoch of our lease, as the caller was told
        self._files: dict[int, Partition] = {}
        self._claimed: set[int] = set()
        self._next: dict[tuple[int, str], int] = {}  # (partition, stream) → offset to read from
        self._empty: dict[tuple[int, str], int] = {}  # … → the file's version at which all had been read
        self._turn = 0
        self._closed = False
        self._versions: dict[int, int] = {}  # of the files, as of the last look
        self.answered_at = 0.0

    def poll(self, timeout: float, max_messages: int = 500) -> Sequence[Delivered]:
        """Committed messages in order per (stream, partition); waits up to `timeout` s for the first."""
        deadline = time.monotonic() + timeout
        self.answered_at = time.time()
        while True:
            if self._member.due():
                self._rebalance()
            if found := self._fetch(max_messages):
                return found
            now = time.monotonic()
            if now >= deadline:
                return ()
            self._member.bell.wait(min(deadline, self._member.sync_at, now + LOOK_AGAIN) - now)

    def at_end(self) -> dict[tuple[str, int], float]:
        """See `Consumer.at_end`. A partition without a file has nothing."""
        return {
            (stream, partition): self.answered_at
            for partition in self._epochs
            for stream in self._streams
            if self._empty.get((partition, stream)) == self._versions.get(partition)
        }

    def seek(self, stream: str, partition: int, offset: int) -> None:
        """The next `poll` reads this partition from `offset` on."""
        check_offset(stream, offset)
        if partition not in self._epochs:
            raise BusError(f"seek: expected a partition that is held ({self._held()}); got {partition}")
        self._next[partition, stream] = offset
        self._empty.pop((partition, stream), None)

    def committed(self, stream: str, partition: int) -> int | None:
        file = self._readable(partition)
        return file.committed(self.group).get(stream) if file else None

    def commit(self, stream: str, partition: int, offset: int) -> None:
        """Commit without a transaction. Raises Fenced where the partition has moved."""
        check_offset(stream, offset)
        self._file(partition).write((), {stream: offset}, self.group, self.fence(partition))
        self.renew()

    def assignment(self) -> frozenset[int]:
        return frozenset(self._epochs)

    def fence(self, partition: int) -> dict[str, int]:
        """What a transaction that commits this group's offsets has to show. Raises Fenced."""
        if partition not in self._epochs:
            raise Fenced(
                f"partition {partition}: group {self.group!r} has given it to another member; "
                f"this one holds {self._held()}"
            )
        return {f"group:{self.group}": self._epochs[partition]}

    def renew(self) -> None:
        """A commit is a sign of life."""
        self._member.renew()

    def close(self) -> None:
        """Leave the group at once. Closing twice is closing once."""
        if self._closed:
            return
        self._closed = True
        self._bus._consumers.discard(self)
        self._epochs = {}
        for file in self._files.values():
            file.close()
        self._member.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- which partitions ---------------------------------------------------------------------------

    def _rebalance(self) -> None:
        surplus = self._member.sync(self._known_epoch)
        leaving = surplus | {p for p, epoch in self._epochs.items() if self._member.held.get(p) != epoch}
        if leaving := leaving & self._epochs.keys():
            if self._on_revoked:
                self._on_revoked(frozenset(leaving))
            for partition in leaving:
                del self._epochs[partition]
                self._claimed.discard(partition)
                for stream in self._streams:
                    self._next.pop((partition, stream), None)
                    self._empty.pop((partition, stream), None)
        if surplus:
            self._member.sync(self._known_epoch, surplus)
        gained = self._member.held.keys() - self._epochs.keys()
        self._epochs = dict(self._member.held)
        if gained and self._on_assigned:
            self._on_assigned(frozenset(gained))

    def _known_epoch(self, partition: int) -> int:
        file = self._readable(partition)
        return file.epoch(f"group:{self.group}") if file else 0

    def _held(self) -> str:
        return ", ".join(map(str, sorted(self._epochs))) or "none"

    # --- their messages -----------------------------------------------------------------------------

    def _fetch(self, max_messages: int) -> list[Delivered]:
        """What can be read at once, beginning with another (partition, stream) each time: the one after that
        which left no room, so that a long one starves none."""
        found: list[Delivered] = []
        size = 0
        versions = {p: file.version() for p in self._epochs if (file := self._claim(p))}
        self._versions = versions
        pairs = [(p, stream) for p in sorted(versions) for stream in self._streams]
        self._turn += 1
        for i in range(self._turn, self._turn + len(pairs)):
            pair = partition, stream = pairs[i % len(pairs)]
            if self._empty.get(pair) == versions[partition]:
                continue
            room = max_messages - len(found)
            read = self._files[partition].read(stream, self._next.get(pair, 0), room)
            if read:
                self._next[pair] = read[-1].offset + 1
                found += read
                size += sum(len(message.value) for message in read)
            else:
                self._empty[pair] = versions[partition]
            if len(found) >= max_messages or size >= FETCH_BYTES:
                self._turn = i % len(pairs)  # the next time it begins with the one after it
                break
        return found

    def _claim(self, partition: int) -> Partition | None:
        """The file of a partition that we hold, our epoch shown in it; None while there is no file.

        The claim comes before the committed offsets are read, so that nobody moves them afterwards.
        """
        file = self._readable(partition)
        if file is None or partition in self._claimed:
            return file
        try:
            file.hold(f"group:{self.group}", self._epochs[partition])
        except Fenced:
            return None  # moved since our last look; `due` will see it
        for stream, offset in file.committed(self.group).items():
            self._next.setdefault((partition, stream), offset)
        self._claimed.add(partition)
        return file

    def _readable(self, partition: int) -> Partition | None:
        there = partition in self._files or self._bus._path(partition, self.telemetry).exists()
        return self._file(partition) if there else None

    def _file(self, partition: int) -> Partition:
        """Our connection to the partition's file, which is made where there is none yet."""
        if partition not in self._files:
            self._files[partition] = self._bus._partition(partition, self.telemetry)
        return self._files[partition]

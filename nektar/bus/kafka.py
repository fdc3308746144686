"""The bus on Apache Kafka (3.9, 4.x): a stream is a topic, and the port's promises are Kafka's own.

    kafka://host:port[,host:port]?partitions=8&prefix=…     streams of a prefix are a bus of their own

`transactions.py` writes, `members.py` consumes in a group, `topics.py` makes and checks topics; here is what
is read without a group. All clients read committed messages only.

Offsets have holes: each transaction ends with a marker that takes one, and what was aborted keeps its own.
Nothing here counts with them, and that an offset is below the end does not mean that a message is there.

A transaction is committed at once, and can be read partition by partition: when each has its marker, and no
transaction that is still open stands below. So what `end` and `last` are asked waits for what is open then.

A writer or a consumer may be used from any thread, by one at a time; the bus itself by several at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from kafka import KafkaConsumer, TopicPartition, errors

from nektar.bus.admin import Admin
from nektar.bus.members import KafkaMember, delivered
from nektar.bus.port import Bus, BusError, Delivered, Fenced
from nektar.bus.rules import check_lease, is_telemetry
from nektar.bus.servers import PATIENCE_SECONDS, Servers
from nektar.bus.topics import Topics
from nektar.bus.transactions import KafkaWriter

# Seconds without a heartbeat after which a member's partitions go to others: nobody sees sooner that it is
# dead. Brokers take 6 s and more by default.
LEASE = 10.0

# A read stops at what is committed now, so a fetch that finds nothing more need not wait for it: a fetch in
# waiting holds up whatever is asked on its connection next.
READ_WAIT_MS = 2
# At least one message of the largest size, and about what a reader holds in memory.
FETCH_BYTES = 16 * 1024 * 1024
PARTITION_FETCH_BYTES = 4 * 1024 * 1024
# Within this most brokers say where a partition ends, or that they don't lead it; doubled at each attempt,
# up to what whoever closes the bus may have to wait for.
LED_MS, LONGEST_LED_MS = 1_000, 4_000
# How far `last` goes back at once.
BACK = 256
# How long to wait between looks at whether what was open is over.
LOOK_AGAIN = 0.001
LONGEST_LOOK = 0.05

COMMITTED = "read_committed"

# The client logs what it meets and mends by itself, each refused connection with a traceback; what it can't
# mend is raised, and told in one line.
logging.getLogger("kafka").setLevel(logging.CRITICAL)


class KafkaBus:
    """A bus on the Kafka at `servers`. `nektar.bus.open("kafka://HOST:PORT")` opens one."""

    def __init__(
        self,
        servers: Servers,
        *,
        prefix: str = "",
        lease: float = LEASE,
        partitions: int | None = None,
    ) -> None:
        """Open the bus whose streams, groups and writers are named with `prefix`; where there is none, with
        `partitions` (default 8), fixed from then on. `lease` in seconds. Raises BusError."""
        check_lease(lease)
        self._servers = servers
        self._prefix = prefix
        self.lease = lease
        self._lock = threading.Lock()
        self._closing = False  # whoever waits for a broker gives up
        self._members: set[KafkaMember] = set()
        self._writers: set[KafkaWriter] = set()
        self._readers: dict[str, Any] = {}  # by isolation level
        self._assigned: TopicPartition | None = None  # which partition the reader reads now
        self._empty: dict[TopicPartition, tuple[int, int]] = {}  # where reads found no message: [start, end)
        self._seen: dict[TopicPartition, _Seen] = {}
        self._admin = Admin(servers)
        try:
            self._topics = Topics(servers, self._admin, prefix, partitions)
            self.id = f"{self._admin.ask('describe_cluster')['cluster_id']}/{prefix}"
        except BaseException:
            self._admin.close()
            raise
        self.partitions = self._topics.partitions

    def writer(self, transactional_id: str, partition: int) -> KafkaWriter:
        """Open (and fence any earlier) writer of this id; an id belongs to one partition."""
        self._check_partition(partition)
        id_ = f"{self._prefix}{transactional_id}/{partition}"
        writer = KafkaWriter(self, self._servers, self._topics, id_, partition)
        self._writers.add(writer)
        return writer

    def consumer(
        self,
        group: str,
        streams: Sequence[str],
        *,
        on_assigned: Callable[[frozenset[int]], None] | None = None,
        on_revoked: Callable[[frozenset[int]], None] | None = None,
    ) -> KafkaMember:
        """Join `group`, all of whose members read the same `streams`."""
        is_telemetry(streams)
        member = KafkaMember(
            self.forget,
            self._servers,
            self._topics,
            self._prefix + group,
            streams,
            self.lease,
            on_assigned,
            on_revoked,
        )
        self._members.add(member)
        return member

    def read(
        self, stream: str, partition: int, start: int = 0, max_messages: int = 500
    ) -> Sequence[Delivered]:
        """Committed messages from `start` on; about 16 MB at most, empty only at the end."""
        where = self._where(stream, partition)
        if not self._topics.there(stream):
            return ()
        with self._lock, self._servers.told():
            return self._read(stream, where, start, self._end(where), max_messages)

    def end(self, stream: str, partition: int) -> int:
        """Where the log ends for readers, once all that it holds now has been committed or aborted."""
        where = self._where(stream, partition)
        return self._settled(where) if self._topics.there(stream) else 0

    def last(self, stream: str, partition: int, key: bytes) -> Delivered | None:
        """The newest committed message with this key.

        Kafka has no index by key. What was ever looked at is remembered (keys and offsets, no values): what
        is new since the last call is read, and then further back, until the key is met.
        """
        where = self._where(stream, partition)
        if not self._topics.there(stream):
            return None
        self._settled(where)
        with self._lock, self._servers.told():
            seen = self._seen.setdefault(where, _Seen())
            while True:
                self._look(stream, where, seen, key)
                offset = seen.newest.get(key)
                if offset is None:
                    return None
                found = self._read(stream, where, offset, offset + 1, 1)
                if found:
                    return found[0]
                # Compaction took it, so a newer one has been written since we looked.

    def check(self) -> None:
        """See that the streams keep what is written. Raises BusError, saying which topic does not."""
        self._topics.check()

    def delete(self) -> None:
        """Delete every topic and group of this bus's prefix. Raises BusError where it has none."""
        if not self._prefix:
            raise BusError("bus: expected a prefix of the streams to delete; whole brokers are not deleted")
        self._topics.delete()
        with self._lock:
            self._seen.clear()
            self._empty.clear()

    def close(self) -> None:
        """Close every writer and consumer that this object opened, and leave their groups."""
        self._closing = True
        for member in list(self._members):
            member.close()
        for writer in list(self._writers):
            writer.close()
        with self._lock:
            while self._readers:
                self._readers.popitem()[1].close()
        self._admin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- for writers and members ---------------------------------------------------------------------

    def holder(self, group: str, partition: int) -> KafkaMember:
        """This bus's member of `group` that holds `partition`. Raises Fenced where there is none."""
        for member in list(self._members):
            if member.group == self._prefix + group and partition in member.assignment():
                return member
        raise Fenced(
            f"partition {partition}: no consumer of group {group!r} on this bus holds it, so its offsets are "
            "not ours to commit; poll again to see what is"
        )

    def wait_until_read(self, ends: dict[TopicPartition, int]) -> bool:
        """Whether whoever reads committed messages sees what lies below `ends`, after one look."""
        with self._lock, self._servers.told():
            try:
                now = self._ends(list(ends))
            except KeyError:  # the client leaves out those whose leader it has not met yet
                now = {where: self._end(where) for where in ends}
        return all(now[where] >= end for where, end in ends.items())

    def forget(self, closed: KafkaMember | KafkaWriter) -> None:
        self._members -= {closed}
        self._writers -= {closed}

    # --- reading --------------------------------------------------------------------------------------

    def _read(
        self, stream: str, where: TopicPartition, start: int, end: int, max_messages: int
    ) -> list[Delivered]:
        """The first messages between two offsets; none where there are none. Raises KafkaTimeoutError where
        they do not come for PATIENCE_SECONDS."""
        empty = self._empty.get(where, (0, 0))
        if empty[0] <= start < empty[1]:
            start = empty[1]
        if start >= end:
            return []
        reader = self._client()
        # One partition at a time: the client keeps what it has fetched of one that is paused, and neither
        # gives it out nor fetches again once that is resumed beside another whose messages are used up.
        if self._assigned != where:
            self._assigned = where
            reader.assign([where])
        reader.seek(where, start)
        reached, deadline = start, time.monotonic() + PATIENCE_SECONDS
        while (position := reader.position(where)) < end:
            if position > reached:
                reached, deadline = position, time.monotonic() + PATIENCE_SECONDS
            elif time.monotonic() > deadline:
                raise errors.KafkaTimeoutError(f"not within {PATIENCE_SECONDS:.0f} s")
            for records in reader.poll(timeout_ms=READ_WAIT_MS, max_records=max_messages).values():
                return [delivered(stream, record) for record in records if record.offset < end]
        self._empty[where] = (start, end)
        return []

    def _all(self, stream: str, where: TopicPartition, start: int, end: int) -> Iterator[Delivered]:
        while found := self._read(stream, where, start, end, 500):
            yield from found
            start = found[-1].offset + 1

    def _look(self, stream: str, where: TopicPartition, seen: _Seen, key: bytes) -> None:
        """Bring `seen` up to now, and back to `key`, if need be to the beginning."""
        end = self._end(where)
        if seen.high is None:
            seen.low = seen.high = end
        seen.newest |= {m.key: m.offset for m in self._all(stream, where, seen.high, end)}
        seen.high = end
        while key not in seen.newest and seen.low > 0:
            start = max(0, seen.low - BACK)
            older = {m.key: m.offset for m in self._all(stream, where, start, seen.low)}
            seen.newest = older | seen.newest
            seen.low = start

    def _settled(self, where: TopicPartition) -> int:
        """Where the log ends for readers, once that is no less than where it ends now for writers. Raises
        BusError where it is for PATIENCE_SECONDS."""
        with self._lock, self._servers.told():
            written = self._end(where, "read_uncommitted")
        deadline, pause = time.monotonic() + PATIENCE_SECONDS, LOOK_AGAIN
        while True:
            with self._lock, self._servers.told():  # others go on between two looks
                end = self._end(where)
            if end >= written:
                return end
            if self._closing:
                raise BusError(f"topic {where.topic}: the bus is being closed")
            if time.monotonic() > deadline:
                raise BusError(
                    f"topic {where.topic}, partition {where.partition}: a transaction has been open for a "
                    "minute, and nobody reads what was written after it; see who holds it "
                    "(kafka-transactions list)"
                )
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_LOOK)

    def _end(self, where: TopicPartition, isolation: str = COMMITTED) -> int:
        """Where the first transaction still open begins, or the log ends."""
        return int(self._ends([where], isolation)[where])

    def _ends(self, of: Sequence[TopicPartition], isolation: str = COMMITTED) -> dict[TopicPartition, int]:
        """Where these end. The client asks a broker that leads them no more again and again, and never who
        does now: so it is given little time, more each time since it may be slow, and told to find out."""
        client, deadline = self._client(isolation), time.monotonic() + PATIENCE_SECONDS
        within = LED_MS
        while True:
            try:
                found: dict[TopicPartition, int] = client.end_offsets(list(of), timeout_ms=within)
                return found
            except errors.KafkaTimeoutError:
                if self._closing or time.monotonic() > deadline:
                    raise
                within = min(2 * within, LONGEST_LED_MS)
                client._client.cluster.request_update()

    def _client(self, isolation: str = COMMITTED) -> Any:
        if self._closing:
            raise errors.KafkaTimeoutError("the bus is being closed")
        if isolation not in self._readers:
            self._readers[isolation] = KafkaConsumer(
                **self._servers.client(),
                group_id=None,
                enable_auto_commit=False,
                isolation_level=isolation,
                # A start that is gone is an error: a log without its beginning is another log.
                auto_offset_reset="none",
                fetch_max_wait_ms=READ_WAIT_MS,
                fetch_max_bytes=FETCH_BYTES,
                max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
            )
        return self._readers[isolation]

    def _where(self, stream: str, partition: int) -> TopicPartition:
        self._check_partition(partition)
        return TopicPartition(self._topics.name(stream), partition)

    def _check_partition(self, partition: int) -> None:
        if not 0 <= partition < self.partitions:
            raise BusError(f"partition: expected 0 to {self.partitions - 1}; got {partition}")


class _Seen:
    """The newest offset of every key between two offsets of a partition."""

    def __init__(self) -> None:
        self.low = 0
        self.high: int | None = None
        self.newest: dict[bytes, int] = {}


_: type[Bus] = KafkaBus

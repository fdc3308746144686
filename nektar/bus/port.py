"""The bus: ordered, partitioned streams with transactions and consumer groups. One interface, two sides.

The words and the guarantees are Apache Kafka's, so that `kafka.py` is thin and `sqlite.py` is held to the
same contract tests (`tests/nektar/bus/contract.py`):

* a stream has `partitions` partitions; within one, offsets grow and order never changes. Offsets may have
  holes; nobody counts with them;
* a transaction writes to any streams *of one partition number* and commits consumed offsets with them, all
  or nothing. Streams are co-partitioned: what belongs to one Network has one partition number in each;
* a stream is the Networks' or telemetry's (`rules.is_telemetry`): a transaction and a consumer are of one
  kind, and no flood of telemetry holds up a Network;
* a writer opens with a transactional id; opening it again fences the one before, whose next call raises
  `Fenced`;
* consumers see committed messages only, none of an aborted transaction, and not past an open one;
* in a group each partition belongs to one live member at a time, under a lease; when a member dies its
  partitions move, and what it did not commit is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, Self

from nektar.errors import NektarError

# Networks spread over this many partitions; fixed when a bus is created, as in Kafka.
PARTITIONS = 8


class BusError(NektarError):
    """The bus could not do what was asked; the message says what to do."""


class Fenced(BusError):
    """Another writer has opened this transactional id, or the group has given the partition away: stop."""


class Broken(BusError):
    """This writer is of no more use, and whether its last transaction was written is not known: open it
    again, or start again from what the bus then says."""


class BusFull(BusError):
    """No room left: the disk is full. Nothing that was committed is lost; free space and start again."""


class Message(NamedTuple):
    """What a producer hands over."""

    stream: str
    key: bytes
    value: bytes  # at most MAX_MESSAGE_BYTES; nektar.log.split carries longer records
    headers: Mapping[str, bytes] = {}


class Delivered(NamedTuple):
    """What a consumer gets."""

    stream: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: Mapping[str, bytes]
    time: float  # seconds since 1970 at which it was produced; for lag only, never for a decision


MAX_MESSAGE_BYTES = 1_048_000


class Writer(Protocol):
    """A transactional producer for one partition, fenced by its transactional id."""

    def transaction(
        self,
        messages: Iterable[Message],
        offsets: Mapping[str, int] | None = None,
        group: str | None = None,
    ) -> None:
        """Write `messages` and commit `offsets` (stream → next offset to read) of `group`, all or nothing.

        Returns when it is durable and visible. Raises Fenced, BusFull, BusError; then nothing was written.
        Raises Broken, now and whenever it is called again, where that is not known.
        """

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


class Consumer(Protocol):
    """A member of a group, reading the partitions that it holds.

    `on_assigned(partitions)` and `on_revoked(partitions)` are called from within `poll`, before any message
    of a new assignment is returned.
    """

    answered_at: float
    """As of when the last `poll` that found no more has brought all that there was, in seconds since 1970. It
    stays where it is while nobody answers, which is no empty stream, or while the caller does not ask; 0.0
    until somebody has. A member that was dealt nothing has nothing to read, and is told so as well."""

    def poll(self, timeout: float, max_messages: int = 500) -> Sequence[Delivered]:
        """Committed messages in order per (stream, partition); waits up to `timeout` s for the first.

        Raises BusError where the bus has not answered for too long.
        """

    def at_end(self) -> Mapping[tuple[str, int], float]:
        """Every (stream, partition) that it holds of which `poll` has brought all that there was → as of
        when, in seconds since 1970: no later than the bus was asked for more of it."""

    def seek(self, stream: str, partition: int, offset: int) -> None:
        """The next `poll` reads this partition from `offset` on."""

    def committed(self, stream: str, partition: int) -> int | None:
        """The group's committed next offset, or None."""

    def commit(self, stream: str, partition: int, offset: int) -> None:
        """Commit without a transaction (for sinks), a sign of life as `poll` is. Raises Fenced where the
        partition has moved."""

    def assignment(self) -> frozenset[int]:
        """Partition numbers that this member holds."""

    def close(self) -> None:
        """Leave the group at once, so that others need not wait for the lease."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


class Bus(Protocol):
    """A place where streams live. Open one with `nektar.bus.open`."""

    partitions: int
    id: str
    """Names this bus and no other: one that is made anew at the same place has another id."""
    lease: float
    """Seconds for which a consumer may neither poll nor commit, and hold what it holds."""

    def writer(self, transactional_id: str, partition: int) -> Writer:
        """Open (and fence any earlier) writer of this id. Ids are stable: (role, partition)."""

    def consumer(
        self,
        group: str,
        streams: Sequence[str],
        *,
        on_assigned: Callable[[frozenset[int]], None] | None = None,
        on_revoked: Callable[[frozenset[int]], None] | None = None,
    ) -> Consumer:
        """Join `group`, with the first `poll`: who never polls holds nothing, and may look what is committed.

        Reads from the committed offset, or from the first message where there is none.
        """

    def read(
        self, stream: str, partition: int, start: int = 0, max_messages: int = 500
    ) -> Sequence[Delivered]:
        """Committed messages from `start` on, without a group; empty at the end. For replay and resume."""

    def end(self, stream: str, partition: int) -> int:
        """An offset above every message that was committed before the call, also of a transaction whose part
        in another stream was read already: where it can't be read yet, it waits. Reading from it waits for
        what is new. Raises BusError where another's open transaction is in the way for too long."""

    def last(self, stream: str, partition: int, key: bytes) -> Delivered | None:
        """The newest message with this key below `end`, waited for as there; for compacted streams."""

    def check(self) -> None:
        """See that the streams keep what is written. Raises BusError where they would lose it."""

    def close(self) -> None: ...


def read_all(
    bus: Bus, stream: str, partition: int, start: int = 0, end: int | None = None
) -> Iterator[Delivered]:
    """Committed messages from `start` on and below `end`, or as long as there are any. Raises BusError."""
    while (end is None or start < end) and (page := bus.read(stream, partition, start)):
        for message in page:
            if end is not None and message.offset >= end:
                return
            yield message
        start = page[-1].offset + 1


def partition_of(network: str, partitions: int) -> int:
    """The partition number that a Network has in every stream."""
    return partition_of_key(network.encode(), partitions)


def partition_of_key(key: bytes, partitions: int) -> int:
    """Kafka's default partitioner, murmur2 of the key, so that any client of the bus finds what it names."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2 (org.apache.kafka.common.utils.Utils.murmur2), unsigned."""
    mask, m, r = 0xFFFFFFFF, 0x5BD1E995, 24
    length = len(data)
    h = (0x9747B28C ^ length) & mask
    for i in range(0, length - length % 4, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ (k >> r)) * m & mask
        h = (h * m & mask) ^ k
    tail = data[length - length % 4 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)

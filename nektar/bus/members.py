"""Consuming from Kafka in a group: a member, the partitions it holds, and how they come and go.

The streams of one partition number always belong to one member: all have as many partitions, and the range
assignor deals each topic out alike (`test_a_members_streams_are_of_the_same_partitions`).

A rebalance takes every partition from every member and deals them out anew. The client tells of that on a
thread of its own, where nothing may wait. What it tells therefore interrupts `poll`, and the callbacks run on
the caller's thread: `on_revoked` before the group is told that we are ready, so that all can be committed
still, and `on_assigned` before anything is fetched.

The client sends heartbeats from a thread of its own, also where the member itself is stuck. So there are two
leases: of a process that is dead or cut off, and, longer, of a member that neither polls nor commits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition, errors
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.structs import OffsetAndMetadata

from nektar.bus.port import BusError, Delivered, Fenced
from nektar.bus.rules import check_offset, is_telemetry
from nektar.bus.servers import PATIENCE_SECONDS, Servers
from nektar.bus.topics import Topics

# The brokers answer a fetch as soon as there is a message, and one in waiting after this at the latest: only
# then does what was sought or assigned meanwhile go out. Idle, it costs a small request.
FETCH_WAIT_MS = 100
# At least one message of the largest size, and about what a member holds in memory.
FETCH_BYTES = 16 * 1024 * 1024
PARTITION_FETCH_BYTES = 4 * 1024 * 1024
# Heartbeats in a lease. A member learns by them of a rebalance, and everybody waits for it.
HEARTBEATS = 20
# Leases after which a member that neither polls nor commits hangs, and its partitions go to others. A batch
# that takes long on a busy machine is no hanging, and whoever is put out for it begins it anew.
HANGING = 6
# How long a poll that found no broker waits, in seconds.
LOOK_AGAIN = 0.05
# After so long without a word from any broker one is asked for some: who waits for a group to come together,
# or for nothing at all, asks for nothing else.
QUIET_SECONDS = 1.0
CLOSE_SECONDS = 5.0
# After which a member joins its group again.
_JOINED_AGAIN = (errors.RetriableError, errors.NoOffsetForPartitionError)


class _Client(KafkaNetClient):  # type: ignore[misc]
    """Remembers when a broker answered last, whatever it was asked."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.heard = time.monotonic()
        self._unnoted = self._manager.send
        self._manager.send = self._noted

    def _noted(self, *arguments: Any, **named: Any) -> Any:
        return self._unnoted(*arguments, **named).add_callback(self._hear)

    def _hear(self, _: object) -> None:
        self.heard = time.monotonic()


class KafkaMember:
    """Open it with `KafkaBus.consumer`. What it holds changes within `poll` only."""

    def __init__(
        self,
        forget: Callable[[KafkaMember], None],
        servers: Servers,
        topics: Topics,
        group: str,
        streams: Sequence[str],
        lease: float,
        on_assigned: Callable[[frozenset[int]], None] | None,
        on_revoked: Callable[[frozenset[int]], None] | None,
    ) -> None:
        """Prepare to join; the first `poll` does. `forget` is told of the end. Raises BusError."""
        self.group = group
        self.metadata: Any = None  # as which member of which generation we hold what we hold
        self._forget = forget
        self._servers = servers
        self._topics = topics
        self._streams = {topics.name(stream): stream for stream in streams}
        self._passing = is_telemetry(streams)
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._held: frozenset[int] = frozenset()
        self._known: frozenset[TopicPartition] = frozenset()  # for which the client has a position
        self._closed = False
        self.answered_at = 0.0
        # From where on a partition was fetched when that was last answered, and when it was asked. Written by
        # the client's thread.
        self._fetched: dict[TopicPartition, tuple[int, float]] = {}
        self._asked: float | None = None  # when we asked for a word, since nobody said any
        self._listener = _Listener()
        topics.ensure(streams)
        with servers.told():
            self._client = KafkaConsumer(
                **servers.client(),
                group_id=group,
                enable_auto_commit=False,
                isolation_level="read_committed",
                # What is gone of telemetry had its time; a log without its beginning is another log.
                auto_offset_reset="earliest" if self._passing else "none",
                partition_assignment_strategy=[RangePartitionAssignor],
                session_timeout_ms=int(lease * 1000),
                max_poll_interval_ms=int(HANGING * lease * 1000),
                heartbeat_interval_ms=max(1, int(lease * 1000 / HEARTBEATS)),
                fetch_max_wait_ms=FETCH_WAIT_MS,
                fetch_max_bytes=FETCH_BYTES,
                max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
                kafka_client=_Client,
            )
            fetcher = self._client._fetcher
            self._take_in, fetcher._handle_fetch_response = fetcher._handle_fetch_response, self._note
            try:
                self._prepare()
            except BaseException:
                self._client.close(timeout_ms=0)
                raise

    def _prepare(self) -> None:
        """Subscribe, and get to know the topics: whoever leads a group and does not know them deals out
        nothing, and may not look again for minutes."""
        self._listener.client = self._client
        self._client.subscribe(list(self._streams), listener=self._listener)
        for topic in self._streams:
            self._client.beginning_offsets([TopicPartition(topic, 0)], timeout_ms=PATIENCE_SECONDS * 1000)

    def poll(self, timeout: float, max_messages: int = 500) -> Sequence[Delivered]:
        """Committed messages in order per (stream, partition); waits up to `timeout` s for the first.

        Where no broker answers there are none: it waits for them as for messages. Raises BusError where none
        has answered for PATIENCE_SECONDS.
        """
        deadline = time.monotonic() + timeout
        self._listen()
        while True:
            left = max(0.0, deadline - time.monotonic())
            self._keep_join()
            try:
                polled = self._client.poll(timeout_ms=left * 1000, max_records=max_messages)
            except errors.KafkaError as error:
                if self._listener.changed:
                    self._change()
                elif isinstance(error, _JOINED_AGAIN):
                    # No broker answers now. Heartbeats may have ended with that; a join begins them anew. Or
                    # the client asks where to begin, before it has said what we are assigned.
                    self._client._coordinator.request_rejoin()
                    if left == 0.0:
                        return ()
                    time.sleep(min(left, LOOK_AGAIN))
                else:
                    raise self._servers.in_words(error, self._read_now()) from error
                continue
            if not polled:
                self.answered_at = self._read_all_at()
            return [
                delivered(self._streams[where.topic], record)
                for where, records in polled.items()
                for record in records
            ]

    def seek(self, stream: str, partition: int, offset: int) -> None:
        """The next `poll` reads this partition from `offset` on."""
        check_offset(stream, offset)
        if partition not in self._held:
            raise BusError(f"seek: expected a partition that is held ({self._shown()}); got {partition}")
        where = self._where(stream, partition)
        self._fetched.pop(where, None)  # whatever it brought is thrown away
        self._client.seek(where, offset)

    def committed(self, stream: str, partition: int) -> int | None:
        with self._servers.told():
            found: int | None = self._client.committed(
                self._where(stream, partition), timeout_ms=PATIENCE_SECONDS * 1000
            )
        return found

    def commit(self, stream: str, partition: int, offset: int) -> None:
        """Commit without a transaction. Raises Fenced where the partition has moved."""
        check_offset(stream, offset)
        if partition not in self._held:
            raise Fenced(
                f"partition {partition}: group {self.group!r} has given it to another member; this one "
                f"holds {self._shown()}"
            )
        where = {self._where(stream, partition): OffsetAndMetadata(offset, "", -1)}
        with self._servers.told():
            self._client.commit(where, timeout_ms=PATIENCE_SECONDS * 1000)
        self.renew()

    def assignment(self) -> frozenset[int]:
        return self._held

    def renew(self) -> None:
        """A commit is a sign of life; the client itself counts calls of `poll` alone."""
        self._client._coordinator.heartbeat.poll()

    def close(self) -> None:
        """Leave the group at once. Closing twice is closing once."""
        if self._closed:
            return
        self._closed = True
        self._forget(self)
        self._held = frozenset()
        self._listener.holds = False  # nobody is told on leaving
        self._client.close(timeout_ms=CLOSE_SECONDS * 1000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def at_end(self) -> dict[tuple[str, int], float]:
        """See `Consumer.at_end`: a partition of which the newest fetch, from where we are, brought nothing.

        Other answers tell nothing of it: heartbeats are answered while the caller is busy and nothing is
        fetched, and one broker may answer while another hangs.
        """
        fetched = [(where, self._fetched.get(where)) for where in self._known]  # before what they brought
        waiting = {each.topic_partition for each in self._client._fetcher._completed_fetches.copy()}
        found = {}
        for where, last in fetched:
            state = self._client._subscription.assignment.get(where)
            if last is None or where in waiting or where.partition not in self._held or state is None:
                continue
            offset, asked_at = last
            at = state.position.offset if state.position else None
            if at == offset and state.highwater is not None and state.highwater <= at:
                found[self._streams[where.topic], where.partition] = asked_at
        return found

    def _note(self, node: object, offsets: dict[TopicPartition, int], asked: float, answer: Any) -> None:
        """A fetch was answered. Partitions that the answer leaves out have nothing new. Runs on the client's
        thread, once what has come lies ready to be taken apart."""
        self._take_in(node, offsets, asked, answer)
        if answer.error_code or answer.throttle_time_ms:
            return  # nobody has looked
        failed = {
            TopicPartition(topic.topic, each.partition_index)
            for topic in answer.responses
            for each in topic.partitions
            if each.error_code
        }
        asked_at = time.time() - (time.monotonic() - asked)
        self._fetched.update({w: (offset, asked_at) for w, offset in offsets.items() if w not in failed})

    def _read_all_at(self) -> float:
        """As of when we have read all. An empty poll may be one whose fetch is under way, or of a member that
        has not joined yet: then as before. Whoever was dealt nothing has nothing to read."""
        if self.metadata is None:
            return self._heard_at() if self._listener.spare else self.answered_at
        ends = self.at_end()
        return min(ends.values()) if len(ends) == len(self._known) else self.answered_at

    def _heard_at(self) -> float:
        """When a broker last answered, in seconds since 1970."""
        heard: float = self._client._client.heard
        return time.time() - (time.monotonic() - heard)

    def _listen(self) -> None:
        """Ask brokers for a word where they are silent. Raises BusError where they stay so.

        Patience begins with the asking: a process that was stopped itself has heard nothing either.
        """
        now, heard = time.monotonic(), self._client._client.heard
        if now - heard < QUIET_SECONDS:
            self._asked = None
            return
        self._client._client.cluster.request_update()
        if self._asked is None or self._asked < heard:
            self._asked = now
        elif now - self._asked > PATIENCE_SECONDS:
            raise self._servers.in_words(errors.KafkaTimeoutError(f"not within {PATIENCE_SECONDS:.0f} s"))

    def _keep_join(self) -> None:
        """Show the client a join that was over between two calls of `poll` as one to wait for: it would throw
        that away and join again, without end where calls are short or far between."""
        coordinator = self._client._coordinator
        if coordinator._join_task is not None and coordinator._join_task.succeeded():
            coordinator._join_task = _Over(coordinator._join_task.value)

    def _change(self) -> None:
        """Do on the caller's thread what the client was interrupted for."""
        told = self._listener
        if told.revoked:
            told.revoked = False
            try:
                if self._held and self._on_revoked:
                    self._on_revoked(self._held)
            finally:
                self._held, self.metadata, told.holds = frozenset(), None, False
        elif told.assigned:
            assigned, told.assigned = told.assigned, frozenset()
            self._fetched.clear()
            for where in assigned:
                self._begin(where)
            self._known = assigned
            self._held, self.metadata, told.holds = frozenset(p for _, p in assigned), told.metadata, True
            if self._on_assigned:
                self._on_assigned(self._held)

    def _begin(self, where: TopicPartition) -> None:
        """Read from where the group is, or from the first message. By itself the client would go on where it
        was, with what it had then, in what it had before; and of a log it would ask where to begin."""
        with self._servers.told():
            offset = self._client.committed(where, timeout_ms=PATIENCE_SECONDS * 1000)
            if offset is not None or not self._passing:
                self._client.seek(where, offset or 0)
            else:
                self._client.seek_to_beginning(where)

    def _read_now(self) -> str:
        """The topic whose messages the client is taking apart, or all that it may be."""
        taken_apart = self._client._fetcher._next_partition_records
        return taken_apart.topic_partition.topic if taken_apart else ", ".join(self._streams)

    def _where(self, stream: str, partition: int) -> TopicPartition:
        return TopicPartition(self._topics.name(stream), partition)

    def _shown(self) -> str:
        return ", ".join(map(str, sorted(self._held))) or "none"


class _Over(Future):  # type: ignore[misc]
    """A result that is there as soon as it is waited for, and no sooner."""

    def __init__(self, result: object) -> None:
        super().__init__()
        self._result = result

    def add_callback(self, f: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.is_done:
            self.success(self._result)
        return super().add_callback(f, *args, **kwargs)


class _Changed(Exception):
    """Partitions are to be given up, or have been assigned."""


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Runs on the client's own thread: notes what it is told and interrupts the client, whose `poll` then
    raises. Asked again to give up what has been given up meanwhile, it lets the client go on."""

    def __init__(self) -> None:
        self.client: Any = None
        self.holds = False
        self.spare = False  # the group is together, and dealt us nothing
        self.revoked = False
        self.assigned: frozenset[TopicPartition] = frozenset()
        self.metadata: Any = None

    @property
    def changed(self) -> bool:
        return self.revoked or bool(self.assigned)

    def on_partitions_revoked(self, revoked: object) -> None:
        self.spare = False
        if self.holds:
            self.revoked = True
            raise _Changed

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.assigned = frozenset(assigned)
        self.spare = not self.assigned
        if self.assigned:
            # As of now: once the group has put us out, the client's own would be those of nobody, whom the
            # brokers let commit anything.
            self.metadata = self.client.group_metadata()
            raise _Changed


def delivered(stream: str, record: Any) -> Delivered:
    """A consumed record as the port has it."""
    return Delivered(
        stream,
        record.partition,
        record.offset,
        record.key if record.key is not None else b"",
        record.value if record.value is not None else b"",
        {name: value if value is not None else b"" for name, value in record.headers},
        record.timestamp / 1000,
    )

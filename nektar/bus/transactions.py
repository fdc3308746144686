"""Writing to Kafka: a transactional producer for one partition number, fenced by its transactional id.

A transaction takes five round trips (partitions and offsets are announced, offsets and messages sent, the end
written) and one to see that consumers see it: its markers are written after Kafka has answered. While another
writer's transaction is open below it, nobody reads past that one, and whoever wrote after it waits too:
moments, or, where that writer died inside it, until the brokers abort it (TRANSACTION_SECONDS, and then
`transaction.abort.timed.out.transaction.cleanup.interval.ms`).

What fails is aborted. Where even that fails, whether it was written can't be known here: the writer is broken
(`Broken`), and whoever opens it again begins with what the bus then says.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol, Self

from kafka import KafkaProducer, TopicPartition, errors
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.structs import OffsetAndMetadata

from nektar.bus.members import KafkaMember
from nektar.bus.port import Broken, BusError, Fenced, Message
from nektar.bus.rules import check_offset, checked, is_telemetry
from nektar.bus.servers import PATIENCE_SECONDS, RETRY_MS, Servers
from nektar.bus.topics import MAX_BYTES, Topics

# After which brokers abort a transaction that is still open: the longest record of the log at 50 MB/s. Their
# default is a minute, and for so long nobody would read past what a dead writer has left open.
TRANSACTION_SECONDS = 10.0
# Messages that follow each other at once share a batch of up to this: below what a topic takes.
BATCH_BYTES = 1_000_000
# The first messages of a transaction leave while the others are handed over: nothing is gained by waiting.
LINGER_MS = 0
# How long to wait between looks at whether a transaction is seen: most are at the first.
LOOK_AGAIN = 0.001
LONGEST_LOOK = 0.05
CLOSE_SECONDS = 5.0
# For an abort, after all that was waited for already.
ABORT_SECONDS = 10.0


class _Client(KafkaNetClient):  # type: ignore[misc]
    """Where a connection can't be made it is not ready, and the producer asks again. What the original raises
    makes it forget what it was about to send, for which its transaction waits until it is too late.

    And what is not answered in time is as if the connection had broken off, which it then has: asked again,
    where the producer would take it for the end of its transactions."""

    def await_ready(self, node_id: Any, timeout_ms: float = 30_000) -> bool:
        try:
            return bool(super().await_ready(node_id, timeout_ms=timeout_ms))
        except errors.KafkaError:
            time.sleep(RETRY_MS / 1000)
            return False

    def send(self, node_id: Any, request: Any, **kwargs: Any) -> Any:
        answered = Future()

        def failed(error: BaseException) -> None:
            late = isinstance(error, errors.RequestTimedOutError)
            answered.failure(errors.KafkaConnectionError(str(error)) if late else error)

        super().send(node_id, request, **kwargs).add_callback(answered.success).add_errback(failed)
        return answered


class Opened(Protocol):
    """What a writer needs of the bus that opened it."""

    def holder(self, group: str, partition: int) -> KafkaMember:
        """The member of `group` that holds `partition`. Raises Fenced where there is none."""

    def wait_until_read(self, ends: dict[TopicPartition, int]) -> bool:
        """Whether whoever reads committed messages sees what lies below `ends`, after one look."""

    def forget(self, closed: KafkaWriter) -> None: ...


class KafkaWriter:
    """Open it with `KafkaBus.writer`."""

    def __init__(
        self, bus: Opened, servers: Servers, topics: Topics, transactional_id: str, partition: int
    ) -> None:
        """Fence whoever had this id. Raises BusError."""
        self._bus = bus
        self._servers = servers
        self._topics = topics
        self._id = transactional_id
        self._partition = partition
        self._broken: BusError | None = None
        with servers.told():
            self._producer = KafkaProducer(
                **servers.client(),
                transactional_id=transactional_id,
                transaction_timeout_ms=int(TRANSACTION_SECONDS * 1000),
                acks="all",
                batch_size=BATCH_BYTES,
                linger_ms=LINGER_MS,
                max_request_size=int(MAX_BYTES),
                max_block_ms=PATIENCE_SECONDS * 1000,
                kafka_client=_Client,
                delivery_timeout_ms=PATIENCE_SECONDS * 1000,
            )
            try:
                self._producer.init_transactions()
            except BaseException:
                self._producer.close(timeout=0)
                raise

    def transaction(
        self,
        messages: Iterable[Message],
        offsets: Mapping[str, int] | None = None,
        group: str | None = None,
    ) -> None:
        """Write `messages` and commit `offsets` of `group`, all or nothing; see the port.

        Offsets are committed as the member that holds the partition here: the brokers refuse them, and all
        that came with them, where the group has moved on since it was assigned.
        """
        batch = checked(messages)
        if self._broken:
            raise self._broken
        member = None
        if offsets:
            if group is None:
                raise BusError("transaction: expected the group whose offsets to commit; got offsets alone")
            member = self._bus.holder(group, self._partition)
            member.renew()
            for stream, offset in offsets.items():
                check_offset(stream, offset)
        streams = {message.stream for message in batch} | set(offsets or ())
        is_telemetry(streams)
        self._topics.ensure(streams)
        if not batch and not offsets:
            self._check_fence()
            return
        try:
            self._producer.begin_transaction()
            sent = [
                self._producer.send(
                    self._topics.name(message.stream),
                    message.value,
                    message.key,
                    list(message.headers.items()),
                    self._partition,
                )
                for message in batch
            ]
            if member and offsets:
                self._send_offsets(offsets, member.metadata)
            self._producer.flush(PATIENCE_SECONDS)
            for each in sent:  # the client would commit the others where one has come too late
                if each.failed():
                    raise each.exception
            self._done(self._manager.begin_commit())
        except errors.KafkaError as error:
            raise self._aborted(error) from error
        except BaseException:
            self._broken = Broken(f"writer {self._id}: left amid a transaction; open it again")
            raise
        if sent:
            self._wait_until_read({each.value.topic_partition: each.value.offset + 1 for each in sent})
        if member:
            member.renew()

    def close(self) -> None:
        self._bus.forget(self)
        with suppress(errors.KafkaError):
            self._producer.close(timeout=0 if self._broken else CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def _manager(self) -> Any:
        return self._producer._transaction_manager

    def _send_offsets(self, offsets: Mapping[str, int], metadata: Any) -> None:
        named = {
            TopicPartition(self._topics.name(stream), self._partition): OffsetAndMetadata(offset, "", -1)
            for stream, offset in offsets.items()
        }
        self._done(self._manager.send_offsets_to_transaction(named, metadata))

    def _done(self, result: Any, seconds: float | None = None) -> None:
        """What the producer's own methods do with a request, but not for ever where no broker answers."""
        self._producer._sender.wakeup()
        seconds = PATIENCE_SECONDS if seconds is None else seconds
        if not result.wait(timeout_ms=seconds * 1000):
            raise errors.KafkaTimeoutError(f"not within {seconds:.0f} s")

    def _aborted(self, error: errors.KafkaError) -> BusError:
        """Abort, and say why."""
        told = self._servers.in_words(self._manager.last_error or error)
        try:
            self._done(self._manager.begin_abort(), ABORT_SECONDS)
        except errors.KafkaError:
            self._broken = told if isinstance(told, Fenced) else Broken(str(told))
        return self._broken or told

    def _check_fence(self) -> None:
        """Raises Fenced where the id has been opened again: what writes nothing would not be told."""
        epoch = self._topics.epoch(self._id)
        ours = self._manager.producer_id_and_epoch
        if epoch != (ours.producer_id, ours.epoch):
            self._broken = Fenced(f"writer {self._id}: another process has opened it; stop this one")
            raise self._broken

    def _wait_until_read(self, ends: dict[TopicPartition, int]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        pause = LOOK_AGAIN
        while not self._bus.wait_until_read(ends):
            if time.monotonic() > deadline:
                raise BusError(
                    f"writer {self._id}: what it wrote is committed, and nobody reads it: another writer's "
                    "transaction has been open for a minute; see who holds it (kafka-transactions list)"
                )
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_LOOK)

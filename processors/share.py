"""A partition that this process holds: its logs, followed by every fold, and the transactions they share."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, MutableMapping, MutableSet, Sequence
from typing import Any

from nektar import trace
from nektar.bus.port import Bus, BusError, Delivered, Message, Writer
from nektar.errors import NektarError
from nektar.log import NETWORK, Reading
from processors.following import Following, Log
from processors.handover import difference
from processors.processor import broken_at

# What shares the partitions out, and writes to them.
GROUP = "processors"
# A batch ends at the record that reaches this: other writers of the partition wait for the transaction.
TRANSACTION_BYTES = 4 * 1024 * 1024
# How long the group's offset may stay where it is, and what puts nothing out unsaid, in seconds. Folded again
# it puts nothing out again, so that only a restart's work and the group's lag, as others see it, grow by it,
# while every transaction is something that the next block waits for, and on Kafka an offset is a third of
# one. Less than a lease, which a commit renews.
QUIET_SECONDS = 2.0
_logger = logging.getLogger(__name__)


class _Behind:
    """What one fold of a log lacks that began before the others, and reads by itself."""

    def __init__(self, following: Following[Any]) -> None:
        self.following = following
        self.reading = Reading(following.processor.start)
        self.read = following.processor.start  # offset up to which it has read


class Share:
    """What is folded of a partition, and put out.

    The partition is read once, for all folds of all its logs, from where those stand that have a checkpoint.
    One that stands before that (a fold that is new, a Network that came late) reads what it lacks by itself,
    a batch each turn, so that nothing waits for it until it has come to where the others are.
    """

    def __init__(
        self,
        bus: Bus,
        partition: int,
        writer: Writer,
        committed: int,
        followings: Mapping[Log, Following[Any]],
        stopped: MutableMapping[Log, Exception],
        over: MutableSet[Log],
    ) -> None:
        """`stopped` says what is not followed any further, and why, and `over` of what a newer generation has
        taken the place; what comes to that here is added."""
        self._bus = bus
        self._partition = partition
        self._writer = writer
        self._committed = committed
        self._followings = dict(followings)
        self._stopped = stopped
        self._over = over
        self._messages: list[Message] = []  # what was taken puts out, in the order in which it was
        self._bytes = 0
        self._said_at = time.monotonic()
        starts = {log: each.processor.start for log, each in followings.items() if log not in stopped}
        saved = [start for log, start in starts.items() if followings[log].saved]
        self.start = min(saved or starts.values(), default=committed)
        self.read = self.start  # offset up to which the partition is read
        self._readings = {log.key: Reading(self.start) for log in followings}
        self._behind = {log: _Behind(followings[log]) for log, start in starts.items() if start < self.start}

    @property
    def logs(self) -> Sequence[Log]:
        return list(self._followings)

    @property
    def behind(self) -> bool:
        """Whether something has not come to where the others are."""
        return bool(self._behind)

    def take(self, delivered: Delivered) -> None:
        """Fold what came. What can't be folded ends alone. Raises BusError."""
        if delivered.key in self._readings:
            here = [
                each
                for log, each in self._followings.items()
                if log.key == delivered.key and log not in self._behind
            ]
            self._fold(here, self._readings[delivered.key], delivered)
        self.read = delivered.offset + 1

    def catch_up(self, batch: int) -> int:
        """Fold of what each lacks that is behind as many messages. How many there were. Raises BusError."""
        taken = 0
        for log, behind in list(self._behind.items()):
            page = self._bus.read(NETWORK, self._partition, behind.read, batch)
            lacking = [message for message in page if message.offset < self.read]
            for message in lacking:
                if message.key == log.key:
                    self._fold([behind.following], behind.reading, message)
            behind.read = lacking[-1].offset + 1 if lacking else self.read
            taken += len(lacking)
            if log in self._stopped:
                del self._behind[log]
            elif behind.read >= self.read:
                del self._behind[log]
                self._readings[log.key] = behind.reading  # if another has read as far, it stands as that does
        return taken

    def flush(self) -> None:
        """Commit everything taken: in one transaction what it puts out, how far each log is put out, and now
        and then the group's offset; with it or after it checkpoints that are due. Where it puts nothing out,
        that may wait (QUIET_SECONDS)."""
        due = time.monotonic() - self._said_at > QUIET_SECONDS
        if not self._messages and not due:
            return
        next_ = self._group_next() if due else self._committed
        offsets = {NETWORK: next_} if next_ > self._committed else {}
        said = [*self._messages, *(message for each in self._followings.values() for message in each.moved())]
        size = self._bytes
        for log, each in self._followings.items():
            if log in self._stopped:  # it may have folded the record that it could not put out
                continue
            checkpoint = each.checkpoint()
            more = sum(len(message.value) for message in checkpoint)
            if more and size + more > TRANSACTION_BYTES:
                self._writer.transaction(said)
                said, size = [], 0
            said += checkpoint
            size += more
        if said or offsets:
            self._writer.transaction(said, offsets, GROUP)
        self._messages, self._bytes = [], 0
        for each in self._followings.values():
            each.committed()
        if due:
            self._committed, self._said_at = next_, time.monotonic()

    def close(self) -> None:
        self._writer.close()

    def _group_next(self) -> int:
        """The group's offset stays below whatever is not put out: what is half read, behind, or stopped."""
        waiting: list[int] = [
            each.taken
            for log, each in self._followings.items()
            if log in self._stopped or log in self._behind or self._readings[log.key].half
        ]
        return max(self._committed, min([self.read, *waiting]))

    def _fold(self, those: Sequence[Following[Any]], reading: Reading, delivered: Delivered) -> None:
        those = [each for each in those if each.log not in self._stopped]
        if not those:
            return
        try:
            records = reading(delivered)
        except Exception as error:
            for each in those:
                self._stop(each, error, delivered)
            return
        for whole in records:
            for each in those:
                if each.log not in self._stopped:
                    self._take(each, whole, delivered)

    def _take(self, following: Following[Any], whole: Delivered, delivered: Delivered) -> None:
        try:
            messages = following.take(whole, lambda: self._hand_over(following, whole))
            self._messages += messages
            self._bytes += sum(len(message.value) for message in messages)
        except BusError:
            raise  # no fault of the log's: a new start does it again
        except Exception as error:
            self._stop(following, error, delivered)
        if self._bytes >= TRANSACTION_BYTES:
            self.flush()

    def _hand_over(self, following: Following[Any], record: Delivered) -> list[Message]:
        """What says that the generation that comes to stand has found otherwise; older ones are followed no
        more. Raises BusError."""
        self.flush()  # so that all that was said before can be read
        network, fold = following.processor.network, following.log.fold
        said = difference(self._bus, network, fold, record.offset, trace.carried(record.headers))
        for log, each in list(self._followings.items()):
            older = each.processor.network
            if log.fold == fold and older.name == network.name and older.generation < network.generation:
                del self._followings[log]
                self._behind.pop(log, None)
                self._over.add(log)
                self._said_at = -math.inf  # no life that comes later follows them to here again
        return said

    def _stop(self, following: Following[Any], error: Exception, delivered: Delivered) -> None:
        network = following.processor.network
        self._stopped[following.log] = stop(following.log.fold, network.name, error, delivered)


def stop(fold: str, network: str, error: Exception, delivered: Delivered | None = None) -> Exception:
    """Say that the fold follows the Network no further; the error as it is kept. What no NektarError foresaw
    is a bug: its traceback is said too."""
    foreseen = isinstance(error, NektarError)
    shown = broken_at(delivered, error) if delivered else error
    how = "stopped" if foreseen else f"stopped by a bug ({type(error).__name__})"
    raised = None if foreseen else error
    _logger.error("%s, %s: %s: %s", fold, network, how, shown, exc_info=raised)
    return shown if foreseen else error

"""Lanes: how many requests write to the bus at once without a commit for each.

A lane is a thread with the writer of one partition. What arrives while it commits goes into the next
transaction together, so that a single request waits for one commit and many share one.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple, Self

from nektar.bus.port import Broken, Bus, BusError, Fenced, Message

log = logging.getLogger(__name__)

# Of one transaction: little enough to be written within some tens of milliseconds.
TRANSACTION_BYTES = 4 * 1024 * 1024


class _Job(NamedTuple):
    messages: Sequence[Message]
    size: int
    done: Future[None]


class Lane:
    """The writer of one partition, and the thread that it belongs to."""

    def __init__(self, bus: Bus, transactional_id: str, partition: int) -> None:
        self.over: Fenced | Broken | None = None  # why this lane writes no more
        self._writer = bus.writer(transactional_id, partition)
        self._waiting: dict[int, float] = {}  # not written yet, and since when; oldest first
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=transactional_id, daemon=True)
        self._thread.start()

    def write(self, messages: Sequence[Message]) -> Future[None]:
        """Done when all `messages` are committed, together and in order; fails with BusError."""
        job = _Job(messages, sum(len(m.key) + len(m.value) for m in messages), Future())
        with self._lock:
            self._waiting[id(job.done)] = time.time()
        job.done.add_done_callback(self._written)
        self._jobs.put(job)
        return job.done

    def _written(self, done: Future[None]) -> None:
        with self._lock:
            del self._waiting[id(done)]

    @property
    def since(self) -> float | None:
        """Since when the oldest that is not written waits, in seconds since 1970; None: all is written."""
        with self._lock:
            return next(iter(self._waiting.values()), None)

    def close(self) -> None:
        """Write what has been handed over, then end."""
        self._jobs.put(None)
        self._thread.join()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self) -> None:
        open_ = True
        while open_ and (job := self._jobs.get()) is not None:
            batch, size = [job], job.size
            while size < TRANSACTION_BYTES:
                try:
                    more = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    open_ = False
                    break
                batch.append(more)
                size += more.size
            self._commit(batch)

    def _commit(self, handed_over: Sequence[_Job]) -> None:
        batch = [job for job in handed_over if job.done.set_running_or_notify_cancel()]
        try:
            self._writer.transaction(message for job in batch for message in job.messages)
        except BaseException as error:
            if isinstance(error, Fenced | Broken):
                self.over = error
            elif not isinstance(error, BusError):
                log.exception("a transaction failed")
            for job in batch:
                job.done.set_exception(error)
        else:
            for job in batch:
                job.done.set_result(None)

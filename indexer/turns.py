"""Turns: one thing is done at a time, of each client in turn, so that whoever has many waits for himself."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from indexer.clients import Client


class _Job(NamedTuple):
    work: Callable[[], Any]
    done: Future[Any]

    def run(self) -> None:
        if not self.done.set_running_or_notify_cancel():
            return  # whoever waited has given up
        try:
            found = self.work()
        except BaseException as error:
            self.done.set_exception(error)
        else:
            self.done.set_result(found)


class Turns:
    """The thread in which things are done. Shared between threads and event loops."""

    def __init__(self, name: str) -> None:
        self._waiting: OrderedDict[Client, deque[_Job]] = OrderedDict()  # in the order of their turns
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def take(self, client: Client, work: Callable[[], Any]) -> Future[Any]:
        """What `work` returns or raises, once it was this client's turn. One that has not begun can be
        cancelled, and none begins after `close`."""
        done: Future[Any] = Future()
        with self._changed:
            if self._closed:
                done.cancel()
            else:
                self._waiting.setdefault(client, deque()).append(_Job(work, done))
                self._changed.notify()
        return done

    def close(self) -> None:
        """Begin nothing more, and wait for what has begun."""
        with self._changed:
            self._closed = True
            for jobs in self._waiting.values():
                for job in jobs:
                    job.done.cancel()
            self._waiting.clear()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            job.run()
            del job  # and what it holds, before the next one is waited for

    def _next(self) -> _Job | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            client, jobs = self._waiting.popitem(last=False)
            job = jobs.popleft()
            if jobs:
                self._waiting[client] = jobs
            return job

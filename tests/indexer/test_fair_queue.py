"""Who waits for whom, and that what waits is bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager

import pytest

from indexer import fair_queue as module
from indexer.fair_queue import IN_ALL, OF_PEER, Busy, FairQueue


class Served:
    """A queue whose first piece waits until it is let go, so that others gather; and who was served."""

    def __init__(self) -> None:
        self.queue = FairQueue[str]("test", 1e6)
        self.peers: list[str] = []
        self.go = threading.Event()
        begun = threading.Event()

        def first() -> str:
            begun.set()
            assert self.go.wait(30)
            return ""

        self.first = self.queue.submit("first", first)
        assert begun.wait(30)

    def ask(self, peer: str) -> Future[str]:
        def work() -> str:
            self.peers.append(peer)
            return peer

        return self.queue.submit(peer, work)


@contextmanager
def serving() -> Iterator[Served]:
    served = Served()
    try:
        yield served
    finally:
        served.go.set()
        served.queue.close()


def test_what_is_done_comes_back_and_what_fails_is_raised() -> None:
    def fails() -> str:
        raise ZeroDivisionError

    with serving() as served:
        served.go.set()
        assert served.ask("a").result(30) == "a"
        with pytest.raises(ZeroDivisionError):
            served.queue.submit("a", fails).result(30)
        assert served.ask("a").result(30) == "a"


def test_peers_take_turns_and_who_comes_new_waits_for_no_flood() -> None:
    with serving() as served:
        asked = [served.ask("flood") for _ in range(OF_PEER)]
        asked += [served.ask("other") for _ in range(3)]
        asked += [served.ask("new")]
        served.go.set()
        for each in asked:
            each.result(30)
    assert served.peers[:7] == ["flood", "other", "new", "flood", "other", "flood", "other"]
    assert served.peers[7:] == ["flood"] * (OF_PEER - 3)


def test_who_was_served_before_waits_for_who_was_not_however_late_they_come() -> None:
    with serving() as served:
        asked = [served.ask("first"), served.ask("new")]
        served.go.set()
        assert [each.result(30) for each in asked] == ["first", "new"]
    assert served.peers == ["new", "first"]


def test_no_peer_has_more_than_so_many_waiting() -> None:
    with serving() as served:
        for _ in range(OF_PEER):
            served.ask("flood")
        with pytest.raises(Busy):
            served.ask("flood")
        assert served.ask("other")


def test_where_all_places_are_taken_who_was_served_last_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_ALL", 2)
    with serving() as served:
        flood, new = served.ask("first"), served.ask("new")
        newer = served.ask("newer")  # in the place of the one who is being served now
        with pytest.raises(Busy):
            flood.result(30)
        with pytest.raises(Busy):
            served.ask("newest")  # nobody waits who was served after that
        served.go.set()
        assert (new.result(30), newer.result(30)) == ("new", "newer")


def test_where_all_places_are_taken_who_has_most_gives_way_to_who_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "IN_ALL", 3)
    with serving() as served:
        one, *flood = served.ask("one"), served.ask("flood"), served.ask("flood")
        new = served.ask("new")
        with pytest.raises(Busy):
            flood[1].result(30)
        served.go.set()
        assert [each.result(30) for each in (one, flood[0], new)] == ["one", "flood", "new"]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PEERS", 3)
    with serving() as served:
        served.go.set()
        for i in range(IN_ALL):
            assert served.ask(f"peer {i}").result(30)
        assert len(served.queue._served) == 3
        assert served.queue._waiting == {}


def test_what_nobody_waits_for_any_more_is_not_done() -> None:
    with serving() as served:
        given_up, other = served.ask("a"), served.ask("b")
        assert given_up.cancel()
        served.go.set()
        assert other.result(30) == "b"
    assert served.peers == ["b"]


def test_at_the_end_what_waits_is_cancelled() -> None:
    with serving() as served:
        waiting = served.ask("a")
        ending = threading.Thread(target=served.queue.close)
        ending.start()
        with pytest.raises(CancelledError):
            waiting.result(30)
        served.go.set()
        ending.join(30)
        assert not ending.is_alive()
    assert served.peers == []


def test_so_many_are_done_a_second_and_no_more() -> None:
    queue = FairQueue[None]("test", 20.0)
    done: list[float] = []
    began = time.monotonic()
    asked = [queue.submit(f"peer {i}", lambda: done.append(time.monotonic())) for i in range(30)]
    for each in asked:
        each.result(30)
    queue.close()
    assert done[19] - began < 30  # at once, however long that takes here
    assert done[-1] - began >= 10 / 20 - 0.05

"""Turns: one thing at a time, of each sender in turn."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.clients import Client
from indexer.turns import Turns
from nektar.senders import Sender

A = Client(Sender("a"))


class Held:
    """Turns whose first thing to do goes on until `go` is set, so that whoever comes next waits."""

    def __init__(self) -> None:
        self.turns = Turns("test")
        self.go = threading.Event()
        self.begun = threading.Event()
        self.first = self.turns.take(Client(Sender("first")), self._wait)
        assert self.begun.wait(30)

    def _wait(self) -> None:
        self.begun.set()
        assert self.go.wait(30)


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.go.set()
    held.turns.close()


@given(st.lists(st.sampled_from([A, Client(Sender("b")), Client(Sender("a"), "10.0.0.1")]), max_size=12))
def test_senders_take_turns_and_each_ones_things_are_done_in_their_order(asked: list[Client]) -> None:
    held, done = Held(), list[tuple[Client, int]]()
    made: dict[Client, int] = defaultdict(int)
    waiting = list[Future[None]]()
    for sender in asked:
        waiting.append(held.turns.take(sender, partial(done.append, (sender, made[sender]))))
        made[sender] += 1
    held.go.set()
    for each in waiting:
        each.result(30)
    held.turns.close()
    order = list(dict.fromkeys(asked))
    rounds = [(sender, i) for i in range(12) for sender in order if i < made[sender]]
    assert done == rounds


def test_what_it_returns_or_raises(held: Held) -> None:
    held.go.set()
    assert held.turns.take(A, lambda: 7).result(30) == 7
    with pytest.raises(ZeroDivisionError):
        held.turns.take(A, lambda: 1 // 0).result(30)
    assert held.turns.take(A, lambda: 8).result(30) == 8


def test_what_has_not_begun_can_be_given_up(held: Held) -> None:
    done = list[int]()
    given_up, other = (held.turns.take(A, partial(done.append, i)) for i in range(2))
    assert given_up.cancel()
    assert not held.first.cancel()
    held.go.set()
    other.result(30)
    assert done == [1]


def test_nothing_begins_once_they_are_closed(held: Held) -> None:
    waits = held.turns.take(A, lambda: 1)
    closing = threading.Thread(target=held.turns.close)
    closing.start()
    with pytest.raises(CancelledError):
        waits.result(30)
    assert closing.is_alive()  # until what has begun is over
    held.go.set()
    closing.join(30)
    assert held.first.done()
    with pytest.raises(CancelledError):
        held.turns.take(A, lambda: 1).result(30)

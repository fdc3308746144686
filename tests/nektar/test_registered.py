"""What is said of keys, read back; and nothing else is taken for it."""

from __future__ import annotations

import pytest

from nektar import registered
from nektar.bus.port import Delivered, Message
from nektar.model import G1, Address
from nektar.registered import Said
from nektar.rows import Change, OperatorRow

ALICE, KEY = Address(b"\xa1" * 20), G1(bytes(range(64)))


def row(key: G1 = KEY, deregistered: int = 0, stake: int = 0) -> OperatorRow:
    return OperatorRow(ALICE, key, "eu", 1, stake, True, 1, deregistered)


def delivered(message: Message) -> Delivered:
    return Delivered(message.stream, 0, 0, message.key, message.value, {}, 0.0)


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        (None, row(), KEY),
        (row(), row(G1(bytes(64))), G1(bytes(64))),
        (row(), row(deregistered=7), None),
        (row(deregistered=7), row(), KEY),
        (row(), None, None),  # a reorg has taken it
    ],
    ids=["registered", "rotated", "deregistered", "again", "undone"],
)
def test_a_key_that_changes_is_said(
    before: OperatorRow | None, after: OperatorRow | None, key: G1 | None
) -> None:
    (message,) = registered.messages("home", 3, Change(before, after))
    assert registered.read(delivered(message)) == Said("home", 3, ALICE, key)


@pytest.mark.parametrize(
    ("before", "after"),
    [(row(), row(stake=5)), (row(deregistered=7), row(deregistered=7, stake=5)), (None, None)],
)
def test_one_that_stays_is_not(before: OperatorRow | None, after: OperatorRow | None) -> None:
    assert registered.messages("home", 3, Change(before, after)) == []


def test_as_of_when_is_said_of_a_log() -> None:
    assert registered.read(delivered(registered.as_of("home", 3, 1_800_000_000))) == Said(
        "home", 3, None, None, 1_800_000_000
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"operators/home/3", b"1"),
        (b"registered/home", b"1"),
        (b"registered/home/x", b"1"),
        (b"registered/home/3", b"now"),
        (b"registered/home/3/0xzz", KEY),
        (b"registered/\xff/3", b"1"),
    ],
)
def test_anything_else_says_nothing(key: bytes, value: bytes) -> None:
    assert registered.read(Delivered("nektar.checkpoints", 0, 0, key, value, {}, 0.0)) is None

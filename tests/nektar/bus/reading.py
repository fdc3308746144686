"""How the bus's tests write, wait and read, on any side of the port."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from nektar.bus.port import Bus, Consumer, Delivered, Message

# How long anything may take before it counts as never: generous, since machines are shared.
PATIENCE = 120.0

S, T = "test.s", "test.t"


def texts(messages: Any) -> list[bytes]:
    return [message.value for message in messages]


def said(values: Any, stream: str = S) -> list[Message]:
    return [Message(stream, b"k", value) for value in values]


def until(claim: Callable[[], bool]) -> None:
    """Call `claim`, which does the waiting, until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not claim():
        assert time.monotonic() < deadline, "waited in vain"


def take(consumer: Consumer, count: int) -> list[Delivered]:
    """The next messages, until there are `count`."""
    got: list[Delivered] = []
    deadline = time.monotonic() + PATIENCE
    while len(got) < count:
        assert time.monotonic() < deadline, f"waited in vain for {count} messages; {len(got)} came"
        got += consumer.poll(0.2)
    return got


def everything(bus: Bus, stream: str, partition: int) -> list[Delivered]:
    got: list[Delivered] = []
    while batch := bus.read(stream, partition, got[-1].offset + 1 if got else 0):
        got += batch
    return got


def settle(bus: Bus, *consumers: Consumer) -> None:
    """Poll until the group's partitions are spread over `consumers`, each to one, evenly."""

    def spread() -> bool:
        for consumer in consumers:
            assert not consumer.poll(0.02)
        held = [consumer.assignment() for consumer in consumers]
        sizes = [len(partitions) for partitions in held]
        return (
            sum(sizes) == bus.partitions
            and len(frozenset().union(*held)) == bus.partitions
            and max(sizes) - min(sizes) <= 1
        )

    until(spread)

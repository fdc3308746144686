"""What roles say of a bus that does not answer, or that brings one partition and has more in another: nobody
says that it is level as of now."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from nektar.bus.level import Level
from nektar.bus.port import Bus, Delivered
from nektar.health import Health
from nektar.log import FINDINGS, NETWORK, OTLP_SPANS
from processors import watchers as telling
from processors.sink import IDLE, Sink, take_turns
from processors.telemetry import Telemetry
from processors.watchers import Outbox
from tests.processors.logs_on_bus import runner
from tests.processors.told import Serving

ANSWERED = 1_790_000_000.0


class Scripted:
    """A bus whose members get what is said here, poll by poll, and then nothing. Nobody has heard of it since
    `answered_at`."""

    id = "scripted"
    partitions = 2
    lease = 10.0

    def __init__(self) -> None:
        self.answered_at = ANSWERED
        self.held = frozenset({0})
        self.streams: Sequence[str] = ()
        self.unheard: set[int] = set()  # partitions of which nothing is known yet
        self.comes: list[Delivered] = []
        self.waited: list[float] = []

    def consumer(self, _: object, streams: Sequence[str], **__: object) -> Scripted:
        self.streams = streams or [FINDINGS]
        return self

    def writer(self, *_: object) -> Scripted:
        return self

    def poll(self, timeout: float, max_messages: int = 500) -> Sequence[Delivered]:
        self.waited.append(timeout)
        return [self.comes.pop(0)] if self.comes else ()

    def assignment(self) -> frozenset[int]:
        return self.held

    def at_end(self) -> dict[tuple[str, int], float]:
        waits = {(message.stream, message.partition) for message in self.comes}
        ends = {(stream, p) for stream in self.streams for p in self.held - self.unheard}
        return dict.fromkeys(ends - waits, self.answered_at)

    def last(self, *_: object) -> None: ...

    def committed(self, *_: object) -> None: ...

    def commit(self, *_: object) -> None: ...

    def transaction(self, *_: object) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None: ...


class Empty:
    """A store that holds nothing."""

    def rows(self, _: str) -> list[Any]:
        return []


@pytest.fixture
def bus() -> Any:
    return Scripted()


# Each role, as what takes a turn and says up to when it is level.
Turn = Callable[[], float | None]


@contextmanager
def processors(bus: Bus) -> Iterator[Turn]:
    with runner(bus, []) as each:

        def turn() -> float | None:
            each.turn(0.0)
            return each.level_at

        yield turn


@contextmanager
def networks(bus: Bus) -> Iterator[Turn]:
    store: Any = Empty()
    with Sink(store, bus, {}) as sink:

        def turn() -> float | None:
            sink.turn(0.0)
            return sink.level_at

        yield turn


@contextmanager
def telemetry(bus: Bus) -> Iterator[Turn]:
    store: Any = Empty()
    with pytest.MonkeyPatch.context() as patched, Telemetry(store, bus) as each:
        patched.setattr("processors.telemetry.EVERY", 3_600.0)

        def turn() -> float | None:
            each._looks_at = 0.0  # that time is over
            while each.turn() or each.inserts:
                pass
            return each.level_at

        yield turn


@contextmanager
def watchers(bus: Bus) -> Iterator[Turn]:
    health = Health(clock=lambda: ANSWERED + 1_000.0)
    webhook: Any = None
    with Serving() as serving:
        outbox = Outbox(serving.watcher(), bus, health)
        outbox._consumer = bus.consumer("g", [])
        outbox._level = Level(outbox._consumer, [FINDINGS])

        def turn() -> float | None:
            asyncio.run(outbox.turn(webhook, threading.Event()))
            (lag,) = health.lags().values()
            return ANSWERED + 1_000.0 - lag

        yield turn


ROLES = [
    pytest.param(processors, NETWORK, id="processors"),
    pytest.param(networks, NETWORK, id="networks"),
    pytest.param(telemetry, OTLP_SPANS, id="telemetry"),
    pytest.param(watchers, FINDINGS, id="watchers"),
]


@pytest.mark.parametrize(("role", "stream"), ROLES)
def test_who_hears_nothing_is_level_as_of_the_last_answer(role: Any, stream: str, bus: Any) -> None:
    with role(bus) as turn:
        assert [turn() for _ in range(3)] == [ANSWERED] * 3


@pytest.mark.parametrize(("role", "stream"), ROLES)
def test_who_holds_several_partitions_is_level_with_the_one_that_is_furthest_behind(
    role: Any, stream: str, bus: Any
) -> None:
    def comes(partition: int, offset: int, after: float) -> None:
        at = ANSWERED + after
        bus.comes.append(Delivered(stream, partition, offset, b"n", b"what nobody can read", {}, at))

    bus.held = frozenset({0, 1})
    with role(bus) as turn:
        assert turn() == ANSWERED
        comes(0, 0, -500.0)
        comes(1, 0, 10.0)
        comes(0, 1, -400.0)
        assert [turn() - ANSWERED for _ in range(3)] == [-500.0, -500.0, -400.0]
        bus.unheard = {0}
        assert turn() - ANSWERED == -400.0  # an empty poll that found no end
        bus.unheard = set()
        bus.answered_at += 20.0
        assert turn() - ANSWERED == 20.0
        comes(0, 2, -300.0)
        assert turn() - ANSWERED == -300.0
        bus.held = frozenset({1})
        comes(1, 1, 30.0)
        comes(1, 2, 40.0)
        turn()  # of two streams one has brought nothing since the last end
        assert turn() - ANSWERED in (20.0, 40.0)


@pytest.mark.parametrize(("role", "stream"), ROLES)
def test_who_has_not_heard_of_each_partition_is_not_known_to_be_level(
    role: Any, stream: str, bus: Any
) -> None:
    bus.held, bus.unheard = frozenset({0, 1}), {0}
    bus.comes.append(Delivered(stream, 1, 0, b"n", b"what nobody can read", {}, ANSWERED))
    with role(bus) as turn:
        assert turn() in (None, ANSWERED + 1_000.0)  # of a watcher its lag since it began
        bus.answered_at, bus.unheard = ANSWERED + 1.0, set()
        assert turn() == ANSWERED + 1.0


@pytest.mark.parametrize(("role", "stream"), ROLES)
def test_who_is_brought_something_at_every_turn_is_level_with_partitions_that_have_nothing(
    role: Any, stream: str, bus: Any
) -> None:
    bus.held = frozenset({0, 1})
    with role(bus) as turn:
        for offset in range(50):
            at = ANSWERED + offset
            bus.comes.append(Delivered(stream, 1, offset, b"n", b"what nobody can read", {}, at))
            bus.answered_at = at + 0.5
            assert at <= turn() <= at + 0.5


def test_who_has_given_up_all_in_a_rebalance_is_not_level_for_that(bus: Any) -> None:
    bus.held, bus.unheard = frozenset({0, 1}), {1}
    level = Level(bus.consumer("g", [NETWORK]), [NETWORK])
    bus.comes.append(Delivered(NETWORK, 0, 0, b"n", b"", {}, ANSWERED - 500.0))
    level.took(level.poll(0.0))
    assert level.at is None
    bus.answered_at += 1.0
    bus.comes.append(Delivered(NETWORK, 0, 1, b"n", b"", {}, ANSWERED - 499.0))
    level.took(level.poll(0.0))
    bus.held = frozenset()
    assert not level.poll(0.0)  # and nothing is heard of the bus meanwhile
    assert level.at is None
    bus.answered_at += 1.0
    assert not level.poll(0.0)  # it is settled: others have all
    assert level.at == ANSWERED + 2.0
    bus.held = frozenset({0, 1})
    level.poll(0.0)
    assert level.at is None


def test_a_watcher_that_was_brought_something_looks_for_more_before_it_waits(bus: Any) -> None:
    bus.comes.append(Delivered(FINDINGS, 0, 0, b"n", b"what nobody can read", {}, ANSWERED))
    with watchers(bus) as turn:
        for _ in range(3):
            turn()
    assert bus.waited == [telling.IDLE, 0.0, telling.IDLE]


def test_a_store_that_was_brought_something_looks_for_more_before_it_waits(
    bus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = Empty()
    stop = threading.Event()
    bus.comes.append(Delivered(NETWORK, 0, 0, b"n", b"what nobody can read", {}, ANSWERED))
    with Sink(store, bus, {}) as sink, Telemetry(store, Scripted()) as telemetry:  # type: ignore[arg-type]
        turn = sink.turn

        def watched(*given: Any) -> bool:
            if len(bus.waited) == 2:
                stop.set()
            return turn(*given)

        monkeypatch.setattr(sink, "turn", watched)
        take_turns(sink, telemetry, stop, Health())
    assert bus.waited == [IDLE, 0.0, IDLE]

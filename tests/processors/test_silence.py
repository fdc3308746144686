"""A bus that does not answer is no empty bus: nobody says that it is level as of now."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from nektar.bus.port import Bus, Delivered
from nektar.health import Health
from processors.sink import Sink
from processors.telemetry import Telemetry
from processors.watchers import Outbox
from tests.processors.logs_on_bus import runner
from tests.processors.told import Serving

ANSWERED = 1_790_000_000.0


class Silent:
    """A bus whose members have heard nothing since then, and hear nothing now."""

    id = "silent"
    partitions = 1
    answered_at = ANSWERED

    def consumer(self, *_: object, **__: object) -> Silent:
        return self

    def poll(self, timeout: float, max_messages: int = 500) -> Sequence[Delivered]:
        return ()

    def close(self) -> None: ...

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None: ...


class Empty:
    """A store that holds nothing."""

    def rows(self, _: str) -> list[Any]:
        return []


@pytest.fixture
def bus() -> Any:
    return Silent()


def test_of_processors(bus: Bus) -> None:
    with runner(bus, []) as each:
        each.turn(0.0)
        assert each.level_at == ANSWERED


def test_of_the_store(bus: Bus) -> None:
    store: Any = Empty()
    with Sink(store, bus, {}) as networks, Telemetry(store, bus) as telemetry:
        networks.turn(0.0)
        telemetry.turn()
        assert networks.level_at == telemetry.level_at == ANSWERED


def test_of_watchers(bus: Bus) -> None:
    health = Health(clock=lambda: ANSWERED + 40.0)
    webhook: Any = None
    with Serving() as serving:
        outbox = Outbox(serving.watcher(), bus, health)
        outbox._consumer = bus.consumer("g", [])
        asyncio.run(outbox.turn(webhook, threading.Event()))
    assert list(health.lags().values()) == [40.0]
    assert "40 s behind" in health.behind()[0]

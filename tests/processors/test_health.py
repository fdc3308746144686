"""What the processors, the store and the watchers say of their health, what they count, and their spans."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nektar import trace
from nektar.bus.port import Bus, Delivered, Message
from nektar.bus.sqlite import SqliteBus
from nektar.config import Config, NetworkConfig, Provider
from nektar.health import Health
from nektar.log import FINDINGS, NETWORK, New, encode, key
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from nektar.store.port import Store
from processors import runner as running
from processors import watchers
from processors.due import Due, due
from processors.sink import Sink, take_turns
from processors.telemetry import Telemetry
from processors.watchers import Outbox
from processors.webhook import Answer, Outcome
from tests.nektar.logs import NETWORK as HOME
from tests.nektar.logs import Gossip, Plain, random_log
from tests.nektar.store.things import Things
from tests.otlp import spans as otlp_spans
from tests.processors.logs_on_bus import open_bus, runner, write
from tests.processors.test_sink import BLOCK
from tests.processors.told import Serving, config, event_of, until
from tests.spans import Counted, Spans

AWAY = msgspec.structs.replace(HOME, name="away")
TRACEPARENT = trace.begin(b"home/1", [b"a record"])


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SqliteBus]:
    with open_bus(tmp_path / "bus") as bus:
        yield bus


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"chdb://{tmp_path / 'store'}") as store:
        migrate(store, [Things()])
        yield store


def records(count: int) -> list[Any]:
    return [written.record for written in random_log(random.Random(3), count)]


# --- processors -------------------------------------------------------------------------------------


def test_a_fold_is_level_with_what_it_has_put_out_and_not_with_what_waits(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch, counted: Counted
) -> None:
    monkeypatch.setattr(running, "BATCH", 10)
    write(bus, HOME, records(25))
    moments = [message.time for message in bus.read(NETWORK, 0)]
    with runner(bus, [HOME]) as each:
        for upto in (10, 20, 25):
            assert each.turn(0.0) == min(10, upto - (upto - 1) // 10 * 10)
            assert each.level_at == moments[upto - 1]
        before = time.time()
        assert each.turn(0.0) == 0
        assert each.level_at >= before
    assert counted("nektar.processors.records") == {("gossip", "home"): 25}


def test_a_log_that_is_followed_no_more_keeps_the_role_from_being_ready(bus: SqliteBus) -> None:
    write(bus, HOME, records(5))
    with bus.writer("other", 0) as writer:
        writer.transaction([Message(NETWORK, key("away", 1), b"not a record")])
    networks = tuple(NetworkConfig(name, HOME.chain_id, ("p",), {}) for name in ("home", "away"))
    health, stop = Health(), threading.Event()
    given = (
        Config({"p": Provider("http://localhost")}, networks),
        [Gossip()],
        {"home": Plain(), "away": Plain()},
        bus,
        stop,
        health,
    )
    role = threading.Thread(target=running.run, args=given)
    role.start()
    try:
        while not any(line.startswith("gossip, away/1: ended: ") for line in health.behind()):
            role.join(0.005)
            assert role.is_alive()
        assert len(health.behind()) == 1, "the other is level"
    finally:
        stop.set()
        role.join(30)


def test_what_is_put_out_goes_on_with_the_trace_of_the_record(bus: SqliteBus, spans: Spans) -> None:
    with bus.writer("indexer", 0) as writer:
        for record in records(5):
            said = {trace.TRACEPARENT: TRACEPARENT}
            writer.transaction([Message(NETWORK, key("home", 1), encode(record), said)])
    with runner(bus, [HOME]) as each:
        each.turn(0.0)
    assert {span.name for span in spans.kept} == {"fold gossip"}
    assert [span.attributes[trace.OFFSET] for span in spans.kept] == [0, 1, 2, 3, 4]
    assert {trace.traceparent_of(span).split("-")[1] for span in spans.kept} == {
        TRACEPARENT.decode().split("-")[1]
    }
    put_out = bus.read("nektar.rows", 0)
    assert {message.headers[trace.TRACEPARENT] for message in put_out} == {TRACEPARENT}


# --- the store --------------------------------------------------------------------------------------


class Slow:
    """A store whose every insert is worth telling."""

    def __init__(self, store: Store, told: Callable[[], None]) -> None:
        self._store, self._told = store, told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def insert(self, *given: Any) -> None:
        self._told()
        self._store.insert(*given)


def test_the_store_says_that_it_moves_with_each_record(
    bus: SqliteBus, store: Store, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processors.sink.LOOK_EVERY", 60.0)
    moved: list[str] = []
    block = encode(New((BLOCK,), {}))
    with bus.writer("w", 0) as writer:
        for _ in range(3):
            writer.transaction([Message(NETWORK, key("n", 1), block)])
    slow: Any = Slow(store, lambda: moved.append("insert"))
    with Sink(slow, bus, {}, lambda: moved.append("moved")) as sink:
        sink.turn(0.0)
        before = time.time()
        sink.turn(0.0)
        assert sink.level_at >= before
    assert moved == ["insert", "insert", "moved", "insert", "moved", "insert", "moved"]
    assert counted("nektar.store.rows") == {("blocks_rows",): 3}


def test_telemetry_that_is_stored_is_counted_and_a_store_that_rests_is_waited_for(
    bus: SqliteBus, store: Store, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bus.writer("w", 0) as writer:
        request = otlp_spans(4, time.time_ns()).SerializeToString()
        writer.transaction([Message("otlp_spans", b"k", request)])
    health, stop = Health(), threading.Event()
    with Sink(store, bus, {}) as sink, Telemetry(store, bus) as telemetry:
        turn = sink.turn

        def once(*given: Any) -> bool:
            if telemetry.level_at is not None:  # which an empty poll says
                stop.set()
            return turn(0.0)

        monkeypatch.setattr(sink, "turn", once)
        take_turns(sink, telemetry, stop, health)
        assert counted("nektar.store.rows") == {("otel_traces",): 4}
        assert health.behind() == []
        stop.clear()
        telemetry._paused_until = time.monotonic() + 60
        health.opened("telemetry")
        take_turns(sink, telemetry, stop, health)
    assert health.behind() == ["telemetry: catching up, for 0 s: the store's merges are behind"]


# --- watchers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["500", "slow"])
def test_a_receiver_that_refuses_or_hangs_leaves_the_role_alive_and_not_ready(
    fault: str, bus: Bus, tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "ALIVE", 0.01)
    with bus.writer("w", 0) as writer:
        writer.transaction([Message(FINDINGS, b"home", event_of(1), {})])
    health, stop = Health(), threading.Event()
    with Serving() as serving:
        serving.receiver.fail([fault] * 1000)
        told = config(serving.watcher(timeout=30.0))
        role = threading.Thread(target=watchers.run, args=(told, bus, stop, health))
        role.start()
        try:
            if fault == "500":
                until(lambda: "it answers 500" in " ".join(health.behind()))
                assert counted("nektar.watchers.attempts")[("later", "w")] > 0
            else:
                until(lambda: serving.receiver.requests > 0)
                until(lambda: health.silence("w") < 0.05 and health.lags()["w"] > 0.5)
            assert health.stuck() == []
        finally:
            stop.set()
            role.join(60)
            assert not role.is_alive()


class Taking:
    """A receiver that takes all."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def send(self, event: bytes, traceparent: str = "") -> Answer:
        self.told.append(traceparent)
        return Answer(Outcome.TAKEN, "it answers 204")


def test_the_receiver_gets_the_span_that_tells_it(bus: Bus, spans: Spans) -> None:
    said = {trace.TRACEPARENT: TRACEPARENT}
    message = Delivered(FINDINGS, 0, 0, b"home", event_of(1), said, 0.0)
    with Serving() as serving:
        told = due(serving.watcher(), message)
        assert isinstance(told, Due)
        receiver: Any = Taking()
        asyncio.run(Outbox(serving.watcher(), bus, Health())._attempt(receiver, told))
    (span,) = spans.kept
    assert (span.name, span.attributes["nektar.outcome"]) == ("tell", "taken")
    assert receiver.told == [trace.traceparent_of(span)]
    assert receiver.told[0].split("-")[1] == TRACEPARENT.decode().split("-")[1]

"""What the indexer and the collector say of their health, and what they count."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from indexer import collector, follow, intake, role, writes
from indexer.follow import Follower
from indexer.lanes import Lane
from indexer.source import Source
from indexer.writer import NetworkLog
from nektar.bus.port import BusError, Message
from nektar.bus.sqlite import SqliteBus
from nektar.config import Config, Limits, Listen, Provider, Telemetry
from nektar.health import STUCK_SECONDS, Health
from tests.indexer.process import CONTRACTS, FILTER, Process, network
from tests.indexer.test_follow import node
from tests.indexer.world import CHAIN_ID, Chain
from tests.nektar.test_health import Clock
from tests.spans import Counted, Spans


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SqliteBus]:
    with SqliteBus(tmp_path / "bus") as bus:
        yield bus


@pytest.fixture
def chain() -> Chain:
    chain = Chain(random.Random(7))
    chain.mine(6)
    return chain


def test_a_network_is_level_once_its_log_is_level_with_the_head(bus: SqliteBus, chain: Chain) -> None:
    with Process(bus, [node(chain)]) as process:
        process.health.opened("net")
        assert process.health.behind()
        process.look()
        assert process.health.behind() == []
        assert process.health.lags()["net"] < 10


def test_what_is_appended_is_counted_and_a_trace_of_its_own(
    bus: SqliteBus, chain: Chain, counted: Counted, spans: Spans
) -> None:
    with Process(bus, [node(chain)]) as process:
        process.look()
        chain.reorg(2, 3)
        process.look()
    # The genesis block, six on it, and three in the place of two.
    assert counted("nektar.indexer.blocks") == {("net", "new"): 10, ("net", "undo"): 2}
    assert {span.name for span in spans.kept} == {"index"}
    assert len({span.context.trace_id for span in spans.kept}) == len(spans.kept)
    last = spans.kept[-1].attributes
    assert (last["nektar.block.last"], last["nektar.network"]) == (chain.blocks[-1].number, "net")
    assert all(span.start_time <= span.end_time for span in spans.kept)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  # what it waits for is said by another task
        await asyncio.sleep(0.001)


class Hanging:
    """A provider that takes a request and never answers."""

    name = "hangs"
    limits = Limits()

    async def batch(self, calls: Any) -> Any:
        await asyncio.Event().wait()

    call = batch


def test_a_provider_that_never_answers_leaves_the_role_alive_and_not_ready(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    health = Health(clock)
    monkeypatch.setattr(follow, "PATIENCE", 0.01)

    async def follow_for_a_while() -> None:
        with NetworkLog(bus, network(), FILTER) as log:
            follower = Follower(log, Source([Hanging()], CHAIN_ID), CONTRACTS, 0.0, health)  # type: ignore[list-item]
            health.opened("net")
            tasks = [asyncio.create_task(each) for each in (follower.run(), follower.say_that_it_waits())]
            for _ in range(3):
                clock.now += STUCK_SECONDS + 1
                await until(lambda: not health.silence("net"))
                assert health.stuck() == []
                assert "provider hangs was asked 61 s ago" in health.behind()[0]
            follower._appending = True  # now it is the bus that keeps it waiting
            clock.now += STUCK_SECONDS + 1
            await asyncio.sleep(0.05)
            assert health.stuck()
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    asyncio.run(follow_for_a_while())


def test_a_fault_of_the_provider_is_what_the_network_waits_for(bus: SqliteBus, chain: Chain) -> None:
    provider = node(chain)
    provider.fails = 1.0

    async def follow_for_a_while() -> None:
        health = Health()
        health.opened("net")
        with NetworkLog(bus, network(), FILTER) as log:
            follower = Follower(log, Source([provider], CHAIN_ID), CONTRACTS, 0.0, health)
            task = asyncio.create_task(follower.run())
            await until(lambda: "HTTP 503" in health.behind()[0])
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(follow_for_a_while())


class NoContracts:
    def abi(self) -> dict[str, Any]:
        return {}


def test_what_is_wrong_with_the_bus_ends_the_role_and_no_network_alone(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def one_fails(config: Any, of: Any, *rest: Any) -> None:
        if of.name == "one":
            raise BusError("bus: it went away")
        await asyncio.Event().wait()

    monkeypatch.setattr(role, "follow", one_fails)
    networks = (network(name="one"), network(name="two"))
    config = Config(providers={"a": Provider("http://localhost")}, networks=networks)
    health = Health()
    adapters: Any = {each.name: NoContracts() for each in networks}
    with pytest.raises(BusError, match="went away"):
        role.run(config, adapters, bus, threading.Event(), health)
    assert not any("ended" in line for line in health.behind())


def test_a_network_that_meets_a_bug_is_said_to_have_ended_and_no_more(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def one_fails(config: Any, of: Any, *rest: Any) -> None:
        if of.name == "one":
            raise ValueError("https://user:secret@node")
        await asyncio.Event().wait()

    monkeypatch.setattr(role, "follow", one_fails)
    networks = (network(name="one"), network(name="two"))
    config = Config(providers={"a": Provider("http://localhost")}, networks=networks)
    health, stop = Health(), threading.Event()
    adapters: Any = {each.name: NoContracts() for each in networks}
    thread = threading.Thread(target=role.run, args=(config, adapters, bus, stop, health))
    thread.start()
    while "one: ended: a bug (ValueError); see the log" not in health.behind():
        thread.join(0.005)
        assert thread.is_alive()
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_the_collector_is_level_while_it_listens(bus: SqliteBus) -> None:
    listen = Listen(otlp="127.0.0.1:0", otlp_grpc="127.0.0.1:0")
    config = Config(providers={}, networks=(), listen=listen, telemetry=Telemetry(unauthenticated=True))
    health, stop = Health(), threading.Event()
    thread = threading.Thread(target=collector.run, args=(config, bus, stop, health))
    thread.start()
    while health.behind():
        thread.join(0.005)
        assert thread.is_alive()
    assert health.lags()[collector.PART] < 30
    stop.set()
    thread.join(30)


class Going:
    """A bus that is there until it is told how to go."""

    def __init__(self, bus: SqliteBus) -> None:
        self._bus = bus
        self.how = ""
        self.back = threading.Event()

    def end(self, stream: str, partition: int) -> int:
        if self.how == "hangs":
            self.back.wait(60)
        if self.how == "refuses":
            raise BusError("bus: no broker answers")
        if self.how == "fails":
            raise ZeroDivisionError
        return self._bus.end(stream, partition)

    def writer(self, transactional_id: str, partition: int) -> Any:
        outer, writer = self, self._bus.writer(transactional_id, partition)

        class Writer:
            def transaction(self, messages: Any) -> None:
                outer.back.wait(60)
                writer.transaction(messages)

            close = writer.close

        return Writer()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


@pytest.mark.parametrize("how", ["hangs", "refuses", "fails", "takes nothing"])
def test_the_lag_of_a_collector_grows_while_its_bus_is_gone(
    how: str, bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "ASK_EVERY", 0.01)
    made = list[intake.Intake]()

    class Kept(intake.Intake):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(collector, "Intake", Kept)
    listen = Listen(otlp="127.0.0.1:0", otlp_grpc="127.0.0.1:0")
    config = Config(providers={}, networks=(), listen=listen, telemetry=Telemetry(unauthenticated=True))
    going: Any = Going(bus)
    health, stop = Health(), threading.Event()

    def lag() -> float:
        thread.join(0.005)
        assert thread.is_alive()
        return health.lags().get(collector.PART, 60.0) if not health.behind() else 60.0

    thread = threading.Thread(target=collector.run, args=(config, going, stop, health))
    thread.start()
    try:
        begun = time.monotonic()
        while time.monotonic() < begun + 0.5 or lag() > 0.3:  # it is level for longer than it is asked once
            assert time.monotonic() < begun + 30
        going.how = how
        if how == "takes nothing":
            lane = made[0]._writes._lanes[0]
            lane.write([Message("otlp_spans", b"k", b"v")])
            assert made[0].level_at == lane.since
        gone = time.monotonic()
        while lag() < 1.0:
            assert time.monotonic() < gone + 10
        going.how = ""
        going.back.set()
        while lag() > 0.3:
            assert time.monotonic() < gone + 30
    finally:
        going.back.set()
        stop.set()
        thread.join(30)


class Stuck:
    """A bus whose writers take a transaction and never end it, until `go` is set."""

    partitions = 1

    def __init__(self) -> None:
        self.go = threading.Event()

    def writer(self, transactional_id: str, partition: int) -> Any:
        return self

    def transaction(self, messages: Any, offsets: Any = None, group: str | None = None) -> None:
        self.go.wait(60)

    def close(self) -> None: ...


def test_a_bus_that_takes_nothing_shows_as_the_collectors_lag_and_then_as_stuck() -> None:
    bus: Any = Stuck()
    with Lane(bus, "w", 0) as lane:
        assert lane.since is None
        before = time.time()
        first = lane.write([Message("otlp_spans", b"k", b"v")])
        second = lane.write([Message("otlp_spans", b"k", b"v")])
        since = lane.since
        assert since is not None
        assert before <= since <= time.time()
        second.cancel()  # whoever waited for it has gone
        assert lane.since == since
        bus.go.set()
        first.result(30)
    assert lane.since is None

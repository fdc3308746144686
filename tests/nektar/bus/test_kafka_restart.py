"""A broker that is stopped, or dies, and comes back: whoever wrote or read goes on, and has lost nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from kafka import TopicPartition

import nektar.bus
from devnet.chain import DevnetError
from devnet.kafka import Cluster, copied, kafka
from nektar.bus import admin, members, servers, transactions
from nektar.bus import kafka as kafka_bus
from nektar.bus.kafka import KafkaBus
from nektar.bus.port import Broken, BusError
from tests.nektar.bus.reading import S, T, everything, said, settle, take, texts, until
from tests.seeds import thorough

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    try:
        copied()
    except DevnetError as error:
        pytest.skip(f"needs kafka: {error}")
    with kafka() as cluster:
        yield cluster


def impatient(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    for module in (admin, servers, transactions, members, kafka_bus):
        monkeypatch.setattr(module, "PATIENCE_SECONDS", seconds)


def test_whoever_wrote_and_read_goes_on_when_a_broker_is_back(cluster: Cluster) -> None:
    broker = cluster.brokers[0]
    with (
        closing(nektar.bus.open(f"{cluster.url}?partitions=1")) as bus,
        bus.consumer("g", [S]) as consumer,
        bus.writer("w", 0) as writer,
    ):
        settle(bus, consumer)
        writer.transaction(said([b"before"]))
        (message,) = take(consumer, 1)
        for end, value in ((broker.stop, b"stopped"), (broker.kill, b"killed")):
            end()
            assert list(consumer.poll(0.5)) == []  # it waits, and says nothing
            writing = threading.Thread(target=writer.transaction, args=(said([value]),))
            writing.start()
            broker.start()
            cluster.wait()
            writing.join(60)
            assert not writing.is_alive()
            (message,) = take(consumer, 1)
            assert message.value == value
            writer.transaction(said([b"out"], T), {S: message.offset + 1}, "g")
            assert consumer.committed(S, 0) == message.offset + 1
        assert texts(everything(bus, S, 0)) == [b"before", b"stopped", b"killed"]
        assert texts(everything(bus, T, 0)) == [b"out", b"out"]


def test_what_a_broker_was_asked_before_it_went_is_asked_again(cluster: Cluster) -> None:
    broker = cluster.brokers[0]
    with closing(nektar.bus.open(f"{cluster.url}?partitions=1&prefix=asked.")) as bus:
        broker.freeze()
        try:
            ends: list[int] = []
            asking = threading.Thread(target=lambda: ends.append(bus.end(S, 0)))
            asking.start()
            time.sleep(0.5)  # the question is on its way
        finally:
            broker.kill()
            broker.start()
        cluster.wait()
        asking.join(30)
        assert ends == [0]


def test_a_bus_that_is_closed_while_it_is_asked_of_a_broker_that_hangs_does_not_wait_for_it(
    cluster: Cluster,
) -> None:
    broker = cluster.brokers[0]
    bus = nektar.bus.open(f"{cluster.url}?partitions=1&prefix=closing.")
    with bus.writer("w", 0) as writer:
        writer.transaction(said([b"1"]))
    assert bus.end(S, 0) > 0
    broker.freeze()
    try:
        told: list[Exception] = []

        def ask() -> None:
            try:
                bus.end(S, 0)
            except BusError as error:
                told.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.5)  # the question is on its way
        began = time.monotonic()
        bus.close()
        asking.join(30)
        assert time.monotonic() - began < 10
        assert len(told) == 1
    finally:
        broker.thaw()
        cluster.wait()


@thorough
def test_a_broker_that_stays_away_gets_one_clear_line(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = nektar.bus.open(f"{cluster.url}?partitions=1")
    writer = bus.writer("stays-away", 0)
    writer.transaction(said([b"before"]))
    monkeypatch.setattr(transactions, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(transactions, "ABORT_SECONDS", 1.0)
    cluster.brokers[0].kill()
    try:
        with pytest.raises(BusError, match="no broker answers; see that one runs") as told:
            writer.transaction(said([b"lost"]))
        assert "\n" not in str(told.value)
        with pytest.raises(BusError, match="no broker answers"):
            writer.transaction(said([b"lost too"]))
    finally:
        bus.close()
        cluster.brokers[0].start()
        cluster.wait()
    with closing(nektar.bus.open(f"{cluster.url}?partitions=1")) as again:
        assert b"lost" not in texts(everything(again, S, 0))


def test_a_broker_that_hangs_is_waited_for_beyond_the_time_of_one_request(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch, 10.0)
    monkeypatch.setattr(servers, "ASKED_AGAIN", 0.1)
    broker = cluster.brokers[0]
    with (
        closing(nektar.bus.open(f"{cluster.url}?partitions=1&prefix=hangs.")) as bus,
        bus.writer("w", 0) as writer,
    ):
        writer.transaction(said([b"before"]))
        broker.freeze()
        try:
            writing = threading.Thread(target=writer.transaction, args=(said([b"meanwhile"]),))
            writing.start()
            time.sleep(2.5)  # the request is given up and asked again
        finally:
            broker.thaw()
        writing.join(30)
        writer.transaction(said([b"after"]))
        assert texts(everything(bus, S, 0)) == [b"before", b"meanwhile", b"after"]


def test_a_broker_that_hangs_for_too_long_breaks_the_writer_and_opening_it_again_mends_that(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch, 2.0)
    monkeypatch.setattr(transactions, "ABORT_SECONDS", 1.0)
    broker = cluster.brokers[0]
    with closing(nektar.bus.open(f"{cluster.url}?partitions=1&prefix=broken.")) as bus:
        writer = bus.writer("w", 0)
        writer.transaction(said([b"before"]))
        broker.freeze()
        try:
            for _ in range(2):
                with pytest.raises(Broken, match="no broker answers; see that one runs") as told:
                    writer.transaction(said([b"lost"]))
                assert "\n" not in str(told.value)
        finally:
            broker.thaw()
        monkeypatch.undo()
        cluster.wait()
        with pytest.raises(Broken):
            writer.transaction(said([b"lost too"]))
        with bus.writer("w", 0) as again:
            again.transaction(said([b"after"]))
        assert texts(everything(bus, S, 0)) == [b"before", b"after"]


def test_silence_is_no_empty_stream_and_gets_one_clear_line(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = cluster.brokers[0]
    with (
        closing(nektar.bus.open(f"{cluster.url}?partitions=1&prefix=silent.")) as bus,
        bus.consumer("g", [S]) as consumer,
        bus.writer("w", 0) as writer,
    ):
        settle(bus, consumer)
        broker.freeze()
        try:
            frozen = time.time()
            for _ in range(15):
                assert list(consumer.poll(0.1)) == []
            assert consumer.answered_at < frozen + 0.5
        finally:
            broker.thaw()
        writer.transaction(said([b"after"]))
        assert texts(take(consumer, 1)) == [b"after"]
        until(lambda: not consumer.poll(0.1) and consumer.answered_at > frozen + 1.0)
        impatient(monkeypatch, 1.5)
        broker.freeze()
        try:
            began = time.monotonic()
            with pytest.raises(BusError, match="no broker answers; see that one runs") as told:
                until(lambda: bool(consumer.poll(0.1)))
            assert "\n" not in str(told.value)
            assert time.monotonic() - began < 5
        finally:
            broker.thaw()
        monkeypatch.undo()
        cluster.wait()
        writer.transaction(said([b"later"]))
        assert texts(take(consumer, 1)) == [b"later"]


def test_a_read_waits_no_longer_than_its_patience_where_the_broker_goes_in_the_middle_of_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = cluster.brokers[0]
    bus = nektar.bus.open(f"{cluster.url}?partitions=1&prefix=amid.")
    assert isinstance(bus, KafkaBus)
    with closing(bus):
        with bus.writer("w", 0) as writer:
            writer.transaction(said([b"1"]))
        assert texts(bus.read(S, 0)) == [b"1"]
        end = bus._end

        def ends_and_freezes(where: TopicPartition) -> int:
            found = end(where)
            broker.freeze()
            return found

        impatient(monkeypatch, 1.0)
        monkeypatch.setattr(bus, "_end", ends_and_freezes)
        try:
            with pytest.raises(BusError, match="no broker answers; see that one runs"):
                bus.read(S, 0)
        finally:
            broker.thaw()
        monkeypatch.undo()
        assert texts(bus.read(S, 0)) == [b"1"]

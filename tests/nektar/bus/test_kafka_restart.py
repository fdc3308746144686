"""A broker that is stopped, or dies, and comes back: whoever wrote or read goes on, and has lost nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

import nektar.bus
from devnet.chain import DevnetError
from devnet.kafka import Cluster, copied, kafka
from nektar.bus import transactions
from nektar.bus.port import BusError
from tests.nektar.bus.reading import S, T, everything, said, settle, take, texts

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    try:
        copied()
    except DevnetError as error:
        pytest.skip(f"needs kafka: {error}")
    with kafka() as cluster:
        yield cluster


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


def test_a_broker_that_stays_away_gets_one_clear_line(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = nektar.bus.open(f"{cluster.url}?partitions=1")
    writer = bus.writer("stays-away", 0)
    writer.transaction(said([b"before"]))
    monkeypatch.setattr(transactions, "PATIENCE_SECONDS", 1.0)
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

"""Telemetry from a real bus into a real chDB: each message once, and nothing in one stops the store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pytest

from nektar.bus.partition import Partition
from nektar.bus.port import Bus, Message
from nektar.health import Health
from nektar.log import DEAD, NETWORK, OTLP_LOGS, OTLP_METRICS, OTLP_SPANS, Joiner, New, encode, key
from nektar.model import Block, Hash32, Level
from nektar.otlp import MAX_GROUPS, Signal
from nektar.senders import Sender
from nektar.store import otel_metrics
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from nektar.store.otel import TABLES, tables
from nektar.store.port import TOO_MANY_PARTS, SqlError, Store, StoreDown
from processors.sink import Sink, take_turns
from processors.telemetry import AHEAD, Telemetry
from tests import otlp
from tests.nektar.bus.reading import until
from tests.nektar.store.things import Things
from tests.processors.logs_on_bus import open_bus

NOW = 1_790_000_000 * 10**9
DAY = 86_400 * 10**9


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    with open_bus(tmp_path / "bus", partitions=2) as opened:
        yield opened


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_store(f"chdb://{tmp_path_factory.mktemp('telemetry') / 'store'}") as store:
        migrate(store, [Things()])
        yield store


@pytest.fixture
def store(opened: Store) -> Store:
    for table in (*TABLES.values(), *otel_metrics.TABLES.values(), "otel_traces_trace_id_ts"):
        opened.command(f"TRUNCATE TABLE {table}")
    return opened


def spans(count: int = 3, seed: object = 0) -> bytes:
    return bytes(otlp.spans(count, NOW, seed=seed).SerializeToString())


def put(bus: Bus, *messages: Message, partition: int = 0) -> None:
    with bus.writer("test", partition) as writer:
        for message in messages:
            writer.transaction([message])


def sent(
    value: bytes, sender: str = "operator-1", stream: str = OTLP_SPANS, network: str = "home"
) -> Message:
    return Message(stream, b"", value, Sender(sender, "observer", network).headers)


def drain(store: Any, bus: Bus) -> None:
    with Telemetry(store, bus) as telemetry:
        while telemetry.turn() or telemetry.inserts:
            pass


class Killed(BaseException):
    """The end of the process."""


def killed(store: Any, bus: Bus) -> None:
    """Store a batch, and end before it is said that it is stored."""

    def die(*where: object) -> NoReturn:
        raise Killed

    with Telemetry(store, bus) as telemetry, suppress(Killed):
        telemetry._consumer.commit = die  # type: ignore[method-assign]
        while telemetry.turn() or telemetry.inserts:
            pass


def count(store: Store, table: str = "otel_traces") -> int:
    return int(store.rows(f"SELECT count() FROM {table}")[0][0])


def letters(bus: Bus, partition: int = 0) -> list[tuple[bytes, bytes, bytes]]:
    """(key, reason, value) of each dead letter, joined."""
    join, found = Joiner(), []
    for message in bus.read(DEAD, partition):
        if (value := join(message.value, message.headers)) is not None:
            found.append((message.key, message.headers["reason"], value))
    return found


def test_spans_and_records_are_stored_with_who_sent_them(bus: Bus, store: Store) -> None:
    put(bus, sent(spans()), sent(spans(2, "stock"))._replace(headers={}))
    records = otlp.records(4, NOW).SerializeToString()
    put(bus, sent(records, "aggregator", OTLP_LOGS), partition=1)
    drain(store, bus)
    who = ", ".join(f"ResourceAttributes['nektar.sender{of}']" for of in ("", "_role", "_network"))
    assert store.rows(f"SELECT {who}, count() FROM otel_traces GROUP BY ALL ORDER BY ALL") == [
        ("operator-1", "observer", "home", 3),
        ("unauthenticated", "", "", 2),
    ]
    assert store.rows(f"SELECT {who} FROM otel_logs") == [("aggregator", "observer", "home")] * 4


def test_one_name_in_two_networks_is_two_senders(bus: Bus, store: Store) -> None:
    put(bus, *(sent(spans(), network=network) for network in ("home", "away", "home")))
    drain(store, bus)
    asked = (
        "SELECT ResourceAttributes['nektar.sender_network'], count() FROM otel_traces GROUP BY 1 ORDER BY 1"
    )
    assert store.rows(asked) == [("away", 3), ("home", 3)]


def test_what_is_read_again_or_sent_again_is_stored_once(bus: Bus, store: Store) -> None:
    put(bus, sent(spans()), sent(spans(1, "other")), sent(spans()))
    put(bus, sent(spans(), "mallory"))  # copied by somebody else, who can't keep ours out by it
    killed(store, bus)
    put(bus, sent(spans(2, "more")))  # which would make it another insert
    killed(store, bus)
    drain(store, bus)
    assert count(store) == 3 + 1 + 3 + 2
    assert count(store, "otel_traces_trace_id_ts") == (3 + 1) + 2  # of each insert its traces
    put(bus, sent(spans()), sent(spans(1, "later")))
    drain(store, bus)
    assert count(store) == 10


def test_data_points_are_stored_once_in_the_tables_of_their_kinds(bus: Bus, store: Store) -> None:
    value = bytes(otlp.points(12, NOW).SerializeToString())
    put(bus, sent(value, stream=OTLP_METRICS), sent(b"junk", stream=OTLP_METRICS))
    put(bus, sent(value, stream=OTLP_METRICS))
    killed(store, bus)
    drain(store, bus)
    assert [count(store, table) for table in otel_metrics.TABLES.values()] == [3, 3, 2, 2, 2]
    for table in otel_metrics.TABLES.values():
        asked = f"SELECT DISTINCT ResourceAttributes['nektar.sender'] FROM {table}"
        assert store.rows(asked) == [("operator-1",)]
    ((source, reason, whole),) = letters(bus)
    assert (source, whole) == (b"store otlp_metrics/0/1", b"junk")
    assert b"expected an ExportMetricsServiceRequest in protobuf" in reason


def test_a_letter_is_written_once_after_another_member_had_the_partition(bus: Bus, store: Store) -> None:
    junk = [b"\xff junk 0", b"\xff junk 1"]
    with Telemetry(store, bus) as ours:
        put(bus, sent(junk[0]))
        until(lambda: not ours.turn() and len(letters(bus)) == 1)
        bus.writer("store.telemetry-0", 0).close()  # as who has the partition for a while buries something
        put(bus, sent(junk[1]), sent(spans()))
        until(lambda: not ours.turn() and count(store) == 3)
    assert [value for _, _, value in letters(bus)] == junk


def test_a_writer_that_another_member_fences_while_it_is_opened_is_opened_again(
    bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = Partition.hold

    def late(file: Partition, fence: str, epoch: int) -> None:
        """As where another member opens the same writer between the two steps in which we open ours."""
        if fence == "writer:store.telemetry-0":
            monkeypatch.setattr(Partition, "hold", hold)
            bus.writer("store.telemetry-0", 0).close()
        hold(file, fence, epoch)

    put(bus, sent(b"\xff junk"), sent(spans()))
    monkeypatch.setattr(Partition, "hold", late)
    with Telemetry(store, bus) as ours:
        until(lambda: not ours.turn() and count(store) == 3)
    assert [value for _, _, value in letters(bus)] == [b"\xff junk"]
    assert Partition.hold is hold


class Watched:
    """`store`, which raises what `faults` has next, and remembers into what was inserted."""

    def __init__(self, store: Store, *faults: Exception | None) -> None:
        self._store, self._faults = store, list(faults)
        self.inserted: list[str] = []

    def insert(self, table: str, rows: Any, token: str) -> None:
        if self._faults and (fault := self._faults.pop(0)):
            raise fault
        self._store.insert(table, rows, token)
        self.inserted.append(table)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def over(dates: int) -> bytes:
    request = otlp.spans(dates, NOW)
    for i, span in enumerate(request.resource_spans[0].scope_spans[0].spans):
        span.start_time_unix_nano = NOW - i * DAY
    return bytes(request.SerializeToString())


def groups(count: int) -> bytes:
    request = otlp.spans(1, NOW)
    for _ in range(count):
        request.resource_spans[0].scope_spans.add()
    return bytes(request.SerializeToString())


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (groups(MAX_GROUPS), b"of resource_spans and scope_spans together, empty ones counted"),
        (b"junk", b"expected an ExportTraceServiceRequest in protobuf"),
        (b"\x0a\x09\x12\x07\x12\x05\x2a\x03a\xffb", b"protobuf"),  # a name that is not UTF-8
        (b"\xff" * 1_048_000, b"protobuf"),
        (over(101), b"at most 50 dates in a message; got 101"),
        (
            bytes(otlp.spans(9_000, NOW, resource=[("t", "x" * 10_000)]).SerializeToString()),
            b"counted for each of their spans",
        ),
    ],
)
def test_what_can_not_be_stored_is_a_dead_letter_whole_and_the_next_is_taken(
    bus: Bus, store: Store, value: bytes, why: bytes
) -> None:
    put(bus, sent(spans()), sent(value), sent(spans(2, "after")))
    drain(store, bus)
    assert count(store) == 5
    ((source, reason, whole),) = letters(bus)
    assert (source, whole) == (b"store otlp_spans/0/1", value)
    assert why in reason


@pytest.mark.parametrize("start", [0, 1, NOW - 40 * DAY, 2**63, 2**64 - 1])
def test_a_far_date_is_stored_by_whoever_writes_past_the_collector(
    bus: Bus, store: Store, start: int
) -> None:
    request = otlp.spans(3, NOW)
    request.resource_spans[0].scope_spans[0].spans[1].start_time_unix_nano = start
    put(bus, sent(request.SerializeToString()))
    drain(store, bus)
    assert (count(store), letters(bus)) == (3, [])


def test_rows_that_clickhouse_refuses_are_a_dead_letter(bus: Bus, store: Store) -> None:
    put(bus, sent(spans()), sent(spans(2, "after")))
    refused = SqlError("Cannot parse", "Code: 6", 6)
    drain(Watched(store, refused, refused), bus)  # together, and the first of them alone
    assert count(store) == 2
    assert letters(bus) == [(b"store otlp_spans/0/0", b"Cannot parse", spans())]


@pytest.mark.parametrize(
    "kind", [ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, pa.ArrowInvalid]
)
def test_a_message_that_can_not_be_made_rows_of_is_a_dead_letter_whatever_is_wrong_with_it(
    bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def faulty(signal: Signal, request: Any, sender: Sender) -> dict[str, pa.Table]:
        if sender.name == "mallory":
            raise kind("nobody foresaw this")
        return tables(signal, request, sender)

    monkeypatch.setattr("processors.telemetry.tables", faulty)
    put(bus, sent(spans(), "mallory"), sent(spans(2, "after")))
    drain(store, bus)
    assert count(store) == 2
    ((source, reason, whole),) = letters(bus)
    assert (source, whole) == (b"store otlp_spans/0/0", spans())
    assert reason.startswith(kind.__name__.encode() + b": ")
    assert b"nobody foresaw this" in reason


def test_a_letter_is_written_once_though_its_message_is_read_again(bus: Bus, store: Store) -> None:
    put(bus, sent(b"junk"))
    killed(store, bus)
    drain(store, bus)
    assert len(letters(bus)) == 1


def test_a_store_whose_merges_are_behind_gets_it_later(
    bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("processors.telemetry.PAUSE", 0.05)
    put(bus, sent(spans()), sent(spans(2, "after")))
    behind = StoreDown("too many parts", "Code: 252", TOO_MANY_PARTS)
    with caplog.at_level(logging.WARNING), Telemetry(Watched(store, behind, behind), bus) as telemetry:
        for _ in range(2):
            while telemetry.turn() or telemetry.inserts:
                pass
            assert telemetry.paused
            assert not telemetry.turn()  # left alone
            until(lambda: not telemetry.paused)
        while telemetry.turn() or telemetry.inserts:
            pass
    assert (count(store), letters(bus)) == (5, [])
    assert caplog.text.count("telemetry waits") == 2


def test_a_store_that_is_down_ends_the_role_and_loses_nothing(bus: Bus, store: Store) -> None:
    put(bus, sent(spans()))
    put(bus, sent(spans(2, "after")), partition=1)
    with pytest.raises(StoreDown):
        drain(Watched(store, None, StoreDown("the disk is full", "Code: 243", 243)), bus)
    assert count(store) == 3
    drain(store, bus)
    assert (count(store), letters(bus)) == (5, [])


def test_messages_that_lie_one_after_the_other_are_one_insert(bus: Bus, store: Store) -> None:
    for partition in range(2):
        put(bus, *(sent(spans(2, (partition, i))) for i in range(7)), partition=partition)
        put(bus, sent(bytes(otlp.records(4, NOW).SerializeToString()), stream=OTLP_LOGS), partition=partition)
    watched = Watched(store)
    drain(watched, bus)
    assert sorted(watched.inserted) == ["otel_logs"] * 2 + ["otel_traces"] * 2
    assert (count(store), count(store, "otel_logs")) == (28, 4)  # the same records, which were sent twice


@pytest.mark.parametrize(
    ("limit", "most", "inserts"),
    [("ROWS", 6, 5), ("BYTES", 1, 10), ("MAX_DATES", 2, 5), ("ROWS", 1_000, 1)],
)
def test_what_is_inserted_together_is_bounded(
    bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch, limit: str, most: int, inserts: int
) -> None:
    monkeypatch.setattr(f"processors.batches.{limit}", most)
    for i in range(10):
        request = otlp.spans(3, NOW - i * DAY, seed=i)
        put(bus, sent(request.SerializeToString()))
    watched = Watched(store)
    drain(watched, bus)
    assert (len(watched.inserted), count(store)) == (inserts, 30)


def test_it_looks_again_at_once_only_where_there_was_much(
    bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processors.telemetry.EVERY", 3_600.0)
    with Telemetry(store, bus) as telemetry:
        for much in (True, False):
            put(bus, *(sent(spans(1, (much, i))) for i in range(AHEAD if much else 1)))
            until(telemetry.turn)
            while telemetry.turn() or telemetry.inserts:
                pass
        put(bus, sent(spans(1, "later")))
        assert not telemetry.turn()
    assert count(store) == AHEAD + 1


def test_what_was_sent_long_ago_is_new_again(bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processors.batches.KNOWN", 3)
    old = sent(spans(1, "old"))
    put(bus, old, *(sent(spans(1, i)) for i in range(2)))
    drain(store, bus)
    put(bus, old)
    drain(store, bus)
    assert count(store) == 3
    put(bus, *(sent(spans(1, i)) for i in range(2, 6)))
    drain(store, bus)
    put(bus, old, sent(spans(1, 6)))
    drain(store, bus)
    assert count(store) == 9


def test_the_networks_come_first_and_telemetry_goes_on_beside_them(
    bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processors.batches.ROWS", 1)
    put(bus, *(sent(spans(1, i)) for i in range(20)))
    parent, blocks = Hash32(bytes(32)), []
    for number in range(1, 6):
        hash_ = Hash32(bytes([number]) * 32)
        blocks.append(Block(number, hash_, parent, 1_700_000_000, Level.PROVED, "p", "single:p"))
        parent = hash_
    put(bus, *(Message(NETWORK, key("n", 1), encode(New((block,), {}))) for block in blocks))
    watched, stop = Watched(store), threading.Event()
    with Sink(watched, bus, {}) as networks, Telemetry(watched, bus) as telemetry:
        turn = telemetry.turn

        def until_nothing_is_left() -> bool:
            busy = turn()
            if not (busy or telemetry.inserts):
                stop.set()
            return busy

        telemetry.turn = until_nothing_is_left  # type: ignore[method-assign]
        take_turns(networks, telemetry, stop, Health())
    assert watched.inserted == ["generations_rows", *["blocks_rows"] * 5, *["otel_traces"] * 20]

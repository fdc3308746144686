"""The embedded bus: the contract, and what only files can have."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import nektar.bus
from nektar.bus.partition import FETCH_BYTES
from nektar.bus.port import BusError, Message
from nektar.bus.sqlite import SqliteBus
from nektar.log import CHECKPOINTS, OTLP_SPANS
from tests.nektar.bus.contract import BusContract


@pytest.fixture
def bus_url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path / 'bus'}?lease=0.5&partitions=3"


class TestSqliteBus(BusContract):
    """The contract, held by SQLite."""


def said(*values: bytes, stream: str = "s", key: bytes = b"k") -> list[Message]:
    return [Message(stream, key, value) for value in values]


def test_a_restarted_process_takes_over_at_once_from_one_killed(tmp_path: Path, start: Any) -> None:
    url = f"sqlite://{tmp_path}?lease=3600"
    process = start("member", url, "g", "s")
    assert process.stdout.readline() == "assigned 0 1 2 3 4 5 6 7\n"
    process.kill()
    process.wait()
    with closing(nektar.bus.open(url)) as bus, bus.consumer("g", ["s"]) as successor:
        successor.poll(0)
        assert len(successor.assignment()) == 8


def test_members_who_live_learn_of_one_killed(tmp_path: Path, start: Any) -> None:
    url = f"sqlite://{tmp_path}?lease=1&partitions=2"
    with closing(nektar.bus.open(url)) as bus, bus.consumer("g", ["s"]) as survivor:
        survivor.poll(0)
        process = start("member", url, "g", "s")
        while len(survivor.assignment()) == 2:
            survivor.poll(1)
        process.kill()
        process.wait()
        while len(survivor.assignment()) == 1:
            survivor.poll(1)


def test_a_busy_member_keeps_its_partitions_where_nobody_else_wants_them(tmp_path: Path) -> None:
    with closing(SqliteBus(tmp_path, lease=0.01)) as bus, bus.writer("w", 0) as writer:
        revoked: list[frozenset[int]] = []
        with bus.consumer("g", ["s"], on_revoked=revoked.append) as consumer:
            writer.transaction(said(b"1"))
            (message,) = consumer.poll(1)
            time.sleep(0.05)  # five leases long
            writer.transaction(said(b"out", stream="t"), {"s": message.offset + 1}, "g")
            consumer.poll(0)
            assert not revoked


def test_a_member_that_commits_without_polling_is_alive(tmp_path: Path) -> None:
    with closing(SqliteBus(tmp_path, lease=0.5)) as bus, bus.writer("w", 0) as writer:
        writer.transaction(said(*[b"x"] * 20))
        with bus.consumer("g", ["s"]) as busy, bus.consumer("g", ["s"]) as idle:
            for message in busy.poll(1):
                idle.poll(0.05)
                writer.transaction((), {"s": message.offset + 1}, "g")
            assert not idle.assignment()


def test_a_commit_wakes_whoever_waits(tmp_path: Path, start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nektar.bus.sqlite.LOOK_AGAIN", 600.0)
    url = f"sqlite://{tmp_path}?lease=3600"
    with closing(nektar.bus.open(url)) as bus, bus.consumer("g", ["s"]) as waiting:
        assert not waiting.poll(0)
        writer = start("produce", url, "s", 0, "w", 1, 1)
        assert writer.stdout.readline() == "ready\n"
        writer.stdin.write("\n")
        writer.stdin.flush()
        began = time.monotonic()
        assert len(waiting.poll(10)) == 1
        assert time.monotonic() - began < 9


def test_a_new_member_wakes_whoever_waits(
    tmp_path: Path, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nektar.bus.sqlite.LOOK_AGAIN", 600.0)
    url = f"sqlite://{tmp_path}?lease=3600&partitions=2"
    with closing(nektar.bus.open(url)) as bus, bus.writer("w", 0) as writer:
        end = said(b"end")
        with bus.consumer("g", ["s"], on_revoked=lambda _: writer.transaction(end)) as waiting:
            assert not waiting.poll(0)
            process = start("member", url, "g", "s")
            began = time.monotonic()
            assert len(waiting.poll(10)) == 1
            assert time.monotonic() - began < 9
            assert process.stdout.readline() == "assigned 1\n"


def test_a_partition_has_a_file_from_its_first_writer_on(tmp_path: Path) -> None:
    with closing(SqliteBus(tmp_path)) as bus, bus.consumer("g", ["s"]) as consumer:
        consumer.poll(0)
        assert not list(tmp_path.glob("partition-*.db"))
        bus.writer("w", 5)
        assert [path.name for path in tmp_path.glob("partition-*.db")] == ["partition-5.db"]


def test_a_compacted_stream_keeps_one_message_a_key_and_never_reuses_an_offset(tmp_path: Path) -> None:
    with closing(SqliteBus(tmp_path)) as bus, bus.writer("w", 0) as writer:
        for i in range(5):
            writer.transaction(
                said(b"%d" % i, b"%d+" % i, stream=CHECKPOINTS, key=b"a") + said(b"0", stream=CHECKPOINTS)
            )
        kept = bus.read(CHECKPOINTS, 0)
        assert [(m.offset, m.key, m.value) for m in kept] == [(13, b"a", b"4+"), (14, b"k", b"0")]
        assert bus.end(CHECKPOINTS, 0) == 15


def test_other_streams_keep_everything(tmp_path: Path) -> None:
    with closing(SqliteBus(tmp_path)) as bus, bus.writer("w", 0) as writer:
        writer.transaction(said(b"1", b"2"))
        writer.transaction(said(b"x", stream=CHECKPOINTS))
        assert [m.offset for m in bus.read("s", 0)] == [0, 1]


def test_no_network_waits_for_whoever_writes_telemetry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of it is a lock that is always held: at worst by a process that hangs."""
    monkeypatch.setattr("nektar.bus.database.BUSY_SECONDS", 0.1)
    with (
        closing(SqliteBus(tmp_path)) as bus,
        bus.writer("w", 0) as writer,
        bus.consumer("g", ["s"]) as consumer,
    ):
        writer.transaction(said(b"span", stream=OTLP_SPANS))
        with closing(sqlite3.connect(tmp_path / "telemetry-0.db", isolation_level=None)) as flood:
            flood.execute("BEGIN IMMEDIATE")
            writer.transaction(said(b"1"))
            (message,) = consumer.poll(1)
            writer.transaction(said(b"out", stream="t"), {"s": message.offset + 1}, "g")
            with pytest.raises(BusError, match=r"telemetry-0\.db"):
                writer.transaction(said(b"late", stream=OTLP_SPANS))
            flood.execute("ROLLBACK")
        writer.transaction(said(b"again", stream=OTLP_SPANS))
        assert [m.value for m in bus.read(OTLP_SPANS, 0)] == [b"span", b"again"]


def test_telemetry_passes_and_nothing_else_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(SqliteBus(tmp_path)) as bus, bus.writer("w", 0) as writer:
        for stream in ("s", OTLP_SPANS):
            writer.transaction(said(*[b"old"] * 5, stream=stream))
        monkeypatch.setattr("nektar.bus.partition.KEPT_SECONDS", 0.0)
        for stream in ("s", OTLP_SPANS):
            writer.transaction(said(b"new", stream=stream))
            writer.transaction(said(b"newest", stream=stream))
        assert [m.offset for m in bus.read("s", 0)] == list(range(7))
        assert [m.offset for m in bus.read(OTLP_SPANS, 0)] == [4, 5, 6]


def test_a_writer_opens_though_power_loss_took_its_epoch_back(tmp_path: Path) -> None:
    for _ in range(3):
        with closing(SqliteBus(tmp_path)) as bus, bus.writer("w", 0) as writer:
            writer.transaction(said(b"x", stream=OTLP_SPANS))
    for path in tmp_path.glob("partition-0.db*"):
        path.unlink()
    with closing(SqliteBus(tmp_path)) as bus, bus.writer("w", 0) as writer:
        writer.transaction(said(b"y", stream=OTLP_SPANS))
        writer.transaction(said(b"z"))


def test_the_number_of_partitions_is_settled_by_the_first_who_opens(tmp_path: Path) -> None:
    SqliteBus(tmp_path, partitions=3).close()
    with closing(SqliteBus(tmp_path)) as bus:
        assert bus.partitions == 3
    with pytest.raises(BusError, match="3 partitions"):
        SqliteBus(tmp_path, partitions=4)


def test_a_lost_groups_file_fences_nobody_who_lives(tmp_path: Path) -> None:
    """Power loss may take back the newest leases, and with them epochs that partitions already know."""
    for restarts in (3, 1):
        with closing(SqliteBus(tmp_path)) as bus, bus.writer("w", 0) as writer:
            for _ in range(restarts):
                writer.transaction(said(b"x"))
                with bus.consumer("g", ["s"]) as consumer:
                    (message,) = consumer.poll(1)
                    consumer.commit("s", 0, message.offset + 1)
        for path in tmp_path.glob("groups.db*"):
            path.unlink()


def test_closing_a_bus_closes_what_it_opened(tmp_path: Path) -> None:
    bus = SqliteBus(tmp_path, lease=3600)
    consumer, writer = bus.consumer("g", ["s"]), bus.writer("w", 0)
    consumer.poll(0)
    writer.transaction(said(b"x"))
    before = set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()
    bus.close()
    bus.close()
    after = set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()
    assert not list((tmp_path / "bells").iterdir())
    assert not list(tmp_path.glob("*-wal"))
    assert len(after) <= len(before)
    with closing(SqliteBus(tmp_path)) as again, again.consumer("g", ["s"]) as successor:
        assert len(successor.poll(0)) == 1


def test_one_read_of_large_messages_is_bounded(tmp_path: Path) -> None:
    with closing(SqliteBus(tmp_path)) as bus, bus.writer("w", 0) as writer:
        for _ in range(5):
            writer.transaction(said(*[bytes(1_000_000)] * 10))
        with bus.consumer("g", ["s"]) as consumer:
            sizes = []
            while batch := consumer.poll(0):
                sizes.append(len(batch))
    assert sum(sizes) == 50
    assert max(sizes) <= FETCH_BYTES // 1_000_000 + 1


def test_after_a_stream_that_fills_a_read_the_others_come_first(tmp_path: Path) -> None:
    with closing(nektar.bus.open(f"sqlite://{tmp_path}?partitions=1")) as bus, bus.writer("w", 0) as writer:
        writer.transaction([*said(*[b"much"] * 9, stream="c"), *said(b"little", stream="a")])
        with bus.consumer("g", ["a", "b", "c"]) as consumer:
            read = [message.value for _ in range(2) for message in consumer.poll(0, 1)]
    assert sorted(read) == [b"little", b"much"]


def test_a_busy_stream_starves_no_other(tmp_path: Path) -> None:
    with closing(SqliteBus(tmp_path)) as bus, bus.writer("w", 0) as w0, bus.writer("w", 1) as w1:
        w0.transaction(said(*[b"x"] * 1000))
        w1.transaction(said(b"y", stream="t"))
        with bus.consumer("g", ["s", "t"]) as consumer:
            first = [m for _ in range(8) for m in consumer.poll(0, max_messages=10)]
    assert b"y" in [m.value for m in first]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite://", "no directory"),
        ("sqlite:///x?lease=soon", "number"),
        ("sqlite:///x?lease=-1", "lease"),
        ("sqlite:///x?leash=1", "leash"),
        ("sqlite:///x?partitions=100000", "partitions"),
        ("file:///x", "sqlite:///DIRECTORY"),
        ("sqlite:///dev/null/x", "/dev/null/x"),
    ],
)
def test_a_url_that_makes_no_bus_gets_one_clear_line(url: str, says: str) -> None:
    with pytest.raises(BusError, match=says) as told:
        nektar.bus.open(url)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("stream", ["", "a b", "a/b", "ü", "x" * 250])
def test_a_stream_name_that_kafka_would_refuse_is_refused(tmp_path: Path, stream: str) -> None:
    with closing(SqliteBus(tmp_path)) as bus, bus.writer("w", 0) as writer:
        with pytest.raises(BusError, match="stream"):
            writer.transaction([Message(stream, b"k", b"v")])
        with pytest.raises(BusError, match="stream"):
            bus.consumer("g", [stream])


@pytest.mark.parametrize("damage", ["cut", "noise", "foreign"])
def test_a_damaged_file_gets_one_clear_line(tmp_path: Path, damage: str) -> None:
    with closing(SqliteBus(tmp_path)) as bus, bus.writer("w", 0) as writer:
        writer.transaction(said(bytes(100_000)))
    path = tmp_path / "partition-0.db"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:20_000])
    elif damage == "noise":
        path.write_bytes(b"noise" * 10_000)
    else:
        path.unlink()
        with closing(sqlite3.connect(path)) as foreign:
            foreign.execute("CREATE TABLE messages (id)")
    with closing(SqliteBus(tmp_path)) as bus, pytest.raises(BusError, match=r"partition-0\.db") as told:
        bus.read("s", 0)
    assert "\n" not in str(told.value)


FILL = """
import sys
from contextlib import closing
from pathlib import Path
from nektar.bus.port import BusFull, Message
from nektar.bus.sqlite import SqliteBus

with closing(SqliteBus(sys.argv[1])) as bus, bus.writer("w", 0) as writer:
    (Path(sys.argv[1]) / "ballast").write_bytes(bytes(5_000_000))
    written = 0
    try:
        while True:
            writer.transaction([Message("s", b"k", bytes(50_000)), Message("t", b"k", b"x")])
            written += 1
    except BusFull as error:
        print(error)
    assert 0 < written == len(bus.read("t", 0)) == len(bus.read("s", 0))
    (Path(sys.argv[1]) / "ballast").unlink()
    writer.transaction([Message("s", b"k", b"after")])
with closing(SqliteBus(sys.argv[1])) as bus:
    assert bus.read("s", 0)[-1].value == b"after"
    assert len(bus.read("s", 0)) == written + 1
try:
    (Path(sys.argv[1]) / "ballast").write_bytes(bytes(100_000_000))
except OSError:
    pass
try:
    SqliteBus(Path(sys.argv[1]) / "another")
except BusFull as error:
    print(error)
"""


def test_a_full_disk_keeps_what_was_committed_and_says_so(tmp_path: Path) -> None:
    """On a disk of 8 MB that really is full, in a mount namespace of the test's own."""
    inside = f'mount -t tmpfs -o size=8m full "{tmp_path}" && exec "{sys.executable}" -c "$0" "{tmp_path}"'
    probe = ["unshare", "-Urm", "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("needs mount namespaces")
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", inside, FILL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "partition-0.db: the disk is full" in first
    assert "the disk is full" in second

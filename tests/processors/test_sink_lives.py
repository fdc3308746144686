"""The sink on a real bus and a real chDB: exactly once in effect, in an order that readers may rely on."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nektar.bus.port import Bus, Delivered, Message, read_all
from nektar.coverage import DissentRow
from nektar.log import (
    DEAD,
    FINDINGS,
    NETWORK,
    PART_HEADER,
    ROWS,
    BrokenLog,
    New,
    Undo,
    encode,
    key,
    split,
)
from nektar.rows import ROWS as ROWS_OF
from nektar.rows import DutyRow, Finding, ProgressRow
from nektar.store.client import open_store
from nektar.store.migrate import abi_tables, migrate
from nektar.store.port import SqlError, Store, StoreDown, StoreMistake
from nektar.store.schema import row_table, rows_to_ipc
from processors.inserts import BrokenRecord, inserts
from processors.sink import Sink
from tests.nektar.logs import NETWORK as HOME
from tests.nektar.logs import block, hash32
from tests.nektar.store.things import CALL, PLAIN_EVENT, Things
from tests.processors.logs_on_bus import open_bus, write
from tests.processors.sunk import AWAY, BROKEN, Life, RowsFirst, drain, happened, ipc, tables, write_lives
from tests.processors.test_sink import committed, duties, finding, progress, put
from tests.seeds import seeds

KNOWN = abi_tables([Things()])
# Those of rows that travel by themselves.
TABLES = [each.table for each in (*ROWS_OF, DissentRow) if each is not Finding]
NO_MERGES = "max_bytes_to_merge_at_max_space_in_pool = 1, max_bytes_to_merge_at_min_space_in_pool = 1"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that is migrated and holds nothing, to be copied."""
    directory = tmp_path_factory.mktemp("empty") / "store"
    with open_store(f"chdb://{directory}") as store:
        migrate(store, [Things()])
        for name in row_tables(store):  # no merges: a row that is stored twice stays two
            store.command(f"ALTER TABLE `{name}` MODIFY SETTING {NO_MERGES}")
    return directory


@pytest.fixture
def store(empty: Path, tmp_path: Path) -> Iterator[Store]:
    shutil.copytree(empty, tmp_path / "store", symlinks=True)
    with open_store(f"chdb://{tmp_path / 'store'}") as opened:
        yield opened


def row_tables(store: Store) -> list[str]:
    asked = "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"
    return sorted(name for (name,) in store.rows(asked) if name != "schema_migrations")


def held(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, doubled ones too; but those of progress once, since one insert is of what
    came together, and what comes again may come in other company."""
    once = row_table(ProgressRow).name
    return {
        name: store.rows(f"SELECT {'DISTINCT' if name == once else ''} * FROM `{name}` ORDER BY ALL")
        for name in row_tables(store)
    }


def letters(directory: Path) -> list[tuple[bytes, dict[str, bytes]]]:
    with open_bus(directory) as bus:
        return [(m.value, dict(m.headers)) for m in bus.read(DEAD, 0)]


def compare(store: Store, life: Life) -> None:
    """The store's views say of a Network what its life was."""
    name = life.network.name
    where = f"network = '{name}'"

    def said(what: str, of: str) -> list[tuple[Any, ...]]:
        return store.rows(f"SELECT {what} FROM {of} WHERE {where} ORDER BY ALL")

    blocks = sorted((b.number, f"0x{b.hash.hex()}", life.network.generation) for b in life.chain)
    assert said("number, hash, generation", "blocks") == blocks
    events = [(number, f"0x{hash_.hex()}", n) for number, hash_, n in life.events()]
    assert said("block_number, block_hash, n", "event_plain") == events
    assert said("count(), any(revert)", "call_submit")[0][0] == life.calls()

    now = life.rows.values()
    duties = sorted((r.task_number, r.state, r.decided_block) for r in now if isinstance(r, DutyRow))
    assert said("task_number, state, decided_block", "duties") == duties
    findings = sorted((f"0x{r.id.hex()}", r.status, r.facts) for r in now if isinstance(r, Finding))
    assert said("id, status, facts", "findings") == findings
    (progress,) = (r for r in now if isinstance(r, ProgressRow))
    assert said("block_number", "progress") == [(progress.block_number,)]
    versions = sorted((r.task_number, r.decided_block) for r in life.said if isinstance(r, DutyRow))
    if versions:
        assert [r[0] for r in said("task_number", "duties_history")] == [number for number, _ in versions]
    statuses = sorted(r.status for r in life.said if isinstance(r, Finding))
    assert [row[0] for row in said("status", "findings_history")] == statuses


@pytest.mark.parametrize("seed", range(2))
def test_the_store_says_of_each_network_of_a_partition_what_its_log_says(
    store: Store, tmp_path: Path, seed: int
) -> None:
    lives = write_lives(tmp_path / "bus", seed, steps=25, big=seed == 0)
    with open_bus(tmp_path / "bus") as bus:
        drain(bus, store, KNOWN)
    for life in lives:
        compare(store, life)

    first = held(store)
    broken, unknown = sorted(letters(tmp_path / "bus"))
    assert broken[0] == BROKEN
    assert b"expected a log record" in broken[1]["reason"]
    assert unknown[0] == b"rows"
    assert unknown[1] == {
        "network": b"home",
        "reason": f"expected rows of {', '.join(TABLES)}; got 'nobodys'".encode(),
    }

    # All of it once more, as after a crash that lost every offset: no row is doubled.
    with open_bus(tmp_path / "bus") as bus:
        for stream in (NETWORK, FINDINGS, ROWS):
            for record in bus.read(stream, 0, 0, 10_000):
                if PART_HEADER in record.headers or record.value in (BROKEN, b"rows"):
                    continue
                for insert in inserts(record, record.value, KNOWN):
                    store.insert(*insert)
    assert held(store) == first


def test_kill_9_in_mid_insert_loses_nothing_and_doubles_nothing(empty: Path, tmp_path: Path) -> None:
    lives = write_lives(tmp_path / "bus", 1, big=True)
    shutil.copytree(tmp_path / "bus", tmp_path / "calm-bus")
    for name in ("calm", "killed"):
        shutil.copytree(empty, tmp_path / name, symlinks=True)
    rng = random.Random("kills 1")

    def work(n: int, delay: float) -> int:
        arguments = [tmp_path / "bus", tmp_path / "killed", n, delay]
        done = subprocess.run(
            [sys.executable, "-m", "tests.processors.sink_worker", *map(str, arguments)],
            cwd=Path(__file__).parents[2],
            timeout=60,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode

    kills = [work(rng.randint(2, 12), rng.choice((0.0, 0.5, 1, 2, 4))) for _ in range(3)]
    assert kills == [-signal.SIGKILL] * 3
    assert work(0, 0) == 0

    with open_bus(tmp_path / "calm-bus") as bus, open_store(f"chdb://{tmp_path / 'calm'}") as calm:
        drain(bus, calm, KNOWN)
        undisturbed = held(calm)
    with open_store(f"chdb://{tmp_path / 'killed'}") as killed:
        assert held(killed) == undisturbed
        for life in lives:
            compare(killed, life)
    assert sorted(letters(tmp_path / "bus"), key=str) == sorted(letters(tmp_path / "calm-bus"), key=str)


class Watched:
    """A store that says what was inserted, and goes down before the n-th insert."""

    def __init__(self, store: Store, down_at: int = 0) -> None:
        self._store = store
        self._left = down_at
        self.inserted: list[tuple[str, Any]] = []

    def insert(self, table: str, rows: Any, token: str) -> None:
        self._left -= 1
        if self._left == 0:
            raise StoreDown("store: the disk is full")
        self._store.insert(table, rows, token)
        self.inserted.append((table, rows))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._store.rows(sql)


def test_a_store_that_goes_down_stops_the_sink_and_no_record_is_lost_or_dead(
    store: Store, tmp_path: Path
) -> None:
    lives = write_lives(tmp_path / "bus", 3)
    for n in (1, 2, 5, 9, 3):
        watched: Any = Watched(store, down_at=n)
        with open_bus(tmp_path / "bus") as bus, pytest.raises(StoreDown, match="the disk is full"):
            drain(bus, watched, KNOWN)
    with open_bus(tmp_path / "bus") as bus:
        drain(bus, store, KNOWN)
    for life in lives:
        compare(store, life)
    assert len(letters(tmp_path / "bus")) == 2


def test_a_store_that_was_put_back_from_a_copy_gets_again_what_it_lacks(empty: Path, tmp_path: Path) -> None:
    lives = write_lives(tmp_path / "bus", 8, steps=12)
    shutil.copytree(empty, tmp_path / "store", symlinks=True)
    with open_bus(tmp_path / "bus") as bus, open_store(f"chdb://{tmp_path / 'store'}") as store:
        half: Any = Watched(store, down_at=25)
        with pytest.raises(StoreDown):
            drain(bus, half, KNOWN)
    shutil.copytree(tmp_path / "store", tmp_path / "copy", symlinks=True)
    with open_bus(tmp_path / "bus") as bus, open_store(f"chdb://{tmp_path / 'store'}") as store:
        drain(bus, store, KNOWN)
        whole, letters_then = held(store), letters(tmp_path / "bus")
    for copy in ("copy", "empty"):  # what was stored then, and nothing at all
        if copy == "empty":
            shutil.copytree(empty, tmp_path / copy, symlinks=True)
        with open_bus(tmp_path / "bus") as bus, open_store(f"chdb://{tmp_path / copy}") as store:
            drain(bus, store, KNOWN)
            assert held(store) == whole
            for life in lives:
                compare(store, life)
        assert letters(tmp_path / "bus") == letters_then  # what was buried is not buried again


def test_a_bus_that_was_made_anew_is_refused_and_the_store_left_as_it_is(empty: Path, tmp_path: Path) -> None:
    write_lives(tmp_path / "bus", 9, steps=6)
    write_lives(tmp_path / "another", 10, steps=6)
    shutil.copytree(empty, tmp_path / "store", symlinks=True)
    with open_store(f"chdb://{tmp_path / 'store'}") as store:
        with open_bus(tmp_path / "bus") as bus:
            drain(bus, store, KNOWN)
        whole = held(store)
        with open_bus(tmp_path / "another") as bus, pytest.raises(StoreMistake, match="generation to"):
            drain(bus, store, KNOWN)
        assert held(store) == whole


def test_progress_is_stored_after_the_findings_that_it_speaks_of(store: Store, tmp_path: Path) -> None:
    write_lives(tmp_path / "bus", 5, steps=20)
    watched: Any = Watched(store)
    with open_bus(tmp_path / "bus") as bus:
        drain(RowsFirst(bus), watched, KNOWN)
    newest = {HOME.name: -1, AWAY.name: -1}
    checked = 0
    for table, rows in watched.inserted:
        for row in rows.to_pylist():
            if table == "findings_rows":
                newest[row["network"]] = row["block_number"]
            if table == "progress_rows":
                assert newest[row["network"]] >= row["block_number"]
                checked += 1
    assert checked == 20


def test_blocks_are_stored_before_rows_that_were_read_before_them(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processors.sink.LOOK_EVERY", 60.0)
    write_lives(tmp_path / "bus", 5, steps=2)
    watched: Any = Watched(store)
    with open_bus(tmp_path / "bus") as bus, Sink(watched, RowsFirst(bus), KNOWN) as sink:
        assert sink.turn(0.0)
    blocks = [table == "blocks_rows" for table, _ in watched.inserted]
    rows = [table == "progress_rows" for table, _ in watched.inserted]
    assert max(i for i, is_block in enumerate(blocks) if is_block) < rows.index(True)


def test_a_block_that_comes_while_rows_wait_is_stored_before_them(
    bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processors.sink.LOOK_EVERY", 0.0)
    watched: Any = Watched(store)
    put(bus, *[duties(f"state {i}") for i in range(4)])
    with Sink(watched, bus, KNOWN) as sink:
        assert sink.turn(0.0)
        assert sink.level_at == bus.read(ROWS, 0)[0].time, "three of them are not stored"
        put(bus, Message(NETWORK, key(HOME.name, 1), encode(New((block(1, hash32("0")),), {}))))
        while sink.turn(0.0):
            pass
        assert [committed(sink, stream) for stream in (ROWS, NETWORK)] == [4, 1]
    order = [table for table, _ in watched.inserted if table in ("duties_history_rows", "blocks_rows")]
    assert order == ["duties_history_rows", "blocks_rows", *["duties_history_rows"] * 3]


def delivered(value: bytes, stream: str = NETWORK, **headers: bytes) -> Delivered:
    name = key(HOME.name, 1) if stream == NETWORK else HOME.name.encode()
    return Delivered(stream, 0, 77, name, value, headers, 0.0)


BLOCKS = (block(7, hash32("root")), block(8, hash32("7")))
BROUGHT = tables([happened(b, events=3, calls=1) for b in BLOCKS])


def test_a_block_is_stored_after_all_that_happened_in_it_and_struck_out_before() -> None:
    new = inserts(delivered(encode(New(BLOCKS, BROUGHT))), encode(New(BLOCKS, BROUGHT)), KNOWN)
    assert [i.table for i in new] == [*sorted(BROUGHT), "blocks_rows"]
    undo = encode(Undo(BLOCKS[::-1], BROUGHT))
    assert [i.table for i in inserts(delivered(undo), undo, KNOWN)] == ["blocks_rows", *sorted(BROUGHT)]
    assert {tuple(i.rows.column("is_deleted").to_pylist()) for i in new} == {(0, 0), (0,) * 6}


def test_an_undone_block_is_struck_out_and_stands_again_when_it_returns(store: Store, tmp_path: Path) -> None:
    counts = []
    new, undo = New(BLOCKS, BROUGHT), Undo(BLOCKS[::-1], BROUGHT)
    with open_bus(tmp_path / "bus") as bus:
        for record in (new, undo, new, undo, new):
            write(bus, HOME, [record])
            drain(bus, store, KNOWN)
            said = [store.rows(f"SELECT count() FROM {view}")[0][0] for view in ("blocks", "events", "calls")]
            counts.append(tuple(said))
    assert counts == [(2, 6, 2), (0, 0, 0), (2, 6, 2), (0, 0, 0), (2, 6, 2)]


def test_an_insert_whose_token_is_forgotten_changes_nothing_that_views_show(
    store: Store, tmp_path: Path
) -> None:
    (life, _) = write_lives(tmp_path / "bus", 6)
    with open_bus(tmp_path / "bus") as bus:
        drain(bus, store, KNOWN)
        for stream in (NETWORK, FINDINGS, ROWS):
            for record in bus.read(stream, 0, 0, 10_000):
                if record.value not in (BROKEN, b"rows"):
                    for table, rows, token in inserts(record, record.value, KNOWN):
                        store.insert(table, rows, f"{token} forgotten")
    compare(store, life)


def test_a_table_of_no_rows_is_no_obstacle(store: Store, tmp_path: Path) -> None:
    nothing = {PLAIN_EVENT.table: ipc(PLAIN_EVENT.schema, []), CALL.table: ipc(CALL.schema, [])}
    with open_bus(tmp_path / "bus") as bus:
        write(bus, HOME, [New(BLOCKS, nothing)])
        drain(bus, store, KNOWN)
    assert store.rows("SELECT count() FROM blocks") == [(2,)]
    assert letters(tmp_path / "bus") == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"event_of_nobody_00000000": b""}, "expected a table of a configured adapter's ABI"),
        ({PLAIN_EVENT.table: b"no arrow"}, "ArrowInvalid"),
        ({PLAIN_EVENT.table: BROUGHT[CALL.table]}, "expected the columns block_number uint64"),
        ({PLAIN_EVENT.table: BROUGHT[PLAIN_EVENT.table][:-700]}, "Expected to be able to read"),
    ],
)
def test_a_record_with_a_table_that_nobody_can_store_is_a_dead_letter_whole(
    store: Store, tmp_path: Path, change: dict[str, bytes], reason: str
) -> None:
    bad, good = New(BLOCKS, BROUGHT | change), New(BLOCKS[:1], {})
    with open_bus(tmp_path / "bus") as bus:
        write(bus, HOME, [bad], part_bytes=500)
        write(bus, HOME, [good])
        drain(bus, store, KNOWN)
    parts = letters(tmp_path / "bus")
    assert b"".join(value for value, _ in parts) == encode(bad)
    assert all(reason in headers["reason"].decode() for _, headers in parts)
    assert parts[0][1]["network"] == b"home"
    assert store.rows("SELECT number FROM blocks") == [(7,)]
    assert store.rows("SELECT count() FROM events") == [(0,)]


def test_parts_out_of_turn_are_dead_letters_and_the_next_record_is_stored(
    store: Store, tmp_path: Path
) -> None:
    with open_bus(tmp_path / "bus") as bus:
        with bus.writer("foreign", 0) as writer:
            for part in (b"1/3", b"0/3"):
                writer.transaction([Message(NETWORK, key(HOME.name, 1), b"x", {PART_HEADER: part})])
            writer.transaction([Message(NETWORK, key(HOME.name, 1), b"x", {PART_HEADER: b"2/3"})])
        write(bus, HOME, [New(BLOCKS, BROUGHT)])
        drain(bus, store, KNOWN)
    assert store.rows("SELECT count() FROM blocks") == [(2,)]
    assert [h["reason"][:17] for _, h in letters(tmp_path / "bus")] == [
        b"expected part 0/n",
        b"expected part 1/3",
    ]


def test_records_in_parts_may_stand_among_each_other(store: Store, tmp_path: Path) -> None:
    """Two Networks' in the log, two processors' in the rows; and offsets wait for the last of them."""
    rows = {
        name: rows_to_ipc(DutyRow, [(DutyRow(hash32(f"{i}"), bytes(20), i, "10", "signed", 9, 0, 7), False)])
        for i, name in enumerate((b"one", b"two"))
    }
    headers = {"generation": b"1", "table": b"duties"}
    parts = [
        [
            Message(ROWS, HOME.name.encode(), part, headers | {"processor": name} | numbered)
            for part, numbered in split(value, 400)
        ]
        for name, value in rows.items()
    ]
    new = [
        [
            Message(NETWORK, key(network.name, 1), part, numbered)
            for part, numbered in split(encode(record), 50)
        ]
        for network, record in ((HOME, New(BLOCKS[:1], {})), (AWAY, New(BLOCKS, {})))
    ]
    with open_bus(tmp_path / "bus") as bus, bus.writer("both", 0) as writer:
        for left, right in (parts, new):
            for message in [m for pair in zip_longest(left, right) for m in pair if m]:
                writer.transaction([message])
                drain(bus, store, KNOWN)  # each time as after a restart
    assert store.rows("SELECT count() FROM duties") == [(2,)]
    assert store.rows("SELECT network, number FROM blocks ORDER BY ALL") == [
        ("away", 7),
        ("away", 8),
        ("home", 7),
    ]
    assert letters(tmp_path / "bus") == []


RECORDS = (
    delivered(encode(New(BLOCKS, BROUGHT))),
    delivered(encode(Undo(BLOCKS[::-1], BROUGHT))),
)


@given(st.sampled_from(RECORDS), st.data())
def test_junk_is_a_broken_record_and_nothing_else(record: Delivered, data: st.DataObject) -> None:
    value = bytearray(record.value)
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(value)) | st.just(len(value)))
    try:
        found = inserts(record, bytes(value[:cut]), KNOWN)
    except (BrokenRecord, BrokenLog):
        pass
    else:
        assert all(isinstance(i.rows, pa.Table) for i in found)


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
VALUES = st.binary(max_size=60) | JSON.map(lambda data: json.dumps({"data": data}).encode())
HEADERS = st.sampled_from([b"tasks", b"1", b"\xb2", b"-1", b"9" * 9])


@given(
    st.sampled_from([FINDINGS, ROWS, NETWORK]),
    VALUES,
    st.binary(max_size=12),
    st.dictionaries(st.sampled_from(["table", "generation"]), HEADERS),
)
def test_junk_from_anybody_is_a_broken_record_and_nothing_else(
    stream: str, value: bytes, name: bytes, headers: dict[str, bytes]
) -> None:
    record = Delivered(stream, 0, 1, name, value, headers, 0.0)
    with pytest.raises((BrokenRecord, BrokenLog)):
        inserts(record, value, KNOWN)


class Moody:
    """A store that refuses progress of "odd", and goes down before or after one insert in ten."""

    def __init__(self, store: Store, rng: random.Random) -> None:
        self._store, self._rng, self.down = store, rng, 0.1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def insert(self, table: str, rows: Any, token: str) -> None:
        if table == "progress_rows" and "odd" in rows.column("processor").to_pylist():
            raise SqlError("refused")
        drawn = self._rng.random()
        if drawn < self.down / 2:
            raise StoreDown("before")
        self._store.insert(table, rows, token)
        if drawn < self.down:
            raise StoreDown("after")


@pytest.mark.parametrize("seed", range(seeds(3, 6)))
def test_after_any_lives_each_record_is_in_the_store_or_one_letter(
    bus: Bus, store: Store, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr("processors.sink.MOST_WAIT", rng.choice([0.0, 0.01, 1.0]))
    monkeypatch.setattr("processors.sink.COMMIT_EVERY", rng.choice([0.0, 0.25]))
    monkeypatch.setattr("processors.sink.AT_ONCE", rng.choice([1, 2, 5, 16]))
    monkeypatch.setattr("processors.sink.LOOK_EVERY", rng.choice([0.0, 0.005, 60.0]))
    junk = Message(ROWS, b"n", b"junk", {"table": b"progress", "generation": b"1"})
    kinds = [progress(1, "tasks"), progress(1, "equivocation"), progress(1, "odd"), duties("owed"), junk]
    left = [rng.choice([*kinds, finding(offset=n)]) for n in range(80)]
    rows = sum(message.stream == ROWS for message in left)
    moody: Any = Moody(store, rng)

    def accounted() -> list[int]:
        """The offsets of rows that are stored or in a letter."""
        tables = ("progress_rows", "duties_history_rows")
        asked = " UNION ALL ".join(
            f"SELECT DISTINCT bitAnd(version, 0xffffffff) FROM {each}" for each in tables
        )
        letters = [int(letter.key.rpartition(b"/")[2]) for letter in read_all(bus, DEAD, 0)]
        return sorted([*(offset for (offset,) in store.rows(asked)), *letters])

    for life in range(1000):
        moody.down = 0.1 if life < 20 else 0.0
        try:
            with Sink(moody, bus, KNOWN) as opened:
                idle = 0
                while idle < 3:
                    if left and rng.random() < 0.5:
                        put(bus, *left[:3])
                        del left[:3]
                    idle = 0 if opened.turn(0.0) or left or opened.waits else idle + 1
                    assert {*range(committed(opened, ROWS) or 0)} <= {*accounted()}
            break
        except StoreDown:
            pass
    assert accounted() == [*range(rows)]

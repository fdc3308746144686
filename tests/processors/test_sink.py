"""What one record puts into the store, and the role around it. Lives on a bus are in test_sink_lives.py."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nektar import bus as buses
from nektar import generations
from nektar.bus.port import Bus, Delivered, Fenced, Message
from nektar.config import Config, Listen, NetworkConfig
from nektar.generations import Generations
from nektar.health import Health
from nektar.log import AHEAD_HEADER, DEAD, FINDINGS, NETWORK, ROWS, BrokenLog, Gap, New, Undo, encode, key
from nektar.model import Address, Block, Hash32, Level, Network
from nektar.role import give_up
from nektar.rows import DutyRow, Finding, OperatorRow, ProgressRow, Row
from nektar.store.client import open_store, records
from nektar.store.coverage import COVERED
from nektar.store.migrate import abi_tables, migrate
from nektar.store.port import SqlError, Store, StoreDown, StoreMistake, insert_failure
from nektar.store.schema import rows_to_ipc
from processors import sink
from processors.inserts import BrokenRecord, inserts
from processors.outputs import cloud_event
from processors.sink import Sink
from tests.nektar.store.things import PLAIN_EVENT, Things
from tests.processors.sunk import RowsFirst
from tests.seeds import thorough

KNOWN = abi_tables([Things()])
BLOCK = Block(1, Hash32(b"\x01" * 32), Hash32(bytes(32)), 1_700_000_000, Level.PROVED, "p", "single:p")
FINDING = Finding(
    id=b"\x01" * 32,
    condition="equivocation",
    operator=b"\x02" * 20,
    task_hash=b"\x03" * 32,
    task_number=2**60,
    task_input="15",
    block_number=4,
    block_hash=b"\x05" * 32,
    block_time=1_700_000_000,
    level="proved",
    anchor="single:p",
    facts='{"a":"ä"}',
)


def log(record: Gap | New | Undo, generation: int = 1) -> Message:
    return Message(NETWORK, key("n", generation), encode(record))


def duties(state: str) -> Message:
    row: Row = DutyRow(b"\x11" * 32, Address(b"\x12" * 20), 1, "15", state, 9, 3, 8)
    headers = {"table": b"duties", "generation": b"1"}
    return Message(ROWS, b"n", rows_to_ipc(DutyRow, [(row, False)]), headers)


def finding(status: str = "seen", offset: int = 1) -> Message:
    said = msgspec.structs.replace(FINDING, status=status)
    return Message(FINDINGS, b"n", cloud_event(Network("n", 1, {}), said, offset), {"generation": b"1"})


def delivered(message: Message) -> Delivered:
    return Delivered(message.stream, 3, 7, message.key, message.value, message.headers, 0.0)


def put(bus: Bus, *messages: Message) -> None:
    with bus.writer("test", 0) as writer:
        for message in messages:
            writer.transaction([message])


def drain(store: Store, bus: Bus) -> None:
    with Sink(store, bus, KNOWN) as opened:
        while opened.turn(0.0):
            pass


def progress(generation: int, processor: str, *, ahead: bool = False) -> Message:
    row: Row = ProgressRow(processor, 1, BLOCK.hash, stands=not ahead)
    headers = {"table": b"progress", "generation": str(generation).encode(), "processor": processor.encode()}
    headers |= {AHEAD_HEADER: b"1"} if ahead else {}
    return Message(ROWS, b"n", rows_to_ipc(ProgressRow, [(row, False)]), headers)


class Dying:
    """A store that goes down after the n-th statement or insert."""

    def __init__(self, store: Store, after: int) -> None:
        self._store, self._left = store, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def insert(self, *insert: Any) -> None:
        self._store.insert(*insert)
        self._did()

    def command(self, sql: str) -> None:
        self._store.command(sql)
        self._did()

    def _did(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise StoreDown("killed")


class FindingsLater:
    """`bus`, of which a transaction's progress can be read before its finding, until that is waited for."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._readable = False

    def consumer(self, group: str, streams: Sequence[str], **callbacks: Any) -> Any:
        consumer: Any = self._bus.consumer(group, streams, **callbacks)
        poll = consumer.poll
        consumer.poll = lambda timeout, most: [m for m in poll(timeout, most) if m.stream != FINDINGS]
        return consumer

    def read(self, stream: str, *arguments: Any) -> Sequence[Delivered]:
        return self._bus.read(stream, *arguments) if self._readable or stream != FINDINGS else ()

    def end(self, stream: str, partition: int) -> int:
        self._readable = True
        return self._bus.end(stream, partition)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


def test_a_progress_is_stored_after_findings_that_could_not_be_read_when_it_was(
    bus: Bus, store: Store
) -> None:
    headers = {"table": b"progress", "generation": b"1"}
    reached: Row = ProgressRow("equivocation", 4, Hash32(b"\x05" * 32))
    progress = Message(ROWS, b"n", rows_to_ipc(ProgressRow, [(reached, False)]), headers)
    with bus.writer("test", 0) as writer:
        writer.transaction([finding(), progress])
    later: Any = FindingsLater(bus)
    drain(store, later)
    assert store.rows("SELECT block_number FROM progress WHERE network = 'n'") == [(4,)]
    assert store.rows("SELECT status FROM findings WHERE network = 'n'") == [("seen",)]


def test_the_progress_of_several_processors_waits_for_findings_once(
    bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bus, finding())
    with bus.writer("test", 0) as writer:
        writer.transaction([progress(1, name) for name in ("equivocation", "tasks", "traces")])
    asked = []
    end = bus.end
    monkeypatch.setattr(bus, "end", lambda *where: asked.append(where) or end(*where))
    drain(store, bus)
    assert asked == [(FINDINGS, 0)]
    assert store.rows("SELECT count() FROM progress") == [(3,)]


class Noting:
    """A store that notes the tables of inserts, and refuses those of one processor's progress."""

    def __init__(self, store: Store, refused: str = "") -> None:
        self._store, self._refused, self.tables = store, refused, list[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def insert(self, table: str, rows: Any, token: str) -> None:
        if table == "progress_rows" and self._refused in rows.column("processor").to_pylist():
            raise SqlError("refused")
        self.tables.append(table)
        self._store.insert(table, rows, token)


def test_progress_that_came_together_is_one_insert_of_rows_of_several_versions(
    bus: Bus, store: Store
) -> None:
    put(bus, *(progress(1, name) for name in ("equivocation", "tasks", "tasks")), finding())
    noting: Any = Noting(store)
    drain(noting, bus)
    assert noting.tables.count("progress_rows") == 1
    assert noting.tables[-1] == "progress_rows"  # after what may be its consequences
    versions = store.rows("SELECT processor, bitAnd(version, 0xffff) FROM progress_rows ORDER BY ALL")
    assert versions == [("equivocation", 0), ("tasks", 1), ("tasks", 2)]
    assert store.rows("SELECT processor FROM progress ORDER BY processor") == [("equivocation",), ("tasks",)]


def test_progress_is_stored_before_the_rows_that_come_after_it(bus: Bus, store: Store) -> None:
    put(bus, progress(1, "tasks"), progress(1, "equivocation"), duties("owed"), progress(1, "tasks"))
    noting: Any = Noting(store)
    drain(noting, bus)
    assert [
        table for table in noting.tables if table in ("progress_rows", "duties_rows", "duties_history_rows")
    ] == [
        "progress_rows",
        "duties_history_rows",
        "duties_rows",
        "progress_rows",
    ]


def test_progress_that_waits_is_stored_when_the_role_ends(bus: Bus, store: Store) -> None:
    put(bus, progress(1, "tasks"))
    with Sink(store, bus, KNOWN) as opened:
        assert opened.turn(1.0)
        assert opened.waits
    assert store.rows("SELECT processor FROM progress") == [("tasks",)]
    with Sink(store, bus, KNOWN) as opened:
        assert committed(opened, ROWS) == 1


@pytest.mark.parametrize("after", [(), (duties("owed"),)], ids=["alone", "before rows"])
def test_whoever_is_fenced_amid_a_letter_loses_no_progress_and_no_letter(
    bus: Bus, store: Store, after: tuple[Message, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bus, progress(1, "odd"), progress(1, "good"), *after)
    noting: Any = Noting(store, "odd")
    with Sink(noting, bus, KNOWN) as opened:
        write, asked = opened._write_letter, itertools.count()

        def fenced_once(*of: Any) -> None:
            if next(asked) == 0:
                raise Fenced("another has had it meanwhile")
            write(*of)

        monkeypatch.setattr(opened, "_write_letter", fenced_once)
        for _ in range(5):
            opened.turn(0.0)
        assert committed(opened, ROWS) == 2 + len(after)
    assert [letter.headers["reason"] for letter in bus.read(DEAD, 0)] == [b"refused"]
    assert store.rows("SELECT processor FROM progress") == [("good",)]
    assert store.rows("SELECT count() FROM duties") == [(len(after),)]


def test_of_progress_that_came_together_only_what_is_refused_is_a_dead_letter(bus: Bus, store: Store) -> None:
    put(bus, *(progress(1, name) for name in ("equivocation", "odd", "tasks")))
    noting: Any = Noting(store, "odd")
    drain(noting, bus)
    drain(noting, bus)
    (letter,) = bus.read(DEAD, 0)
    assert (letter.key, letter.headers["reason"]) == (f"store {ROWS}/0/1".encode(), b"refused")
    assert store.rows("SELECT processor FROM progress ORDER BY processor") == [("equivocation",), ("tasks",)]


def committed(of: Sink, stream: str) -> int | None:
    return of._consumer.committed(stream, 0)


class Counting:
    """A store that calls `did` after each insert, with how many there were."""

    def __init__(self, store: Store, did: Callable[[int], None]) -> None:
        self._store, self._did, self._inserts = store, did, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def insert(self, *insert: Any) -> None:
        self._store.insert(*insert)
        self._inserts += 1
        self._did(self._inserts)


def test_very_many_findings_before_a_progress_hold_up_neither_a_stop_nor_a_commit(
    bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processors.sink.COMMIT_EVERY", 0.0)
    put(bus, progress(1, "equivocation"), *(finding(offset=n) for n in range(40)))
    later: Any = FindingsLater(bus)
    stop = threading.Event()
    counting: Any = Counting(store, lambda inserts: stop.set() if inserts == 20 else None)
    moved: list[int | None] = []  # what was committed each time
    with Sink(counting, later, KNOWN, lambda: moved.append(committed(opened, FINDINGS))) as opened:
        while not stop.is_set():
            opened.turn(0.0, stop)
        assert committed(opened, FINDINGS) == len(moved) - 1
    assert moved == [None, None, *range(1, len(moved) - 1)]  # the first of the progress, which waits
    assert 1 < len(moved) < 20
    assert store.rows("SELECT count() FROM progress") == [(0,)]
    drain(store, bus)
    assert store.rows("SELECT count() FROM progress") == [(1,)]
    assert store.rows("SELECT count() FROM findings_history") == [(40,)]


@pytest.mark.parametrize("after", range(1, 8))
@thorough
def test_whoever_is_killed_while_it_reads_again_lacks_nothing_later(
    bus: Bus, tmp_path: Path, after: int
) -> None:
    put(bus, duties("pending"), duties("signed"), finding("seen"), finding("safe"))
    with open_store(f"chdb://{tmp_path / 'lost'}") as lost:
        migrate(lost, [Things()])
        drain(lost, bus)
    rows_first: Any = RowsFirst(bus)
    with open_store(f"chdb://{tmp_path / 'anew'}") as anew:
        migrate(anew, [Things()])
        dying: Any = Dying(anew, after)
        with pytest.raises(StoreDown, match="killed"):
            drain(dying, rows_first)
        drain(anew, rows_first)
        assert anew.rows("SELECT status FROM findings_history ORDER BY status") == [("safe",), ("seen",)]


def test_a_token_names_generation_stream_partition_offset_table_and_what_is_in_it() -> None:
    said, now = inserts(delivered(duties("signed")), duties("signed").value, KNOWN)
    assert (said.table, now.table) == ("duties_history_rows", "duties_rows")
    place, _, digest = now.token.rpartition(":")
    assert place == f"1:{ROWS}:3:7:duties_rows"
    assert now.rows.column("version").to_pylist() == [1 << 48 | 7]
    again = inserts(delivered(duties("signed")), duties("signed").value, KNOWN)
    other = inserts(delivered(duties("missed")), duties("missed").value, KNOWN)
    assert again[1].token == now.token
    assert not other[1].token.endswith(digest)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (Message(NETWORK, b"n/1", b"junk"), "expected a log record"),
        (Message(NETWORK, b"no key", b""), "expected a key NETWORK/GENERATION"),
        (log(New((), {}), 70_000), "a generation below 65536"),
        (log(New((), {PLAIN_EVENT.table: b"not arrow"})), "Arrow"),
        (Message(ROWS, b"n", b"", {"table": b"nope", "generation": b"1"}), "expected rows of"),
        (Message(ROWS, b"n", b"", {"table": b"findings", "generation": b"1"}), "expected rows of"),
        (duties("signed")._replace(headers={"table": b"duties"}), "a generation below 65536"),
        (duties("signed")._replace(value=rows_to_ipc(OperatorRow, [])), "expected the columns"),
        (finding()._replace(value=b"{"), "JSON"),
        (finding()._replace(value=b'{"data":{}}'), "KeyError"),
        (finding()._replace(value=b'{"data":[]}'), "TypeError"),
    ],
)
def test_what_can_not_be_stored_says_why(message: Message, why: str) -> None:
    with pytest.raises((BrokenRecord, BrokenLog), match=why):
        inserts(delivered(message), message.value, KNOWN)


@pytest.mark.parametrize(
    ("field", "cell"),
    [
        ("id", "0x00"),
        ("id", "ab" * 32),
        ("id", None),
        ("block_number", -1),
        ("block_number", "x"),
        ("block_number", 1.5),
        ("facts", 5),
    ],
)
def test_a_finding_whose_cells_are_not_what_the_model_says_is_refused(field: str, cell: object) -> None:
    event = json.loads(finding().value)
    event["data"][field] = cell
    message = finding()._replace(value=json.dumps(event).encode())
    with pytest.raises(BrokenRecord):
        inserts(delivered(message), message.value, KNOWN)


def test_a_finding_is_shown_as_it_was_last_said_and_its_history_keeps_every_version(
    bus: Bus, store: Store
) -> None:
    put(bus, finding("seen", 1), finding("final", 2))
    drain(store, bus)
    found = store.rows("SELECT id, operator, task_number, facts, status FROM findings")
    assert found == [(f"0x{'01' * 32}", f"0x{'02' * 20}", 2**60, '{"a":"ä"}', "final")]
    offsets = [message.offset for message in bus.read(FINDINGS, 0)]
    said = store.rows("SELECT generation, log_offset, status FROM findings_history ORDER BY log_offset")
    assert said == [(1, offsets[0], "seen"), (1, offsets[1], "final")]


def test_a_newer_generation_stands_above_an_older_one_that_is_read_later(bus: Bus, store: Store) -> None:
    put(bus, log(New((BLOCK,), {}), generation=2), log(New((BLOCK,), {}), generation=1))
    drain(store, bus)
    assert store.rows("SELECT number, generation FROM blocks") == [(1, 2)]


def test_a_dead_letter_is_whole_says_why_and_is_written_once(bus: Bus, store: Store) -> None:
    junk = Message(NETWORK, key("n", 1), b"junk")
    put(bus, junk, log(New((BLOCK,), {})))
    drain(store, bus)
    drain(store, bus)
    (letter,) = bus.read(DEAD, 0)
    assert (letter.key, letter.value) == (f"store {NETWORK}/0/0".encode(), b"junk")
    assert letter.headers["network"] == b"n"
    assert letter.headers["reason"].startswith(b"expected a log record")
    assert store.rows("SELECT number FROM blocks") == [(1,)]


@pytest.mark.parametrize(
    ("url", "ends"), [("chdb:///somewhere", give_up), ("clickhouse://u:p@host:8123/d", None)]
)
def test_a_query_that_does_not_end_ends_the_role_where_it_runs_in_it_alone(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, url: str, ends: object
) -> None:
    class Served(Exception): ...

    def serve(store: object, listen: str, on_stuck: object) -> None:
        assert on_stuck is ends
        raise Served

    monkeypatch.setattr(sink, "open_store", nullcontext)
    monkeypatch.setattr(sink, "migrate", lambda *_: [])
    monkeypatch.setattr(sink, "say_objectives", lambda *_: None)
    monkeypatch.setattr(sink, "serve", serve)
    with pytest.raises(Served):
        sink.run(Config(providers={}, networks=(), store=url), {}, bus, threading.Event(), Health())


def test_the_role_answers_sql_while_it_stores_and_stops_when_told(tmp_path: Path, bus: Bus) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    network = NetworkConfig("n", 1, ("p",), {}, objective=0.9)
    listen = Listen(f"127.0.0.1:{port}")
    config = Config(providers={}, networks=(network,), data_dir=str(tmp_path), listen=listen)
    stop, health = threading.Event(), Health()
    role = threading.Thread(target=sink.run, args=(config, {"n": Things()}, bus, stop, health))
    role.start()
    try:
        while health.behind() and role.is_alive():
            role.join(0.01)
        with buses.open(f"sqlite://{tmp_path / 'bus'}") as other:
            put(other, log(New((BLOCK,), {})))
        for _ in range(2_000):  # each question takes a few milliseconds
            if found := records(config, "SELECT hash FROM blocks"):
                break
        assert found == [{"hash": f"0x{'01' * 32}"}]
        said = records(config, "SELECT network, objective FROM objectives")
        assert said == [{"network": "n", "objective": 0.9}]
    finally:
        stop.set()
        role.join(30)
    assert not role.is_alive()


def test_what_an_older_generation_said_is_true_no_more_and_stays_in_the_histories(
    store: Store, bus: Bus
) -> None:
    older = msgspec.structs.replace(BLOCK, number=2, hash=Hash32(b"\x02" * 32))
    newer = msgspec.structs.replace(BLOCK, number=2, hash=Hash32(b"\x09" * 32))
    put(bus, log(New((BLOCK, older), {})), duties("missed"), finding("final"))
    drain(store, bus)
    assert store.rows("SELECT count() FROM blocks WHERE network = 'n'") == [(2,)]
    put(bus, log(New((newer,), {}), generation=2))
    drain(store, bus)
    assert store.rows("SELECT hash FROM blocks WHERE network = 'n'") == [("0x" + "09" * 32,)]
    for view in ("duties", "findings"):
        assert store.rows(f"SELECT count() FROM {view} WHERE network = 'n'") == [(0,)]
        assert store.rows(f"SELECT count() FROM {view}_history WHERE network = 'n'") == [(1,)]
    said = "SELECT generation, stands FROM generations WHERE network = 'n' ORDER BY generation"
    assert store.rows(said) == [(1, True), (2, True)]


def covered(store: Store) -> list[tuple[str, str, int, int]]:
    asked = f"SELECT kind, level, first, last FROM ({COVERED}) WHERE network = 'n' ORDER BY kind, first"
    return store.rows(asked)


def test_a_gap_is_in_the_coverage_until_it_is_taken_back_and_before_the_first_block_too(
    store: Store, bus: Bus
) -> None:
    put(bus, log(Gap(0, 0, BLOCK.parent, "no provider serves these blocks")), log(New((BLOCK,), {})))
    drain(store, bus)
    assert covered(store) == [("logs", "gap", 0, 0), ("logs", "proved", 1, 1)]
    assert store.rows("SELECT first, last, why FROM gaps") == [(0, 0, "no provider serves these blocks")]
    put(bus, log(Undo((BLOCK,), {}, gap=(0, 0))))
    drain(store, bus)
    assert covered(store) == []


def test_coverage_says_of_calls_no_more_than_the_log_takes(store: Store, bus: Bus) -> None:
    network = NetworkConfig(name="n", chain_id=1, rpc=("p",), contracts={})
    for number, calls in enumerate(("with_events", "all"), 1):
        filter_ = generations.filter_of(msgspec.structs.replace(network, calls=calls), {})
        said = Generations(generations.generation(number, filter_), newest=number)
        put(bus, generations.message("n", said), log(New((BLOCK,), {}), number))
        drain(store, bus)
        of_calls = "calls" if calls == "all" else "calls with events"
        assert covered(store) == [(of_calls, "proved", 1, 1), ("logs", "proved", 1, 1)]


def test_a_dead_letter_whose_writer_was_opened_elsewhere_is_written_again_and_ends_nobody(
    store: Store, bus: Bus
) -> None:
    broken, sound = Message(NETWORK, key("n", 1), b"junk"), log(New((BLOCK,), {}))
    with Sink(store, bus, KNOWN) as one:
        put(bus, broken)
        while one.turn(0.0):
            pass
        with bus.writer("store-0", 0):
            pass
        put(bus, sound, broken)
        while one.turn(0.0):
            pass
        assert committed(one, NETWORK) == 3
    assert [each.key for each in bus.read(DEAD, 0)] == [
        f"store {NETWORK}/0/{offset}".encode() for offset in (0, 2)
    ]
    assert store.rows("SELECT number FROM blocks") == [(1,)]


@pytest.mark.parametrize(
    ("code", "of_rows"), [(53, True), (321, True), (60, False), (81, False), (164, False), (236, False)]
)
def test_only_what_says_that_rows_are_wrong_makes_dead_letters(code: int, of_rows: bool) -> None:
    error = insert_failure(Exception(f"Code: {code}. DB::Exception: something (SOMETHING)"), "chdb:///x")
    assert isinstance(error, SqlError) == of_rows
    assert isinstance(error, StoreDown) != of_rows


def test_a_dead_letters_writer_is_given_up_with_its_partition(store: Store, bus: Bus) -> None:
    """The partition goes to another store role, which buries too, and comes back."""
    broken = Message(NETWORK, key("n", 1), b"junk")
    with Sink(store, bus, KNOWN) as one:
        put(bus, broken)
        while one.turn(0.0):
            pass
        one._revoked(frozenset({0}))
        with bus.writer("store-0", 0):
            pass
        one._assigned(frozenset({0}))
        put(bus, broken)
        while one.turn(0.0):
            pass
    assert len(bus.read(DEAD, 0)) == 2


def test_what_the_refusal_of_another_bus_advises_is_a_way_out(store: Store, bus: Bus, tmp_path: Path) -> None:
    put(bus, log(New((BLOCK,), {})), finding())
    drain(store, bus)
    with buses.open(f"sqlite://{tmp_path / 'another'}?partitions=1") as another:
        put(another, log(New((BLOCK,), {})))
        with pytest.raises(StoreMistake, match=r"generation to 2"):
            drain(store, another)
    newer = msgspec.structs.replace(BLOCK, hash=Hash32(b"\x09" * 32))
    with buses.open(f"sqlite://{tmp_path / 'a-third'}?partitions=1") as third:
        put(third, log(New((newer,), {}), generation=2))
        drain(store, third)
        assert store.rows("SELECT hash FROM blocks WHERE network = 'n'") == [("0x" + "09" * 32,)]
        put(third, log(New((BLOCK,), {}), generation=1))
        with pytest.raises(StoreMistake, match="generation 1 of n from another bus"):
            drain(store, third)

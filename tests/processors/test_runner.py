"""The runner on the real embedded bus: exactly once, byte for byte, wherever it dies."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nektar import checkpoint, log
from nektar.bus.port import Fenced, Message, partition_of
from nektar.bus.rules import MAX_TRANSACTION_BYTES
from nektar.config import Config, NetworkConfig, Provider
from nektar.fold import Fold
from nektar.health import Health
from nektar.log import CHECKPOINTS, FINDINGS, NETWORK, ROWS, BrokenLog, Mark, New, Record, SignedBatch
from nektar.model import ChainEvent, Event, Network
from nektar.rows import Change, OperatorRow
from processors import following, kept, share
from processors import runner as running
from processors.following import Log
from processors.processor import Interpreter, Processor
from processors.replay import replay
from processors.runner import Runner
from processors.share import GROUP
from tests.nektar import logs
from tests.nektar.logs import NETWORK as HOME
from tests.nektar.logs import Gossip, Plain, block, hash32, random_log
from tests.processors.dying import COMMITTED, FOLDED, INSIDE, POINTS, Died, DyingBus
from tests.processors.logs_on_bus import open_bus, outputs, put_out, run_to_end, runner, write
from tests.spans import Counted, reader

AWAY = msgspec.structs.replace(HOME, name="away")


@pytest.fixture(autouse=True)
def checkpoints_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "CHECKPOINT_MARKS", 3)


def records(seed: int, count: int = 60) -> list[Record]:
    return [written.record for written in random_log(random.Random(seed), count)]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[Path, list[Any]]]:
    """once(seed): a bus that holds a log and nothing else, and what an uninterrupted run puts out."""
    made: dict[int, tuple[Path, list[Any]]] = {}

    def make(seed: int) -> tuple[Path, list[Any]]:
        if seed not in made:
            directory = tmp_path_factory.mktemp("once")
            with open_bus(directory / "log") as bus:
                write(bus, HOME, records(seed), part_bytes=700)
            shutil.copytree(directory / "log", directory / "run")
            with open_bus(directory / "run") as bus:
                run_to_end(bus, [HOME])
                made[seed] = directory / "log", outputs(bus, HOME)
                assert all(made[seed][1])
        return made[seed]

    return make


def copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


# --- dying ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", [point for point in POINTS if point != INSIDE])
def test_dying_at(point: str, once: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every passing of the point in turn, until a run lives to its end; then once more, undisturbed."""
    monkeypatch.setattr(running, "BATCH", 4)
    source, expected = once(10)
    with open_bus(copy(source, tmp_path / "bus")) as bus:
        deaths = 0
        for n in [1, 2, 3, 1, 5, 2, 1000]:
            dying: Any = DyingBus(bus, point, n)
            try:
                run_to_end(dying, [HOME])
            except Died:
                deaths += 1
        assert deaths
        run_to_end(bus, [HOME])
        assert outputs(bus, HOME) == expected
        assert replay(bus, HOME, Plain(), Gossip()).agrees


@pytest.mark.parametrize("point", POINTS)
def test_kill_9_at(point: str, once: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, expected = once(10)
    directory = copy(source, tmp_path / "bus")
    with worker(directory, 4, point, 2 if point in (FOLDED, INSIDE, COMMITTED) else 1) as process:
        assert process.wait(30) == -9
    with open_bus(directory) as bus:
        run_to_end(bus, [HOME])
        assert outputs(bus, HOME) == expected


@pytest.mark.parametrize("seed", [10])
def test_kill_9_at_random_moments(seed: int, once: Any, tmp_path: Path) -> None:
    """Whenever so much more has been put out, until all has."""
    source, expected = once(seed)
    directory = copy(source, tmp_path / "bus")
    rng = random.Random(seed)
    with open_bus(directory) as bus:
        partition = partition_of(HOME.name, bus.partitions)
        whole = len(expected[0])
        while (there := len(put_out(bus, HOME, ROWS))) < whole:
            target = bus.end(ROWS, partition) + rng.randint(whole // 4, whole // 2)
            with worker(directory, rng.randint(1, 8)) as process:
                deadline = time.monotonic() + 30
                while bus.end(ROWS, partition) < target and len(put_out(bus, HOME, ROWS)) < whole:
                    assert process.poll() is None
                    assert time.monotonic() < deadline, f"stuck at {there} of {whole}"
                    time.sleep(0.002)
        run_to_end(bus, [HOME])
        assert outputs(bus, HOME) == expected


class worker:  # noqa: N801
    """A process of `worker.py`, killed at the end of the block."""

    def __init__(self, directory: Path, batch: int, *point: object) -> None:
        arguments = [str(directory), str(batch), *map(str, point)]
        self._command = [sys.executable, "-m", "tests.processors.worker", *arguments]

    def __enter__(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        assert self._process.stdout
        assert self._process.stdout.readline() == b"ready\n"
        return self._process

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()


# --- batches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "size"), [(1, 1), (3, 1), (7, 2000), (500, 10**9)])
def test_batches_change_no_byte(
    batch: int, size: int, once: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "BATCH", batch)
    monkeypatch.setattr(share, "TRANSACTION_BYTES", size)
    source, expected = once(10)
    with open_bus(copy(source, tmp_path / "bus")) as bus:
        run_to_end(bus, [HOME])
        assert outputs(bus, HOME) == expected


def test_partitions_that_move_between_members_lose_and_double_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "BATCH", 10)
    networks = [msgspec.structs.replace(HOME, name=f"n{i}") for i in range(4)]
    with open_bus(tmp_path / "bus", partitions=3) as bus, open_bus(tmp_path / "bus", partitions=3) as other:
        written = {network.name: records(i) for i, network in enumerate(networks)}
        for network in networks:
            write(bus, network, written[network.name])
        with runner(bus, networks) as first:
            for _ in range(2):
                first.turn(0.0)
            with runner(other, networks) as second:
                taken = [(second.turn(0.01), first.turn(0.01)) for _ in range(6)]
                assert all(map(any, zip(*taken, strict=True)))  # both had work
            while first.turn(0.01):
                pass
        run_to_end(bus, networks)
        for network in networks:
            found = replay(bus, network, Plain(), Gossip())
            assert (found.difference, found.behind, found.records) == (None, 0, 60)


def test_a_processor_whose_partition_was_taken_meanwhile_joins_again_and_doubles_nothing(
    once: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "BATCH", 10)
    source, expected = once(10)
    directory = copy(source, tmp_path / "bus")
    with open_bus(directory) as bus, runner(bus, [HOME]) as slow:
        counted = Counted(reader())
        slow.turn(0.0)
        fenced = 0
        for i in range(40):
            if i in (0, 2, 6):
                with bus.writer(GROUP, 0):  # as whoever is given the partition does first
                    pass
                with pytest.raises(Fenced):
                    slow.turn(0.0)
                fenced += 1
            running._turn(slow, 0.0, Health())
        assert (fenced, outputs(bus, HOME)) == (3, expected)
    assert counted("nektar.processors.records") == {("gossip", "home"): 60}


def test_what_puts_nothing_out_is_said_later_in_one_transaction_and_folded_again_until_then(
    once: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, expected = once(10)
    with open_bus(copy(source, tmp_path / "bus")) as bus:
        run_to_end(bus, [HOME])
        quiet = [SignedBatch(())] * 20  # nothing that a fold could say anything of
        write(bus, HOME, quiet)
        with runner(bus, [HOME]) as each:
            said = bus.end(CHECKPOINTS, 0)
            while each.turn(0.0):
                assert bus.end(CHECKPOINTS, 0) == said
        with runner(bus, [HOME]) as each:
            assert each.turn(0.0) >= len(quiet), "nobody has said that they are put out"
            assert bus.end(CHECKPOINTS, 0) == said
            monkeypatch.setattr(share, "QUIET_SECONDS", 0.0)
            assert each.turn(0.0) == 0
            assert each._consumer.committed(NETWORK, 0) == bus.end(NETWORK, 0), (
                "the group's offset moves, too"
            )
            there = bus.last(CHECKPOINTS, 0, b"gossip/home/1/put-out")
            assert there is not None
            assert int(there.value) == bus.end(NETWORK, 0)
            said = bus.end(CHECKPOINTS, 0)
            for _ in range(3):
                each.turn(0.0)
            assert bus.end(CHECKPOINTS, 0) == said, "once"
        assert outputs(bus, HOME) == expected


# --- what is large ----------------------------------------------------------------------------------


class Crowd(msgspec.Struct, frozen=True):
    rows: tuple[OperatorRow, ...] = ()


class Crowds:
    """A fold whose rows and state are larger than a message."""

    name = "crowds"
    state_type = Crowd

    def initial(self, network: Network) -> Crowd:
        return Crowd()

    def step(self, state: Crowd, event: Event) -> tuple[Crowd, Sequence[Change]]:
        if state.rows or not isinstance(event, logs.OperatorRegistered):
            return state, ()
        rows = tuple(
            OperatorRow(i.to_bytes(20, "big"), bytes(64), "r" * 500, 1, 1, True, 1, 0) for i in range(4000)
        )
        return Crowd(rows), [Change(None, row) for row in rows]


def test_what_is_larger_than_a_message_travels_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "CHECKPOINT_MARKS", 1)
    parent = block(7, hash32("start"))
    child = block(8, parent.hash)
    happened = (
        logs.OperatorRegistered(logs.At(7, 0, 0), logs.OPERATORS[0], logs.G1(b""), logs.G2(b""), "", 1),
    )
    with open_bus(tmp_path / "bus") as bus:
        write(
            bus,
            HOME,
            [
                New((parent,), logs.tables(happened)),
                Mark(parent.ref, parent.ref),
                New((child,), logs.tables(())),
            ],
        )
        for _ in range(2):
            crowds = Runner(
                bus, [Crowds()], [HOME], {log.key(HOME.name, HOME.generation): Interpreter(HOME, Plain())}
            )
            with crowds:
                while crowds.turn(0.0):
                    pass
        rows = [message for message in put_out(bus, HOME, ROWS) if message[2]["table"] == b"operators"]
        assert [message[2]["nektar-part"] for message in rows] == [b"0/3", b"1/3", b"2/3"]
        assert replay(bus, HOME, Plain(), Crowds()).agrees
        first = bus.last(CHECKPOINTS, 0, b"crowds/home/1")
        assert first is not None
        assert first.headers["nektar-part"].startswith(b"0/")


@pytest.fixture(scope="module")
def interleaved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A bus on which two Networks' records in parts and whole signed ones stand between each other's parts,
    and what an uninterrupted run puts out."""
    rng = random.Random("interleaved")
    directory = tmp_path_factory.mktemp("interleaved")
    signed = log.encode(SignedBatch(()))
    with open_bus(directory / "log") as bus, bus.writer("all of them", 0) as writer:
        for mine, theirs in zip(records(1), records(4), strict=True):
            queues = [
                [
                    Message(NETWORK, log.key(network.name, 1), part, headers)
                    for part, headers in log.split(log.encode(record), 200)
                ]
                for network, record in ((HOME, mine), (AWAY, theirs))
            ]
            turns = rng.sample([q for q in queues for _ in q], sum(map(len, queues)))
            messages = []
            for queue in turns:
                messages.append(queue.pop(0))
                if rng.random() < 0.3:
                    messages.append(Message(NETWORK, messages[-1].key, signed))
            writer.transaction(messages)
    shutil.copytree(directory / "log", directory / "run")
    with open_bus(directory / "run") as bus:
        run_to_end(bus, [HOME, AWAY])
        for network in (HOME, AWAY):
            found = replay(bus, network, Plain(), Gossip())
            assert (found.difference, found.behind) == (None, 0)
            assert found.records > 60
        return directory / "log", outputs(bus, HOME, AWAY)


@pytest.mark.parametrize("batch", [1, 3])
def test_records_among_each_others_parts_lead_to_the_same_bytes_wherever_it_dies(
    batch: int,
    interleaved: tuple[Path, list[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "BATCH", batch)
    monkeypatch.setattr(following, "CHECKPOINT_MARKS", 1)
    source, expected = interleaved
    with open_bus(copy(source, tmp_path / "bus")) as bus:
        deaths = 0
        for n in [1, 2, 3, 5, 2, 4, 1, 3]:
            dying: Any = DyingBus(bus, (COMMITTED, FOLDED)[n % 2], n)
            try:
                run_to_end(dying, [HOME, AWAY])
            except Died:
                deaths += 1
        assert deaths > 4
        run_to_end(bus, [HOME, AWAY])
        assert outputs(bus, HOME, AWAY) == expected


# --- what is broken ---------------------------------------------------------------------------------


def test_a_record_that_cannot_be_read_stops_the_role_and_loses_nothing(tmp_path: Path) -> None:
    with open_bus(tmp_path / "bus") as bus:
        write(bus, HOME, records(1)[:10])
        key = log.key(HOME.name, HOME.generation)
        with bus.writer("other", 0) as writer:
            writer.transaction([Message(NETWORK, key, b"not a record")])
        for _ in range(2):
            with pytest.raises(
                BrokenLog,
                match=r"^nektar\.network, partition 0, offset 10 \(home/1\): expected a log record",
            ):
                run_to_end(bus, [HOME])
            found = replay_of_first(bus, 10)
            assert len(put_out(bus, HOME, ROWS)) == found


def replay_of_first(bus: Any, count: int) -> int:
    """How many row messages the first records of the log make."""
    processor = Processor(Gossip(), HOME, Interpreter(HOME, Plain()))
    made = 0
    for delivered in bus.read(NETWORK, 0)[:count]:
        _, messages = processor.take(delivered)
        made += sum(message.stream == ROWS for message in messages)
    return made


def test_a_part_out_of_its_turn_is_a_broken_log(tmp_path: Path) -> None:
    with open_bus(tmp_path / "bus") as bus:
        with bus.writer("other", 0) as writer:
            writer.transaction([Message(NETWORK, log.key("home", 1), b"x", {log.PART_HEADER: b"1/2"})])
        with pytest.raises(BrokenLog, match=r"partition 0, offset 0 \(home/1\): expected part 0"):
            run_to_end(bus, [HOME])


def test_a_checkpoint_of_another_version_says_what_to_do(once: Any, tmp_path: Path) -> None:
    source, _ = once(10)
    with open_bus(copy(source, tmp_path / "bus")) as bus:
        run_to_end(bus, [HOME])
        with bus.writer(GROUP, 0) as writer:
            writer.transaction([Message(CHECKPOINTS, b"gossip/home/1", b'{"offset":1}')])
        with pytest.raises(checkpoint.BadCheckpoint, match=r"^generation 1: .* raise the Network's"):
            run_to_end(bus, [HOME])


def test_a_checkpoint_that_is_too_large_is_an_error_and_what_is_put_out_is_the_same(
    once: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source, expected = once(10)
    monkeypatch.setattr(kept, "MOST_BYTES", 10)
    with open_bus(copy(source, tmp_path / "bus")) as bus:
        for _ in range(2):  # a restart folds all of it again
            run_to_end(bus, [HOME])
            assert bus.last(CHECKPOINTS, 0, b"gossip/home/1") is None
            assert outputs(bus, HOME) == expected
    assert "gossip/home/1: expected at most 10 bytes to keep; got" in caplog.text


def test_what_is_kept_and_is_not_all_there_is_an_error_and_not_nothing(tmp_path: Path) -> None:
    parts = kept.messages(b"gossip/home/1", bytes(2 * log.PART_BYTES + 1))
    with open_bus(tmp_path / "bus") as bus, bus.writer("role", 0) as writer:
        assert kept.read(bus, 0, b"gossip/home/1") is None
        writer.transaction(parts[:2])
        with pytest.raises(BrokenLog, match="expected part 2 of what is kept; it is gone"):
            kept.read(bus, 0, b"gossip/home/1")
        with pytest.raises(checkpoint.BadCheckpoint, match="expected part 2"):
            following.saved(bus, 0, Gossip(), Log("gossip", b"home/1"))
        writer.transaction(parts)
        assert kept.read(bus, 0, b"gossip/home/1") == bytes(2 * log.PART_BYTES + 1)


def test_what_is_larger_than_anything_that_is_kept_is_an_error_and_not_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_bus(tmp_path / "bus") as bus, bus.writer("role", 0) as writer:
        writer.transaction(kept.messages(b"gossip/home/1", bytes(3 * log.PART_BYTES)))
        monkeypatch.setattr(kept, "MOST_BYTES", 2 * log.PART_BYTES)
        with pytest.raises(BrokenLog, match="larger than 2000000 bytes"):
            kept.read(bus, 0, b"gossip/home/1")
        with pytest.raises(kept.TooLarge, match="gossip/home/1: expected at most 2000000 bytes to keep"):
            kept.messages(b"gossip/home/1", bytes(3 * log.PART_BYTES))


def test_a_checkpoint_and_the_most_that_is_put_out_with_it_are_one_transaction() -> None:
    most = following.MOST_PUT_OUT + share.TRANSACTION_BYTES + kept.MOST_BYTES
    assert most < MAX_TRANSACTION_BYTES


# --- what it says -----------------------------------------------------------------------------------


def test_findings_are_cloud_events_and_each_version_has_a_name_of_its_own(once: Any) -> None:
    _, (_, findings) = once(10)
    events = [json.loads(value) for *_, value in findings]
    assert len({event["id"] for event in events}) == len(events)
    for event in events:
        assert event["specversion"] == "1.0"
        assert event["source"] == "/networks/home"
        assert event["type"] == f"nektar.finding.{event['data']['status']}"
        assert event["data"]["id"] == f"0x{event['subject']}"
        assert event["data"]["task_number"] == str(2**60)
        assert (
            event["time"]
            == f"1970-01-01T00:{event['data']['block_time'] // 60}:{event['data']['block_time'] % 60:02}Z"
        )
    assert {event["data"]["status"] for event in events} == {"seen", "safe", "final", "retracted"}


class Counting(Plain):
    calls = 0

    def events(self, network: Network, tables: Mapping[str, bytes]) -> Sequence[ChainEvent]:
        self.calls += 1
        return super().events(network, tables)


class Other(Gossip):
    name = "other"


def test_the_role_follows_the_log_and_interprets_each_record_once(once: Any, tmp_path: Path) -> None:
    source, expected = once(10)
    counting = Counting()
    stop = threading.Event()
    config = Config({"p": Provider("http://localhost")}, (NetworkConfig("home", 31337, ("p",), {}),))
    folds: list[Fold[Any]] = [Gossip(), Other()]
    with open_bus(copy(source, tmp_path / "bus")) as bus:
        given = (config, folds, {"home": counting}, bus, stop, Health())
        role = threading.Thread(target=running.run, args=given)
        role.start()
        try:
            deadline = time.monotonic() + 20
            with open_bus(tmp_path / "bus") as beside:
                while replay(beside, HOME, Plain(), Other()).behind and time.monotonic() < deadline:
                    pass
                while replay(beside, HOME, Plain(), Gossip()).behind and time.monotonic() < deadline:
                    pass
        finally:
            stop.set()
            role.join(10)
        assert not role.is_alive()
        assert counting.calls == sum(isinstance(record, New) for record in records(10))
        assert replay(bus, HOME, Plain(), Gossip()).agrees
        assert replay(bus, HOME, Plain(), Other()).agrees
        mine = [m for m in put_out(bus, HOME, FINDINGS) if m[2]["processor"] == b"gossip"]
        assert mine == expected[1]


# --- replay -----------------------------------------------------------------------------------------


def test_replay_sees_what_is_missing_and_what_is_other(once: Any, tmp_path: Path) -> None:
    source, _ = once(10)
    with open_bus(copy(source, tmp_path / "bus")) as bus:
        nothing = replay(bus, HOME, Plain(), Gossip())
        assert nothing.agrees
        assert nothing.behind > 0
        run_to_end(bus, [HOME])
        assert replay(bus, HOME, Plain(), Gossip()) == nothing._replace(behind=0)
        forged = put_out(bus, HOME, FINDINGS)[0]
        with bus.writer("forger", 0) as writer:
            writer.transaction([Message(*forged[:2], forged[3], forged[2])])
        assert "has no cause in the log" in str(replay(bus, HOME, Plain(), Gossip()).difference)


class Sloppy(Gossip):
    def step(self, state: Any, event: Event) -> tuple[Any, Sequence[Change]]:
        state, changes = super().step(state, event)
        return state, [] if isinstance(event, logs.OperatorDeregistered) else changes


def test_replay_sees_that_a_fold_has_changed(once: Any, tmp_path: Path) -> None:
    source, _ = once(10)
    with open_bus(copy(source, tmp_path / "bus")) as bus:
        run_to_end(bus, [HOME])
        found = replay(bus, HOME, Plain(), Sloppy())
        assert not found.agrees
        assert "other bytes" in str(found.difference)


def test_another_generation_is_another_log(once: Any, tmp_path: Path) -> None:
    source, _ = once(10)
    second = msgspec.structs.replace(HOME, generation=2)
    with open_bus(copy(source, tmp_path / "bus")) as bus:
        run_to_end(bus, [HOME])
        write(bus, second, records(4))
        run_to_end(bus, [second])
        assert replay(bus, HOME, Plain(), Gossip()).agrees
        found = replay(bus, second, Plain(), Gossip())
        assert (found.agrees, found.behind, found.records) == (True, 0, 60)

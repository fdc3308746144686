"""A generation takes the older one's place: what watchers are told of it, whenever a processor is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nektar import generations, log
from nektar.bus.port import Bus, BusError, Message
from nektar.bus.sqlite import SqliteBus
from nektar.config import Watcher
from nektar.generations import Generation, Generations
from nektar.log import (
    AHEAD_HEADER,
    CHECKPOINTS,
    FINDINGS,
    NETWORK,
    STANDS_HEADER,
    Mark,
    Record,
    SignedBatch,
)
from nektar.model import Network
from processors import following, share
from processors import runner as running
from processors.due import Due, due
from processors.handover import Known, events
from processors.processor import Interpreter
from processors.replay import replay
from processors.runner import Runner
from tests.nektar.logs import NETWORK as HOME
from tests.nektar.logs import Gossip, Plain
from tests.processors.dying import INSIDE, POINTS, Died, DyingBus
from tests.processors.logs_on_bus import open_bus, outputs, records, run_to_end

SECOND = msgspec.structs.replace(HOME, generation=2)
BOTH = [HOME, SECOND]
AHEAD, STANDS = {AHEAD_HEADER: b"1"}, {STANDS_HEADER: b"1"}
EVERYTHING = Watcher("all", "http://x", "whsec_" + "A" * 32)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "CHECKPOINT_MARKS", 3)
    monkeypatch.setattr(running, "BATCH", 4)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SqliteBus]:
    with open_bus(tmp_path / "bus") as opened:
        yield opened


def up_to_a_mark(of: Sequence[Record]) -> int:
    """How many records there are up to a mark about the middle."""
    return max(i + 1 for i, record in enumerate(of[: len(of) * 2 // 3]) if isinstance(record, Mark))


def write(bus: Bus, network: Network, of: Sequence[Record], headers: Mapping[str, bytes]) -> None:
    with bus.writer("indexer", 0) as writer:
        for record in of:
            key = log.key(network.name, network.generation)
            writer.transaction([Message(NETWORK, key, log.encode(record), headers)])


def write_all(bus: Bus, older: Sequence[Record], newer: Sequence[Record]) -> None:
    """Both logs side by side, the handover, by a mark that says what the last one did, and what still comes
    to the older one and on to the newer."""
    caught_up = up_to_a_mark(newer)
    for i in range(caught_up):
        write(bus, HOME, older[i // 2 : (i + 1) // 2], {})
        write(bus, SECOND, newer[i : i + 1], AHEAD)
    write(bus, SECOND, newer[caught_up - 1 : caught_up], STANDS)
    write(bus, HOME, older[caught_up // 2 :], {})
    write(bus, SECOND, newer[caught_up:], {})


def told(bus: Bus) -> list[dict[str, Any]]:
    """The events that a watcher of everything is told, in order."""
    dues = (due(EVERYTHING, each) for each in bus.read(FINDINGS, 0, 0, 10_000))
    return [json.loads(each.event) for each in dues if isinstance(each, Due)]


def event(id_: str, status: str, block: str = "0xaa") -> dict[str, Any]:
    return {"id": f"{id_}/1", "subject": id_, "type": f"nektar.finding.{status}", "datacontenttype": "x"} | {
        "data": {"status": status, "block_hash": block}
    }


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (None, None, None),
        (None, event("f", "seen"), "seen"),
        (None, event("f", "retracted"), None),
        (event("f", "seen"), None, "retracted"),
        (event("f", "final"), None, "retracted"),
        (event("f", "retracted"), None, None),
        (event("f", "seen"), event("f", "seen"), None),
        (event("f", "seen"), event("f", "final"), "final"),
        (event("f", "final"), event("f", "final", "0xbb"), "final"),
        (event("f", "safe"), event("f", "retracted"), "retracted"),
        (event("f", "retracted"), event("f", "safe"), "safe"),
        (event("f", "retracted"), event("f", "retracted"), None),
    ],
)
def test_what_differs_is_said_and_nothing_else(before: Any, now: Any, said: str | None) -> None:
    known = Known({"f": before} if before else {}, {"f": now} if now else {})
    found = list(events(known, 7, b"00-x"))
    if said is None:
        assert found == []
        return
    (again,) = found
    assert (again["id"], again["type"], again["data"]["status"]) == ("f/7", f"nektar.finding.{said}", said)
    assert again["traceparent"] == "00-x"
    assert again["data"]["block_hash"] == (now or before)["data"]["block_hash"]


def live(of: Sequence[dict[str, Any]]) -> dict[str, str]:
    statuses = {each["subject"]: each["data"]["status"] for each in of}
    return {id_: status for id_, status in statuses.items() if status != "retracted"}


@pytest.mark.parametrize("seed", range(12))
def test_watchers_are_told_each_change_once_and_end_with_what_the_newer_one_finds(
    seed: int, bus: SqliteBus, tmp_path: Path
) -> None:
    older, newer = records(seed), records(seed if seed % 2 else seed + 100)
    write_all(bus, older, newer)
    run_to_end(bus, BOTH)
    with open_bus(tmp_path / "alone") as alone:  # the newer log, and nothing before it
        write(alone, SECOND, newer, {})
        run_to_end(alone, [SECOND])
        expected = live(told(alone))
    said = told(bus)
    assert live(said) == expected
    last: dict[str, tuple[str, str]] = {}
    for each in said:
        now = each["data"]["status"], each["data"]["block_hash"]
        assert last.get(each["subject"]) != now, "said twice"
        last[each["subject"]] = now
    ids = [each["id"] for each in said]
    assert len(set(ids)) == len(ids)
    assert replay(bus, SECOND, Plain(), Gossip()).difference is None


def test_the_same_log_anew_tells_nobody_anything(bus: SqliteBus) -> None:
    older = records(3)[: up_to_a_mark(records(3))]
    write(bus, HOME, older, {})
    run_to_end(bus, BOTH)
    before = told(bus)
    assert before
    write(bus, SECOND, older, AHEAD)
    write(bus, SECOND, older[-1:], STANDS)
    run_to_end(bus, BOTH)
    assert told(bus) == before


def followed(bus: Bus) -> list[Network]:
    """What a life that begins now follows: the older log no more when the newer one has its place."""
    (handover,) = (each.offset for each in bus.read(NETWORK, 0, 0, 10_000) if STANDS_HEADER in each.headers)
    put_out = bus.last(CHECKPOINTS, 0, b"gossip/home/2/put-out")
    return [SECOND] if put_out and int(put_out.value) > handover else BOTH


@pytest.mark.parametrize("point", [point for point in POINTS if point != INSIDE])
def test_killed_anywhere_it_puts_out_the_same(point: str, bus: SqliteBus, tmp_path: Path) -> None:
    older, newer = records(4), records(104)
    write_all(bus, older, newer)
    run_to_end(bus, BOTH)
    with open_bus(tmp_path / "killed") as killed:
        write_all(killed, older, newer)
        deaths = 0
        for n in [1, 2, 3, 4, 1, 5, 2, 7, 3, 1, 1000]:
            dying: Any = DyingBus(killed, point, n)
            try:
                run_to_end(dying, followed(killed))
            except Died:
                deaths += 1
        assert deaths
        run_to_end(killed, followed(killed))
        assert told(killed) == told(bus)
        assert outputs(killed, SECOND) == outputs(bus, SECOND)


class Failing:
    """`bus`, which once does not say where `nektar.findings` ends."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.failed = False

    def end(self, stream: str, partition: int) -> int:
        if stream == FINDINGS and not self.failed:
            self.failed = True
            raise BusError("a transaction has been open for a minute")
        return self._bus.end(stream, partition)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


def test_a_bus_that_fails_at_the_handover_ends_the_role_and_a_new_start_says_the_same(
    bus: SqliteBus, tmp_path: Path
) -> None:
    older, newer = records(4), records(104)
    write_all(bus, older, newer)
    run_to_end(bus, BOTH)
    with open_bus(tmp_path / "failing") as other:
        write_all(other, older, newer)
        failing: Any = Failing(other)
        with pytest.raises(BusError, match="open for a minute"):
            run_to_end(failing, BOTH)
        run_to_end(other, followed(other))
        assert told(other) == told(bus)


def test_a_bug_at_the_handover_puts_nothing_of_it_out(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = records(4), records(104)
    write_all(bus, older, newer)
    with monkeypatch.context() as patched:
        patched.setattr(share, "difference", lambda *_: 1 / 0)
        run_to_end(bus, BOTH)  # the newer log ends alone
    assert followed(bus) == BOTH
    before = live(told(bus))
    run_to_end(bus, BOTH)
    assert live(told(bus)) != before
    assert replay(bus, SECOND, Plain(), Gossip()).difference is None


def test_a_handover_between_the_parts_of_another_record_comes_after_all_that_stands_before_it(
    bus: SqliteBus, tmp_path: Path
) -> None:
    older, newer = records(4), records(104)
    caught_up = up_to_a_mark(newer)
    key = log.key(SECOND.name, 2)
    signed = log.encode(SignedBatch(()))
    parts = [
        Message(NETWORK, key, part, headers | AHEAD)
        for part, headers in log.split(signed, len(signed) // 2 + 1)
    ]
    assert len(parts) == 2

    def write_it(bus: Bus, before: int) -> None:
        """The first of the parts stands some records before the handover, and `before` of them do."""
        write(bus, HOME, older[: caught_up // 2], {})
        write(bus, SECOND, newer[: caught_up - 3], AHEAD)
        with bus.writer("collector", 0) as writer:
            writer.transaction(parts[:before])
            write(bus, SECOND, newer[caught_up - 3 : caught_up], AHEAD)
            write(bus, SECOND, newer[caught_up - 1 : caught_up], STANDS)
            writer.transaction(parts[before:])
        write(bus, SECOND, newer[caught_up:], {})

    write_it(bus, 0)
    run_to_end(bus, BOTH)
    with open_bus(tmp_path / "between") as other:
        write_it(other, 1)
        run_to_end(other, BOTH)
        assert live(told(other)) == live(told(bus))


def test_a_log_that_has_just_begun_sends_nobody_back_to_the_partitions_beginning(bus: SqliteBus) -> None:
    write(bus, HOME, records(5), {})
    run_to_end(bus, [HOME])
    end = bus.end(NETWORK, 0)
    begun = Generations(Generation(1, b"1"), Generation(2, b"2", begins={NETWORK: end}), newest=2)
    with bus.writer("decides", 0) as writer:
        writer.transaction([generations.message(HOME.name, begun)])
    begins = running.begun(BOTH, bus)
    assert begins == {log.key(HOME.name, 1): 0, log.key(SECOND.name, 2): end}
    write(bus, SECOND, records(105), AHEAD)
    interpreters = {log.key(n.name, n.generation): Interpreter(n, Plain()) for n in BOTH}
    with Runner(bus, [Gossip()], [SECOND], interpreters, begins) as runner:
        runner.turn(0.0)
        assert runner.reached[0] >= end
        while runner.turn(0.0):
            pass
    assert replay(bus, SECOND, Plain(), Gossip()).difference is None

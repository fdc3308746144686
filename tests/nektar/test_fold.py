"""The calculus of folds, against the surviving chain alone and against the log's own rules."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map

from nektar import checkpoint
from nektar import fold as calculus
from nektar.fold import Folded
from nektar.log import BrokenLog, Gap, Mark, New, Record, SignedBatch, Undo
from nektar.model import (
    G1,
    G2,
    Address,
    At,
    Attested,
    Block,
    BlockClosed,
    BlockRef,
    ChainEvent,
    Event,
    GapPassed,
    Level,
    Network,
    OperatorRegistered,
    Signed,
    TaskCancelled,
)
from nektar.rows import ONCE_FINAL, Change, Finding, OperatorRow, Row
from tests.nektar.logs import (
    DIGESTS,
    NETWORK,
    OPERATORS,
    TASKS,
    Gossip,
    Heard,
    Part,
    Written,
    block,
    hash32,
    random_log,
    tables,
)
from tests.seeds import seeds

GOSSIP = Gossip()
NO_POINT = G1(bytes(64))
Live = dict[tuple[object, ...], Row]


def alone(parts: Sequence[Part]) -> tuple[Heard, Live]:
    """State and rows of a chain that never reorganised, folded the plain way."""
    state, rows = GOSSIP.initial(NETWORK), Live()
    for what, happened in parts:
        events: list[Event] = list(happened)
        match what:
            case Block():
                events.append(BlockClosed(what))
            case Gap():
                events.append(GapPassed(what.first, what.last))
            case Signed():
                events.append(what)
        for event in events:
            state, changes = GOSSIP.step(state, event)
            put(rows, changes)
    return state, rows


def put(rows: Live, changes: Sequence[Change]) -> None:
    """What a store does with changes. It is told the truth about what it holds."""
    for change in changes:
        row = change.before if change.after is None else change.after
        assert row is not None
        key = (row.table, *(getattr(row, name) for name in row.key))
        held = rows.get(key)
        if isinstance(held, Finding) and held.status == "retracted":
            held = None
        assert held == change.before
        if change.after is None:
            del rows[key]
        else:
            rows[key] = change.after


def check_reorg_equivalence(log: Sequence[Written]) -> None:
    """After every record, state, rows and findings are those of the surviving chain alone."""
    folded = calculus.begin(GOSSIP, NETWORK)
    stored = Live()
    final: dict[bytes, Finding] = {}
    for offset, written in enumerate(log):
        folded, changes = calculus.apply(GOSSIP, folded, written.record, written.events, offset)
        assert len({change.after.id for change in changes if isinstance(change.after, Finding)}) == sum(
            isinstance(change.after, Finding) for change in changes
        )
        put(stored, changes)
        state, rows = alone(written.surviving)
        assert folded.state == state
        assert folded.safe == written.safe

        facts = {row.id: row for row in rows.values() if isinstance(row, Finding)}
        expected = dict(final)
        for id_, fact in facts.items():
            if id_ not in final:
                number = fact.block_number
                status = (
                    "final" if number <= written.finalized else "safe" if number <= written.safe else "seen"
                )
                expected[id_] = msgspec.structs.replace(fact, status=status)
        final = {id_: finding for id_, finding in expected.items() if finding.status == "final"}
        found = {row.id: row for row in stored.values() if isinstance(row, Finding)}
        assert {id_: row for id_, row in found.items() if row.status != "retracted"} == expected
        once = {row.trace_id: row for row in rows.values() if isinstance(row, ONCE_FINAL)}
        blocks = [part.what for part in written.surviving if isinstance(part.what, Block)]
        assert {row.trace_id for row in stored.values() if isinstance(row, ONCE_FINAL)} == {
            each.hash[:16] for each in blocks if each.number <= written.finalized
        }
        now = (Finding, *ONCE_FINAL)
        assert {key: row for key, row in stored.items() if not isinstance(row, now)} == {
            key: row for key, row in rows.items() if not isinstance(row, now)
        }
        assert all(once[row.trace_id] == row for row in stored.values() if isinstance(row, ONCE_FINAL))


def check_restarts(log: Sequence[Written], rng: random.Random) -> None:
    """From any checkpoint, the records after it say what they said the first time."""
    folded = calculus.begin(GOSSIP, NETWORK)
    said: list[tuple[Change, ...]] = []
    saved: list[bytes] = [checkpoint.encode(folded.steps[0])]
    for offset, written in enumerate(log):
        folded, changes = calculus.apply(GOSSIP, folded, written.record, written.events, offset)
        said.append(changes)
        saved.append(checkpoint.encode(folded.steps[0]))
    at = rng.randrange(len(saved))
    step = checkpoint.decode(saved[at], GOSSIP)
    assert checkpoint.encode(step) == saved[at]
    again: Folded[Heard] = calculus.resume(step)
    for offset in range(step.offset, len(log)):
        record, events = log[offset].record, log[offset].events
        if offset == step.offset and step.span:
            if not isinstance(record, New):
                continue
            blocks = tuple(b for b in record.blocks if b.number > step.span.last)
            if not blocks:
                continue
            record = msgspec.structs.replace(record, blocks=blocks)
            events = tuple(e for e in events if e.at and e.at.block > step.span.last)
        again, changes = calculus.apply(GOSSIP, again, record, events, offset)
        if offset >= at:
            assert changes == said[offset]
            assert checkpoint.encode(again.steps[0]) == saved[offset + 1]
    assert (again.state, again.open) == (folded.state, folded.open)


@settings(max_examples=60)
@given(st.randoms(use_true_random=False))
def test_undone_blocks_leave_nothing_behind(rng: random.Random) -> None:
    check_reorg_equivalence(list(random_log(rng, 15)))


@settings(max_examples=60)
@given(st.randoms(use_true_random=False))
def test_a_restart_from_any_checkpoint_says_the_same(rng: random.Random) -> None:
    check_restarts(list(random_log(rng, 15)), rng)


def test_many_random_logs() -> None:
    for seed in range(seeds(300, 2_000)):
        rng = random.Random(seed)
        log = list(random_log(rng, 25))
        try:
            check_reorg_equivalence(log)
            check_restarts(log, rng)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error


# --- what marks and undos do to one finding ----------------------------------------------------------


def two_answers(number: int) -> tuple[ChainEvent, ...]:
    """What makes a finding in block `number`."""
    return tuple(
        Attested(At(number, i, 0), TASKS[0], OPERATORS[0], digest, True)
        for i, digest in enumerate(DIGESTS[:2])
    )


class Log:
    """A log being written, and the statuses that the fold gave its only finding."""

    def __init__(self) -> None:
        self.folded: Folded[Heard] = calculus.begin(GOSSIP, NETWORK)
        self.blocks: list[Block] = []
        self.salt = 0

    def new(self, count: int = 1, happened: Sequence[ChainEvent] = ()) -> list[str]:
        new: list[Block] = []
        for _ in range(count):
            parent = ([*self.blocks, *new] or [block(6, hash32(0))])[-1]
            new.append(block(parent.number + 1, parent.hash, self.salt))
        self.salt += 1
        self.blocks += new
        return self.put(New(tuple(new), tables(happened)), happened)

    def undo(self, count: int = 1) -> list[str]:
        gone = self.blocks[-count:]
        del self.blocks[-count:]
        return self.put(Undo(tuple(reversed(gone)), {}))

    def mark(self, safe: int, finalized: int) -> list[str]:
        refs = {each.number: each.ref for each in self.blocks}
        return self.put(Mark(refs[safe], refs[finalized]))

    def signed(self, *responses: Signed) -> list[str]:
        return self.put(SignedBatch(responses))

    def put(self, record: Record, happened: Sequence[ChainEvent] = ()) -> list[str]:
        self.folded, changes = calculus.apply(GOSSIP, self.folded, record, happened)
        return [str(change.after.status) for change in changes if isinstance(change.after, Finding)]


def test_a_finding_becomes_safe_then_final_and_seen_again_where_safe_moves_below_it() -> None:
    log = Log()
    assert log.new(3, two_answers(8)) == ["seen"]
    assert log.mark(7, 7) == []
    assert log.mark(9, 7) == ["safe"]
    assert log.mark(7, 7) == ["seen"]
    assert log.mark(8, 7) == ["safe"]
    assert log.mark(9, 8) == ["final"]
    assert log.mark(8, 8) == []
    assert log.new(1, [TaskCancelled(At(10, 0, 0), TASKS[0])]) == []  # final never changes
    assert log.mark(10, 10) == []
    assert not log.folded.open


def test_a_finding_is_retracted_by_an_undo_and_seen_again_under_the_same_id() -> None:
    log = Log()
    log.new(2)
    log.mark(8, 8)
    assert log.new(1, two_answers(9)) == ["seen"]
    assert log.mark(9, 8) == ["safe"]
    assert log.undo() == ["retracted"]
    assert log.new(1, two_answers(9)) == ["seen"]  # safe, but that was another block 9
    assert log.mark(9, 9) == ["final"]


def test_a_signature_about_a_final_block_makes_a_finding_that_is_final_at_once() -> None:
    log = Log()
    log.new(1, two_answers(7)[:1])
    log.new(3)
    log.mark(9, 8)
    response = Signed(None, TASKS[0], OPERATORS[0], DIGESTS[1], NO_POINT)
    assert log.signed(response) == ["final"]
    assert log.undo(2) == []  # applied again: nothing new about it
    assert log.mark(8, 8) == []
    assert log.new(2) == []
    assert log.undo(2) == []
    assert log.new(2) == []
    assert log.mark(10, 10) == []
    assert not log.folded.open


def test_signatures_from_before_the_first_unfinal_block_survive_every_undo() -> None:
    log = Log()
    log.new(1, two_answers(7)[:1])
    log.mark(7, 7)
    assert log.signed(Signed(None, TASKS[0], OPERATORS[0], DIGESTS[1], NO_POINT)) == ["final"]
    log.new(3)
    assert log.undo(3) == []
    assert log.folded.state.answers[TASKS[0], OPERATORS[0]].finding is not None


# --- the log's rules ---------------------------------------------------------------------------------

BASE = [block(7, hash32("start"))]
BASE += [block(8, BASE[0].hash)]
BASE += [block(9, BASE[1].hash)]
ELSE = block(9, BASE[1].hash, "fork")
BROKEN: dict[str, tuple[Sequence[Record], str]] = {
    "another parent": ([New((block(10, ELSE.hash),), tables([]))], "expected a child of block 9"),
    "a number left out": ([New((block(11, BASE[2].hash),), tables([]))], "expected a child of block 9"),
    "no blocks": ([New((), tables([]))], "it holds none"),
    "a reported block": ([New((block(10, BASE[2].hash, 0, Level.REPORTED),), tables([]))], "got reported"),
    "undo of nothing": ([Undo((), {})], "names no block"),
    "undo out of order": ([Undo((BASE[1], BASE[2]), {})], "undo of the newest, block 9"),
    "undo of another fork": ([Undo((ELSE,), {})], "undo of the newest, block 9"),
    "undo below finalized": (
        [Mark(BASE[2].ref, BASE[1].ref), Undo((BASE[2], BASE[1]), {})],
        "reaches below finalized block 8",
    ),
    "undo below the first": (
        [Undo((*reversed(BASE), block(6, hash32(5))), {})],
        "below the log's first block",
    ),
    "undo of a gap that is none": ([Undo((BASE[2],), {}, (7, 8))], "undo of the newest, block 8"),
    "finalized goes back": (
        [Mark(BASE[2].ref, BASE[2].ref), Mark(BASE[2].ref, BASE[1].ref)],
        "expected finalized at 9",
    ),
    "finalized on a fork": ([Mark(BASE[2].ref, ELSE.ref)], "expected finalized to be a block of the log"),
    "finalized to come": ([Mark(BASE[2].ref, BlockRef(10, hash32(1)))], "expected finalized to be a block"),
    "safe on a fork": ([Mark(ELSE.ref, BASE[1].ref)], "expected safe to be a block of the log"),
    "a gap not next": ([Gap(11, 12, None, "why")], "expected a gap from block 10 on"),
    "a gap backwards": ([Gap(10, 9, None, "why")], "expected a gap from block 10 on"),
    "a child not the gap's": (
        [Gap(10, 12, hash32("gap"), "why"), New((block(13, hash32("other")),), tables([]))],
        "expected a child of the gap 10 to 12",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_log_that_breaks_its_rules_is_refused_and_nothing_of_it_folded(name: str) -> None:
    records, message = BROKEN[name]
    folded, _ = calculus.apply(GOSSIP, calculus.begin(GOSSIP, NETWORK), New(tuple(BASE), tables([])))
    for record in records[:-1]:
        folded, _ = calculus.apply(GOSSIP, folded, record)
    before = checkpoint.to_json(folded.state), folded.steps
    with pytest.raises(BrokenLog, match=message):
        calculus.apply(GOSSIP, folded, records[-1])
    assert (checkpoint.to_json(folded.state), folded.steps) == before


def test_events_outside_of_their_records_blocks_are_refused() -> None:
    cancelled = TaskCancelled(At(9, 0, 0), TASKS[0])
    with pytest.raises(BrokenLog, match="out of turn"):
        calculus.apply(GOSSIP, calculus.begin(GOSSIP, NETWORK), New((BASE[0],), {}), [cancelled])


def test_a_log_cannot_begin_in_its_middle() -> None:
    for record in (Mark(BASE[0].ref, BASE[0].ref), Undo((BASE[0],), {})):
        with pytest.raises(BrokenLog):
            calculus.apply(GOSSIP, calculus.begin(GOSSIP, NETWORK), record)


def test_a_mark_below_the_logs_first_block_makes_nothing_final() -> None:
    folded, _ = calculus.apply(GOSSIP, calculus.begin(GOSSIP, NETWORK), New(tuple(BASE), tables([])))
    folded, _ = calculus.apply(GOSSIP, folded, Mark(BASE[0].ref, BlockRef(3, hash32(3))))
    folded, _ = calculus.apply(GOSSIP, folded, Undo(tuple(reversed(BASE)), {}))
    assert (folded.head, folded.safe, folded.state) == (None, -1, Heard())


def test_snapshots_without_a_mark_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calculus, "MAX_SNAPSHOTS", 3)
    with pytest.raises(BrokenLog, match="within 3 snapshots"):
        calculus.apply(GOSSIP, calculus.begin(GOSSIP, NETWORK), New(tuple(BASE), tables([])))


# --- what snapshots cost -----------------------------------------------------------------------------


class Registry(msgspec.Struct, frozen=True):
    operators: Map[bytes, OperatorRow] = Map()


class Registering:
    """One row an Operator, as real ledgers keep."""

    name = "registering"
    state_type = Registry

    def initial(self, network: Network) -> Registry:
        return Registry()

    def step(self, state: Registry, event: Event) -> tuple[Registry, Sequence[Change]]:
        if not isinstance(event, OperatorRegistered):
            return state, ()
        row = OperatorRow(event.operator, event.key, event.region, event.validators, 2**70, True, 1, 0)
        before = state.operators.get(event.operator)
        return Registry(state.operators.set(event.operator, row)), [Change(before, row)]


def registered(number: int, operators: range) -> tuple[ChainEvent, ...]:
    return tuple(
        OperatorRegistered(
            At(number, i, 0),
            Address(operator.to_bytes(20, "big")),
            G1(operator.to_bytes(64, "big")),
            G2(bytes(128)),
            "eu-central",
            number,
        )
        for i, operator in enumerate(operators)
    )


def test_64_snapshots_of_1000_operators_cost_less_than_twice_one() -> None:
    fold = Registering()
    blocks = [block(7, hash32("start"))]
    for i in range(64):
        blocks.append(block(8 + i, blocks[i].hash))
    folded = calculus.begin(fold, NETWORK)
    tracemalloc.start()
    try:
        folded, _ = calculus.apply(fold, folded, New((blocks[0],), {}), registered(7, range(1000)))
        folded, _ = calculus.apply(fold, folded, Mark(blocks[0].ref, blocks[0].ref))
        one, _ = tracemalloc.get_traced_memory()
        for i, child in enumerate(blocks[1:]):
            happened = registered(child.number, range(4 * i, 4 * i + 4))
            folded, _ = calculus.apply(fold, folded, New((child,), {}), happened)
        many, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len({id(step.state) for step in folded.steps}) == 65
    assert many < 2 * one


# --- checkpoints -------------------------------------------------------------------------------------


def test_equal_states_give_equal_bytes_whatever_order_they_were_filled_in() -> None:
    pairs = [(bytes([i]) * 20, 2**200 + i) for i in range(50)]
    one, other = Map(pairs), Map(reversed(pairs))
    assert checkpoint.to_json(one) == checkpoint.to_json(other)


STEP = b'{"finalized":null,"offset":1,"open":[],"safe":-1,"span":null,"state":%b}'
OTHERS = [b"[]", b'{"operators":5}', b'{"operators":{"pop":1}}', b'{"operators":[1]}', b'{"operators":[[1]]}']


@pytest.mark.parametrize("value", [b"", b"{}", b"[1]", b'{"offset":1}', *(STEP % each for each in OTHERS)])
def test_what_is_no_checkpoint_is_refused(value: bytes) -> None:
    with pytest.raises(checkpoint.BadCheckpoint, match="expected a checkpoint of this version of 'gossip'"):
        checkpoint.decode(value, GOSSIP)


@pytest.mark.parametrize(
    ("of", "other"),
    [
        (b'"amount":1', b'"amount":1,"more":2'),
        (b'"amount":1', b'"amount":1.0'),
        (b'"due":[]', b'"due":[],"more":2'),
        (b'[3,{"amount":3}]', b'[3,{"amount":3}],[3,{"amount":3}]'),
        (b"[[1,", b'[[2,{"amount":2}],[1,'),
        (b'"due":[],', b""),
    ],
)
def test_a_checkpoint_that_this_version_would_write_in_any_other_way_is_refused(
    of: bytes, other: bytes
) -> None:
    step = calculus.Step(7, None, Owed(Map((i, Debt(i)) for i in (1, 2, 3))), Map(), -1, None)
    value = checkpoint.encode(step)
    assert checkpoint.decode(value, Owing()) == step
    assert value.count(of) == 1
    with pytest.raises(checkpoint.BadCheckpoint):
        checkpoint.decode(value.replace(of, other), Owing())


class Debt(msgspec.Struct, frozen=True):
    amount: int


class Owed(msgspec.Struct, frozen=True):
    debts: Map[int, Debt] = Map()
    due: Map[int, int] = Map()
    last: int = 0


class Owing:
    """What of a fold a checkpoint needs."""

    name = "owing"
    state_type = Owed

    def initial(self, network: Network) -> Owed:
        return Owed()

    def step(self, state: Owed, event: Event) -> tuple[Owed, Sequence[Change]]:
        return state, ()


def test_a_checkpoint_of_another_state_is_refused() -> None:
    step = calculus.begin(Registering(), NETWORK).steps[0]
    with pytest.raises(checkpoint.BadCheckpoint, match="another's state"):
        checkpoint.decode(checkpoint.encode(step), GOSSIP)

"""Why a Duty was not done in time: stage and cause, from what telemetry tells, with the spans that say so.

A Duty's state is the chain's alone (`tasks.py`, whose ledger this fold keeps for itself); here every Duty
that is `late`, `missed` or `unknown` gets the first cause of this table that holds. *Own* is what the
Operator tells of itself; time is the block that it says it knew, so that no clock has a say but in `clock`.

| cause | stage | whose it is | holds where |
|---|---|---|---|
| unexplained | the last own step's | nobody | something is lost that the Operator or an Aggregator told
|  |  |  | before the Task came, and no wrong response is signed with its key |
| offline | receive | operator | nothing own is of this Task, no wrong response is signed with its key; it |
|  |  |  | told something before the submission; no heartbeat covers a block from the submission to |
|  |  |  | the deadline |
| none_reported | receive | nobody | the same first, and it is not `offline` |
| clock | that step's | operator | an own step was given up as too late, by a head before the deadline |
| wrong_result | execute | operator | its key signed a response that arithmetic refutes; or an own step |
|  |  |  | names one |
| aggregator_dropped | aggregate | aggregator | an Aggregator tells that it collected the response, |
|  |  |  | or the own `send` succeeded, by a head before the deadline and before the block of the |
|  |  |  | response on the chain; where there is none, those of whom that is told are a quorum |
| unexplained | aggregate | nobody | the same first, and they are none |
| slow_execution | execute | operator | the own `execute` or `sign` ended, or any own step was given up as |
|  |  |  | too late, by a head at or after the deadline |
| network | that step's | nobody | an own `receive`, `send` or `attest` failed: its line, or whom it reached |
| unexplained | the last own step's | nobody | none of these |

A transaction that is sent on seeing the deadline's block comes too late, hence *before*. An Aggregator's word
makes nobody guilty but itself, and an Operator's word of its Aggregator stands beside who told it
(`told_by`). Who tells of a wrong response brings no quorum nearer.

A signature needs nobody's word: it counts whoever brings it, and in whatever call it is, of who tells nothing
as well. It is verified as it comes, where its response is wrong, and kept only if it is the Operator's: no
number of false ones hides a true one, or makes the state grow. They are counted against whoever brings them,
of each duty once.

What comes late refines a diagnosis for a day of blocks, or for as long as there is room; in which order
things come changes nothing but how many steps of a sender who tells one twice are kept. Work is for the
duties that something is told of, or that move.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import msgspec
from immutables import Map

from nektar import operators
from nektar.chain.keccak import keccak
from nektar.evidence import bls
from nektar.model import (
    Address,
    BlockClosed,
    Event,
    GapPassed,
    Hash32,
    Heartbeat,
    Network,
    Report,
    Signed,
    Task,
    TaskSubmitted,
)
from nektar.networks.answers import LIMIT, refutation
from nektar.networks.encoding import BadEncoding, answer_of, input_of
from nektar.operators import UNKNOWN_TWIN
from nektar.rows import Cause, Change, DiagnosisRow, DutyRow, DutyState, ForgeryRow, TaskRow
from nektar.senders import operator_of
from nektar.telemetry import TOO_LATE, Step
from processors import early
from processors.folds import stakes
from processors.folds.deadlines import require_blocks
from processors.folds.stakes import Stakes
from processors.folds.steps import Steps, added, is_own, packed, unpacked
from processors.folds.tasks import Ledger, Tasks

# Blocks after a Task's end for which what is told of it still counts: a day of 12-second blocks.
LATE_BLOCKS = 7_200
# What is kept of Tasks that are over, in bytes; of more the oldest are explained no further. It is enough for
# 50 Tasks of a thousand Operators.
MOST_LATE = 64_000_000
# A row that is kept, and what steps and a wrong signature take beside what is in them, about.
_ROW_BYTES, _STEPS_BYTES, _WRONG_BYTES = 750, 200, 700
# Answers that are remembered as right or wrong: all of a set sign the same, and to factor takes a while.
_ANSWERS = 1_024
# Stretches of chain that an Operator's heartbeats cover, newest last: a break begins another one.
MOST_RUNS = 16
_NOT_DONE = frozenset((DutyState.LATE, DutyState.MISSED, DutyState.UNKNOWN))
_OVER_THE_NETWORK = (Step.RECEIVE, Step.SEND, Step.ATTEST)
_WHOLE = 10_000  # basis points
_OPERATOR, _AGGREGATOR, _NOBODY = "operator", "aggregator", "nobody"


class About(msgspec.Struct, frozen=True):
    """A Task that can still be explained."""

    task: Task
    told: Map[Address, bytes] = Map()  # steps, packed
    lost: int = 0  # bitmap: members of whom something may be lost that was told before the Task came
    delivered: int = 0  # bitmap: members whose response is told to have reached an Aggregator in time
    could: bool = False  # it has a response on the chain, or these were enough for one, and matter no more
    responded: int = 0  # block of the response on the chain; 0: none so far
    wrong: Map[Address, Signed] = Map()  # responses that arithmetic refutes, and whose keys signed them
    forged: Map[str, int] = Map()  # who brings such that are not theirs → bitmap over the set's places
    rows: Map[Address, DiagnosisRow] = Map()  # as last put out
    size: int = 0  # of what is kept of it once it is over, about, in bytes; 0: it is not

    @property
    def end(self) -> int:
        """The last block in which a duty can change."""
        return max(self.task.deadline.value + self.task.grace, self.task.submitted.block)


class Alive(msgspec.Struct, frozen=True, array_like=True):
    """When an Operator has been heard of."""

    since: int  # the lowest block that it ever named
    runs: tuple[tuple[int, int], ...] = ()  # first and last block of what its heartbeats cover, apart, rising
    cut: int = -1  # the last block of runs that are not kept: up to there nobody knows that it was away

    def covers(self, first: int, last: int) -> bool:
        """Whether it may have been there at some of these blocks."""
        return first <= self.cut or any(begun <= last and first <= ended for begun, ended in self.runs)


class Silent(msgspec.Struct, frozen=True, array_like=True):
    """A Duty of which nothing own is told, by what decides whether the Operator was away."""

    submitted: int
    deadline: int
    is_offline: bool


class Diagnoses(msgspec.Struct, frozen=True):
    """The fold's state."""

    ledger: Ledger
    chain_id: int
    contract: Address  # the TaskManager, which signatures name; empty where the Network has none
    stakes: Stakes = Map()  # in the sets that the ledger holds
    about: Map[Hash32, About] = Map()
    due: Map[int, tuple[Hash32, ...]] = Map()  # block → Tasks that end, or are forgotten, with it
    submitted: tuple[Hash32, ...] = ()  # in the block that is not closed yet
    alive: Map[Address, Alive] = Map()
    silent: Map[Address, Map[Hash32, Silent]] = (
        Map()
    )  # Operator → Tasks that it told nothing of, and did not do
    forged: Map[str, int] = Map()  # who brings false signatures → duties that they are about
    late: Map[int, Hash32] = Map()  # Tasks that are over, counted, some of them gone
    oldest: int = 0  # number of the oldest of these
    late_size: int = 0  # what is kept of these
    # Before its Task came.
    told_early: early.Waiting[bytes] = early.Waiting()  # steps, packed, about an Operator each
    signed_early: early.Waiting[Signed] = early.Waiting()


class Diagnosis:
    """The fold `diagnosis`: puts out DiagnosisRow and ForgeryRow."""

    name = "diagnosis"
    state_type = Diagnoses

    def __init__(self) -> None:
        self._tasks = Tasks()

    def initial(self, network: Network) -> Diagnoses:
        """Nothing told, nothing owed."""
        manager = network.contracts.get("task_manager", Address(b""))
        return Diagnoses(self._tasks.initial(network), network.chain_id, manager)

    def step(self, state: Diagnoses, event: Event) -> tuple[Diagnoses, list[Change]]:
        """Raises UnsupportedDeadline for a Task whose deadline is not a block."""
        before = state.ledger.registry
        state, changes = self._step(state, event)
        if (after := state.ledger.registry) is not before:
            held = stakes.follow(state.stakes, event, before, after)
            state = msgspec.structs.replace(state, stakes=held)
        return state, changes

    def _step(self, state: Diagnoses, event: Event) -> tuple[Diagnoses, list[Change]]:
        match event:
            case Report():
                return _told(state, event)
            case Signed():
                return _signed(state, event)
            case Heartbeat():
                return _alive(state, event.operator, event.first, (event.first, event.last))
            case TaskSubmitted(task=task):
                require_blocks(task)
                state = _submitted(state, task)
        ledger, moved = self._tasks.step(state.ledger, event)
        if ledger is not state.ledger:
            state = msgspec.structs.replace(state, ledger=ledger)
        state, changes = _moved(state, moved)
        match event:
            case BlockClosed(block=block):
                state, more = _closed(state, block.number, block.number)
                return state, [*changes, *more]
            case GapPassed(first=first, last=last):
                state, more = _closed(state, first, last)
                return state, [*changes, *more]
        return state, changes


# --- what is told -----------------------------------------------------------------------------------


def _told(state: Diagnoses, report: Report) -> tuple[Diagnoses, list[Change]]:
    changes: list[Change] = []
    if is_own(report) and report.begun >= 0:
        state, changes = _alive(state, report.operator, report.begun, None)
    about = state.about.get(report.task_hash)
    if about is None or report.task_hash in state.submitted:
        return _wait(state, report), changes
    if (place := state.ledger.registry.held(about.task.set_hash).place(report.operator)) is None:
        return state, changes
    before = about.told.get(report.operator, b"")
    after = _with(before, report)
    if after != before and (not about.size or report.operator in about.rows):
        by = len(after) - len(before) if before else _STEPS_BYTES + len(after)
        state, about = _grown(state, about, by)
        about = msgspec.structs.replace(about, told=about.told.set(report.operator, after))
        state, more = _again(state, about, report.operator)
        changes += more
    if about.could or about.delivered >> place & 1 or not _helps_a_quorum(about.task, report):
        return state, changes
    about = msgspec.structs.replace(state.about[report.task_hash], delivered=about.delivered | 1 << place)
    state, more = _known(state, about, _are_enough(about, state.stakes[about.task.set_hash]))
    return state, [*changes, *more]


def _helps_a_quorum(task: Task, report: Report) -> bool:
    is_wrong = bool(report.response) and _is_refuted(task.preimage, report.response)
    return _is_delivery(report, task.deadline.value) and not is_wrong


def _are_enough(about: About, stakes_: tuple[int, ...]) -> bool:
    """Whether those who delivered are as many as the contract asks for."""
    task, delivered = about.task, about.delivered
    if delivered.bit_count() * _WHOLE < task.response_threshold * len(stakes_):
        return False
    signed = sum(stake for place, stake in enumerate(stakes_) if delivered >> place & 1)
    return signed * _WHOLE >= task.stake_threshold * sum(stakes_)


def _known(state: Diagnoses, about: About, could: bool) -> tuple[Diagnoses, list[Change]]:
    """More is known of the whole Task: `could` it be responded to?"""
    changes: list[Change] = []
    if could:
        about = msgspec.structs.replace(about, delivered=0, could=True)
    state = msgspec.structs.replace(state, about=state.about.set(about.task.hash, about))
    for operator in sorted(about.rows) if could else ():
        state, more = _again(state, state.about[about.task.hash], operator)
        changes += more
    return state, changes


def _with(steps: bytes, report: Report) -> bytes:
    return packed(added(unpacked(steps, report.task_hash, report.operator), report))


def _wait(state: Diagnoses, report: Report) -> Diagnoses:
    """What an Operator or an Aggregator tells is missed where it is lost: it may be what clears somebody."""
    about = report.brought_by, report.task_hash, report.operator
    before = early.find(state.told_early, *about) or b""
    if (after := _with(before, report)) == before:
        return state
    until = max(report.begun, report.ended) if report.role in (_OPERATOR, _AGGREGATOR) else -1
    bringer, task_hash, operator = about
    waiting = early.wait(state.told_early, bringer, task_hash, after, len(after), operator, until)
    return msgspec.structs.replace(state, told_early=waiting)


def _signed(state: Diagnoses, signed: Signed) -> tuple[Diagnoses, list[Change]]:
    """Of an Operator's wrong responses to a Task one is kept, the same whichever comes first; and of whoever
    brings false ones, whom they are about."""
    about = state.about.get(signed.task_hash)
    if signed.at is None and (about is None or signed.task_hash in state.submitted):
        waiting = early.wait_signed(state.signed_early, signed)
        return msgspec.structs.replace(state, signed_early=waiting), []
    if about is None or not state.contract or not _is_wrong(about.task, signed):
        return state, []
    members = state.ledger.registry.held(about.task.set_hash)
    if (place := members.place(signed.operator)) is None:
        return state, []
    bringer, rival = signed.brought_by, about.wrong.get(signed.operator)
    is_known = rival is not None and _sooner(rival) <= _sooner(signed)
    is_counted = not bringer or bool(about.forged.get(bringer, 0) >> place & 1)
    if is_known and is_counted:
        return state, []
    twin = members[place].twin
    digest = bls.signing_digest(state.chain_id, state.contract, about.task.hash, signed.digest)
    if not bls.verify(twin, digest, signed.signature):
        return (state, []) if is_counted or twin == UNKNOWN_TWIN else _forged(state, about, place, bringer)
    if is_known:
        return state, []
    state, about = _grown(state, about, 0 if rival else _WRONG_BYTES)
    about = msgspec.structs.replace(about, wrong=about.wrong.set(signed.operator, signed))
    return _again(state, about, signed.operator)


def _sooner(signed: Signed) -> tuple[bytes, str]:
    return signed.response, signed.brought_by


def _forged(state: Diagnoses, about: About, place: int, bringer: str) -> tuple[Diagnoses, list[Change]]:
    """The bringer says of one member more that it signed a wrong response."""
    before = state.forged.get(bringer, 0)
    forged = about.forged.set(bringer, about.forged.get(bringer, 0) | 1 << place)
    about = msgspec.structs.replace(about, forged=forged)
    state = msgspec.structs.replace(
        state,
        about=state.about.set(about.task.hash, about),
        forged=state.forged.set(bringer, before + 1),
    )
    was = ForgeryRow(bringer, before) if before else None
    return state, [Change(was, ForgeryRow(bringer, before + 1))]


def _alive(
    state: Diagnoses, operator: Address, block: int, run: tuple[int, int] | None
) -> tuple[Diagnoses, list[Change]]:
    """The Operator has named this block, and covers this run of blocks."""
    before = state.alive.get(operator)
    after = _heard(before or Alive(block), block, run)
    if after == before:
        return state, []
    state = msgspec.structs.replace(state, alive=state.alive.set(operator, after))
    changes: list[Change] = []
    for task_hash in _moved_by(state.silent.get(operator, Map()), before, after, run):
        state, more = _again(state, state.about[task_hash], operator)
        changes += more
    return state, changes


def _heard(alive: Alive, block: int, run: tuple[int, int] | None) -> Alive:
    since = min(alive.since, block)
    if run is None:
        return Alive(since, alive.runs, alive.cut)
    runs = _joined(alive.runs, run)
    gone = runs[:-MOST_RUNS]
    return Alive(since, runs[-MOST_RUNS:], max([alive.cut, *(last for _, last in gone)]))


def _moved_by(
    silent: Map[Hash32, Silent], before: Alive | None, after: Alive, run: tuple[int, int] | None
) -> list[Hash32]:
    """The Tasks at which it was away and may have been there now, or the other way round: a heartbeat would
    have all that an Operator ever missed looked at."""
    first, last = run or (0, -1)
    since, cut = after.since, after.cut
    until = before.since if before else max((each.submitted for each in silent.values()), default=0)
    return sorted(
        task_hash
        for task_hash, each in silent.items()
        if (
            (each.submitted <= last and first <= each.deadline) or each.submitted <= cut
            if each.is_offline
            else since < each.submitted <= until
        )
    )


def _joined(runs: tuple[tuple[int, int], ...], new: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    first, last = new
    apart = []
    for run in runs:
        if run[1] < first or last < run[0]:
            apart.append(run)
        else:
            first, last = min(first, run[0]), max(last, run[1])
    return tuple(sorted((*apart, (first, last))))


# --- what the chain shows ---------------------------------------------------------------------------


def _submitted(state: Diagnoses, task: Task) -> Diagnoses:
    """Of a Task whose set was committed before the log begins no duty is known, so there is nothing to
    explain; that of another is needed for as long as the Task can be explained."""
    registry = state.ledger.registry
    if task.hash in state.about or task.set_hash not in registry.sets:
        return state
    about = About(task)
    return msgspec.structs.replace(
        state,
        ledger=msgspec.structs.replace(state.ledger, registry=operators.hold(registry, task.set_hash)),
        about=state.about.set(task.hash, about),
        due=_file(state.due, about.end, task.hash),
        submitted=(*state.submitted, task.hash),
    )


def _moved(state: Diagnoses, moved: Iterable[Change]) -> tuple[Diagnoses, list[Change]]:
    """These rows of the ledger have changed."""
    changes: list[Change] = []
    for change in moved:
        duty = change.after
        if isinstance(duty, TaskRow) and duty.response_block:
            about = state.about.get(Hash32(duty.task_hash))
            if about and not about.responded:
                about = msgspec.structs.replace(about, responded=duty.response_block)
                state, more = _known(state, about, could=True)
                changes += more
        if not isinstance(duty, DutyRow) or (about := state.about.get(Hash32(duty.task_hash))) is None:
            continue
        operator = Address(duty.operator)
        if duty.state in _NOT_DONE:
            state, more = _put(state, about, operator, _diagnosed(state, about, duty))
            changes += more
        elif duty.state != DutyState.PENDING:
            # Done, or not owed: nothing to explain.
            if operator in about.told:
                about = msgspec.structs.replace(about, told=about.told.delete(operator))
            if operator in about.wrong:
                about = msgspec.structs.replace(about, wrong=about.wrong.delete(operator))
            if operator in about.rows or about is not state.about[about.task.hash]:
                state, more = _put(state, about, operator, None)
                changes += more
    return state, changes


def _again(state: Diagnoses, about: About, operator: Address) -> tuple[Diagnoses, list[Change]]:
    """The same Duty, of which more is known."""
    row = about.rows.get(operator)
    return _put(state, about, operator, row and _diagnosed(state, about, row))


def _put(
    state: Diagnoses, about: About, operator: Address, row: DiagnosisRow | None
) -> tuple[Diagnoses, list[Change]]:
    """The state with `about`, in which this is the Operator's row."""
    task_hash, before = about.task.hash, about.rows.get(operator)
    if row is not None and row != before:
        about = msgspec.structs.replace(about, rows=about.rows.set(operator, row))
    elif row is None and before is not None:
        about = msgspec.structs.replace(about, rows=about.rows.delete(operator))
    silent = None
    if row is not None and row.cause in (Cause.OFFLINE, Cause.NONE_REPORTED):
        task = about.task
        silent = Silent(task.submitted.block, task.deadline.value, row.cause == Cause.OFFLINE)
    state = msgspec.structs.replace(
        state,
        about=state.about.set(task_hash, about),
        silent=_marked(state.silent, operator, task_hash, silent),
    )
    return state, [Change(before, row)] if row != before else []


def _marked(
    all_: Map[Address, Map[Hash32, Silent]], operator: Address, task_hash: Hash32, silent: Silent | None
) -> Map[Address, Map[Hash32, Silent]]:
    of = all_.get(operator, Map())
    if silent == of.get(task_hash):
        return all_
    of = of.delete(task_hash) if silent is None else of.set(task_hash, silent)
    return all_.set(operator, of) if of else all_.delete(operator)


def _closed(state: Diagnoses, first: int, last: int) -> tuple[Diagnoses, list[Change]]:
    """These blocks have passed."""
    changes: list[Change] = []
    if state.submitted:
        state, changes = _come(state)
    state = msgspec.structs.replace(
        state,
        told_early=early.passed(state.told_early, first, last),
        signed_early=early.passed(state.signed_early, first, last),
    )
    for block in [last] if first == last else sorted(each for each in state.due if each <= last):
        for task_hash in state.due.get(block, ()):
            state = _ended(state, state.about[task_hash], block)
        if block in state.due:
            state = msgspec.structs.replace(state, due=state.due.delete(block))
    return state, changes


def _come(state: Diagnoses) -> tuple[Diagnoses, list[Change]]:
    """The block's Tasks have come: what waited for them counts, and what is lost of it is known."""
    changes: list[Change] = []
    tasks = state.submitted
    for task_hash in tasks:
        about = state.about[task_hash]
        lost = _places(state, about, early.lost(state.told_early, about.task.submitted.block))
        state = msgspec.structs.replace(
            state, about=state.about.set(task_hash, msgspec.structs.replace(about, lost=lost))
        )
    told_early, told = early.come(state.told_early, tasks)
    signed_early, signed = early.come(state.signed_early, tasks)
    state = msgspec.structs.replace(state, submitted=(), told_early=told_early, signed_early=signed_early)
    for entry in told:
        for report in unpacked(entry.kept, entry.task_hash, Address(entry.about)):
            state, more = _told(state, report)
            changes += more
    for each in signed:
        state, more = _signed(state, each.kept)
        changes += more
    return state, changes


def _places(state: Diagnoses, about: About, bringers: Iterable[str]) -> int:
    """The bitmap of members of whom these tell: each Operator of itself, others of everyone."""
    members = state.ledger.registry.held(about.task.set_hash)
    places = 0
    for bringer in bringers:
        if (operator := operator_of(bringer)) is None:
            return members.everyone
        if (place := members.place(Address(operator))) is not None:
            places |= 1 << place
    return places


def _ended(state: Diagnoses, about: About, block: int) -> Diagnoses:
    """The Task's duties are decided, or its time here is over: it is forgotten, unless something is to be
    explained for some time."""
    if not about.rows or block != about.end:
        return _forget(state, about)
    told = Map({operator: steps for operator, steps in about.told.items() if operator in about.rows})
    wrong = Map({operator: each for operator, each in about.wrong.items() if operator in about.rows})
    steps = sum(_STEPS_BYTES + len(each) for each in told.values())
    size = len(about.rows) * _ROW_BYTES + steps + len(wrong) * _WRONG_BYTES
    about = msgspec.structs.replace(about, told=told, wrong=wrong, size=size)
    state = msgspec.structs.replace(
        state,
        about=state.about.set(about.task.hash, about),
        due=_file(state.due, about.end + LATE_BLOCKS, about.task.hash),
        late=state.late.set(state.oldest + len(state.late), about.task.hash),
        late_size=state.late_size + size,
    )
    return _within_bytes(state)


def _within_bytes(state: Diagnoses) -> Diagnoses:
    """Without the oldest of the Tasks that are over, where too much is kept of all."""
    while state.late:
        about = state.about.get(state.late[state.oldest])
        if about and state.late_size <= MOST_LATE:
            break
        if about:
            end = about.end + LATE_BLOCKS
            rest = tuple(each for each in state.due[end] if each != about.task.hash)
            due = state.due.set(end, rest) if rest else state.due.delete(end)
            state = _forget(msgspec.structs.replace(state, due=due), about)
        late = state.late.delete(state.oldest)
        state = msgspec.structs.replace(state, late=late, oldest=state.oldest + 1)
    return state


def _forget(state: Diagnoses, about: About) -> Diagnoses:
    task_hash, silent = about.task.hash, state.silent
    for operator in about.rows:
        silent = _marked(silent, operator, task_hash, None)
    registry = operators.release(state.ledger.registry, about.task.set_hash)
    return msgspec.structs.replace(
        state,
        ledger=msgspec.structs.replace(state.ledger, registry=registry),
        about=state.about.delete(task_hash),
        silent=silent,
        late_size=state.late_size - about.size,
    )


def _grown(state: Diagnoses, about: About, by: int) -> tuple[Diagnoses, About]:
    """What is kept of the Task has grown by so many bytes: which is counted once it is over."""
    if not about.size:
        return state, about
    state = msgspec.structs.replace(state, late_size=state.late_size + by)
    return state, msgspec.structs.replace(about, size=about.size + by)


def _file(due: Map[int, tuple[Hash32, ...]], block: int, task_hash: Hash32) -> Map[int, tuple[Hash32, ...]]:
    return due.set(block, (*due.get(block, ()), task_hash))


# --- the table --------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """A line of the table, and the steps that it rests on, and the signature."""

    cause: Cause
    stage: str
    blame: str
    rests_on: Steps = ()
    signed: Signed | None = None


def _diagnosed(state: Diagnoses, about: About, duty: DutyRow | DiagnosisRow) -> DiagnosisRow:
    operator = Address(duty.operator)
    steps = unpacked(about.told.get(operator, b""), about.task.hash, operator)
    place = state.ledger.registry.held(about.task.set_hash).place(operator)
    assert place is not None  # noqa: S101  it has a Duty
    is_lost = bool(about.lost >> place & 1)
    wrong, alive = about.wrong.get(operator), state.alive.get(operator)
    verdict = _verdict(about, steps, wrong, alive, is_lost)
    tellers = {each.brought_by for each in verdict.rests_on}
    if verdict.signed and verdict.signed.brought_by:
        tellers.add(verdict.signed.brought_by)
    return DiagnosisRow(
        task_hash=duty.task_hash,
        operator=operator,
        task_number=duty.task_number,
        task_input=duty.task_input,
        state=duty.state,
        cause=verdict.cause,
        stage=verdict.stage,
        blame=verdict.blame,
        told_by=",".join(sorted(tellers)),
        spans=" ".join(each.span.hex() for each in verdict.rests_on),
    )


def _verdict(
    about: About, steps: Steps, signed: Signed | None, alive: Alive | None, is_lost: bool
) -> Verdict:
    """The first line of the table that holds; `signed` is wrong, and with the Operator's key."""
    task, deadline = about.task, about.task.deadline.value
    own = [each for each in steps if is_own(each)]
    if is_lost and signed is None:
        last = tuple(own[-1:])
        return Verdict(Cause.UNEXPLAINED, last[0].step if last else Step.RECEIVE, _NOBODY, last)
    if not own and signed is None:
        known = alive is not None and alive.since < task.submitted.block
        covered = alive is not None and alive.covers(task.submitted.block, deadline)
        if known and not covered:
            return Verdict(Cause.OFFLINE, Step.RECEIVE, _OPERATOR)
        return Verdict(Cause.NONE_REPORTED, Step.RECEIVE, _NOBODY)
    gave_up = [each for each in own if each.error == TOO_LATE]
    if not is_lost and (early_on := [each for each in gave_up if 0 <= each.ended < deadline]):
        return Verdict(Cause.CLOCK, early_on[0].step, _OPERATOR, tuple(early_on))
    if signed is not None:
        shown = tuple(each for each in steps if each.response == signed.response)
        return Verdict(Cause.WRONG_RESULT, Step.EXECUTE, _OPERATOR, shown, signed)
    if wrong := [each for each in own if each.response and _is_refuted(task.preimage, each.response)]:
        return Verdict(Cause.WRONG_RESULT, Step.EXECUTE, _OPERATOR, tuple(wrong))
    before = min(deadline, about.responded or deadline)
    if delivered := tuple(each for each in steps if _is_delivery(each, before)):
        if about.could:
            return Verdict(Cause.AGGREGATOR_DROPPED, Step.AGGREGATE, _AGGREGATOR, delivered)
        return Verdict(Cause.UNEXPLAINED, Step.AGGREGATE, _NOBODY, delivered)
    working = (each for each in own if each.step in (Step.EXECUTE, Step.SIGN))
    if slow := [each for each in (*working, *gave_up) if each.ended >= deadline]:
        return Verdict(Cause.SLOW_EXECUTION, Step.EXECUTE, _OPERATOR, (slow[0],))
    if failed := [each for each in own if each.error and each.step in _OVER_THE_NETWORK]:
        return Verdict(Cause.NETWORK, failed[-1].step, _NOBODY, tuple(failed))
    return Verdict(Cause.UNEXPLAINED, own[-1].step, _NOBODY, (own[-1],))


def _is_delivery(report: Report, before: int) -> bool:
    """Whether it tells that the response reached an Aggregator by a head before this block."""
    is_step = report.step is Step.SEND if is_own(report) else report.step is Step.COLLECT
    by = (_OPERATOR, _AGGREGATOR)
    return is_step and report.role in by and not report.error and 0 <= report.ended < before


def _is_wrong(task: Task, signed: Signed) -> bool:
    return keccak(signed.response) == signed.digest and _is_refuted(task.preimage, signed.response)


@lru_cache(_ANSWERS)
def _is_refuted(preimage: bytes, response: bytes) -> bool:
    """Whether arithmetic refutes a response to this Task; known of the reference contracts' work alone. What
    a quorum agreed on is no measure: it may have colluded."""
    try:
        n, (p, q) = input_of(preimage), answer_of(response)
    except BadEncoding:
        return False
    return 2 <= n < LIMIT and refutation(n, p, q) is not None

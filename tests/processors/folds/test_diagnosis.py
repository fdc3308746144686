"""Diagnoses against the table that they stand for, read off all that was told and all that happened."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import pytest
from eth_hash.auto import keccak

from nektar import checkpoint
from nektar import fold as calculus
from nektar.evidence import bls
from nektar.model import (
    Address,
    At,
    Attested,
    BlockClosed,
    Event,
    Hash32,
    Heartbeat,
    KeyRotated,
    OperatorRegistered,
    OperatorSetCommitted,
    Report,
    Responded,
    Signed,
    Task,
    TaskSubmitted,
    Told,
)
from nektar.networks.encoding import encode_answer
from nektar.rows import Cause, DiagnosisRow, DutyRow, ForgeryRow, TaskRow
from nektar.telemetry import TOO_LATE, Step
from processors import early
from processors.folds import diagnosis
from processors.folds.diagnosis import Diagnosis
from tests.processors.folds.test_tasks import oracle as ledger
from tests.processors.test_reorgs import life
from tests.processors.world import (
    CHAIN_ID,
    MANAGER,
    NETWORK,
    OPERATORS,
    Rows,
    World,
    block,
    put,
    registered,
    set_of,
    signed,
    task,
)
from tests.seeds import seeds

FOLD = Diagnosis()
RIGHT, WRONG = encode_answer(2, 5), encode_answer(5, 2)
NOT_DONE = ("late", "missed", "unknown")


# --- the oracle -------------------------------------------------------------------------------------


def oracle(events: Sequence[Event]) -> Rows:
    """Every row by the table, from all events whatever their order."""
    tasks = {event.task.hash: event.task for event in events if isinstance(event, TaskSubmitted)}
    reports = [event for event in events if isinstance(event, Report)]
    beats = [event for event in events if isinstance(event, Heartbeat)]
    closed = {event.block.number for event in events if isinstance(event, BlockClosed)}
    rows: Rows = {}
    standing = ledger(events)
    for row in standing.values():
        if not isinstance(row, DutyRow) or row.state not in NOT_DONE:
            continue
        task = tasks[Hash32(row.task_hash)]
        # What comes before a Task waits until the Task's block is closed.
        told = reports if task.submitted.block in closed else []
        about = [r for r in told if (r.operator, r.task_hash) == (row.operator, row.task_hash)]
        heads = [
            r.begun for r in reports if r.role == "operator" and r.operator == row.operator and r.begun >= 0
        ]
        runs = [(b.first, b.last) for b in beats if b.operator == row.operator]
        heard = wrongly_signed(events, task, row.operator)
        on_chain = standing["tasks", task.hash]
        assert isinstance(on_chain, TaskRow)
        could = on_chain.response_block > 0 or are_enough(events, task, told)
        cause, stage, blame, on = verdict(
            *(task, best(about), heard, [*heads, *(first for first, _ in runs)], runs, could),
            on_chain.response_block or task.deadline.value,
        )
        bringers = {each.brought_by for each in on}
        if cause == "wrong_result" and heard:
            bringers |= {heard.brought_by} - {""}
        rows["diagnoses", row.task_hash, row.operator] = DiagnosisRow(
            *(row.task_hash, row.operator, row.task_number, row.task_input, row.state, cause, stage, blame),
            ",".join(sorted(bringers)),
            " ".join(each.span.hex() for each in on),
        )
    for bringer, duties in forgers(events).items():
        rows["forgeries", bringer] = ForgeryRow(bringer, duties)
    return rows


verify = lru_cache(None)(bls.verify)


def wrong(events: Sequence[Event]) -> Iterator[tuple[Signed, bool]]:
    """The wrong responses that members of Tasks' sets are said to have signed, and whether they did."""
    sets = {event.set.hash: event.set for event in events if isinstance(event, OperatorSetCommitted)}
    twins = {e.key: e.key_g2 for e in events if isinstance(e, (OperatorRegistered, KeyRotated))}
    closed = {event.block.number for event in events if isinstance(event, BlockClosed)}
    keys = {
        (event.task.hash, member.operator): twins[member.key]
        for event in events
        if isinstance(event, TaskSubmitted) and event.at.block in closed and event.task.set_hash in sets
        for member in sets[event.task.set_hash].members
    }
    for each in events:
        if not isinstance(each, Signed) or (each.task_hash, each.operator) not in keys:
            continue
        if each.response != RIGHT and keccak(each.response) == each.digest:
            digest = bls.signing_digest(CHAIN_ID, MANAGER, each.task_hash, each.digest)
            yield each, verify(keys[each.task_hash, each.operator], digest, each.signature)


def wrongly_signed(events: Sequence[Event], task: Task, operator: bytes) -> Signed | None:
    """The least of the wrong responses to the Task that the Operator signed."""
    about = task.hash, operator
    found = [each for each, true in wrong(events) if true and (each.task_hash, each.operator) == about]
    return min(found, key=lambda each: (each.response, each.brought_by), default=None)


def forgers(events: Sequence[Event]) -> Counter[str]:
    """Who brought false ones → duties that they are about."""
    false = [each for each, true in wrong(events) if not true and each.brought_by]
    return Counter(bringer for bringer, _, _ in {(e.brought_by, e.task_hash, e.operator) for e in false})


def are_enough(events: Sequence[Event], task: Task, told: Sequence[Report]) -> bool:
    """Whether those whose right response is told to have come in time are half of the Task's set, and have
    half of its stake."""
    (members,) = {
        e.set.members for e in events if isinstance(e, OperatorSetCommitted) and e.set.hash == task.set_hash
    }
    about = [each for each in told if each.task_hash == task.hash and each.response != WRONG]
    came = {each.operator for each in about if had_by(each, task.deadline.value)}
    stakes = {member.operator: sum(position.amount for position in member.stake) for member in members}
    came &= {*stakes}
    return 2 * len(came) >= len(stakes) and 2 * sum(stakes[each] for each in came) >= sum(stakes.values())


def had_by(report: Report, block: int) -> bool:
    """Whether it says that an Aggregator had the response before this block was there."""
    if (report.role, report.step) not in (("operator", "send"), ("aggregator", "collect")):
        return False
    return not report.error and report.ended in range(block)


def best(reports: Iterable[Report]) -> list[Report]:
    """Of each sender's step the first that succeeded, or the last that failed; the Operator's first, in their
    order. One that does not say when it ended counts where no other does; of two alike the greater span."""
    tries: dict[tuple[bool, str, int], list[Report]] = {}
    for report in sorted(reports, key=lambda each: each.span, reverse=True):
        place = report.role != "operator", report.brought_by, list(Step).index(report.step)
        tries.setdefault(place, []).append(report)
    return [tried(each) for _, each in sorted(tries.items())]


def tried(attempts: list[Report]) -> Report:
    among = [each for each in attempts if not each.error] or attempts
    among = [each for each in among if each.ended >= 0] or among
    return (max if among[0].error else min)(among, key=lambda each: each.ended)


def verdict(
    task: Task,
    steps: list[Report],
    heard: Signed | None,
    heads: list[int],
    runs: list[tuple[int, int]],
    could: bool,
    response: int,
) -> tuple[str, str, str, list[Report]]:
    submitted, deadline = task.submitted.block, task.deadline.value
    own = [step for step in steps if step.role == "operator"]
    if not own and not heard:
        covered = any(
            set(range(first, last + 1)) & set(range(submitted, deadline + 1)) for first, last in runs
        )
        if any(head < submitted for head in heads) and not covered:
            return "offline", "receive", "operator", []
        return "none_reported", "receive", "nobody", []
    given_up = [step for step in own if step.error == TOO_LATE]
    if quit_ := [step for step in given_up if 0 <= step.ended < deadline]:
        return "clock", quit_[0].step, "operator", quit_
    if heard:
        return "wrong_result", "execute", "operator", [s for s in steps if s.response == heard.response]
    if wrong := [step for step in own if step.response == WRONG]:
        return "wrong_result", "execute", "operator", wrong
    if had := [step for step in steps if had_by(step, min(deadline, response))]:
        if could:
            return "aggregator_dropped", "aggregate", "aggregator", had
        return "unexplained", "aggregate", "nobody", had
    late = [s for s in own if s.step in ("execute", "sign")] + given_up
    if slow := [step for step in late if step.ended >= deadline]:
        return "slow_execution", "execute", "operator", slow[:1]
    if failed := [step for step in own if step.error and step.step in ("receive", "send", "attest")]:
        return "network", failed[-1].step, "nobody", failed
    return "unexplained", own[-1].step, "nobody", own[-1:]


# --- against it -------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", range(2))
def test_every_row_is_the_tables_whatever_the_log_holds(part: int) -> None:
    met: set[str] = set()
    for seed in range(part, seeds(40, 120), 2):
        folded, rows = calculus.begin(FOLD, NETWORK), Rows()
        log = life(random.Random(f"diagnosis {seed}"), 40, World, "nnnnnnutttttttsmg")
        for offset, written in enumerate(log):
            folded, changes = calculus.apply(FOLD, folded, written.record, written.events, offset)
            put(rows, changes)
            assert rows == oracle(written.standing), (seed, offset)
        met.update(row.cause for row in rows.values() if isinstance(row, DiagnosisRow))
    assert met == set(Cause)


def test_where_something_is_lost_that_came_before_its_task_nobody_is_blamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every row is the table's, or says nothing: a signature alone is proof of itself."""
    differ = 0
    for seed in range(seeds(16, 60)):
        folded, rows = calculus.begin(FOLD, NETWORK), Rows()
        monkeypatch.setattr(early, "MOST_OF_OPERATOR", 3_000 if seed % 2 else 1_000)
        monkeypatch.setattr(early, "MOST", 3_000 if seed % 3 else 1_000)
        for offset, written in enumerate(life(random.Random(f"lost {seed}"), 40, World, "nnnnnuutttsg")):
            folded, changes = calculus.apply(FOLD, folded, written.record, written.events, offset)
            put(rows, changes)
        expected = {key: row for key, row in oracle(written.standing).items() if key[0] == "diagnoses"}
        assert expected.keys() == {key for key in rows if key[0] == "diagnoses"}
        for key, row in expected.items():
            if (lost := rows[key]) != row:
                assert isinstance(lost, DiagnosisRow)
                assert isinstance(row, DiagnosisRow)
                assert lost.cause in ("unexplained", "wrong_result"), (seed, row, lost)
                assert (lost.cause == "wrong_result") == (lost.blame != "nobody")
                differ += lost.cause != row.cause
    assert differ > 5


def behind(tasks: int, *, level: bool) -> list[DiagnosisRow]:
    """Of me, who do each of so many Tasks in time and am left out: told as it happens, or all of it while the
    indexer is away, which catches up then."""
    made = [task(At(10 + i, 0, 0), SET.hash, i + 1, deadline=16 + i, grace=2) for i in range(tasks)]
    told: list[Told] = []
    for i, each in enumerate(made):
        told += [Heartbeat(ME, max(1, 9 + i), 10 + i)]
        told += [msgspec.structs.replace(step, task_hash=each.hash, ended=step.ended + i) for step in IN_TIME]
    happened: list[Event] = [
        *(registered(At(2, i, 0), *member) for i, member in enumerate(MEMBERS)),
        OperatorSetCommitted(At(3, 0, 0), SET),
        BlockClosed(block(9)),
        *([] if level else told),
    ]
    for number in range(10, 30 + tasks):
        if number - 10 < tasks:
            happened.append(TaskSubmitted(At(number, 0, 0), made[number - 10]))
        if 0 <= number - 12 < tasks:
            happened.append(
                msgspec.structs.replace(RESPONDED, at=At(number, 1, 0), task_hash=made[number - 12].hash)
            )
        happened.append(BlockClosed(block(number)))
    state, rows = FOLD.initial(NETWORK), Rows()
    for event in (*happened, *(told if level else [])):
        state, changes = FOLD.step(state, event)
        put(rows, changes)
    return [row for each in made if isinstance(row := rows["diagnoses", each.hash, ME], DiagnosisRow)]


def test_an_indexer_that_is_behind_by_a_hundred_tasks_says_what_one_that_is_level_does() -> None:
    rows = behind(100, level=False)
    assert {(row.cause, row.blame) for row in rows} == {("aggregator_dropped", "aggregator")}
    assert rows == behind(100, level=True)


def test_of_what_waited_for_its_task_in_vain_only_what_is_lost_is_unexplained() -> None:
    rows = behind(300, level=False)
    lost = [i for i, row in enumerate(rows) if row.cause == "unexplained"]
    assert {row.blame for row in rows} == {"nobody", "aggregator"}
    # Whose submission is below the highest block that a lost one names, and none after.
    assert lost == [*range(len(lost))]
    assert 0 < len(lost) < 200


def test_in_which_order_things_are_told_changes_nothing() -> None:
    for seed in range(seeds(15, 40)):
        rng = random.Random(f"order {seed}")
        log = life(rng, 30, World, "nnnnnntttttss")
        told = [e for w in log for e in w.standing[-12:] if is_told(e)]
        ends = []
        for shuffled in (told, rng.sample(told, len(told))):
            state, rows = FOLD.initial(NETWORK), Rows()
            for event in (*(e for e in log[-1].standing if not is_told(e)), *shuffled):
                state, changes = FOLD.step(state, event)
                put(rows, changes)
            ends.append((rows, *map(checkpoint.to_json, (state.about, state.alive, state.forged))))
        assert ends[0] == ends[1]


def is_told(event: Event) -> bool:
    return isinstance(event, Told) or (isinstance(event, Signed) and event.at is None)


# --- one Task, of blocks 10 to 16 ---------------------------------------------------------------------

MEMBERS = [(operator, i + 1) for i, operator in enumerate(OPERATORS)]
SET = set_of(MEMBERS)
TASK = task(At(10, 0, 0), SET.hash, 1, deadline=16, grace=2)
ME = OPERATORS[0]
# By everybody else.
RESPONDED = Responded(At(15, 0, 0), TASK.hash, Hash32(keccak(RIGHT)), (0,), 20)


def own(step: Step, ended: int, error: str = "", response: bytes = b"") -> Report:
    return Report(
        f"operator/0x{ME.hex()}", "operator", ME, TASK.hash, step, bytes(8), 10, ended, error, response
    )


COLLECTED = Report("gather", "aggregator", ME, TASK.hash, Step.COLLECT, b"c" * 8, 11, 11)
COLLECTED_LATE = msgspec.structs.replace(COLLECTED, ended=17)
IN_TIME = [own(Step.RECEIVE, 10), own(Step.EXECUTE, 11), own(Step.SIGN, 11), own(Step.SEND, 11)]
AGAIN = [own(Step.EXECUTE, 16), own(Step.SIGN, 16), own(Step.ATTEST, 17)]
BEFORE, WITHIN = Heartbeat(ME, 3, 9), Heartbeat(ME, 9, 30)


def brought(secret: int, answer: tuple[int, int], by: str = "peer") -> Signed:
    return msgspec.structs.replace(signed(None, TASK.hash, ME, secret, answer), brought_by=by)


MINE, OTHERS = (secret for operator, secret in MEMBERS[:2])
SIGNED_WRONG, FORGED = brought(MINE, (5, 2)), brought(OTHERS, (5, 2))
REFUSED = signed(At(15, 0, -1), TASK.hash, ME, MINE, (5, 2))  # in a call


def diagnosed(told: Sequence[Told | Signed], response: Event | None = RESPONDED) -> DiagnosisRow:
    """What stands of my missed duty, once all that is told has come."""
    row = after_all(told, response)["diagnoses", TASK.hash, ME]
    assert isinstance(row, DiagnosisRow)
    return row


def after_all(told: Sequence[Told | Signed], response: Event | None = RESPONDED, blocks: int = 30) -> Rows:
    state, rows = FOLD.initial(NETWORK), Rows()
    happened: dict[int, list[Event]] = {
        2: [registered(At(2, i, 0), *member) for i, member in enumerate(MEMBERS)],
        3: [OperatorSetCommitted(At(3, 0, 0), SET)],
        10: [TaskSubmitted(At(10, 0, 0), TASK)],
        15: [response] if response else [],
    }
    events: list[Event] = []
    for number in range(1, blocks):
        events += [*happened.get(number, []), BlockClosed(block(number))]
    for event in (*events, *told):
        state, changes = FOLD.step(state, event)
        put(rows, changes)
    return rows


@pytest.mark.parametrize(
    ("told", "cause", "stage", "blame"),
    [
        ([], "none_reported", "receive", "nobody"),
        ([BEFORE], "offline", "receive", "operator"),
        ([BEFORE, Heartbeat(ME, 17, 30)], "offline", "receive", "operator"),
        ([Heartbeat(ME, 17, 30)], "none_reported", "receive", "nobody"),
        ([WITHIN], "none_reported", "receive", "nobody"),
        ([BEFORE, Heartbeat(ME, 16, 16)], "none_reported", "receive", "nobody"),
        ([BEFORE, COLLECTED], "offline", "receive", "operator"),
        ([own(Step.RECEIVE, 10), own(Step.EXECUTE, 12, TOO_LATE)], "clock", "execute", "operator"),
        ([own(Step.SEND, 11, "", WRONG), COLLECTED], "wrong_result", "execute", "operator"),
        ([own(Step.EXECUTE, 16), own(Step.ATTEST, 16, "", RIGHT)], "slow_execution", "execute", "operator"),
        ([own(Step.EXECUTE, 16, TOO_LATE)], "slow_execution", "execute", "operator"),
        ([own(Step.EXECUTE, 11), own(Step.SEND, 11)], "aggregator_dropped", "aggregate", "aggregator"),
        ([own(Step.EXECUTE, 11), COLLECTED], "aggregator_dropped", "aggregate", "aggregator"),
        ([own(Step.EXECUTE, 11), own(Step.SEND, 16)], "unexplained", "send", "nobody"),
        ([own(Step.EXECUTE, 11), own(Step.SEND, 11, "URLError")], "network", "send", "nobody"),
        ([own(Step.SEND, 11, "URLError"), COLLECTED], "aggregator_dropped", "aggregate", "aggregator"),
        (
            [own(Step.SEND, 11, "URLError"), own(Step.SEND, 12)],
            "aggregator_dropped",
            "aggregate",
            "aggregator",
        ),
        # Left out, it does all anew for its attestation, at the deadline's head and later.
        ([*IN_TIME, *AGAIN], "aggregator_dropped", "aggregate", "aggregator"),
        ([*IN_TIME, *AGAIN, COLLECTED], "aggregator_dropped", "aggregate", "aggregator"),
        ([*IN_TIME, own(Step.SEND, 16)], "aggregator_dropped", "aggregate", "aggregator"),
        ([*IN_TIME, own(Step.ATTEST, 18, TOO_LATE)], "aggregator_dropped", "aggregate", "aggregator"),
        ([own(Step.EXECUTE, 11), own(Step.ATTEST, 18, TOO_LATE)], "slow_execution", "execute", "operator"),
        # The Aggregator has it too late: after its response, or after all could have sent one.
        ([own(Step.EXECUTE, 11), own(Step.SEND, 14)], "aggregator_dropped", "aggregate", "aggregator"),
        ([own(Step.EXECUTE, 11), own(Step.SEND, 15)], "unexplained", "send", "nobody"),
        ([*IN_TIME[:3], own(Step.SEND, 15), own(Step.ATTEST, 16, "URLError")], "network", "attest", "nobody"),
        ([own(Step.EXECUTE, 11), own(Step.SEND, 17), COLLECTED_LATE], "unexplained", "send", "nobody"),
        ([own(Step.SEND, 17, "URLError"), COLLECTED_LATE], "network", "send", "nobody"),
        ([own(Step.RECEIVE, 15), COLLECTED_LATE], "unexplained", "receive", "nobody"),
        ([own(Step.RECEIVE, 10)], "unexplained", "receive", "nobody"),
        ([SIGNED_WRONG], "wrong_result", "execute", "operator"),
        ([REFUSED], "wrong_result", "execute", "operator"),
        ([BEFORE, SIGNED_WRONG], "wrong_result", "execute", "operator"),
        ([FORGED, SIGNED_WRONG, FORGED], "wrong_result", "execute", "operator"),
        ([own(Step.SEND, 11, "", RIGHT), SIGNED_WRONG], "wrong_result", "execute", "operator"),
        ([own(Step.RECEIVE, 10, TOO_LATE), SIGNED_WRONG], "clock", "receive", "operator"),
        ([FORGED], "none_reported", "receive", "nobody"),
        ([BEFORE, FORGED], "offline", "receive", "operator"),
        ([brought(MINE, (2, 5))], "none_reported", "receive", "nobody"),
        ([own(Step.SEND, 11, "", RIGHT), FORGED], "aggregator_dropped", "aggregate", "aggregator"),
    ],
)
def test_a_missed_duty_has_the_first_cause_that_holds(
    told: list[Told | Signed], cause: str, stage: str, blame: str
) -> None:
    row = diagnosed(told)
    assert (row.cause, row.stage, row.blame) == (cause, stage, blame)
    assert diagnosed(told[::-1]) == row


@pytest.mark.parametrize(
    ("others", "told_of", "cause"),
    [
        ([], RIGHT, "unexplained"),
        (OPERATORS[1:2], RIGHT, "unexplained"),  # half of the members, with 3 of 10 at stake
        (OPERATORS[3:], RIGHT, "aggregator_dropped"),
        (OPERATORS[3:], WRONG, "unexplained"),
        ([ME, *[Address(bytes([i]) * 20) for i in range(9)]], RIGHT, "unexplained"),  # no members
    ],
)
def test_without_a_response_an_aggregator_is_blamed_only_where_it_could_have_sent_one(
    others: Sequence[Address], told_of: bytes, cause: str
) -> None:
    theirs = [msgspec.structs.replace(COLLECTED, operator=each, response=told_of) for each in others]
    mine = [own(Step.EXECUTE, 11), own(Step.SEND, 11, "", RIGHT)]
    for told in ([*mine, *theirs], [*theirs, *mine]):
        row = diagnosed(told, response=None)
        assert (row.cause, row.stage) == (cause, "aggregate")
        assert row.blame == ("aggregator" if cause == "aggregator_dropped" else "nobody")
        assert diagnosed(told).cause == "aggregator_dropped"


def test_a_row_names_the_spans_that_it_rests_on_and_who_told_them() -> None:
    row = diagnosed([own(Step.SEND, 11), COLLECTED])
    assert row.spans == f"{bytes(8).hex()} {b'c'.hex() * 8}"
    assert row.told_by == f"gather,operator/0x{ME.hex()}"


def test_a_row_that_rests_on_a_signature_names_who_brought_it_and_the_spans_that_show_it() -> None:
    row = diagnosed([SIGNED_WRONG])
    assert (row.told_by, row.spans) == ("peer", "")
    shown = msgspec.structs.replace(COLLECTED, response=WRONG)
    row = diagnosed([own(Step.SEND, 11, "", RIGHT), shown, SIGNED_WRONG])
    assert (row.told_by, row.spans) == ("gather,peer", b"c".hex() * 8)
    row = diagnosed([REFUSED])
    assert (row.told_by, row.spans) == ("", "")


def test_a_false_signature_is_counted_against_whoever_brings_it_once_for_each_duty() -> None:
    def forgeries(messages: Sequence[Signed]) -> dict[str, int]:
        return {
            row.brought_by: row.duties for row in after_all(messages).values() if isinstance(row, ForgeryRow)
        }

    flood = [brought(OTHERS, (5, q)) for q in range(2, 50)]
    of_another = msgspec.structs.replace(FORGED, operator=OPERATORS[2])
    assert forgeries([SIGNED_WRONG, brought(MINE, (2, 5)), REFUSED]) == {}
    assert forgeries(flood) == forgeries([SIGNED_WRONG, *flood]) == forgeries([FORGED]) == {"peer": 1}
    assert forgeries([*flood, of_another]) == {"peer": 2}
    assert forgeries([FORGED, brought(OTHERS, (5, 2), "other")]) == {"peer": 1, "other": 1}
    assert forgeries([brought(OTHERS, (2, 5))]) == {}  # a right response, which harms nobody


def test_however_many_false_ones_one_brings_no_more_is_kept() -> None:
    def kept(messages: Sequence[Signed]) -> bytes:
        state = FOLD.initial(NETWORK)
        for event in (
            *(registered(At(2, i, 0), *member) for i, member in enumerate(MEMBERS)),
            OperatorSetCommitted(At(3, 0, 0), SET),
            TaskSubmitted(At(10, 0, 0), TASK),
            BlockClosed(block(10)),
            *messages,
        ):
            state, _ = FOLD.step(state, event)
        return checkpoint.to_json(state)

    flood = [brought(OTHERS, (5, q)) for q in range(2, 50)]
    assert kept(flood) == kept([FORGED])
    assert kept([*flood, SIGNED_WRONG, *flood]) == kept([SIGNED_WRONG, FORGED])


def test_of_who_is_no_member_nothing_is_kept() -> None:
    def kept(told: Sequence[Told]) -> bytes:
        state = FOLD.initial(NETWORK)
        for event in (*submitted([TASK]), *told):
            state, _ = FOLD.step(state, event)
        return checkpoint.to_json(state)

    strangers = [msgspec.structs.replace(COLLECTED, operator=Address(bytes([i]) * 20)) for i in range(9)]
    assert kept(strangers) == kept([])


def submitted(tasks: Sequence[Task]) -> list[Event]:
    """Each in a block of its own from block 10 on, and some blocks more."""
    events: list[Event] = [registered(At(2, i, 0), *member) for i, member in enumerate(MEMBERS)]
    events.append(OperatorSetCommitted(At(3, 0, 0), SET))
    for number in range(10, 30 + len(tasks)):
        events += [TaskSubmitted(each.submitted, each) for each in tasks if each.submitted.block == number]
        events.append(BlockClosed(block(number)))
    return events


MISSED = [task(At(10 + i, 0, 0), SET.hash, i + 1, deadline=16 + i, grace=2) for i in range(60)]


def test_of_tasks_that_are_over_so_much_is_kept_and_the_newest_are_still_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state, rows, most = FOLD.initial(NETWORK), Rows(), 0
    monkeypatch.setattr(diagnosis, "MOST_LATE", 100_000)

    def fold(event: Event) -> None:
        nonlocal state, most
        state, changes = FOLD.step(state, event)
        put(rows, changes)
        most = max(most, state.late_size)
        assert state.late_size == sum(kept_of(about) for about in state.about.values() if about.size)

    for event in submitted(MISSED):
        fold(event)
        if isinstance(event, TaskSubmitted):
            for operator in OPERATORS[:3]:
                about = msgspec.structs.replace(COLLECTED, task_hash=event.task.hash, operator=operator)
                fold(msgspec.structs.replace(about, span=bytes(8)))
    assert len(rows) == 4 * 60
    assert 90_000 < most <= 100_000
    assert len(state.about) == len(state.late) == len(state.due) < 60
    failed = [msgspec.structs.replace(own(Step.SEND, 11, "URLError"), task_hash=t.hash) for t in MISSED]
    for report in failed:
        fold(report)
    causes = [row.cause for t in MISSED if isinstance(row := rows["diagnoses", t.hash, ME], DiagnosisRow)]
    explained = len(state.about)
    assert causes == ["none_reported"] * (60 - explained) + ["aggregator_dropped"] * explained


def kept_of(about: diagnosis.About) -> int:
    """By what it counts for."""
    assert {*about.told, *about.wrong} <= {*about.rows}
    assert about.size == 750 * len(about.rows) + sum(200 + len(steps) for steps in about.told.values())
    return about.size


def test_a_heartbeat_costs_nothing_for_duties_that_it_says_nothing_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state, asked = FOLD.initial(NETWORK), list[Task]()
    for event in submitted(MISSED):
        state, _ = FOLD.step(state, event)
    verdict = diagnosis._verdict

    def counted(about: diagnosis.About, *given: Any) -> Any:
        asked.append(about.task)
        return verdict(about, *given)

    monkeypatch.setattr(diagnosis, "_verdict", counted)
    causes = []
    for beat in (BEFORE, Heartbeat(ME, 200, 230), Heartbeat(ME, 20, 20), Heartbeat(ME, 1, 230)):
        asked.clear()
        state, _ = FOLD.step(state, beat)
        offline = [state.about[each.hash].rows[ME].cause == "offline" for each in MISSED]
        causes.append((len(asked), sum(offline)))
    # Submitted in 14 to 20, and so open at block 20.
    assert causes == [(60, 60), (0, 60), (7, 53), (53, 0)]


def test_who_broke_off_too_often_to_be_kept_is_not_called_away() -> None:
    beats = [Heartbeat(ME, i, i) for i in (3, *range(100, 100 + 2 * diagnosis.MOST_RUNS, 2))]
    assert diagnosed([BEFORE]).cause == "offline"
    assert diagnosed(beats).cause == "offline"
    beats = [Heartbeat(ME, i, i) for i in (3, 12, *range(100, 100 + 2 * diagnosis.MOST_RUNS, 2))]
    assert diagnosed(beats).cause == diagnosed(beats[::-1]).cause == "none_reported"


def test_who_did_its_duty_has_no_row_whatever_is_told() -> None:
    state, rows = FOLD.initial(NETWORK), Rows()
    for event in (
        *(registered(At(2, i, 0), *member) for i, member in enumerate(MEMBERS)),
        OperatorSetCommitted(At(3, 0, 0), SET),
        TaskSubmitted(At(10, 0, 0), TASK),
        BlockClosed(block(10)),
        own(Step.EXECUTE, 16),
        Responded(At(11, 0, 0), TASK.hash, Hash32(bytes(32)), (), 20),
        Attested(At(12, 0, 0), TASK.hash, ME, Hash32(bytes(32)), True),
        own(Step.SEND, 11, "URLError"),
        *(BlockClosed(block(number)) for number in range(11, 30)),
        own(Step.SEND, 11, "URLError", WRONG),
    ):
        state, changes = FOLD.step(state, event)
        put(rows, changes)
    assert not rows
    assert not state.about


def test_who_names_a_head_that_nobody_knows_is_explained_again_a_day_later() -> None:
    """One span of a Task that never comes, by a head in milliseconds, say."""
    odd = msgspec.structs.replace(COLLECTED, task_hash=Hash32(b"x" * 32), ended=1_790_000_000_000)
    state, causes = FOLD.initial(NETWORK), dict[int, str]()
    begin = [registered(At(2, i, 0), *member) for i, member in enumerate(MEMBERS)]
    day = early.BLOCKS
    begins = enumerate((10, day + 100, 3 * day), 1)
    tasks = [task(At(n, 0, 0), SET.hash, i, deadline=n + 6, grace=2) for i, n in begins]
    events: dict[int, list[Event]] = {2: begin, 3: [OperatorSetCommitted(At(3, 0, 0), SET), odd]}
    events |= {each.submitted.block: [TaskSubmitted(each.submitted, each)] for each in tasks}
    for number in range(1, 3 * day + 30):
        for event in (*events.get(number, ()), BlockClosed(block(number))):
            state, changes = FOLD.step(state, event)
            for change in changes:
                if isinstance(change.after, DiagnosisRow) and change.after.operator == ME:
                    causes[change.after.task_number] = change.after.cause
    assert causes == {1: "none_reported", 2: "unexplained", 3: "none_reported"}

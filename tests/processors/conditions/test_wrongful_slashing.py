"""Wrongful slashings against what the whole list of events says of each request."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from eth_hash.auto import keccak
from immutables import Map

from nektar import checkpoint
from nektar import fold as calculus
from nektar.evidence.bundle import (
    NonMemberClaim,
    finding_id,
)
from nektar.evidence.canonical import Octets
from nektar.evidence.sought import EventSought, SetSought, Sought, StateSought, VariableSought
from nektar.evidence.sought import Place as Where
from nektar.fold import Step
from nektar.log import New, Undo
from nektar.model import (
    Address,
    At,
    Attested,
    BlockClosed,
    ChainEvent,
    Event,
    GapPassed,
    Hash32,
    Level,
    MissCounted,
    Moment,
    Network,
    NetworkListed,
    OperatorSetCommitted,
    Paused,
    Position,
    Responded,
    SlashingExecuted,
    SlashingRequested,
    SlashingTrusted,
    SlashingVetoed,
    TaskCancelled,
    TaskSubmitted,
    UnknownContract,
    Unpaused,
)
from nektar.networks.encoding import encode_answer, padded
from nektar.rows import Change, Finding, SlashingRow
from processors import past
from processors.conditions.answered import unpack
from processors.conditions.reasons import subject_of
from processors.conditions.wrongful_slashing import KEPT, LATE, Watch, WrongfulSlashing
from processors.folds.slashings import Slashings
from tests.processors.slashed import (
    BOND_BREACH,
    BURNER,
    EQUIVOCATION,
    ID,
    INVALID_RESPONSE,
    MISSED_DUTY,
    NETWORK,
    OF_TASKS,
    OWN,
    PROVED,
    PROVES,
    TERMS,
    THIEF,
    TRUSTED,
    WINDOW,
    calldata,
    slashed,
)
from tests.processors.world import (
    CHAIN_ID,
    MANAGER,
    OPERATORS,
    STRANGER,
    Rows,
    block,
    public_keys,
    put,
    registered,
    set_of,
    signature,
    task,
)
from tests.seeds import seeds

CONDITION = WrongfulSlashing()
FOLD = CONDITION.detect
SEEDS = seeds(160, 400)
REASONS = {
    *("signed", "no_duty", "unknown_task", "window_passed", "twice", "not_proved"),
    *("after_veto", "early", "after_expiry", "wrong_receiver"),
}

# --- the oracle -------------------------------------------------------------------------------------

Found = dict[bytes, tuple[int, str, set[tuple[int, int]]]]
"""Finding id → (block, level, the (block, log index) of the events that it rests on)."""


def oracle(events: Sequence[Event]) -> Found:
    """Every request against all that happened; nothing is ever forgotten."""
    found: Found = {}
    blocks = {e.block.number: e.block for e in events if isinstance(e, BlockClosed)}
    seen = set[tuple[bytes, bytes]]()
    for i, event in enumerate(events):
        if not isinstance(event, SlashingRequested) or (event.slasher, event.request) in seen:
            continue
        seen.add((event.slasher, event.request))
        firsts = dict[str, tuple[int, list[ChainEvent]]]()
        for reason, j, others in wrongs(events, i, event):
            if reason not in firsts or j < firsts[reason][0]:
                firsts[reason] = j, others
        for reason, (j, others) in firsts.items():
            newest = next(e.block for e in events[j:] if isinstance(e, BlockClosed))
            rests = [event, *others]
            linked = any(blocks[e.at.block].level is not Level.PROVED for e in rests if e.at)
            name = named(event.slasher, event.request, reason, event.operator)
            level = Level.LINKED if linked else Level.PROVED
            # Who attested is shown by what the contract holds, whatever said it.
            shown = {(e.at.block, e.at.log) for e in rests if e.at and not isinstance(e, Attested)}
            found[name] = newest.number, level, shown
    return found


def wrongs(
    events: Sequence[Event], i: int, asked: SlashingRequested
) -> Iterator[tuple[str, int, list[ChainEvent]]]:
    """(reason, place in the list of the event that shows it, events that it rests on beside the request)."""
    key, task_hash = (asked.slasher, asked.request), asked.task_hash if asked.condition in OF_TASKS else None
    claim = asked.condition, task_hash, asked.set_hash, asked.operator
    submitted = next(
        (j for j, e in enumerate(events) if isinstance(e, TaskSubmitted) and e.task.hash == task_hash),
        None,
    )
    if asked.condition == MISSED_DUTY and submitted is not None:
        about = events[submitted]
        assert isinstance(about, TaskSubmitted)
        first = None
        for j, event in enumerate(events[submitted:], submitted):
            if not answers(events, submitted, j, asked.operator):
                continue
            # Of several before the request an attestation of its own is shown, of those after it the first.
            if first is None or (
                j <= i and isinstance(event, Attested) > isinstance(events[first], Attested)
            ):
                first = j
        if first is not None:
            shown = events[first]
            assert isinstance(shown, Attested | Responded)
            yield "signed", max(i, first), [shown] if isinstance(shown, Attested) else [about, shown]
    if not asked.proved and task_hash and (j := surely_unknown(events, i, task_hash)):
        yield "unknown_task", j, []
    if not asked.proved and submitted is not None and submitted < i:
        if (others := owes_nothing(events, submitted, i, asked)) is not None:
            yield "no_duty", i, others
        about = events[submitted]
        assert isinstance(about, TaskSubmitted)
        end = about.task.deadline.value + about.task.grace
        if asked.condition == MISSED_DUTY:
            end = about.at.block + TERMS["max_duration"]
        if asked.at.block > end + WINDOW:
            yield "window_passed", i, [about]
    if (task_hash or asked.set_hash) and not asked.proved:
        same = [
            (j, e)
            for j, e in enumerate(events)
            if isinstance(e, SlashingRequested)
            and (e.condition, e.task_hash, e.set_hash, e.operator) == claim
            and not repeats(events, j)
        ]
        if (others := [(j, e) for j, e in same if j < i]) or any(e.proved for _, e in same):
            by_proof = [(j, e) for j, e in others if e.proved]
            if others:
                yield "twice", i, [(by_proof or others)[0][1]]
            else:
                j, other = next((j, e) for j, e in same if e.proved)
                yield "twice", j, [other]
    if asked.condition == MISSED_DUTY and submitted is not None and not asked.proved:
        counts = [
            (j, e)
            for j, e in enumerate(events)
            if j > submitted and isinstance(e, MissCounted) and e.slasher in NETWORK.contracts.values()
            if (e.task_hash, e.operator) == (task_hash, asked.operator)
        ]
        if counts:
            yield "twice", max(i, counts[0][0]), [counts[0][1]]
    vetoed: SlashingVetoed | None = None
    listed: NetworkListed | None = None
    for j, event in enumerate(events):
        if isinstance(event, NetworkListed):
            listed = event
        if j < i or (getattr(event, "slasher", None), getattr(event, "request", None)) != key:
            continue
        match event:
            case SlashingTrusted():
                if event.evidence in PROVES and is_flawed(event, asked):
                    yield "not_proved", j, [event]
                if listed and event.receiver not in (None, listed.burner):
                    yield "wrong_receiver", j, [event, listed]
            case SlashingVetoed():
                vetoed = vetoed or event
            case SlashingExecuted():
                closed = next(e.block for e in events[j:] if isinstance(e, BlockClosed))
                if vetoed:
                    yield "after_veto", j, [event, vetoed]
                if reached(asked.veto_deadline, closed) <= asked.veto_deadline.value:
                    yield "early", j, [event]
                until = asked.execution_deadline
                if until and reached(until, closed) > until.value:
                    yield "after_expiry", j, [event]
                if listed and event.receiver not in (None, listed.burner):
                    yield "wrong_receiver", j, [event, listed]


def answers(events: Sequence[Event], submitted: int, j: int, operator: Address) -> bool:
    """Whether the event at `j` shows that the Operator answered the Task submitted at `submitted`."""
    about, event = events[submitted], events[j]
    assert isinstance(about, TaskSubmitted)
    of = about.task
    if getattr(event, "task_hash", None) != of.hash:
        return False
    members = members_of(events, submitted)
    if isinstance(event, Attested):
        in_time = event.at.block <= of.deadline.value + of.grace
        return event.operator == operator and operator in members and in_time
    if not isinstance(event, Responded) or any(
        isinstance(e, Responded) and e.task_hash == of.hash for e in events[submitted:j]
    ):
        return False
    assert event.non_signers is not None
    return operator in members and members.index(operator) not in event.non_signers


def owes_nothing(
    events: Sequence[Event], submitted: int, i: int, asked: SlashingRequested
) -> list[ChainEvent] | None:
    """What shows that the Operator owed the Task nothing; None: it may have."""
    about = events[submitted]
    assert isinstance(about, TaskSubmitted)
    if (members := members_of(events, submitted)) and asked.operator not in members:
        return []
    if asked.condition != MISSED_DUTY:
        return None
    if asked.at.block <= about.task.deadline.value + about.task.grace:
        return [about]
    for event in events[submitted:i]:
        if isinstance(event, TaskCancelled) and event.task_hash == about.task.hash:
            return [about, event]
    first, last = about.at.block, about.task.deadline.value
    for event in events[:i]:
        if isinstance(event, Paused | Unpaused) and first <= event.at.block <= last:
            return [about, event]
    return None


def members_of(events: Sequence[Event], submitted: int) -> list[Address]:
    """Those of the set of the Task that was submitted, where it is known."""
    about = events[submitted]
    assert isinstance(about, TaskSubmitted)
    sets = [e.set for e in events[:submitted] if isinstance(e, OperatorSetCommitted)]
    return [m.operator for s in sets[::-1] if s.hash == about.task.set_hash for m in s.members]


def surely_unknown(events: Sequence[Event], i: int, task_hash: Hash32) -> int:
    """The place of the end of the request's block, if the log shows by then that there is no such Task."""
    end = next(j for j, e in enumerate(events) if j > i and isinstance(e, BlockClosed))
    tasks = [e.task for e in events[:end] if isinstance(e, TaskSubmitted)]
    if not tasks or [each.number for each in tasks] != list(range(1, len(tasks) + 1)):
        return 0
    doubtful = [e.last for e in events[:end] if isinstance(e, GapPassed)]
    closed = [e.block for e in events[: end + 1] if isinstance(e, BlockClosed)]
    doubtful += [each.number for each in closed if each.level is not Level.PROVED]
    if max(doubtful, default=-1) >= tasks[-1].submitted.block or task_hash in {t.hash for t in tasks}:
        return 0
    return end


def repeats(events: Sequence[Event], j: int) -> bool:
    """Whether a request of this name was made before."""
    event = events[j]
    assert isinstance(event, SlashingRequested)
    return any(
        isinstance(e, SlashingRequested) and (e.slasher, e.request) == (event.slasher, event.request)
        for e in events[:j]
    )


def is_flawed(event: SlashingTrusted, asked: SlashingRequested) -> bool:
    proves = PROVES[event.evidence]
    if event.evidence == b"look":
        return asked.condition != OWN
    return asked.task_hash is not None and proves != (asked.condition, asked.task_hash, asked.operator)


def reached(moment: Moment, closed: Any) -> int:
    return int(closed.number if moment.unit == "block" else closed.time)


def named(slasher: bytes, request: bytes, reason: str, operator: bytes) -> bytes:
    """The finding's id."""
    subject = subject_of(Address(slasher), Hash32(request), reason)
    return finding_id("wrongful_slashing", CHAIN_ID, MANAGER, subject, operator)


def events_of(sought: Sought) -> list[EventSought]:
    return [each for each in sought.fetch if isinstance(each, EventSought)]


def reason_of(finding: Finding) -> str:
    return CONDITION.claims(finding).reason


def told(rows: Rows) -> Found:
    found: Found = {}
    for row in rows.values():
        assert isinstance(row, Finding)
        sought = CONDITION.claims(row)
        places = {(each.place.number, each.place.log) for each in events_of(sought)}
        slasher, request = (bytes.fromhex(sought.notes[name][2:]) for name in ("slasher", "request"))
        assert row.id == named(slasher, request, sought.reason, row.operator)
        assert row.id == finding_id("wrongful_slashing", CHAIN_ID, MANAGER, sought.subject, row.operator)
        found[row.id] = row.block_number, row.level, places
    return found


@pytest.mark.parametrize("part", range(4))
def test_what_is_found_is_what_the_chain_contradicts(part: int) -> None:
    met = list[str]()
    for seed in range(part, SEEDS, 4):
        events = slashed(random.Random(f"wrongful {seed}"), 24)
        state, rows = FOLD.initial(NETWORK), Rows()
        for i, event in enumerate(events):
            state, changes = FOLD.step(state, event)
            put(rows, changes)
            if isinstance(event, BlockClosed | GapPassed) and (changes or i == len(events) - 1):
                assert told(rows) == oracle(events[: i + 1]), f"seed {seed}, after {event}"
        met += [reason_of(row) for row in rows.values() if isinstance(row, Finding)]
    assert {*met} == REASONS
    assert min(met.count(reason) for reason in REASONS) > SEEDS // 200


def test_it_says_until_when_people_can_act_as_the_requests_row_does() -> None:
    said, units = 0, set[str]()
    for seed in range(SEEDS // 8):
        events = slashed(random.Random(f"until {seed}"), 24)
        state, rows, docket, slashings = FOLD.initial(NETWORK), Rows(), Slashings().initial(NETWORK), Rows()
        for event in events:
            state, changes = FOLD.step(state, event)
            put(rows, changes)
            docket, changes = Slashings().step(docket, event)
            put(slashings, changes)
        for found in rows.values():
            assert isinstance(found, Finding)
            notes = CONDITION.claims(found).notes
            key = (bytes.fromhex(notes[name][2:]) for name in ("slasher", "request"))
            row = slashings["slashings", *key]
            assert isinstance(row, SlashingRow)
            units.add(row.deadline_unit)
            for name in ("veto", "execution"):
                deadline, time = getattr(row, f"{name}_deadline"), getattr(row, f"{name}_time")
                told = notes.get(f"{name}_deadline", f"{row.deadline_unit} 0")
                assert told == f"{row.deadline_unit} {deadline}"
                told = notes.get(f"{name}_time", "1970-01-01T00:00:00Z")
                assert datetime.fromisoformat(told).timestamp() == time
                said += time > 0
    assert said > 20
    assert "block" in units


# --- by example -------------------------------------------------------------------------------------

ALICE, BOB = OPERATORS[:2]
MEMBERS = set_of([(ALICE, 1), (BOB, 2)])
SECRETS = {ALICE: 1, BOB: 2}
TASK = task(At(3, 0, 0), MEMBERS.hash, 1, deadline=6, grace=2)  # until block 8; its window until 8 + WINDOW
OTHER = task(At(3, 1, 1), MEMBERS.hash, 2, deadline=6, grace=2)
NAME, UNHEARD = Hash32(b"r" * 32), Hash32(b"u" * 32)
LISTED = NetworkListed(At(1, 3, 0), ID, STRANGER, BURNER)
BEGIN: list[Event] = [
    *(registered(At(1, 0, 0), ALICE, 1), registered(At(1, 1, 0), BOB, 2)),
    *(OperatorSetCommitted(At(1, 2, 0), MEMBERS), LISTED, BlockClosed(block(1)), BlockClosed(block(2))),
    *(TaskSubmitted(TASK.submitted, TASK), TaskSubmitted(OTHER.submitted, OTHER), BlockClosed(block(3))),
]


def asks(
    at: int,
    condition: str = MISSED_DUTY,
    name: bytes = NAME,
    task_hash: Hash32 | None = TASK.hash,
    **more: Any,
) -> SlashingRequested:
    until = {"veto_deadline": Moment("block", at + 3), "execution_deadline": Moment("block", at + 6)}
    made = SlashingRequested(
        *(At(at, 5, 5), TRUSTED, Hash32(name), ALICE, (Position("it", 7),)),
        condition=condition,
        task_hash=task_hash,
        **until,
    )
    return msgspec.structs.replace(made, **more)


def shows(
    at: int, evidence: bytes = b"", receiver: Address | None = BURNER, name: bytes = NAME
) -> SlashingTrusted:
    return SlashingTrusted(At(at, 5, 6), TRUSTED, Hash32(name), STRANGER, receiver, evidence)


def executes(at: int, receiver: Address | None = BURNER, slasher: Address = TRUSTED) -> SlashingExecuted:
    taken = (Position("it", 7),)
    return SlashingExecuted(At(at, 7, 9), slasher, NAME, ALICE, taken, receiver=receiver)


def closed(*numbers: int) -> list[Event]:
    return [BlockClosed(block(number)) for number in numbers]


def play(*events: Event, begin: Sequence[Event] = BEGIN, network: Network = NETWORK) -> list[Finding]:
    return played(*begin, *events, network=network)[1]


def played(*events: Event, network: Network = NETWORK) -> tuple[Watch, list[Finding]]:
    state, said = FOLD.initial(network), list[Change]()
    for event in events:
        state, changes = FOLD.step(state, event)
        said += changes
    assert all(change.before is None for change in said)
    return state, [change.after for change in said if isinstance(change.after, Finding)]


def reasons(*events: Event, begin: Sequence[Event] = BEGIN, network: Network = NETWORK) -> list[str]:
    return [reason_of(found) for found in play(*events, begin=begin, network=network)]


def test_a_finding_is_about_whom_it_hurts_and_names_the_slasher_and_the_events_it_rests_on() -> None:
    attested = Attested(At(4, 2, 3), TASK.hash, ALICE, Hash32(bytes(32)), True)
    (found,) = play(attested, *closed(4, 5, 6, 7, 8), asks(9), shows(9), *closed(9))
    assert (found.condition, found.operator, found.task_hash) == ("wrongful_slashing", ALICE, TASK.hash)
    assert (found.task_number, found.task_input, found.block_number, found.level) == (1, "10", 9, "proved")
    assert found.id == named(TRUSTED, NAME, "signed", ALICE)
    sought = CONDITION.claims(found)
    assert (sought.reason, sought.notes) == (
        "signed",
        {
            **{"condition": MISSED_DUTY, "slasher": "0x" + TRUSTED.hex(), "request": "0x" + NAME.hex()},
            **{"veto_deadline": "block 12", "veto_time": "1970-01-01T00:19:04Z"},
            **{"execution_deadline": "block 15", "execution_time": "1970-01-01T00:19:40Z"},
        },
    )
    assert [(each.contract, each.place) for each in events_of(sought)] == [
        (contract, Where(number, Octets(block(number).hash), tx, log))
        for contract, number, tx, log in (("trusted_slasher", 9, 5, 5),)
    ]
    assert sought.fetch[1:] == (
        StateSought(
            "task_manager", (VariableSought("attestedDigest", (Octets(TASK.hash), Octets(padded(ALICE)))),)
        ),
    )
    assert not sought.whole


def test_who_signed_or_attested_did_not_miss_whatever_comes_first() -> None:
    late = Attested(At(8, 2, 3), TASK.hash, ALICE, Hash32(bytes(32)), True)
    responded = Responded(At(5, 0, 0), TASK.hash, Hash32(bytes(32)), (1,))
    for answer, at in ((late, 8), (responded, 5)):
        before = closed(*range(4, at))
        after = closed(*range(at, 9))
        assert reasons(*before, answer, *after, asks(9), *closed(9)) == ["signed"]
        # Before its grace was over it is wrong in any case.
        assert reasons(asks(4), *before, answer, *after) == ["no_duty", "signed"]
        assert reasons(*before, answer, asks(at), *closed(at)) == ["signed", "no_duty"]
        # Somebody else's answer, another Task, another claim.
        assert reasons(*before, answer, *after, asks(9, operator=BOB), *closed(9)) == []
        assert reasons(*before, answer, *after, asks(9, task_hash=OTHER.hash), *closed(9)) == []
        assert reasons(*before, answer, *after, asks(9, EQUIVOCATION), *closed(9)) == []


def test_who_is_in_no_place_of_the_tasks_set_owed_nothing_and_could_sign_nothing() -> None:
    for condition in (MISSED_DUTY, EQUIVOCATION, INVALID_RESPONSE):
        (found,) = play(*closed(*range(4, 9)), asks(9, condition, operator=STRANGER), *closed(9))
        sought = CONDITION.claims(found)
        committed = SetSought(Octets(MEMBERS.hash), 1)
        assert (sought.reason, len(sought.fetch), sought.sets) == ("no_duty", 1, (committed,))
        assert sought.whole == (NonMemberClaim(Octets(TASK.preimage), Octets(STRANGER)),)
    # Of a set that nobody has seen nobody knows the members.
    base = [e for e in BEGIN if not isinstance(e, OperatorSetCommitted)]
    assert reasons(*closed(*range(4, 9)), asks(9, operator=STRANGER), *closed(9), begin=base) == []


def test_nobody_has_missed_a_task_to_which_it_can_still_attest() -> None:
    for at, expected in ((7, ["no_duty"]), (8, ["no_duty"]), (9, [])):
        assert reasons(*closed(*range(4, at)), asks(at), *closed(at)) == expected
    assert reasons(*closed(*range(4, 8)), asks(8, EQUIVOCATION), *closed(8)) == []
    (found,) = play(*closed(*range(4, 8)), asks(8), *closed(8))
    assert [each.place.number for each in events_of(CONDITION.claims(found))] == [8, 3]


def test_nobody_misses_a_task_that_was_cancelled_or_was_open_in_a_pause() -> None:
    def found(*events: Event, condition: str = MISSED_DUTY) -> list[str]:
        return reasons(*closed(4), *events, *closed(6, 7, 8), asks(9, condition), *closed(9))

    cancelled = TaskCancelled(At(5, 0, 0), TASK.hash)
    assert found(cancelled, *closed(5)) == ["no_duty"]
    assert found(msgspec.structs.replace(cancelled, task_hash=OTHER.hash), *closed(5)) == []
    assert found(cancelled, *closed(5), condition=EQUIVOCATION) == []  # who signed two responses did
    for event in (Paused, Unpaused):
        for at, expected in ((2, []), (3, ["no_duty"]), (6, ["no_duty"]), (7, [])):
            life = [*BEGIN, *closed(*range(4, 9)), asks(9), *closed(9)]
            life.insert(life.index(BlockClosed(block(at))), event(At(at, 9, 9)))
            assert reasons(*life, begin=[]) == expected


NO_TASKS = Hash32(bytes(32)), MEMBERS.hash, Hash32(b"what a Network likes, 32 bytes..")


def test_who_attested_in_a_block_that_is_not_proved_did_so_by_a_providers_word() -> None:
    attested = Attested(At(4, 2, 3), TASK.hash, ALICE, Hash32(bytes(32)), True)
    again = msgspec.structs.replace(attested, at=At(5, 2, 3))
    linked, proved = (BlockClosed(block(4, level=level)) for level in (Level.LINKED, Level.PROVED))
    for first, level in ((linked, "linked"), (proved, "proved")):
        (found,) = play(attested, first, again, *closed(5, 6, 7, 8), asks(9), *closed(9))
        assert found.level == level
    # In a set that was committed before the log begins nobody has a place.
    base = [e for e in BEGIN if not isinstance(e, OperatorSetCommitted)]
    assert reasons(attested, *closed(*range(4, 9)), asks(9), *closed(9), begin=base) == []


def test_a_task_that_all_attest_takes_a_bit_for_each_of_them() -> None:
    """So that a hundred thousand Tasks of a thousand Operators take some MB, whoever answers them and how."""
    attests = [
        Attested(At(4, i, i), TASK.hash, each, Hash32(bytes(32)), True) for i, each in enumerate(SECRETS)
    ]
    state, _ = played(*BEGIN, *attests, *closed(4))
    known, other = unpack(state.tasks[TASK.hash]), unpack(state.tasks[OTHER.hash])
    assert (known.attested, known.linked) == (0b11, 0)
    without = msgspec.structs.replace(known, attested=0)
    assert msgspec.structs.replace(without, at=other.at, task=other.task) == other


def test_who_is_rightly_slashed_is_not_said_to_be_wronged() -> None:
    """All of it by the rules: the claim stands, is shown, waits for its veto and burns what it takes."""
    right = calldata(EQUIVOCATION, TASK, SECRETS, 0, [signed(ALICE, (2, 5)), signed(ALICE, (5, 2))])
    lives: list[list[Event]] = [
        [asks(9), shows(9), *closed(9, 10, 11, 12), executes(13), *closed(13)],
        [asks(9, EQUIVOCATION), shows(9, right), *closed(*range(9, 15)), executes(15), *closed(15)],
        [asks(9, EQUIVOCATION), shows(9), SlashingVetoed(At(9, 9, 9), TRUSTED, NAME), *closed(9)],
        [asks(9, BOND_BREACH, task_hash=None), asks(9, BOND_BREACH, b"x" * 32, None), *closed(9)],
        [asks(9, slasher=PROVED, proved=True), *closed(9), executes(13, slasher=PROVED), *closed(13)],
        [asks(9, slasher=PROVED, proved=True, operator=STRANGER), *closed(9)],
        *([asks(9, OWN, task_hash=of), asks(9, OWN, b"x" * 32, of), *closed(9)] for of in NO_TASKS),
        [asks(8 + WINDOW + 1, OWN), *closed(8 + WINDOW + 1)],
    ]
    for life in lives:
        assert reasons(*closed(*range(4, 9)), *life, *closed(20)) == []


def signed(operator: Address, answer: tuple[int, int], of: Any = TASK, secret: int = 0) -> Any:
    digest = keccak(encode_answer(*answer))
    return answer, signature(secret or SECRETS[operator], of.hash, digest)


RIGHT, WRONG = (2, 5), (5, 2)  # of n = 10
SHOWN = {
    "it is no proof of that condition": b"nonsense",
    "it is about another task": calldata(
        *(EQUIVOCATION, OTHER, SECRETS, 0), [signed(ALICE, RIGHT, OTHER), signed(ALICE, WRONG, OTHER)]
    ),
    "its members are not those that the task committed to": calldata(
        *(EQUIVOCATION, TASK, {ALICE: 1}, 0), [signed(ALICE, RIGHT), signed(ALICE, WRONG)]
    ),
    "it is about another operator": calldata(
        *(EQUIVOCATION, TASK, SECRETS, 1), [signed(BOB, RIGHT), signed(BOB, WRONG)]
    ),
    "its two responses are the same": calldata(EQUIVOCATION, TASK, SECRETS, 0, [signed(ALICE, RIGHT)] * 2),
    "a signature is not the operator's": calldata(
        *(EQUIVOCATION, TASK, SECRETS, 0), [signed(ALICE, RIGHT), signed(ALICE, WRONG, secret=2)]
    ),
}


@pytest.mark.parametrize("why", SHOWN)
def test_what_is_shown_and_proves_nothing_is_named(why: str) -> None:
    (found,) = play(*closed(*range(4, 9)), asks(9, EQUIVOCATION), shows(9, SHOWN[why]), *closed(9))
    sought = CONDITION.claims(found)
    assert (sought.reason, sought.notes["why"]) == ("not_proved", why)
    assert [each.place.log for each in events_of(sought)] == [5, 6]
    assert bool(sought.whole) == bool(sought.sets) == (why == "a signature is not the operator's")


def test_a_right_answer_is_no_wrong_response_and_a_wrong_one_is() -> None:
    def shown(answer: tuple[int, int], divisor: int = 0, secret: int = 1) -> list[str]:
        evidence = calldata(
            *(INVALID_RESPONSE, TASK, SECRETS, 0), [signed(ALICE, answer, secret=secret)], divisor
        )
        return reasons(*closed(*range(4, 9)), asks(9, INVALID_RESPONSE), shows(9, evidence), *closed(9))

    for answer, divisor in (((5, 2), 2), ((3, 3), 0), ((1, 10), 0), ((2, 4), 0)):
        assert shown(answer, divisor) == []
    for answer, divisor in (((2, 5), 0), ((5, 2), 0), ((5, 2), 5), ((5, 2), 1), ((2, 5), 2)):
        assert shown(answer, divisor) == ["not_proved"]
    assert shown((3, 3), secret=2) == ["not_proved"]


def test_what_there_is_nothing_to_check_with_accuses_nobody() -> None:
    assert reasons(*closed(*range(4, 9)), asks(9, EQUIVOCATION), shows(9, b""), *closed(9)) == []
    # Keys that the log does not show: those of a set from before it begins, or of a registration in a gap.
    forged = SHOWN["a signature is not the operator's"]
    life = [*closed(*range(4, 9)), asks(9, EQUIVOCATION), shows(9, forged), *closed(9)]
    assert reasons(*life, begin=BEGIN[3:]) == []
    assert reasons(*life, begin=BEGIN[1:]) == []
    # Or the twin of another key, told of a block without receipts: every true signature is false under it.
    lied = [msgspec.structs.replace(BEGIN[0], key_g2=public_keys(2)[1]), *BEGIN[1:]]
    true = calldata(EQUIVOCATION, TASK, SECRETS, 0, [signed(ALICE, RIGHT), signed(ALICE, WRONG)])
    life = [*closed(*range(4, 9)), asks(9, EQUIVOCATION), shows(9, true), *closed(9)]
    assert reasons(*life, begin=lied) == []
    with pytest.raises(UnknownContract):
        reasons(*life, network=msgspec.structs.replace(NETWORK, contracts={}))
    # A condition that this version has never heard of.
    other = "0x" + keccak(b"impolite").hex()
    assert reasons(*closed(*range(4, 9)), asks(9, other), shows(9, b"nonsense"), *closed(9)) == []


def test_a_task_that_no_block_of_this_chain_holds_is_unknown_however_it_is_called_elsewhere() -> None:
    asking = asks(4, EQUIVOCATION, task_hash=UNHEARD)
    (found,) = play(asking, *closed(4))
    assert reason_of(found) == "unknown_task"
    assert (found.task_hash, found.task_number, found.task_input) == (UNHEARD, 0, "")
    assert reasons(asks(4, MISSED_DUTY, task_hash=UNHEARD), *closed(4)) == ["unknown_task"]
    # Its own contract has checked that; and a Task of the same block is there when that is whole.
    assert reasons(msgspec.structs.replace(asking, proved=True), *closed(4)) == []
    third = task(At(4, 8, 8), MEMBERS.hash, 3, deadline=6, grace=2)
    assert reasons(asks(4, task_hash=third.hash), TaskSubmitted(third.submitted, third), *closed(4)) == []


def test_a_log_that_may_lack_a_task_calls_none_unknown() -> None:
    asking = asks(9, EQUIVOCATION, task_hash=UNHEARD)
    first, second = (e for e in BEGIN if isinstance(e, TaskSubmitted))
    base = [e for e in BEGIN if not isinstance(e, TaskSubmitted)]
    linked = BlockClosed(block(5, level=Level.LINKED))
    third = task(At(7, 0, 0), MEMBERS.hash, 3, deadline=9, grace=2)
    fourth = task(At(7, 0, 0), MEMBERS.hash, 4, deadline=9, grace=2)
    # It begins late, or before there is any Task.
    assert reasons(asking, *closed(9), begin=[*base, second, *closed(3)]) == []
    assert reasons(asking, *closed(9), begin=base) == []
    # Something was not proved since the newest Task, in whose place there may be another one.
    assert reasons(*closed(4), linked, *closed(6, 7, 8), asking, *closed(9)) == []
    assert reasons(*closed(4), GapPassed(5, 8), asking, *closed(9)) == []
    assert reasons(asking, BlockClosed(block(9, level=Level.LINKED))) == []
    assert reasons(asking, *closed(9), begin=[*base, first, BlockClosed(block(3, level=Level.LINKED))]) == []
    # The next one's number shows that there was none, or that there was.
    for next_, expected in ((third, ["unknown_task"]), (fourth, [])):
        events = [*closed(4), GapPassed(5, 6), TaskSubmitted(next_.submitted, next_), *closed(7, 8)]
        assert reasons(*events, asking, *closed(9)) == expected
    # Which is for good: a Task 0 begins nothing anew.
    zero, one = (task(At(7, n, 0), MEMBERS.hash, n, deadline=9, grace=3) for n in (0, 1))
    events = [TaskSubmitted(each.submitted, each) for each in (zero, one)]
    assert reasons(*closed(4), *events, *closed(7), asking, *closed(9)) == []


def test_a_request_in_the_last_block_of_the_window_is_in_time() -> None:
    last = TASK.deadline.value + TASK.grace + WINDOW
    assert reasons(*closed(8), asks(last, EQUIVOCATION), *closed(last)) == []
    late = asks(last + 1, EQUIVOCATION)
    (found,) = play(*closed(8), late, *closed(last + 1))
    sought = CONDITION.claims(found)
    assert (sought.reason, [each.place.number for each in events_of(sought)]) == (
        "window_passed",
        [last + 1, 3],
    )
    assert reasons(*closed(8), msgspec.structs.replace(late, proved=True), *closed(last + 1)) == []
    # Of a missed duty the window is that of the Task that ends last, of all that were submitted by then.
    last = TASK.submitted.block + TERMS["max_duration"] + WINDOW
    assert reasons(*closed(8), asks(last, MISSED_DUTY), *closed(last)) == []
    assert reasons(*closed(8), asks(last + 1, MISSED_DUTY), *closed(last + 1)) == ["window_passed"]
    short = msgspec.structs.replace(NETWORK, terms={"slashing_window": WINDOW})
    assert reasons(*closed(8), asks(last + 1, MISSED_DUTY), *closed(last + 1), network=short) == []
    unsaid = msgspec.structs.replace(NETWORK, terms={})
    assert reasons(*closed(8), late, *closed(last + 1), network=unsaid) == []


def test_of_two_requests_for_one_thing_the_second_is_too_many_and_never_the_proved_one() -> None:
    first, second = asks(4, EQUIVOCATION), asks(4, EQUIVOCATION, b"s" * 32)
    proof = asks(4, EQUIVOCATION, b"p" * 32, slasher=PROVED, proved=True)
    another_proof = asks(4, EQUIVOCATION, b"q" * 32, slasher=STRANGER, proved=True)

    def found(*asked: SlashingRequested) -> list[tuple[str, str]]:
        events = [msgspec.structs.replace(each, at=At(4, 5, 5 + i)) for i, each in enumerate(asked)]
        sought = [CONDITION.claims(each) for each in play(*events, *closed(4))]
        assert {each.reason for each in sought} <= {"twice"}
        return [(each.notes["request"][2:4], each.notes["other_request"][2:4]) for each in sought]

    one, two, proved = (bytes(each.request[:1]).hex() for each in (first, second, proof))
    assert found(first, second) == [(two, one)]
    assert found(second, first) == [(one, two)]
    assert found(proof, first, second) == [(one, proved), (two, proved)]
    assert found(first, proof) == [(one, proved)]
    assert found(first, second, proof) == [(two, one), (one, proved)]
    assert found(first, proof, second) == [(one, proved), (two, proved)]
    assert found(proof, another_proof) == []
    # The same name again is the same request; another Operator, Task or condition another thing.
    others = [{"operator": BOB}, {"task_hash": OTHER.hash}, {"condition": INVALID_RESPONSE}]
    assert found(first, first, *(msgspec.structs.replace(second, **each) for each in others[:1])) == []
    # For the breach of a bond it is the set that is in the place of a Task.
    of_bond = {"condition": BOND_BREACH, "task_hash": None}
    breach = msgspec.structs.replace(first, **of_bond, set_hash=MEMBERS.hash)
    again, elsewhere, proved_too = (
        msgspec.structs.replace(each, **of_bond, set_hash=set_hash)
        for each, set_hash in ((second, MEMBERS.hash), (second, UNHEARD), (proof, MEMBERS.hash))
    )
    assert found(breach, again) == [(two, one)]
    assert found(breach, proved_too) == [(one, proved)]
    assert found(proved_too, breach) == [(one, proved)]
    assert found(breach, elsewhere) == []
    for each in others:
        assert found(first, msgspec.structs.replace(second, **each)) == []


def test_a_miss_that_has_counted_is_no_other_requests_whatever_comes_first() -> None:
    claim, claimed = asks(9), [*closed(9)]
    count = MissCounted(At(10, 1, 1), PROVED, UNHEARD, TASK.hash, ALICE)
    before = msgspec.structs.replace(count, at=At(9, 1, 1))
    begun = closed(*range(4, 9))
    for events in ([*begun, claim, *claimed, count, *closed(10)], [*begun, before, claim, *claimed]):
        (found,) = [CONDITION.claims(each) for each in play(*events)]
        assert (found.reason, found.notes["other_request"]) == ("twice", "0x" + UNHEARD.hex())
        assert [each.contract for each in events_of(found)] == ["trusted_slasher", "slashing_manager"]
    for changes in ({"task_hash": OTHER.hash}, {"operator": BOB}, {"slasher": THIEF}):
        other = msgspec.structs.replace(before, **changes)
        assert play(*begun, other, claim, *claimed) == []
    for changes in ({"proved": True, "slasher": PROVED}, {"condition": INVALID_RESPONSE}):
        assert play(*begun, before, msgspec.structs.replace(claim, **changes), *claimed) == []


def test_an_execution_after_a_veto_or_outside_of_its_window_is_found() -> None:
    veto = SlashingVetoed(At(10, 1, 1), TRUSTED, NAME)
    begun = [*closed(*range(4, 9)), asks(9), *closed(9)]  # a veto until 12, an execution until 15
    for at, expected in ((12, ["early"]), (13, []), (15, []), (16, ["after_expiry"])):
        assert reasons(*begun, executes(at), *closed(at)) == expected
        with_veto = ["after_veto", *expected]
        assert reasons(*begun, veto, *closed(10), executes(at), *closed(at)) == with_veto
    (found,) = play(*begun, veto, *closed(10), executes(13), *closed(13))
    assert [each.place.number for each in events_of(CONDITION.claims(found))] == [9, 10, 13]
    # Another's veto of the same name, or one that comes later.
    elsewhere = msgspec.structs.replace(veto, slasher=PROVED)
    assert reasons(*begun, elsewhere, *closed(10), executes(13), *closed(13)) == []
    assert reasons(*begun, executes(13), SlashingVetoed(At(13, 9, 9), TRUSTED, NAME), *closed(13)) == []
    seconds = {"veto_deadline": Moment("timestamp", 1100), "execution_deadline": Moment("timestamp", 1200)}
    for time, expected in ((1100, ["early"]), (1101, []), (1200, []), (1201, ["after_expiry"])):
        at = BlockClosed(msgspec.structs.replace(block(10), time=time))
        assert reasons(*closed(8), asks(9, **seconds), *closed(9), executes(10), at) == expected


def test_an_execution_is_found_however_long_whoever_asked_waits_for_it() -> None:
    veto = SlashingVetoed(At(10, 1, 1), TRUSTED, NAME)
    asked = [*closed(*range(4, 9)), asks(9), shows(9), *closed(9)]
    for wait in (15 + KEPT - 1, 15 + KEPT, 15 + KEPT + 1, 50 * KEPT):
        passed = closed(*(at for at in (15 + KEPT, 40 * KEPT) if at < wait))
        late = [*passed, executes(wait, THIEF), *closed(wait)]
        assert reasons(*asked, *closed(10), *late) == ["after_expiry", "wrong_receiver"]
        found = play(*asked, veto, *closed(10), *late)
        assert [reason_of(each) for each in found] == ["after_veto", "after_expiry", "wrong_receiver"]
        assert [each.place.number for each in events_of(CONDITION.claims(found[0]))] == [9, 10, wait]
        # And whoever asks for the same once more asked twice.
        again = [*passed, asks(wait, name=b"s" * 32), *closed(wait)]
        assert "twice" in reasons(*asked, *closed(10), *again)


def test_a_receiver_who_is_not_the_burner_is_found_as_soon_as_it_is_named_and_once() -> None:
    begun = [*closed(*range(4, 9)), asks(9)]
    (found,) = play(
        *begun, shows(9, receiver=THIEF), *closed(9, 10, 11, 12), executes(13, THIEF), *closed(13)
    )
    sought = CONDITION.claims(found)
    assert (sought.reason, found.block_number) == ("wrong_receiver", 9)
    assert (sought.notes["receiver"], sought.notes["burner"]) == ("0x" + THIEF.hex(), "0x" + BURNER.hex())
    assert [each.contract for each in events_of(sought)] == [
        *("trusted_slasher", "network_registry", "trusted_slasher")
    ]
    (found,) = play(*begun, shows(9), *closed(9, 10, 11, 12), executes(13, THIEF), *closed(13))
    assert found.block_number == 13
    assert reasons(*begun, shows(9, receiver=None), *closed(9), executes(13, None), *closed(13)) == []
    unlisted = [event for event in BEGIN if event is not LISTED]
    life = [*begun, shows(9, receiver=THIEF), *closed(9), executes(13, THIEF), *closed(13)]
    assert reasons(*life, begin=unlisted) == []


def test_a_task_of_the_fork_that_went_away_is_unknown_on_the_one_that_stands() -> None:
    third = task(At(4, 0, 0), MEMBERS.hash, 3, deadline=6, grace=2)
    begun = [e.block for e in BEGIN if isinstance(e, BlockClosed)]
    chain = [begun[0], *(msgspec.structs.replace(b, parent=a.hash) for a, b in pairwise(begun))]
    events = [e for e in BEGIN if not isinstance(e, BlockClosed)]
    old, new = (msgspec.structs.replace(block(4, salt=salt), parent=chain[-1].hash) for salt in (1, 2))
    asking = asks(4, EQUIVOCATION, task_hash=third.hash)
    folded, _ = calculus.apply(FOLD, calculus.begin(FOLD, NETWORK), New(tuple(chain), {}), events)  # type: ignore[arg-type]
    folded, changes = calculus.apply(
        FOLD, folded, New((old,), {}), [TaskSubmitted(third.submitted, third), asking]
    )
    assert changes == ()
    folded, changes = calculus.apply(FOLD, folded, Undo((old,), {}))
    assert changes == ()
    folded, (change,) = calculus.apply(FOLD, folded, New((new,), {}), [asking])
    assert isinstance(change.after, Finding)
    assert reason_of(change.after) == "unknown_task"
    folded, (change,) = calculus.apply(FOLD, folded, Undo((new,), {}))
    assert isinstance(change.after, Finding)
    assert change.after.status == "retracted"


# --- what is kept -----------------------------------------------------------------------------------


def test_requests_and_tasks_leave_the_state_and_of_a_task_fifteen_bytes_stay() -> None:
    end, gone = 8 + WINDOW + LATE, 10 + KEPT
    count = MissCounted(At(8, 1, 1), PROVED, UNHEARD, TASK.hash, BOB)
    begun = [*BEGIN, asks(4), shows(4), *closed(4), count, executes(8), *closed(8)]
    state, _ = played(*begun, *closed(end - 1))
    assert (len(state.tasks), len(state.past), len(state.requests), len(state.counted)) == (2, 0, 1, 1)
    state, _ = played(*begun, *closed(end, gone - 1))
    assert (len(state.tasks), len(state.requests)) == (0, 1)
    for last in (closed(end, gone), [GapPassed(end, gone + 9)]):
        after, _ = played(*begun, *closed(end - 1), *last)
        assert (len(after.tasks), len(after.due), len(after.requests), len(after.open)) == (0, 0, 0, 0)
        assert (len(after.standing), len(after.missed), len(after.counted)) == (0, 0, 0)
        assert [each.holds for each in after.registry.sets.values()] == [0]
        assert sum(map(len, after.past.values())) == 2 * 15
        assert [past.find(after.past, each.hash) for each in (TASK, OTHER)] == [3, 3]
    # A Task that was is not one that never was, and its window has passed if anybody knows of one.
    unsaid = msgspec.structs.replace(NETWORK, terms={})
    for task_hash, expected in ((TASK.hash, ["window_passed"]), (UNHEARD, ["unknown_task"])):
        late = asks(3 * KEPT, EQUIVOCATION, task_hash=task_hash)
        assert reasons(*closed(4, end, 2 * KEPT), late, *closed(3 * KEPT)) == expected
        expected = [each for each in expected if each != "window_passed"]
        assert reasons(*closed(4, 9 + KEPT + LATE), late, *closed(3 * KEPT), network=unsaid) == expected


def test_what_can_still_be_executed_on_somebodys_word_stays_until_it_is() -> None:
    end, gone = 8 + WINDOW + LATE, 10 + KEPT
    for asked, stays in ((asks(4), 1), (asks(4, slasher=PROVED, proved=True), 0)):
        state, _ = played(*BEGIN, asked, *closed(4, gone))
        assert (len(state.requests), len(state.standing), len(state.missed)) == (stays,) * 3
    begun = [*BEGIN, asks(4), *closed(4, end, gone), executes(2 * KEPT), *closed(2 * KEPT)]
    state, _ = played(*begun, *closed(3 * KEPT - 1))
    assert len(state.requests) == 1
    for last in (closed(3 * KEPT), [GapPassed(2 * KEPT + 1, 4 * KEPT)]):
        state, _ = played(*begun, *last)
        assert (len(state.requests), len(state.standing), len(state.missed), len(state.due)) == (0,) * 4
    # What is executed before leaves as long after that, and not once for each time.
    twice = [executes(gone - 1), *closed(gone - 1, gone), executes(gone + 1), *closed(gone + 1)]
    state, _ = played(*BEGIN, asks(4), *closed(4, end), *twice)
    assert len(state.requests) == 1
    state, _ = played(*BEGIN, asks(4), *closed(4, end), *twice, *closed(gone - 1 + KEPT))
    assert (len(state.requests), len(state.due)) == (0, 0)


class NeverScanned(dict[int, tuple[bytes, ...]]):
    """What is due, which may only be asked for a block."""

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("a hundred thousand blocks were looked through")

    def delete(self, block: int) -> NeverScanned:
        return NeverScanned((key, self[key]) for key in self.keys() - {block})


def test_a_block_looks_at_what_leaves_with_it_and_at_nothing_else() -> None:
    end = 8 + WINDOW + LATE
    state, _ = played(*BEGIN, asks(4), *closed(4, end - 1))
    assert len(state.due) == 2
    due: Any = NeverScanned(state.due.items())
    after, _ = FOLD.step(msgspec.structs.replace(state, due=due), *closed(end))
    assert (len(after.tasks), len(after.requests), len(after.due)) == (0, 1, 1)


def test_there_is_no_block_in_which_nobody_knows_that_the_window_has_passed() -> None:
    """A Task is known by itself until its submission alone shows it, however long the longest may be."""
    end = 8 + WINDOW + LATE
    for longest in (12, 3 * LATE):
        terms = {"slashing_window": WINDOW, "max_duration": longest}
        net = msgspec.structs.replace(NETWORK, terms=terms)
        for last in (end - 1, end, 3 + longest + WINDOW - 1, 3 + longest + WINDOW):
            late = [*closed(4, last), asks(last + 1, EQUIVOCATION), *closed(last + 1)]
            expected = ["window_passed"] if last + 1 > 8 + WINDOW else []
            assert reasons(*late, network=net) == expected, (longest, last)


def test_no_task_that_is_over_is_taken_for_another() -> None:
    rng = random.Random("past")
    tasks = [Hash32(rng.randbytes(32)) for _ in range(9000)]
    tasks.append(Hash32(tasks[0][:2] + tasks[1][2:]))
    known: past.Past = Map()
    for each in tasks[:6000]:
        known = past.add(known, each, each[0] << 32)
    assert all(past.find(known, each) == each[0] << 32 for each in tasks[:6000])
    assert {past.find(known, each) for each in tasks[6000:]} == {None}
    assert sum(map(len, known.values())) == 90_000


def test_a_checkpoint_holds_all_that_is_found_later() -> None:
    veto = SlashingVetoed(At(5, 1, 1), TRUSTED, NAME)
    attested = Attested(At(5, 2, 3), OTHER.hash, ALICE, Hash32(bytes(32)), True)
    responded = Responded(At(5, 0, 0), TASK.hash, Hash32(bytes(32)), (1,))
    count = MissCounted(At(5, 3, 5), PROVED, UNHEARD, OTHER.hash, ALICE)
    state, _ = played(*BEGIN, asks(4), *closed(4), veto, attested, responded, count, *closed(5))
    stored = checkpoint.encode(Step(0, None, state, Map(), -1, None))
    read = checkpoint.decode(stored, FOLD).state
    assert read == state
    for event in (executes(12, THIEF), asks(12, MISSED_DUTY, b"n" * 32, OTHER.hash), *closed(12)):
        (state, changes), (read, again) = FOLD.step(state, event), FOLD.step(read, event)
        assert again == changes
    assert len(changes) == 5

"""The life of slashings against what the whole list of events says of each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from nektar import fold as calculus
from nektar.model import (
    Address,
    At,
    BlockClosed,
    Event,
    GapPassed,
    Hash32,
    Level,
    Moment,
    Position,
    SlashingExecuted,
    SlashingRequested,
    SlashingTrusted,
    SlashingVetoed,
    VetoVoted,
)
from nektar.rows import SlashingRow, SlashingState
from processors.folds.slashings import KEPT, Docket, Slashings
from processors.pace import PACE
from tests.devnet.contracts.conftest import on_anvil
from tests.devnet.contracts.test_slashing import proof, prove
from tests.devnet.contracts.test_trusted import THIEF as RECEIVER
from tests.devnet.contracts.test_trusted import UNKNOWN, ask, executed, vetoed
from tests.processors.real_chain import ADAPTER, log, network
from tests.processors.slashed import BURNER, PROVED, THIEF, TRUSTED, VAULT, slashed
from tests.processors.world import NETWORK, OPERATORS, STRANGER, Rows, block, put
from tests.seeds import seeds

FOLD = Slashings()
SEEDS = seeds(200, 600)
ZERO = bytes(20)


# --- the oracle -------------------------------------------------------------------------------------


def oracle(events: Sequence[Event]) -> Rows:
    """Every row from all that happened, event by event and request by request; nothing is ever forgotten."""
    made: dict[tuple[bytes, bytes], int] = {}
    for i, event in enumerate(events):
        if isinstance(event, SlashingRequested):
            made.setdefault((event.slasher, event.request), i)
    rows: Rows = {}
    for (slasher, request), i in made.items():
        rows["slashings", slasher, request] = life(events, i)
    return rows


def life(events: Sequence[Event], i: int) -> SlashingRow:
    asked = events[i]
    assert isinstance(asked, SlashingRequested)
    until, veto = asked.execution_deadline, asked.veto_deadline
    told: dict[str, Any] = {"state": SlashingState.REQUESTED, "decided_block": asked.at.block, "taken": 0}
    told |= {"authority": ZERO, "receiver": ZERO, "votes": 0, "votes_needed": 0}
    for j, event in enumerate(events[i + 1 :], i + 1):
        named = (getattr(event, "slasher", None), getattr(event, "request", None))
        mine, state, now = named == (asked.slasher, asked.request), told["state"], None
        match event:
            case SlashingTrusted() if mine:
                told |= {"authority": event.authority, "receiver": event.receiver or ZERO}
            case VetoVoted() if mine:
                told |= {"votes": event.votes, "votes_needed": event.needed}
            case SlashingVetoed() if mine and state not in ("executed", "vetoed"):
                now = SlashingState.VETOED, event.at.block
            case SlashingExecuted() if is_of(events, j, i) and state != "executed":
                now = SlashingState.EXECUTED, event.at.block
                told["taken"] = sum(each.amount for each in event.penalty)
                told["receiver"] = event.receiver or told["receiver"]
            case SlashingExecuted() if state == "requested" and voids(events, j, asked):
                now = SlashingState.VOID, event.at.block
            case BlockClosed(block=closed) if state == "requested" and until:
                if (until.unit == "block" and until.value <= closed.number) or (
                    until.unit == "timestamp" and until.value < closed.time
                ):
                    now = ended(events[: j + 1], asked.at.block), closed.number
            case GapPassed() if state == "requested" and until and until.unit == "block":
                if until.value <= event.last:
                    now = ended(events[: j + 1], asked.at.block), max(until.value, asked.at.block)
        if now:
            told["state"], told["decided_block"] = now
    times = [about(events, asked.at.block, moment) for moment in (veto, until)]
    return SlashingRow(
        slasher=asked.slasher,
        request=asked.request,
        operator=asked.operator,
        condition=asked.condition,
        task_hash=asked.task_hash or bytes(32),
        proved=asked.proved,
        unit="wei",
        asked=sum(each.amount for each in asked.penalty),
        deadline_unit=veto.unit,
        veto_deadline=veto.value,
        veto_time=times[0],
        execution_deadline=until.value if until else 0,
        execution_time=times[1],
        captured=asked.captured.value if asked.captured else 0,
        requested_block=asked.at.block,
        **told,
    )


def is_of(events: Sequence[Event], j: int, i: int) -> bool:
    """Whether the execution at `j` is of the request at `i`."""
    executed, asked = events[j], events[i]
    assert isinstance(executed, SlashingExecuted)
    assert isinstance(asked, SlashingRequested)
    if executed.request is not None:
        return (executed.slasher, executed.request) == (asked.slasher, asked.request)
    names = set[object]()
    before = []
    for k, event in enumerate(events[:j]):
        if isinstance(event, SlashingRequested) and (event.slasher, event.request) not in names:
            names.add((event.slasher, event.request))
            if executed.set and (event.operator, event.set) == (executed.operator, executed.set):
                before.append(k)
    return before[-1:] == [i]


def voids(events: Sequence[Event], j: int, asked: SlashingRequested) -> bool:
    executed = events[j]
    assert isinstance(executed, SlashingExecuted)
    captured, operator = executed.captured, executed.operator
    for i, event in enumerate(events[:j]):
        if (
            isinstance(event, SlashingRequested)
            and is_of(events, j, i)
            and first(events, i)
            and life(events[:j], i).state != "executed"
        ):
            captured, operator = captured or event.captured, event.operator
    return bool(
        captured
        and asked.captured
        and (executed.slasher, operator) == (asked.slasher, asked.operator)
        and captured.unit == asked.captured.unit
        and asked.captured.value < captured.value
    )


def first(events: Sequence[Event], i: int) -> bool:
    """Whether no request of this name was made before."""
    asked = events[i]
    assert isinstance(asked, SlashingRequested)
    return not any(
        isinstance(event, SlashingRequested)
        and (event.slasher, event.request) == (asked.slasher, asked.request)
        for event in events[:i]
    )


def ended(events: Sequence[Event], since: int) -> SlashingState:
    doubtful = [e.last for e in events if isinstance(e, GapPassed)]
    closed = [e.block for e in events if isinstance(e, BlockClosed)]
    doubtful += [each.number for each in closed if each.level is not Level.PROVED]
    return SlashingState.UNKNOWN if max(doubtful, default=-1) >= since else SlashingState.EXPIRED


def about(events: Sequence[Event], number: int, moment: Moment | None) -> int:
    closed = [e.block for e in events if isinstance(e, BlockClosed)]
    until = [each for each in closed if each.number <= number][-PACE:]
    if moment is None or not until or until[-1].number != number:
        return 0
    if moment.unit == "timestamp":
        return moment.value
    if len(until) == 1:
        return 0
    began, now = until[0], until[-1]
    return now.time + (moment.value - number) * (now.time - began.time) // (number - began.number)


@pytest.mark.parametrize("part", range(4))
def test_every_row_is_what_all_that_happened_says_after_every_block(part: int) -> None:
    met = set[tuple[str, bool]]()
    for seed in range(part, SEEDS, 4):
        events = slashed(random.Random(f"slashings {seed}"), 24)
        state, rows = FOLD.initial(NETWORK), Rows()
        for i, event in enumerate(events):
            state, changes = FOLD.step(state, event)
            put(rows, changes)
            if isinstance(event, BlockClosed | GapPassed) and (changes or i == len(events) - 1):
                assert rows == oracle(events[: i + 1]), f"seed {seed}, after {event}"
        met |= {(r.state, r.slasher == VAULT) for r in rows.values() if isinstance(r, SlashingRow)}
    times = {(state, True) for state in SlashingState}
    assert met == times | {(state, False) for state in SlashingState if state != "void"}


# --- by example -------------------------------------------------------------------------------------

ALICE, BOB = OPERATORS[:2]
NAME = Hash32(b"r" * 32)


def request(at: int = 5, name: bytes = NAME, **changed: Any) -> SlashingRequested:
    made = SlashingRequested(
        *(At(at, 0, 0), TRUSTED, Hash32(name), ALICE, (Position("it", 7),)),
        *(Moment("block", 8), "0x01", Hash32(b"t" * 32)),
        execution_deadline=Moment("block", 12),
    )
    return msgspec.structs.replace(made, **changed)


def captured(name: bytes, when: int, operator: Address = ALICE) -> SlashingRequested:
    times = {"veto_deadline": Moment("timestamp", 2000), "execution_deadline": Moment("timestamp", 3000)}
    stake = Moment("timestamp", when)
    return request(name=name * 32, slasher=VAULT, operator=operator, captured=stake, **times)


def execution(at: int, name: bytes = NAME, slasher: Address = TRUSTED) -> SlashingExecuted:
    return SlashingExecuted(At(at, 9, 0), slasher, Hash32(name), None, (Position("it", 6),), receiver=THIEF)


def closed(*numbers: int) -> list[Event]:
    return [BlockClosed(block(number)) for number in numbers]


def play(*events: Event) -> tuple[Docket, list[SlashingRow]]:
    state, rows = FOLD.initial(NETWORK), Rows()
    for event in events:
        state, changes = FOLD.step(state, event)
        put(rows, changes)
    return state, [row for row in rows.values() if isinstance(row, SlashingRow)]


def test_a_request_says_until_when_people_can_act_and_about_when_that_is() -> None:
    events = [*closed(1, 2, 3, 4), request(), *closed(5)]
    _, (row,) = play(*events)
    assert (row.state, row.asked, row.unit, row.proved) == ("requested", 7, "wei", False)
    assert (row.veto_deadline, row.execution_deadline, row.requested_block) == (8, 12, 5)
    # block(n) is at 1000 + 12 n.
    assert (row.veto_time, row.execution_time) == (1000 + 12 * 8, 1000 + 12 * 12)
    _, (row,) = play(*closed(4), captured(b"a", 900), *closed(5))
    assert (row.deadline_unit, row.veto_time, row.execution_time) == ("timestamp", 2000, 3000)
    _, (row,) = play(*closed(4), request(veto_deadline=Moment("epoch", 3)), *closed(5))
    assert (row.deadline_unit, row.veto_time) == ("epoch", 0)


@pytest.mark.parametrize("last", [2**60, 2**64 - 1])
def test_a_deadline_in_ages_is_at_no_time_that_a_column_holds(last: int) -> None:
    far = request(execution_deadline=Moment("block", last), veto_deadline=Moment("timestamp", last))
    _, (row,) = play(*closed(3, 4), far, *closed(5))
    assert (row.execution_deadline, row.execution_time, row.veto_time) == (last, 0, 0)


def test_an_amount_is_one_that_a_column_holds() -> None:
    _, (row,) = play(request(penalty=(Position("it", 2**256 - 1, "wad"), Position("that", 1, "wad"))))
    assert (row.asked, row.unit) == (2**256 - 1, "wad")


def test_votes_and_whose_word_it_is_show_with_the_request() -> None:
    more = SlashingTrusted(At(5, 0, 1), TRUSTED, NAME, STRANGER, THIEF)
    votes = [VetoVoted(At(5, i, 0), TRUSTED, NAME, OPERATORS[i], i, 2) for i in (1, 2)]
    other = VetoVoted(At(5, 3, 0), PROVED, NAME, BOB, 1, 2)  # for another's request of the same name
    veto = SlashingVetoed(At(5, 2, 1), TRUSTED, NAME)
    _, (row,) = play(votes[0], request(), more, *closed(5))
    assert (row.authority, row.receiver, row.votes, row.votes_needed) == (STRANGER, THIEF, 0, 0)
    _, (row,) = play(votes[0], request(), more, votes[1], veto, other, *closed(5))
    assert (row.votes, row.votes_needed, row.state, row.decided_block) == (2, 2, "vetoed", 5)


def test_what_was_taken_and_where_it_went_is_the_executions() -> None:
    more = SlashingTrusted(At(5, 0, 1), TRUSTED, NAME, STRANGER, BURNER)
    _, (row,) = play(request(), more, *closed(5, 6, 7, 8), execution(9), *closed(9))
    assert (row.state, row.taken, row.receiver, row.decided_block) == ("executed", 6, THIEF, 9)


def test_it_has_expired_once_its_last_block_is_closed_and_not_before() -> None:
    _, (row,) = play(request(), *closed(*range(5, 12)))
    assert (row.state, row.decided_block) == ("requested", 5)
    _, (row,) = play(request(), *closed(*range(5, 13)))
    assert (row.state, row.decided_block) == ("expired", 12)
    _, (row,) = play(request(), *closed(*range(5, 12)), execution(12), *closed(12))
    assert row.state == "executed"
    later = block(200)  # at 3400
    _, (row,) = play(captured(b"a", 900), *closed(5), BlockClosed(later))
    assert (row.state, row.decided_block) == ("expired", 200)
    at_the_last = msgspec.structs.replace(later, time=3000)
    _, (row,) = play(captured(b"a", 900), *closed(5), BlockClosed(at_the_last))
    assert row.state == "requested"


def test_nothing_is_said_to_have_expired_over_blocks_that_nobody_could_prove() -> None:
    linked = BlockClosed(block(7, level=Level.LINKED))
    _, (row,) = play(request(), *closed(5, 6), linked, *closed(*range(8, 13)))
    assert (row.state, row.decided_block) == ("unknown", 12)
    _, (row,) = play(request(), *closed(5), GapPassed(6, 300_000))
    assert (row.state, row.decided_block) == ("unknown", 12)
    early = BlockClosed(block(4, level=Level.LINKED))
    _, (row,) = play(early, request(), *closed(*range(5, 13)))
    assert row.state == "expired"


def test_an_execution_against_all_rules_shows_all_the_same() -> None:
    veto = SlashingVetoed(At(6, 0, 0), TRUSTED, NAME)
    _, (row,) = play(request(), *closed(5), veto, *closed(6, 7, 8), execution(9), *closed(9))
    assert (row.state, row.decided_block) == ("executed", 9)
    _, (row,) = play(request(), *closed(*range(5, 20)), execution(20), *closed(20))
    assert (row.state, row.decided_block) == ("executed", 20)


def test_an_execution_voids_what_was_captured_before_and_nothing_else() -> None:
    requests = [captured(b"a", 900), captured(b"b", 950), captured(b"c", 950), captured(b"d", 900, BOB)]
    _, rows = play(*requests, *closed(5), execution(6, b"b" * 32, VAULT), *closed(6))
    assert [row.state for row in rows] == ["void", "executed", "requested", "requested"]
    assert [row.captured for row in rows] == [900, 950, 950, 900]
    # Where nobody asked first, too.
    at = Moment("timestamp", 960)
    slash = SlashingExecuted(At(6, 0, 0), VAULT, None, ALICE, (Position("it", 6),), captured=at)
    _, rows = play(*requests, *closed(5), slash, *closed(6))
    assert [row.state for row in rows] == ["void", "void", "void", "requested"]


def test_an_execution_without_a_name_is_of_the_newest_request_in_its_set() -> None:
    ours, others = Hash32(b"o" * 32), Hash32(b"x" * 32)
    requests = [
        *(request(name=b"a" * 32, set=ours), request(name=b"b" * 32, set=ours, at=6)),
        *(request(name=b"c" * 32, set=others, at=7), request(name=b"d" * 32, set=ours, operator=BOB, at=7)),
    ]
    slash = SlashingExecuted(At(8, 0, 0), STRANGER, None, ALICE, (Position("it", 6),), set=ours)
    _, rows = play(*requests, slash, slash)
    assert [row.state for row in rows] == ["requested", "executed", "requested", "requested"]


def test_a_request_leaves_the_state_and_nothing_of_it_stays() -> None:
    by_proof = request(proved=True)
    ends: dict[int, list[Event]] = {
        12 + KEPT: [by_proof, *closed(12)],
        7 + KEPT: [by_proof, *closed(5), SlashingVetoed(At(7, 0, 0), TRUSTED, NAME), *closed(7)],
        9 + KEPT: [
            *(request(), *closed(5), SlashingVetoed(At(7, 0, 0), TRUSTED, NAME), *closed(7)),
            *(execution(9), *closed(9)),
        ],
    }
    for end, begun in ends.items():
        state, _ = play(*begun, *closed(12, end - 1))
        assert len(state.requests) == 1
        for last in (closed(end), [GapPassed(end, end + 9)]):
            state, _ = play(*begun, *closed(12, end - 1), *last)
            assert (len(state.requests), len(state.due), len(state.timed)) == (0, 0, 0)
    state, _ = play(by_proof, *closed(5), GapPassed(6, 3 * KEPT))
    assert (len(state.requests), len(state.due)) == (0, 0)
    # Without a last block of execution, or with a last second.
    state, _ = play(request(proved=True, execution_deadline=None), *closed(5, 5 + KEPT))
    assert (len(state.requests), len(state.due)) == (0, 0)
    quick = [BlockClosed(msgspec.structs.replace(block(n), time=1100)) for n in (5, 5 + KEPT)]
    shown = msgspec.structs.replace(captured(b"a", 900), proved=True)
    state, _ = play(shown, *quick)
    assert (len(state.requests), len(state.timed)) == (1, 1)
    state, _ = play(shown, *quick, *closed(6 + KEPT, 6 + 2 * KEPT))
    assert (len(state.requests), len(state.due), len(state.timed)) == (0, 0, 0)


def test_a_request_on_somebodys_word_stays_until_it_is_executed_however_long_that_takes() -> None:
    veto = SlashingVetoed(At(7, 0, 0), TRUSTED, NAME)
    for before, state_ in (([veto, *closed(7)], "vetoed"), ([], "expired")):
        begun = [request(), *closed(5), *before, *closed(12, 7 + KEPT, 12 + KEPT)]
        state, (row,) = play(*begun)
        assert (len(state.requests), len(state.due), row.state) == (1, 0, state_)
        begun += [execution(4 * KEPT), *closed(4 * KEPT)]
        state, (row,) = play(*begun)
        assert (len(state.requests), row.state, row.decided_block) == (1, "executed", 4 * KEPT)
        state, _ = play(*begun, *closed(5 * KEPT))
        assert (len(state.requests), len(state.due)) == (0, 0)


# --- a real chain -----------------------------------------------------------------------------------

site = pytest.fixture(scope="module", name="site")(on_anvil)


@pytest.mark.real
def test_the_contracts_own_events_lead_to_the_rows(site: Any) -> None:
    task = site.submit(window=20)
    proved = site.do(*prove(site, *proof(site, task)))["SlashingRequested"]
    site.mine_to(proved["vetoDeadline"])
    site.do(site.stranger, "slashing_manager", "execute", proved["requestId"])
    against = ask(site, UNKNOWN, receiver=RECEIVER)["SlashingRequested"]
    vetoed(site, against["requestId"])
    executed(site, against["requestId"], site.authority, "executeRegardless")
    late = ask(site, UNKNOWN)["SlashingRequested"]
    site.mine_to(late["executionDeadline"])

    record, rows = log(site), Rows()
    events = ADAPTER.events(network(site), record.tables)
    _, changes = calculus.apply(FOLD, calculus.begin(FOLD, network(site)), record, events)
    put(rows, changes)
    told = {row.request: row for row in rows.values() if isinstance(row, SlashingRow)}
    first, second, third = (told[each["requestId"]] for each in (proved, against, late))
    burner = bytes.fromhex(site.contracts["burner"][2:])
    assert (first.state, first.proved, first.taken, first.receiver) == ("executed", True, first.asked, burner)
    assert (first.execution_deadline, first.task_hash) == (proved["executionDeadline"], task.hash)
    assert (second.state, second.proved, second.votes, second.votes_needed) == ("executed", False, 2, 2)
    assert ("0x" + second.receiver.hex(), "0x" + second.authority.hex()) == (
        *(RECEIVER, site.authority.address),
    )
    assert (third.state, third.decided_block) == ("expired", late["executionDeadline"])

"""The life of every request to slash, as the chain tells it.

| state | chain facts |
|---|---|
| requested | it can still be executed, or nothing says until when |
| vetoed    | it was overruled |
| executed  | collateral was taken for it |
| void      | another one against this Operator was executed by this slasher, for stake captured later |
| expired   | its last block (or second) of execution has passed, all blocks since the request proved |
| unknown   | it has passed, and some are not: it may have been vetoed or executed there |

An execution counts whenever it comes, also where no contract should have let it, and a veto unless it was
executed; of the rest what comes first. Of several requests against one Operator for stake captured at
different times, the one captured first is to be executed first, since each execution voids those before it.

About when a deadline in blocks is follows from the mean time of the last `PACE` blocks up to the request's
own; where its unit is a timestamp it is exact, and of an epoch nothing is known. It is said once, with the
request.

Votes are as the committee counts them; those for a request that is not there yet are told with the next one.
An execution that names no request is of the newest one against that Operator in that set, where the log says
the set; else nobody asked first, and it has no row.

A request leaves the state `KEPT` blocks after the newest fact that its state comes from, so that one which a
careless contract executes late is still seen; but not before its last block (or second) of execution, where
it has one. One on somebody's word stays until it is executed, however long that takes: its contract may have
no deadline, and whoever asked chooses when. Each costs its author a transaction. Work per block is for
requests of which something ends with it, and for those pending whose deadline is a timestamp.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from immutables import Map

from nektar.model import (
    Address,
    At,
    Block,
    BlockClosed,
    Event,
    GapPassed,
    Hash32,
    Level,
    Moment,
    Network,
    Position,
    SlashingExecuted,
    SlashingRequested,
    SlashingTrusted,
    SlashingVetoed,
    VetoVoted,
)
from nektar.rows import Change, SlashingRow, SlashingState
from processors.pace import Pace, about, after

KEPT = 100_000
_NOBODY = Address(bytes(20))
_NO_TASK = Hash32(bytes(32))
_MOST = 2**256 - 1  # that a column of amounts holds


class Asked(msgspec.Struct, frozen=True):
    """A request, and what its row does not hold."""

    row: SlashingRow
    at: At
    set: Hash32 | None
    captured: Moment | None
    until: Moment | None  # last moment of execution

    @property
    def can_be_executed(self) -> bool:
        """Whether nothing but its author's word stands against its execution, at any time."""
        return not self.row.proved and self.row.state != SlashingState.EXECUTED

    @property
    def last_block(self) -> int | None:
        """Of its execution, where that is counted in blocks."""
        return self.until.value if self.until and self.until.unit == "block" else None


class Docket(msgspec.Struct, frozen=True):
    """The fold's state. A request's key is its slasher's address and its name there."""

    requests: Map[bytes, Asked] = Map()
    due: Map[int, Map[bytes, None]] = Map()  # block → requests of which something may end with it
    timed: Map[bytes, None] = Map()  # that can be executed until some second
    new: tuple[bytes, ...] = ()  # in the block that is not closed yet
    pace: Pace = ()
    doubtful: int = -1  # newest block that is not proved


class Slashings:
    """The fold `slashings`: puts out SlashingRow."""

    name = "slashings"
    state_type = Docket

    def initial(self, network: Network) -> Docket:
        """No requests."""
        return Docket()

    def step(self, state: Docket, event: Event) -> tuple[Docket, list[Change]]:
        """What an event says shows at once; what ends with a block, and about when deadlines are, with it."""
        match event:
            case SlashingRequested():
                return _requested(state, event)
            case SlashingTrusted():
                trusted = {"authority": event.authority, "receiver": event.receiver or _NOBODY}
                return _said(state, event.slasher + event.request, **trusted)
            case VetoVoted():
                votes = {"votes": event.votes, "votes_needed": event.needed}
                return _said(state, event.slasher + event.request, **votes)
            case SlashingVetoed():
                return _vetoed(state, event)
            case SlashingExecuted():
                return _executed(state, event)
            case BlockClosed(block=block):
                return _closed(state, block)
            case GapPassed():
                state = msgspec.structs.replace(state, doubtful=event.last)
                return _pass(state, event.last)
        return state, []


# --- what events change -----------------------------------------------------------------------------


def _requested(state: Docket, event: SlashingRequested) -> tuple[Docket, list[Change]]:
    key = event.slasher + event.request
    if key in state.requests:
        return state, []
    until, block = event.execution_deadline, event.at.block
    row = SlashingRow(
        slasher=event.slasher,
        request=event.request,
        operator=event.operator,
        condition=event.condition,
        task_hash=event.task_hash or _NO_TASK,
        proved=event.proved,
        authority=_NOBODY,
        unit=_unit(event.penalty),
        asked=_amount(event.penalty),
        taken=0,
        receiver=_NOBODY,
        state=SlashingState.REQUESTED,
        votes=0,
        votes_needed=0,
        deadline_unit=event.veto_deadline.unit,
        veto_deadline=event.veto_deadline.value,
        veto_time=0,
        execution_deadline=until.value if until else 0,
        execution_time=0,
        captured=event.captured.value if event.captured else 0,
        requested_block=block,
        decided_block=block,
    )
    asked = Asked(row, event.at, event.set, event.captured, until)
    last = asked.last_block
    state = msgspec.structs.replace(
        state,
        requests=state.requests.set(key, asked),
        due=_file(state.due, block + KEPT if last is None else max(last, block), key),
        timed=state.timed.set(key, None) if until and until.unit == "timestamp" else state.timed,
        new=(*state.new, key),
    )
    return state, [Change(None, row)]


def _vetoed(state: Docket, event: SlashingVetoed) -> tuple[Docket, list[Change]]:
    key = event.slasher + event.request
    asked = state.requests.get(key)
    if asked is None or asked.row.state in (SlashingState.EXECUTED, SlashingState.VETOED):
        return state, []
    return _decided(state, key, SlashingState.VETOED, event.at.block)


def _executed(state: Docket, event: SlashingExecuted) -> tuple[Docket, list[Change]]:
    key, changes = _request_of(state, event), list[Change]()
    asked = state.requests.get(key) if key else None
    captured, operator = event.captured, bytes(event.operator or b"")
    if key and asked and asked.row.state != SlashingState.EXECUTED:
        captured, operator = captured or asked.captured, asked.row.operator
        paid = {"taken": _amount(event.penalty), "receiver": event.receiver or asked.row.receiver}
        state, changes = _decided(state, key, SlashingState.EXECUTED, event.at.block, **paid)
    if captured:
        for other in sorted(_voided_by(state, event.slasher, operator, captured)):
            state, moved = _decided(state, other, SlashingState.VOID, event.at.block)
            changes += moved
    return state, changes


def _request_of(state: Docket, event: SlashingExecuted) -> bytes | None:
    """The key of the request that was executed: the one that is named, else the newest against this Operator
    in this set, whichever contract was asked."""
    if event.request is not None:
        return event.slasher + event.request
    of = [
        (asked.at, key)
        for key, asked in state.requests.items()
        if event.set is not None and (asked.row.operator, asked.set) == (event.operator, event.set)
    ]
    return max(of)[1] if of else None


def _voided_by(state: Docket, slasher: Address, operator: bytes, captured: Moment) -> Iterable[bytes]:
    for key, asked in state.requests.items():
        row, of = asked.row, asked.captured
        if (row.state, row.slasher, row.operator) != (SlashingState.REQUESTED, slasher, operator):
            continue
        if of is not None and of.unit == captured.unit and of.value < captured.value:
            yield key


def _closed(state: Docket, block: Block) -> tuple[Docket, list[Change]]:
    """A block is whole: when the deadlines of its requests are about, and what ended with it."""
    pace, changes = after(state.pace, block), list[Change]()
    doubtful = state.doubtful if block.level is Level.PROVED else block.number
    new, state = state.new, msgspec.structs.replace(state, pace=pace, doubtful=doubtful, new=())
    for key in new:
        asked = state.requests[key]
        veto = about(pace, Moment(asked.row.deadline_unit, asked.row.veto_deadline))  # type: ignore[arg-type]
        state, moved = _said(state, key, veto_time=veto, execution_time=about(pace, asked.until))
        changes += moved
    for key in sorted(state.timed):
        until = state.requests[key].until
        if until and until.value < block.time:
            state, moved = _expired(state, key, block.number)
            changes += moved
    if block.number in state.due:
        state, moved = _pass(state, block.number)
        changes += moved
    return state, changes


def _pass(state: Docket, last: int) -> tuple[Docket, list[Change]]:
    """Blocks up to `last` have passed: what ended with them."""
    changes: list[Change] = []
    while due := sorted(each for each in state.due if each <= last):
        block = due[0]
        for key in sorted(state.due[block]):
            if (asked := state.requests.get(key)) is None:
                continue
            if asked.row.state == SlashingState.REQUESTED and asked.last_block is not None:
                state, moved = _expired(state, key, block)
                changes += moved
            elif (
                key not in state.timed
                and asked.row.decided_block + KEPT <= last
                and not asked.can_be_executed
            ):
                state = msgspec.structs.replace(state, requests=state.requests.delete(key))
        state = msgspec.structs.replace(state, due=state.due.delete(block))
    return state, changes


def _expired(state: Docket, key: bytes, block: int) -> tuple[Docket, list[Change]]:
    known = state.doubtful < state.requests[key].row.requested_block
    return _decided(state, key, SlashingState.EXPIRED if known else SlashingState.UNKNOWN, block)


# --- how they change it -----------------------------------------------------------------------------


def _decided(
    state: Docket, key: bytes, now: SlashingState, block: int, **more: object
) -> tuple[Docket, list[Change]]:
    """The request is in this state since this block."""
    state = msgspec.structs.replace(
        state,
        due=_file(state.due, block + KEPT, key),
        timed=state.timed.delete(key) if key in state.timed else state.timed,
    )
    return _said(state, key, state=now, decided_block=block, **more)


def _said(docket: Docket, key: bytes, **told: object) -> tuple[Docket, list[Change]]:
    """This is told of a request, if there is one of this key."""
    if (asked := docket.requests.get(key)) is None:
        return docket, []
    row = msgspec.structs.replace(asked.row, **told)
    if row == asked.row:
        return docket, []
    requests = docket.requests.set(key, msgspec.structs.replace(asked, row=row))
    return msgspec.structs.replace(docket, requests=requests), [Change(asked.row, row)]


def _file(due: Map[int, Map[bytes, None]], block: int, key: bytes) -> Map[int, Map[bytes, None]]:
    return due.set(block, due.get(block, Map()).set(key, None))


def _amount(penalty: tuple[Position, ...]) -> int:
    return min(sum(position.amount for position in penalty), _MOST)


def _unit(penalty: tuple[Position, ...]) -> str:
    return penalty[0].unit if penalty else "wei"

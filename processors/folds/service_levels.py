"""Service levels: how each Operator's Duties went lately, and how many more it can miss.

A Duty is *eligible* once it is signed, late or missed, by the block that decided it and the stake that its
Task's set gives the Operator; what is pending, excused or unknown is not. One that was counted and is excused
later is taken back from wherever it was counted. *Failed* is what was late or missed. The windows are those
of `windows.py`, in the chain's own time: that of the newest block, never less than that of one before it.

From these sums follow the share of stake that was on time, how much of the error budget is left and how fast
it burns, for each Operator and, added up, for the Network. That takes an objective, which says what somebody
wishes and not what happened: so it is no part of the log, and whoever reads the rows applies it
(`nektar/store/service.py`). To change it folds nothing again.

How many misses are left before `missed_duty` is met is said by what that condition itself rests on
(`misses.py`). About when it is met follows from the misses of the last 6 hours, or since the log began: that
many more at that pace, if at that pace one more than is allowed would be of Tasks submitted in one window.
It is as of the row's own `time`, when anything in it changed last.

A row comes with the first Duty that counts and goes when nothing is left in any window, and no miss. Work per
block is for the Operators whose Duties are decided in it and for those of whom something leaves a window,
which is looked at each minute of the chain's time; the state is a row and some 70 cells for each Operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import add
from typing import Any

import msgspec
from immutables import Map

from nektar.model import Address, BlockClosed, Event, GapPassed, Hash32, Network
from nektar.rows import Change, DutyRow, DutyState, ServiceRow
from processors.folds import stakes, windows
from processors.folds.misses import Misses, follow
from processors.folds.stakes import Stakes
from processors.folds.tasks import Ledger
from processors.folds.windows import WINDOWS, Cell, Count, Counts

ALLOWANCE, WINDOW = "miss_allowance", "miss_window"
# The window whose misses tell the pace: long enough for a Network with a Task each hour to have some.
_PACE = list(WINDOWS).index("6h")
# A row's columns between the Operator and what is said of its misses: the windows' sums, and missed_6h.
_SUMS = slice(1, 2 * len(WINDOWS) + 2)
_NO_SUMS = (0,) * (_SUMS.stop - 1)
_ELIGIBLE = frozenset((DutyState.SIGNED, DutyState.LATE, DutyState.MISSED))
_LAST_TIME = 2**32 - 1  # that a column of times holds
_UNTOLD = -1


class Levels(msgspec.Struct, frozen=True):
    """The fold's state."""

    misses: Misses
    cells: tuple[Cell, ...] = ()
    rows: Map[Address, ServiceRow] = Map()  # as put out last
    time: int = 0  # of the newest block
    decided: Map[int, Counts] = Map()  # what the open block makes of Duties, by the block that decided them
    touched: Map[Address, None] = Map()  # of whose misses some came or went with it
    stakes: Stakes = Map()  # in the sets that the ledger holds


class ServiceLevels:
    """The fold `service_levels`: puts out ServiceRow."""

    name = "service_levels"
    state_type = Levels

    def initial(self, network: Network) -> Levels:
        """Nothing decided."""
        terms = network.terms
        told = ALLOWANCE in terms and WINDOW in terms
        return Levels(Misses(terms[ALLOWANCE], terms[WINDOW]) if told else Misses(0, 0))

    def step(self, state: Levels, event: Event) -> tuple[Levels, list[Change]]:
        """Rows come with the end of a block. Raises UnsupportedDeadline for a Task whose deadline is not a
        block."""
        before = state.misses
        misses, said, _ = follow(before, event)
        if misses is not before:
            state = msgspec.structs.replace(
                state,
                misses=misses,
                decided=_decided(state, before.ledger, said) if said else state.decided,
                touched=_touched(state.touched, before, misses),
                stakes=stakes.follow(state.stakes, event, before.ledger.registry, misses.ledger.registry),
            )
        match event:
            case BlockClosed(block):
                time = max(state.time, block.time)
                return _closed(state, windows.advanced(state.cells, time, block.number), time, block.number)
            case GapPassed():
                return _closed(state, state.cells, state.time, event.last)
        return state, []


# --- what events change -----------------------------------------------------------------------------


def _decided(state: Levels, before: Ledger, said: Sequence[Change]) -> Map[int, Counts]:
    """With what changed of Duties; `before` is the ledger that still has their Tasks."""
    decided = state.decided
    moved: dict[int, dict[Address, Count]] = {}
    for change in said:
        for row, sign in ((change.before, -1), (change.after, 1)):
            if isinstance(row, DutyRow) and row.state in _ELIGIBLE:
                counts, operator = moved.setdefault(row.decided_block, {}), Address(row.operator)
                count = _count(state.stakes, before, row, sign)
                counts[operator] = counts.get(operator, windows.NOTHING) + count
    for block, counts in moved.items():
        decided = decided.set(block, windows.summed(decided.get(block, Map()), counts))
    return decided


def _count(stakes: Stakes, ledger: Ledger, duty: DutyRow, sign: int) -> Count:
    """What an eligible Duty counts for."""
    members = ledger.registry.held(ledger.tasks[Hash32(duty.task_hash)].task.set_hash)
    place = members.place(Address(duty.operator))
    assert place is not None  # noqa: S101  it has a Duty
    stake = sign * stakes[members.hash][place]
    if duty.state == DutyState.SIGNED:
        return Count(stake)
    return Count(stake, stake, sign if duty.state == DutyState.MISSED else 0)


def _touched(touched: Map[Address, None], before: Misses, after: Misses) -> Map[Address, None]:
    """With those of whose misses some came or went."""
    if after.of is before.of:
        return touched
    for operator in {*before.of, *after.of}:
        if before.of.get(operator) is not after.of.get(operator):
            touched = touched.set(operator, None)
    return touched


# --- rows -------------------------------------------------------------------------------------------


def _closed(state: Levels, cells: tuple[Cell, ...], time: int, block: int) -> tuple[Levels, list[Change]]:
    """A block, or a gap up to it, is whole: the rows of all of whom anything changed with it."""
    moved: dict[Address, list[int]] = {}
    for cell, places in windows.left(state.cells, state.time, time):
        _move(moved, cell.counts, places, -1)
    standing = list(cells)
    for decided, counts in sorted(state.decided.items()):
        if (at := windows.at(standing, decided)) is not None:
            cell = standing[at]
            standing[at] = msgspec.structs.replace(cell, counts=windows.summed(cell.counts, counts))
            _move(moved, counts, windows.holding(cell, time), 1)
    pace = next((cell for cell in cells if _PACE in windows.holding(cell, time)), None)
    rows, changes = state.rows.mutate(), list[Change]()
    for operator in sorted(moved.keys() | state.touched.keys()):
        before = state.rows.get(operator)
        row = _row(state.misses, operator, before, moved.get(operator), time, block, pace)
        if row == before:
            continue
        changes.append(Change(before, row))
        if row is None:
            del rows[operator]
        else:
            rows[operator] = row
    after = Levels(state.misses, tuple(standing), rows.finish(), time, stakes=state.stakes)
    return after, changes


def _move(
    moved: dict[Address, list[int]], counts: Mapping[Address, Count], places: Sequence[int], sign: int
) -> None:
    """Add to the sums of these windows, or take from them."""
    for operator, count in counts.items():
        if (sums := moved.get(operator)) is None:
            sums = moved[operator] = [*_NO_SUMS]
        for place in places:
            sums[place] += sign * count.eligible
            sums[place + len(WINDOWS)] += sign * count.failed
        if _PACE in places:
            sums[-1] += sign * count.missed


def _row(
    misses: Misses,
    operator: Address,
    before: ServiceRow | None,
    moved: Sequence[int] | None,
    time: int,
    block: int,
    pace: Cell | None,
) -> ServiceRow | None:
    """The Operator's row; the one before where nothing of it changed, None where there is nothing to say."""
    then = msgspec.structs.astuple(before)[_SUMS] if before else _NO_SUMS
    sums = tuple(map(add, then, moved)) if moved else then
    left = misses.left(operator) if misses.window else _UNTOLD
    if before and (sums, left) == (then, before.misses_left):
        return before
    if not any(sums) and operator not in misses.of:
        return None
    meets = _meets(misses, left, sums[-1], time, block, pace) if pace else 0
    columns: Sequence[Any] = (operator, *sums, left, time, meets)
    return ServiceRow(*columns)


def _meets(misses: Misses, left: int, missed: int, time: int, block: int, pace: Cell) -> int:
    """About when one miss more than is allowed lies in one window, if as many come as the Operator `missed`
    since `pace` began; 0: never, as they are too far apart."""
    blocks, seconds = block - pace.first + 1, time - pace.began
    if misses.allowance * blocks >= misses.window * missed:
        return 0
    meets = time + -(-(left + 1) * seconds // missed)
    return meets if meets <= _LAST_TIME else 0

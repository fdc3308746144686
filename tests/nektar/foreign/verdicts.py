"""What can be judged from the model's events alone: who signed what they owed, and which slashings are wrong.

Simple and slow, and no fold of the project: it stands for what folds of other Networks will have to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from nektar.evidence.bls import key_hash
from nektar.model import (
    Address,
    Block,
    ChainEvent,
    Hash32,
    KeyRotated,
    Moment,
    OperatorAdded,
    OperatorRemoved,
    Position,
    Responded,
    ResponseChallenged,
    SlashingExecuted,
    SlashingRequested,
    SlashingVetoed,
    StakeChanged,
    Task,
    TaskSubmitted,
)

WAD = 10**18
BASIS_POINTS = 10_000


class Judge:
    """Of a chain that has ended: its blocks, and all that happened, in order."""

    def __init__(self, blocks: Sequence[Block], events: Sequence[ChainEvent]) -> None:
        assert all(a.at <= b.at for a, b in pairwise(events) if a.at and b.at)
        self._times = {block.number: block.time for block in blocks}
        self._events = events

    # --- duties ---------------------------------------------------------------------------------

    def duties(self) -> dict[tuple[Hash32, Address], str]:
        """How each duty ended: signed, missed, or unknown."""
        found = {}
        for task in self._tasks():
            members, response = self._members(task), self._response(task)
            for place, operator in enumerate(members):
                state = "missed"
                if response is not None:
                    absent = response.non_signers
                    key = self._key(operator, task.submitted.block)
                    state = "unknown" if absent is None else "signed"
                    if absent is not None and (place in absent or key in absent):
                        state = "missed"
                found[task.hash, operator] = state
        return found

    def reached(self) -> dict[Hash32, bool]:
        """Of each Task that was responded to and whose signers are told: whether the stake of those who
        signed reaches the threshold in each of its sets."""
        duties, found = self.duties(), {}
        for task in self._tasks():
            response = self._response(task)
            if response is None or response.non_signers is None:
                continue
            found[task.hash] = True
            for of in task.sets:
                stakes = {each: self.stake(of.set, each, of.at) for each in self.members(of.set, of.at)}
                signed = sum(n for each, n in stakes.items() if duties[task.hash, each] == "signed")
                if signed * BASIS_POINTS < sum(stakes.values()) * task.stake_threshold:
                    found[task.hash] = False
        return found

    def challenged(self) -> set[Hash32]:
        """The Tasks whose accepted response was refuted."""
        return {event.task_hash for event in self._events if isinstance(event, ResponseChallenged)}

    def members(self, set_: Hash32, moment: Moment) -> list[Address]:
        """In the order of an EnumerableSet, whose last member takes the place of one that leaves."""
        order: list[Address] = []
        for event in self._events:
            if not isinstance(event, OperatorAdded | OperatorRemoved) or event.set != set_:
                continue
            if event.at.block > self._block(moment):
                break
            if isinstance(event, OperatorAdded):
                order.append(event.operator)
            else:
                place, last = order.index(event.operator), order.pop()
                if place < len(order):
                    order[place] = last
        return order

    def stake(self, set_: Hash32, operator: Address, moment: Moment) -> int:
        """Of all kinds, at the end of that moment."""
        block, kinds = self._block(moment), dict[str, int]()
        names = {operator, key_hash(key) if (key := self._key(operator, block)) else b""}
        for event in self._events:
            if not isinstance(event, StakeChanged) or event.set != set_ or event.operator not in names:
                continue
            if event.effective.value <= block:
                kinds[event.position.asset] = event.position.amount
        return sum(kinds.values())

    def _tasks(self) -> list[Task]:
        return [event.task for event in self._events if isinstance(event, TaskSubmitted)]

    def _members(self, task: Task) -> list[Address]:
        """Those that have a key, each once."""
        every = [each for of in task.sets for each in self.members(of.set, of.at)]
        return [each for each in dict.fromkeys(every) if self._key(each, task.submitted.block)]

    def _response(self, task: Task) -> Responded | None:
        """The one that was in time."""
        for event in self._events:
            if isinstance(event, Responded) and event.task_hash == task.hash:
                block = event.at.block
                now = block if task.deadline.unit == "block" else self._times[block]
                return event if now <= task.deadline.value else None
        return None

    def _key(self, operator: Address, block: int) -> bytes | None:
        keys = [e for e in self._events if isinstance(e, KeyRotated) and e.operator == operator]
        return next((e.key for e in reversed(keys) if e.at.block <= block), None)

    def _block(self, moment: Moment) -> int:
        if moment.unit == "block":
            return moment.value
        return max((n for n, time in self._times.items() if time <= moment.value), default=0)

    # --- slashings ------------------------------------------------------------------------------

    def slashings(self) -> list[tuple[int, frozenset[str]]]:
        """What is wrong with each execution of the Network's own, by its block."""
        requests: dict[tuple[Address, Hash32], SlashingRequested] = {}
        closed: set[tuple[Address, Hash32]] = set()
        vetoed: set[tuple[Address, Hash32]] = set()
        newest: dict[tuple[Address, Address], int] = {}
        found = []
        for event in self._events:
            match event:
                case SlashingRequested():
                    requests[event.slasher, event.request] = event
                case SlashingVetoed():
                    vetoed.add((event.slasher, event.request))
                case SlashingExecuted():
                    key = self._request_of(event, requests, closed)
                    if event.request is not None and key not in requests:
                        continue  # another Network's, on a contract that is shared
                    wrongs = set()
                    if key is None:
                        wrongs.add("unrequested")
                    else:
                        request = requests[key]
                        now = self._times[event.at.block]
                        wrongs |= {"vetoed"} if key in vetoed else set()
                        wrongs |= {"early"} if now <= request.veto_deadline.value else set()
                        wrongs |= {"more"} if self._more(event, request) else set()
                        if request.captured is not None:
                            at = request.slasher, request.operator
                            if request.captured.value < newest.get(at, 0):
                                wrongs.add("void")
                            newest[at] = max(newest.get(at, 0), request.captured.value)
                        closed.add(key)
                    found.append((event.at.block, frozenset(wrongs)))
        return found

    def _request_of(
        self,
        event: SlashingExecuted,
        requests: dict[tuple[Address, Hash32], SlashingRequested],
        closed: set[tuple[Address, Hash32]],
    ) -> tuple[Address, Hash32] | None:
        """The one that is named, else the newest open one against this Operator in this set."""
        if event.request is not None:
            return event.slasher, event.request
        for key, request in reversed(requests.items()):
            if event.set is not None and (request.operator, request.set) == (event.operator, event.set):
                return key if key not in closed else None
        return None

    def _more(self, event: SlashingExecuted, request: SlashingRequested) -> bool:
        """Whether more was taken than asked for. Parts of a stake are rounded up, as the contracts do."""
        for asked, taken in zip(request.penalty, event.penalty, strict=True):
            if asked.unit == "wei":
                if taken.amount > asked.amount:
                    return True
                continue
            before, after = self._around(event, taken)
            if before - after > -(-before * asked.amount // WAD):
                return True
        return False

    def _around(self, event: SlashingExecuted, taken: Position) -> tuple[int, int]:
        """What the Operator had of this asset in the set before the transaction, and what it left it."""
        before = after = 0
        for each in self._events:
            if not isinstance(each, StakeChanged) or each.at > event.at:
                continue
            if (each.set, each.operator, each.position.asset) == (event.set, event.operator, taken.asset):
                after = each.position.amount
                before = after if (each.at.block, each.at.tx) < (event.at.block, event.at.tx) else before
        return before, after

"""Missed duty: more misses of one Operator than the contract allows in a window.

A miss is a Duty that the ledger of `processors/folds/tasks.py` calls missed: it is that fold which runs in
here, and its word is taken. Of its misses those count of which the contract can't know better: the Task's set
was committed in a proved block, and every block since is proved. A deregistration that nobody could serve
would have excused the Operator, and a gap says nothing of it. So after a gap, or a block that is not proved,
nobody is found until a set is committed anew.

The rule, by which anyone comes to the same findings:

* An Operator's misses are taken when their grace has passed, all that end with one block together.
* As soon as `miss_allowance` + 1 of them lie in one window, they make one finding: sorted by their Tasks'
  numbers, the last Task was submitted less than `miss_window` blocks after the first.
* Of several such choices it is the earliest: the lowest first number, then the lowest second, and so on. Then
  those that are left are looked at again.
* The finding is about the Task with the highest number. Its block is the one with which the last of the
  graces ended, so that of the miss that was taken last.
* A miss counts for one finding only, and for none once the chain has counted it for a request
  (`MissCounted`).

The contract proves it in blocks after the finding's, in which the last of the graces still runs, for its
slashing window. As that begins with the last of the graces, no miss is too old for a finding that is new.

A Task leaves the state when all its misses have counted, or when no Task that is open or to come can lie in
one window with it; with it go its misses and its set. So what is held is the open Tasks, as the ledger has
them, and those submitted less than a window before the oldest of these, or before the newest block: a bitmap
each, and for each Operator its misses among them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import msgspec
from immutables import Map

from nektar import operators
from nektar.chain.keccak import keccak
from nektar.chain.receipt import decode_receipt
from nektar.evidence import bls, sought
from nektar.evidence.bundle import Bundle, EventClaim, MemberClaim, finding_id
from nektar.evidence.canonical import Octets
from nektar.evidence.sought import EventSought, SetSought, Sought, StateSought, ToFetch, VariableSought
from nektar.evidence.verify import Accused, NotProved
from nektar.facts import Accepted, Fact, Member, Stored, Submitted
from nektar.model import (
    Address,
    At,
    Block,
    BlockClosed,
    BlockRef,
    Event,
    GapPassed,
    Hash32,
    Level,
    MissCounted,
    Network,
    OperatorSetCommitted,
    Responded,
    Task,
    TaskSubmitted,
)
from nektar.networks.encoding import (
    PROVE_MISSED_DUTY,
    Dynamic,
    array,
    call,
    deadline_of,
    members,
    number_of,
    numbers,
    operator_set,
    padded,
    set_hash_of,
    tuple_of,
    word,
)
from nektar.networks.shown import CANCELLED, fact_of
from nektar.rows import Change, DutyRow, DutyState, Finding
from processors.conditions.condition import Dispute
from processors.folds.tasks import Ledger, Tasks

ALLOWANCE, WINDOW = "miss_allowance", "miss_window"
_DUTIES = Tasks()
_MANAGER, _REGISTRY = "task_manager", "operator_registry"
_OPEN = 1  # `_status.state`


class Response(msgspec.Struct, frozen=True, array_like=True):
    """The response that was accepted, and where the chain says so."""

    at: At
    block: BlockRef
    digest: Hash32
    non_signers: tuple[int, ...]


class Owed(msgspec.Struct, frozen=True):
    """A Task whose duties can be proved to be missed."""

    task: Task
    block: BlockRef | None = None  # of the submission, once it is closed
    response: Response | None = None
    missed: int = 0  # bitmap over its set: misses that have not counted yet, once the grace has passed


class Miss(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One Operator's, of a Task that is held. Sorts by the Task's number."""

    number: int
    submitted: int  # block
    task: Hash32


class Watch(msgspec.Struct, frozen=True):
    """The fold's state."""

    chain_id: int
    contract: Address  # the TaskManager
    allowance: int
    window: int
    ledger: Ledger
    certain: Hash32 | None = None  # the newest set, where all blocks since its commitment are proved
    tasks: Map[Hash32, Owed] = Map()
    misses: Map[Address, tuple[Miss, ...]] = Map()  # that have not counted yet, by rising number
    due: Map[int, Map[Hash32, None]] = Map()  # block → tasks of which it may be the last
    submitted: tuple[Hash32, ...] = ()  # in the block that is not closed yet
    responded: tuple[Responded, ...] = ()  # in that block


class Detect:
    """The fold `missed_duty`: puts out findings."""

    name = "missed_duty"
    state_type = Watch

    def initial(self, network: Network) -> Watch:
        """Nothing missed. Raises UnknownContract, UnknownTerm where the configuration lacks what misses are
        counted by."""
        return Watch(
            chain_id=network.chain_id,
            contract=network.contract(_MANAGER),
            allowance=network.term(ALLOWANCE),
            window=network.term(WINDOW),
            ledger=_DUTIES.initial(network),
        )

    def step(self, state: Watch, event: Event) -> tuple[Watch, list[Change]]:
        """Raises UnsupportedDeadline for a Task whose deadline is not a block."""
        before = state.ledger
        ledger, changes = _DUTIES.step(before, event)
        if ledger is not before:
            state = msgspec.structs.replace(state, ledger=ledger)
        match event:
            case OperatorSetCommitted():
                return msgspec.structs.replace(state, certain=event.set.hash), []
            case TaskSubmitted():
                return _submitted(state, before, event.task), []
            case Responded():
                return _responded(state, event), []
            case MissCounted():
                return _counted(state, event.operator, [event.task_hash]), []
            case GapPassed():
                state = msgspec.structs.replace(state, certain=None)
                state = _ended(state, before, event.last, [e for e in before.due if e <= event.last])
                return _passed(state, event.last, sorted(e for e in state.due if e <= event.last)), []
            case BlockClosed():
                missed: defaultdict[Hash32, list[Address]] = defaultdict(list)
                for change in changes:
                    if isinstance(row := change.after, DutyRow) and row.state == DutyState.MISSED:
                        missed[Hash32(row.task_hash)].append(Address(row.operator))
                return _closed(state, before, event.block, missed)
        return state, []


class MissedDuty:
    """The condition `missed_duty`."""

    name = "missed_duty"
    detect = Detect()

    def claims(self, finding: Finding) -> Sought:
        """Of each miss: the Task's submission and the membership; the accepted response without the Operator,
        if there is one; and what the contracts hold after the finding's block, by which they prove it, too:
        no other response, no attestation, no cancellation, no pause by the deadline, no end of the
        registration. So it is as large for long Tasks as for short ones."""
        return sought.read(finding.facts)

    def holds(self, accused: Accused, facts: Sequence[Fact], terms: Mapping[str, int]) -> None:
        """One miss more than is allowed, of Tasks that were submitted in one window."""
        _holds(accused, facts, terms)

    def dispute(self, bundle: Bundle) -> Dispute | None:
        """Calldata of SlashingManager.proveMissedDuty, which counts in blocks after the finding's."""
        sets = [operator_set(preimage) for preimage in bundle.sets]
        places = {committed.hash: place for place, committed in enumerate(sets)}
        said = [_said(claim) for claim in bundle.claims if isinstance(claim, EventClaim)]
        accepted = {fact.task_hash: fact.non_signers for fact in said if isinstance(fact, Accepted)}
        misses = []
        for fact in said:
            if isinstance(fact, Submitted):
                place = places[set_hash_of(fact.task)]
                who = [member.operator for member in sets[place].members].index(Address(bundle.operator))
                out = numbers(accepted.get(Hash32(keccak(fact.task)), ()))
                misses.append(Dynamic(tuple_of(fact.task, word(place), word(who), out)))
        return Dispute(
            "slashing_manager", call(PROVE_MISSED_DUTY, array([*map(members, bundle.sets)]), array(misses))
        )


def _said(claim: EventClaim) -> Fact:
    """What the log says, of a claim that was verified."""
    entry = decode_receipt(claim.receipt).entries[claim.log]
    return fact_of(claim.contract, entry, BlockRef(claim.block, Hash32(bytes(32))))


# SlashingManager's proof. A miss is (task, the place of its set, the member's index, non-signers).


# --- what holds -------------------------------------------------------------------------------------


def _holds(accused: Accused, facts: Sequence[Fact], terms: Mapping[str, int]) -> None:
    for name in (ALLOWANCE, WINDOW):
        if name not in terms:
            raise NotProved(f"missed_duty: expected to know the contract's {name}; it is not told")
    tasks = [fact for fact in facts if isinstance(fact, Submitted)]
    if len(tasks) != terms[ALLOWANCE] + 1:
        raise NotProved(f"missed_duty: expected {terms[ALLOWANCE] + 1} Tasks; {len(tasks)} are shown")
    order = [number_of(fact.task) for fact in tasks]
    if any(later <= earlier for earlier, later in pairwise(order)):
        raise NotProved(f"missed_duty: expected Tasks by rising numbers; got {order}")
    if keccak(tasks[-1].task) != accused.subject:
        raise NotProved("missed_duty: expected it to be about the last of the Tasks")
    if not 0 <= tasks[-1].at.number - tasks[0].at.number < terms[WINDOW]:
        raise NotProved(
            f"missed_duty: expected submissions in a window of {terms[WINDOW]} blocks; "
            f"got {tasks[0].at.number} and {tasks[-1].at.number}"
        )
    shown = _Shown(facts)
    for fact in tasks:
        shown.require_missed(fact, accused.operator)


class _Shown:
    """Facts by what they are about."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self._members: dict[tuple[Hash32, Address], Member] = {}
        self._accepted: dict[Hash32, Accepted] = {}
        self._stored: dict[tuple[str, str, tuple[bytes, ...]], Stored] = {}
        for fact in facts:
            match fact:
                case Member():
                    self._members[fact.task_hash, fact.operator] = fact
                case Accepted():
                    self._accepted[fact.task_hash] = fact
                case Stored():
                    self._stored[fact.contract, fact.name, fact.keys] = fact

    def require_missed(self, submitted: Submitted, operator: Address) -> None:
        """That this Operator owed a response to the Task and gave none: `SlashingManager._requireMissed`.
        Raises NotProved."""
        task, first = Hash32(keccak(submitted.task)), submitted.at.number
        deadline, grace = deadline_of(submitted.task)
        end, about = deadline + grace, f"missed_duty: Task 0x{task.hex()}"
        member = self._members.get((task, operator))
        if member is None:
            raise NotProved(f"{about}: expected the Operator in its set; not shown")
        if self._value(end, _MANAGER, "_status.state", task) == CANCELLED:
            raise NotProved(f"{about}: it was cancelled")
        paused = self._value(
            end, _MANAGER, "_pauses", word(self._value(end, _MANAGER, "_status.pauses", task))
        )
        if 0 < paused <= deadline:
            raise NotProved(f"{about}: the Network was paused at block {max(first, paused)}")
        if self._value(end, _MANAGER, "attestedDigest", task, padded(operator)):
            raise NotProved(f"{about}: the Operator attested")
        accepted = self._accepted.get(task)
        if accepted is None:
            if self._value(end, _MANAGER, "_status.recordHash", task):
                raise NotProved(f"{about}: expected the response that was accepted; it is not shown")
        elif member.index not in accepted.non_signers:
            raise NotProved(f"{about}: the Operator signed the accepted response")
        # One ends for good, and is announced in the block before: so whatever stood then or later says it.
        registration = self._value(0, _REGISTRY, "_keys.registration", member.key_hash)
        if registration == 0:
            raise NotProved(f"{about}: expected the registration of the member's key; there is none")
        if 0 < (left := self._value(first, _REGISTRY, "_ends", word(registration))) <= first:
            raise NotProved(f"{about}: the Operator had left by block {left}")

    def _value(self, by: int, contract: str, name: str, *keys: bytes) -> int:
        """What a contract held as a variable after this block, or a later one. Raises NotProved."""
        stored = self._stored.get((contract, name, keys))
        if stored is None or stored.at.number < by:
            raise NotProved(f"missed_duty: expected {contract}'s {name} after block {by} or later; not shown")
        return stored.value


# --- the watch --------------------------------------------------------------------------------------


def _submitted(state: Watch, before: Ledger, task: Task) -> Watch:
    """Hold a Task and its set, where its misses could be proved: not of one whose hash is of nothing that
    could be shown."""
    if task.hash not in state.ledger.tasks or task.hash in before.tasks or task.hash in state.tasks:
        return state
    if task.set_hash != state.certain or not task.preimage:
        return state
    state = _with_registry(state, operators.hold(state.ledger.registry, task.set_hash))
    return msgspec.structs.replace(
        state, tasks=state.tasks.set(task.hash, Owed(task)), submitted=(*state.submitted, task.hash)
    )


def _responded(state: Watch, event: Responded) -> Watch:
    """Keep a response that was accepted, until its block has a hash. Who signed one that does not say it by
    places in the set can't be shown to the contract, so nobody is found for such a Task."""
    owed = state.tasks.get(event.task_hash)
    if owed is None or event.at.block > owed.task.deadline.value:
        return state
    if event.non_signers is None or not all(isinstance(each, int) for each in event.non_signers):
        return _let_go(state, event.task_hash)
    return msgspec.structs.replace(state, responded=(*state.responded, event))


def _closed(
    state: Watch, before: Ledger, block: Block, missed: Mapping[Hash32, Sequence[Address]]
) -> tuple[Watch, list[Change]]:
    """What happened in a block has a place; and with it the grace of some Tasks has passed, whose duties
    these Operators missed."""
    tasks = state.tasks
    for task_hash in state.submitted:
        if owed := tasks.get(task_hash):
            tasks = tasks.set(task_hash, msgspec.structs.replace(owed, block=block.ref))
    for responded in state.responded:
        if owed := tasks.get(responded.task_hash):
            places = tuple(each for each in responded.non_signers or () if isinstance(each, int))
            response = Response(responded.at, block.ref, responded.digest, places)
            tasks = tasks.set(responded.task_hash, msgspec.structs.replace(owed, response=response))
    state = msgspec.structs.replace(
        state,
        tasks=tasks,
        submitted=(),
        responded=(),
        certain=state.certain if block.level is Level.PROVED else None,
    )
    number = block.number
    state = _ended(state, before, number, [number] if number in before.due else [], missed)
    changes: list[Change] = []
    for operator in sorted({each for those in missed.values() for each in those}):
        while window := _window(state, operator):
            changes.append(Change(None, _finding(state, operator, window, block)))
            state = _counted(state, operator, [miss.task for miss in window])
    return _passed(state, number, [number] if number in state.due else []), changes


def _ended(
    state: Watch,
    before: Ledger,
    last: int,
    due: Iterable[int],
    missed: Mapping[Hash32, Sequence[Address]] = Map(),
) -> Watch:
    """The graces that ended with these blocks: take the misses, and let go of Tasks that have none."""
    for task_hash in sorted({each for block in due for each in before.due[block]}):
        if task_hash not in before.tasks or task_hash in state.ledger.tasks or task_hash not in state.tasks:
            continue
        if not (those := missed.get(task_hash)):
            state = _let_go(state, task_hash)
            continue
        owed, misses, who = state.tasks[task_hash], state.misses, 0
        places = state.ledger.registry.sets[owed.task.set_hash].places
        miss = Miss(owed.task.number, owed.task.submitted.block, task_hash)
        for operator in those:
            who |= 1 << places[operator]
            misses = misses.set(operator, tuple(sorted((*misses.get(operator, ()), miss))))
        leaves = max(last, miss.submitted + state.window - 1)
        state = msgspec.structs.replace(
            state,
            tasks=state.tasks.set(task_hash, msgspec.structs.replace(owed, missed=who)),
            misses=misses,
            due=_file(state.due, leaves, task_hash),
        )
    return state


def _window(state: Watch, operator: Address) -> tuple[Miss, ...] | None:
    """The earliest misses that make a finding. They lie beside each other, since no other choice of them lies
    closer."""
    misses, count = state.misses.get(operator, ()), state.allowance + 1
    for i in range(len(misses) - count + 1):
        if 0 <= misses[i + count - 1].submitted - misses[i].submitted < state.window:
            return misses[i : i + count]
    return None


def _counted(state: Watch, operator: Address, tasks: Iterable[Hash32]) -> Watch:
    """An Operator's misses of these Tasks count no more; those that are not held never did."""
    for task_hash in tasks:
        owed = state.tasks.get(task_hash)
        if owed is None or not owed.missed:
            continue
        place = state.ledger.registry.sets[owed.task.set_hash].places.get(operator)
        if place is None or not owed.missed >> place & 1:
            continue
        left = owed.missed & ~(1 << place)
        state = msgspec.structs.replace(state, misses=_without(state.misses, operator, task_hash))
        if left:
            owed = msgspec.structs.replace(owed, missed=left)
            state = msgspec.structs.replace(state, tasks=state.tasks.set(task_hash, owed))
        else:
            state = _let_go(state, task_hash)
    return state


def _passed(state: Watch, last: int, due: Iterable[int]) -> Watch:
    """Blocks up to `last` have passed: Tasks that no other can lie in one window with any more leave. Those
    to come are submitted later; of those that are open, some may last for long."""
    for block in due:
        for task_hash in sorted(state.due[block]):
            if (owed := state.tasks.get(task_hash)) is None:
                continue
            submitted = owed.task.submitted.block
            near = [
                opened.end
                for opened in state.ledger.tasks.values()
                if abs(opened.task.submitted.block - submitted) < state.window
            ]
            if near:
                state = msgspec.structs.replace(state, due=_file(state.due, max(last + 1, *near), task_hash))
                continue
            misses = state.misses
            for place, member in enumerate(state.ledger.registry.sets[owed.task.set_hash].set.members):
                if owed.missed >> place & 1:
                    misses = _without(misses, member.operator, task_hash)
            state = _let_go(msgspec.structs.replace(state, misses=misses), task_hash)
        state = msgspec.structs.replace(state, due=state.due.delete(block))
    return state


def _without(
    misses: Map[Address, tuple[Miss, ...]], operator: Address, task_hash: Hash32
) -> Map[Address, tuple[Miss, ...]]:
    left = tuple(miss for miss in misses[operator] if miss.task != task_hash)
    return misses.set(operator, left) if left else misses.delete(operator)


def _let_go(state: Watch, task_hash: Hash32) -> Watch:
    """The state without a Task none of whose misses is left."""
    registry = operators.release(state.ledger.registry, state.tasks[task_hash].task.set_hash)
    return msgspec.structs.replace(_with_registry(state, registry), tasks=state.tasks.delete(task_hash))


def _with_registry(state: Watch, registry: operators.Registry) -> Watch:
    """The ledger holds the sets of open Tasks, the watch in it those of its own."""
    return msgspec.structs.replace(state, ledger=msgspec.structs.replace(state.ledger, registry=registry))


def _file(due: Map[int, Map[Hash32, None]], block: int, task_hash: Hash32) -> Map[int, Map[Hash32, None]]:
    return due.set(block, due.get(block, Map()).set(task_hash, None))


# --- the finding ------------------------------------------------------------------------------------


def _finding(state: Watch, operator: Address, window: Sequence[Miss], block: Block) -> Finding:
    """The finding, of facts that a stranger would come to as well. Raises NotProved where the log contradicts
    itself: a Task or set that is not what its hash is of."""
    events: list[EventSought] = []
    held: list[VariableSought] = []
    facts: list[Fact] = []
    whole: list[MemberClaim] = []
    sets: set[SetSought] = set()
    keys: dict[Hash32, None] = {}
    for miss in window:
        owed = state.tasks[miss.task]
        committed = state.ledger.registry.sets[owed.task.set_hash]
        place = committed.places[operator]
        key_hash = bls.key_hash(committed.set.members[place].key)
        events += _events(owed)
        held += _held(owed, operator)
        facts += [*_facts(owed, operator, block.ref), Member(miss.task, operator, place, key_hash)]
        whole.append(MemberClaim(Octets(owed.task.preimage), place))
        sets.add(SetSought(Octets(owed.task.set_hash), committed.since))
        keys[key_hash] = None
    variables: list[VariableSought] = []
    for number, key in enumerate(keys, 1):
        variables.append(VariableSought("_keys.registration", (Octets(key),)))
        variables.append(VariableSought("_ends", (Octets(b""),)))
        # Registrations have numbers that no event says, so these stand for any. That none had ended by the
        # submissions the ledger knows: else these duties were excused.
        facts.append(Stored(_REGISTRY, "_keys.registration", (key,), number, block.ref))
        facts.append(Stored(_REGISTRY, "_ends", (word(number),), 0, block.ref))
    fetch: tuple[ToFetch, ...] = (
        *events,
        StateSought(_MANAGER, tuple(held)),
        StateSought(_REGISTRY, tuple(variables)),
    )
    last = state.tasks[window[-1].task].task
    _holds(Accused(operator, last.hash), facts, {ALLOWANCE: state.allowance, WINDOW: state.window})
    return Finding(
        id=finding_id("missed_duty", state.chain_id, state.contract, last.hash, operator),
        condition="missed_duty",
        operator=operator,
        task_hash=last.hash,
        task_number=last.number,
        task_input=last.input,
        block_number=block.number,
        block_hash=block.hash,
        block_time=block.time,
        level=block.level,
        anchor=block.anchor,
        facts=sought.write(Sought(Octets(last.hash), fetch, tuple(whole), tuple(sorted(sets)))),
    )


def _events(owed: Owed) -> Iterator[EventSought]:
    """The Task's submission, and the response that was accepted."""
    assert owed.block is not None  # noqa: S101  its grace has passed
    yield sought.event(_MANAGER, owed.block, owed.task.submitted)
    if owed.response:
        yield sought.event(_MANAGER, owed.response.block, owed.response.at)


def _held(owed: Owed, operator: Address) -> Iterator[VariableSought]:
    """What the TaskManager holds of it: the pause is the first that was not over before the submission."""
    task = Octets(owed.task.hash)
    yield VariableSought("_status.state", (task,))
    yield VariableSought("_status.pauses", (task,))
    yield VariableSought("_pauses", (Octets(b""),))
    yield VariableSought("attestedDigest", (task, Octets(padded(operator))))
    if not owed.response:
        yield VariableSought("_status.recordHash", (task,))


def _facts(owed: Owed, operator: Address, at: BlockRef) -> Iterator[Fact]:
    """What that establishes. How many pauses there were no event says, so none stands for any; and a Task
    that is open for any that is not cancelled."""
    task, response = owed.task, owed.response
    assert owed.block is not None  # noqa: S101  its grace has passed
    yield Submitted(task.preimage, owed.block)
    yield Stored(_MANAGER, "_status.state", (task.hash,), _OPEN, at)
    yield Stored(_MANAGER, "_status.pauses", (task.hash,), 0, at)
    yield Stored(_MANAGER, "_pauses", (word(0),), 0, at)
    yield Stored(_MANAGER, "attestedDigest", (task.hash, padded(operator)), 0, at)
    if response:
        yield Accepted(task.hash, response.digest, response.non_signers, response.block)
    else:
        yield Stored(_MANAGER, "_status.recordHash", (task.hash,), 0, at)

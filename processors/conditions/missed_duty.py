"""Missed duty: more misses of one Operator than the contract allows in a window.

Which misses count, and which of them make an offence, is said by `processors/folds/misses.py`. Each offence
is a finding, about the Task with the highest number. Its block is the one with which the last of the graces
ended, so that of the miss that was taken last.

The contract proves it in blocks after the finding's, in which the last of the graces still runs, for its
slashing window. As that begins with the last of the graces, no miss is too old for a finding that is new.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import msgspec

from nektar.chain.keccak import keccak
from nektar.chain.receipt import decode_receipt
from nektar.evidence import bls, sought
from nektar.evidence.bundle import Bundle, EventClaim, MemberClaim, finding_id
from nektar.evidence.canonical import Octets
from nektar.evidence.sought import EventSought, SetSought, Sought, StateSought, ToFetch, VariableSought
from nektar.evidence.verify import Accused, NotProved
from nektar.facts import Accepted, Fact, Member, Stored, Submitted
from nektar.model import Address, Block, BlockClosed, BlockRef, Event, Hash32, Network
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
from nektar.rows import Change, Finding
from processors.conditions.condition import Dispute
from processors.folds.misses import Misses, Offence, Owed, follow

ALLOWANCE, WINDOW = "miss_allowance", "miss_window"
_MANAGER, _REGISTRY = "task_manager", "operator_registry"
_OPEN = 1  # `_status.state`


class Watch(msgspec.Struct, frozen=True):
    """The fold's state."""

    chain_id: int
    contract: Address  # the TaskManager
    misses: Misses


class Detect:
    """The fold `missed_duty`: puts out findings."""

    name = "missed_duty"
    state_type = Watch

    def initial(self, network: Network) -> Watch:
        """Nothing missed. Raises UnknownContract, UnknownTerm where the configuration lacks what misses are
        counted by."""
        held = Misses(network.term(ALLOWANCE), network.term(WINDOW))
        return Watch(network.chain_id, network.contract(_MANAGER), held)

    def step(self, state: Watch, event: Event) -> tuple[Watch, list[Change]]:
        """Raises UnsupportedDeadline for a Task whose deadline is not a block."""
        held, _, found = follow(state.misses, event)
        if held is not state.misses:
            state = msgspec.structs.replace(state, misses=held)
        if not isinstance(event, BlockClosed):
            return state, []
        return state, [Change(None, _finding(state, offence, event.block)) for offence in found]


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


# --- the finding ------------------------------------------------------------------------------------


def _finding(state: Watch, offence: Offence, block: Block) -> Finding:
    """The finding, of facts that a stranger would come to as well. Raises NotProved where the log contradicts
    itself: a Task or set that is not what its hash is of."""
    operator, misses = offence.operator, offence.held
    events: list[EventSought] = []
    held: list[VariableSought] = []
    facts: list[Fact] = []
    whole: list[MemberClaim] = []
    sets: set[SetSought] = set()
    keys: dict[Hash32, None] = {}
    for miss in offence.misses:
        owed = misses.tasks[miss.task]
        members = misses.ledger.registry.held(owed.task.set_hash)
        place = members.place(operator)
        assert place is not None  # noqa: S101  it has missed its duty
        key_hash = bls.key_hash(members[place].key)
        events += _events(owed)
        held += _held(owed, operator)
        facts += [*_facts(owed, operator, block.ref), Member(miss.task, operator, place, key_hash)]
        whole.append(MemberClaim(Octets(owed.task.preimage), place))
        sets.add(SetSought(Octets(members.hash), members.since))
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
    last = misses.tasks[offence.misses[-1].task].task
    _holds(Accused(operator, last.hash), facts, {ALLOWANCE: misses.allowance, WINDOW: misses.window})
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

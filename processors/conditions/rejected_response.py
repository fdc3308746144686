"""Rejected responses: calls that bring the TaskManager a response, and revert.

There is no offence in it: it tells a Network that somebody's responses do not arrive, and whose. A revert
shows who sent the call, which is recovered from its transaction, and nothing else: what it says of Operators
anybody may write. Only where the signature in it is that of the member whom it names, in the set of a Task
that was submitted, is it that member's response, whoever sent it. Of a quorum the sender alone is named: the
contracts prove nothing by a sum that they did not take, and to verify one for each call that anybody may
send would take a tenth of a second at a thousand members.

One finding per call. Of a block, the first MOST calls count, since anybody may send them. Tasks are kept
until their grace is over and LATE blocks more; of later responses nobody but the sender is named. Of a block
without receipts nobody knows whether a call reverted: nothing is found there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from immutables import Map

from nektar import operators
from nektar.chain.keccak import keccak
from nektar.evidence import bls, sought
from nektar.evidence.bundle import SignatureClaim, finding_id
from nektar.evidence.canonical import Octets
from nektar.evidence.sought import CallSought, EventSought, SetSought, Sought
from nektar.evidence.verify import TASK_MANAGER, Accused, NotProved
from nektar.facts import Called, Fact, Submitted
from nektar.facts import Signed as SignedFact
from nektar.model import (
    Address,
    Block,
    BlockClosed,
    Event,
    GapPassed,
    Hash32,
    Level,
    Network,
    Rejected,
    Task,
    TaskSubmitted,
)
from nektar.networks.shown import attest_of, is_response
from nektar.operators import Registry
from nektar.rows import Change, Finding

MOST = 16
# Some hours of blocks: who is later than that has missed more than a grace.
LATE = 1_000
NAME = "rejected_response"


class Known(msgspec.Struct, frozen=True):
    """A Task whose responses may still come."""

    task: Task
    block: Block | None = None  # of the submission, once it is closed


class Desk(msgspec.Struct, frozen=True):
    """The fold's state."""

    chain_id: int
    contract: Address  # the TaskManager
    registry: Registry = Registry()
    tasks: Map[Hash32, Known] = Map()
    due: Map[int, tuple[Hash32, ...]] = Map()  # block → tasks that are forgotten with it
    submitted: tuple[Hash32, ...] = ()  # in the block that is not closed yet
    rejected: tuple[Rejected, ...] = ()  # in that block


class Detect:
    """The fold `rejected_response`: puts out findings."""

    name = NAME
    state_type = Desk

    def initial(self, network: Network) -> Desk:
        """No Task known. Raises UnknownContract where the configuration has no task manager."""
        return Desk(network.chain_id, network.contract(TASK_MANAGER))

    def step(self, state: Desk, event: Event) -> tuple[Desk, list[Change]]:
        """Found is what a block holds when it is closed, which names it."""
        replace = msgspec.structs.replace
        match event:
            case TaskSubmitted(task=task):
                return _submitted(state, task), []
            case Rejected():
                return replace(state, rejected=(*state.rejected, event)[:MOST]), []
            case BlockClosed(block=block):
                return _closed(state, block)
            case GapPassed(last=last):
                return _forget(state, [each for each in state.due if each <= last]), []
        registry = operators.step(state.registry, event)
        return (state if registry is state.registry else replace(state, registry=registry)), []


class RejectedResponse:
    """The condition `rejected_response`."""

    name = NAME
    detect = Detect()
    dispute = None  # a revert is no offence

    def claims(self, finding: Finding) -> Sought:
        """The call that reverted; and the Task and signature, where it is a member's."""
        return sought.read(finding.facts)

    def holds(self, accused: Accused, facts: Sequence[Fact], terms: Mapping[str, int]) -> None:
        """A response to the TaskManager that reverted, by its sender, or signed by a member in it."""
        _holds(accused, facts)


def _holds(accused: Accused, facts: Sequence[Fact]) -> None:
    call = next((fact for fact in facts if isinstance(fact, Called)), None)
    if call is None or call.transaction != accused.subject:
        raise NotProved(f"{NAME}: expected the call that it is about; it is not shown")
    if call.contract != TASK_MANAGER or not is_response(call.input):
        raise NotProved(f"{NAME}: expected a response to the {TASK_MANAGER}; the call is something else")
    if call.succeeded is not False:
        raise NotProved(f"{NAME}: expected that it reverted; it did not")
    signed = next((fact for fact in facts if isinstance(fact, SignedFact)), None)
    if signed is None:
        if accused.operator != call.sender:
            raise NotProved(f"{NAME}: 0x{call.sender.hex()} sent it, and no one else's signature is shown")
        return
    attested = attest_of(call.input)
    if attested is None or (keccak(attested.task), keccak(attested.response)) != (
        signed.task_hash,
        signed.digest,
    ):
        raise NotProved(f"{NAME}: the signature is not over the response in the call")
    if not any(isinstance(fact, Submitted) and fact.task == attested.task for fact in facts):
        raise NotProved(f"{NAME}: expected the submission of its Task; it is not shown")
    if accused.operator != signed.operator:
        raise NotProved(f"{NAME}: 0x{signed.operator.hex()} signed it, and not who is named")


def _submitted(state: Desk, task: Task) -> Desk:
    if task.set_hash not in state.registry.sets or task.hash in state.tasks or not task.preimage:
        return state
    if task.deadline.unit != "block":
        return state
    end = max(task.deadline.value + task.grace, task.submitted.block) + LATE
    return msgspec.structs.replace(
        state,
        registry=operators.hold(state.registry, task.set_hash),
        tasks=state.tasks.set(task.hash, Known(task)),
        due=state.due.set(end, (*state.due.get(end, ()), task.hash)),
        submitted=(*state.submitted, task.hash),
    )


def _closed(state: Desk, block: Block) -> tuple[Desk, list[Change]]:
    tasks = state.tasks
    for task_hash in state.submitted:
        tasks = tasks.set(task_hash, msgspec.structs.replace(tasks[task_hash], block=block))
    rejected = state.rejected
    state = msgspec.structs.replace(state, tasks=tasks, submitted=(), rejected=())
    changes = [Change(None, _finding(state, block, each)) for each in rejected]
    return _forget(state, [block.number] if block.number in state.due else []), changes


def _forget(state: Desk, due: Sequence[int]) -> Desk:
    """These blocks have passed."""
    for block in due:
        for task_hash in state.due[block]:
            registry = operators.release(state.registry, state.tasks[task_hash].task.set_hash)
            tasks = state.tasks.delete(task_hash)
            state = msgspec.structs.replace(state, tasks=tasks, registry=registry)
        state = msgspec.structs.replace(state, due=state.due.delete(block))
    return state


def _finding(state: Desk, block: Block, rejected: Rejected) -> Finding:
    """The finding, of facts that a stranger would come to as well."""
    known = state.tasks.get(rejected.task_hash)
    call = CallSought(TASK_MANAGER, block.number, Octets(block.hash), rejected.at.tx)
    signature = _signature(state, known, rejected) if known else None
    operator, level = rejected.sender, block.level
    fetch: tuple[EventSought | CallSought, ...] = (call,)
    sets: tuple[SetSought, ...] = ()
    if known and known.block and signature:
        members = state.registry.held(known.task.set_hash)
        operator = members[signature.index].operator
        fetch = (sought.event(TASK_MANAGER, known.block.ref, known.task.submitted), call)
        sets = (SetSought(Octets(members.hash), members.since),)
        level = Level.PROVED if known.block.level is level is Level.PROVED else Level.LINKED
    return Finding(
        id=finding_id(NAME, state.chain_id, state.contract, rejected.transaction, operator),
        condition=NAME,
        operator=operator,
        task_hash=rejected.task_hash if known else bytes(32),
        task_number=known.task.number if known else 0,
        task_input=known.task.input if known else "",
        block_number=block.number,
        block_hash=block.hash,
        block_time=block.time,
        level=level,
        anchor=block.anchor,
        facts=sought.write(
            Sought(Octets(rejected.transaction), fetch, (signature,) if signature else (), sets)
        ),
    )


def _signature(state: Desk, known: Known, rejected: Rejected) -> SignatureClaim | None:
    """The claim that the member whom the call names signed it, where that is so."""
    members = state.registry.held(known.task.set_hash)
    index = rejected.index
    if index is None or index >= len(members) or keccak(rejected.response) != rejected.digest:
        return None
    digest = bls.signing_digest(state.chain_id, state.contract, rejected.task_hash, rejected.digest)
    if not bls.verify(members[index].twin, digest, rejected.signature):
        return None
    return SignatureClaim(
        task=Octets(known.task.preimage),
        index=index,
        key_g2=Octets(members[index].twin),
        response=Octets(rejected.response),
        signature=Octets(rejected.signature),
    )

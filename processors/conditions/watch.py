"""The Tasks that conditions watch for what Operators sign to them, alone or in a quorum.

Signatures come from attestations (from calldata, of reverted calls too, and from events) and from telemetry,
whoever reports them. What telemetry brings is heard at once, what a block holds when the block is closed,
which names it; what telemetry brings before the log has the Task waits for it (`processors/early.py`). None
is verified here: a condition does so once one matters to it.

A Task is watched until its grace is over, and for the slashing window more, in which whatever is signed can
be slashed for; of those whose grace is over the LATEST, and so many of these that what is kept of them stays
below MOST_LATE, so that the state is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec
from immutables import Map

from nektar import operators
from nektar.chain.keccak import keccak
from nektar.evidence import bls, sought
from nektar.evidence.bundle import AggregateClaim, RefutationClaim, SignatureClaim, finding_id
from nektar.evidence.canonical import Octets
from nektar.evidence.sought import SetSought, Sought
from nektar.evidence.verify import Accused, Predicate
from nektar.facts import Accepted, Fact, Submitted
from nektar.facts import Signed as SignedFact
from nektar.model import (
    G1,
    Address,
    Block,
    BlockClosed,
    Event,
    GapPassed,
    Hash32,
    Level,
    Network,
    Responded,
    Signed,
    Task,
    TaskSubmitted,
)
from nektar.networks.encoding import is_answer
from nektar.operators import Members, Registry
from nektar.rows import Change, Finding
from processors import early

# Blocks after deadline + grace in which what is signed can still be slashed for, later proofs being refused,
# where the Network's terms have no `slashing_window`: that of the reference contracts' deployment.
SLASHING_WINDOW = 100_000

# Tasks that are watched after their grace: some days of a busy Network, and some MB.
LATEST = 4_096
# What conditions keep of them, in bytes: signatures of a thousand Operators to six hundred Tasks that nobody
# responded to.
MOST_LATE = 20_000_000

Kept = TypeVar("Kept")


class Held(msgspec.Struct, frozen=True, array_like=True):
    """A response that an Operator signed alone, or is said to have."""

    digest: Hash32
    response: bytes  # what `digest` is the hash of
    signature: G1
    block: Block | None  # that holds it; None for what telemetry brought
    verified: bool = False


class Quorum(msgspec.Struct, frozen=True, array_like=True):
    """The response that was accepted, and who signed it."""

    responded: Responded
    block: Block
    signers: int  # bitmap
    verified: bool = False

    @property
    def digest(self) -> Hash32:
        return self.responded.digest

    @property
    def response(self) -> bytes:
        return self.responded.response


class Watched(msgspec.Struct, Generic[Kept], frozen=True):
    """A Task. Operators are their places in its set."""

    task: Task
    kept: Kept  # what the condition keeps of it
    block: Block | None = None  # of the submission, once it is closed
    found: int = 0  # bitmap: Operators that a finding is about
    size: int = 0  # of `kept`, about, in bytes: of what it keeps for each Operator, however many there are
    is_late: bool = False  # whether its grace is over


class Watch(msgspec.Struct, Generic[Kept], frozen=True):
    """The state of a condition's fold."""

    chain_id: int
    contract: Address  # the TaskManager; what is signed names it and the chain
    registry: Registry = Registry()
    tasks: Map[Hash32, Watched[Kept]] = Map()
    due: Map[int, Map[Hash32, None]] = Map()  # block → tasks whose grace, then whose window, ends with it
    submitted: tuple[Hash32, ...] = ()  # in the block that is not closed yet
    signed: tuple[Signed | Responded, ...] = ()  # in that block; heard when it is closed, which names it
    early: early.Waiting[Signed] = early.Waiting()  # brought before their Task
    late: Map[int, Hash32] = Map()  # tasks whose grace is over, counted, some of them gone
    oldest: int = 0  # number of the oldest of these
    late_size: int = 0  # what is kept of these
    window: int = SLASHING_WINDOW  # blocks after its grace for which a Task is watched

    def members(self, watched: Watched[Kept]) -> Members:
        """The set of a Task that is watched."""
        return self.registry.held(watched.task.set_hash)


class Listener(Protocol[Kept]):
    """What a condition makes of what it hears. It says of an Operator and a Task once that it is found, and
    marks it in `Watched.found`."""

    def first(self) -> Kept:
        """What it keeps of a Task at first."""

    def heard(
        self, watch: Watch[Kept], watched: Watched[Kept], place: int, held: Held
    ) -> tuple[Watched[Kept], list[Finding]]:
        """The member in this place, of whom nothing is found yet, is said to have signed alone."""

    def accepted(
        self, watch: Watch[Kept], watched: Watched[Kept], quorum: Quorum
    ) -> tuple[Watched[Kept], list[Finding]]:
        """A quorum's response was accepted."""


def begin(network: Network) -> Watch[Kept]:
    """Nothing watched. Raises UnknownContract where the configuration has no task manager."""
    return Watch(
        network.chain_id,
        network.contract("task_manager"),
        window=network.terms.get("slashing_window", SLASHING_WINDOW),
    )


def step(state: Watch[Kept], event: Event, listener: Listener[Kept]) -> tuple[Watch[Kept], list[Change]]:
    """The watch after the event, and what the listener found."""
    match event:
        case TaskSubmitted(task=task):
            return _submitted(state, task, listener.first()), []
        case Signed(at=None):
            return _brought(state, event, listener)
        case Signed() | Responded():
            if event.task_hash in state.tasks:
                state = msgspec.structs.replace(state, signed=(*state.signed, event))
            return state, []
        case BlockClosed(block=block):
            return _closed(state, block, listener)
        case GapPassed(first=first, last=last):
            return _pass(state, first, last, sorted(each for each in state.due if each <= last)), []
    registry = operators.step(state.registry, event)
    return (state if registry is state.registry else msgspec.structs.replace(state, registry=registry)), []


# --- what is heard ----------------------------------------------------------------------------------


def _submitted(state: Watch[Kept], task: Task, kept: Kept) -> Watch[Kept]:
    """Watch a Task. One whose set was committed before the log begins has no members that are known; one
    whose deadline is no block, or whose hash is of nothing that could be shown, is no Task of the reference
    contracts."""
    if task.set_hash not in state.registry.sets or task.hash in state.tasks:
        return state
    if task.deadline.unit != "block" or not task.preimage:
        return state
    return msgspec.structs.replace(
        state,
        registry=operators.hold(state.registry, task.set_hash),
        tasks=state.tasks.set(task.hash, Watched(task, kept)),
        due=_file(state.due, max(_grace_over(task), task.submitted.block), task.hash),
        submitted=(*state.submitted, task.hash),
    )


def _brought(
    state: Watch[Kept], signed: Signed, listener: Listener[Kept]
) -> tuple[Watch[Kept], list[Change]]:
    """Hear what telemetry brings, now or when its Task has come."""
    if signed.task_hash in state.tasks or not _disputable(signed):
        return _heard(state, signed, None, listener)
    return msgspec.structs.replace(state, early=early.wait_signed(state.early, signed)), []


def _disputable(signed: Signed | Responded) -> bool:
    """Whether the response is known, and an Answer: another could not be disputed, so that whoever signs it
    first would be safe with others."""
    return is_answer(signed.response) and keccak(signed.response) == signed.digest


def _closed(state: Watch[Kept], block: Block, listener: Listener[Kept]) -> tuple[Watch[Kept], list[Change]]:
    """Hear what waited for the block's Tasks, which is older in the log, then what the block holds."""
    tasks = state.tasks
    for task_hash in state.submitted:
        tasks = tasks.set(task_hash, msgspec.structs.replace(tasks[task_hash], block=block))
    left, waited = early.come(state.early, state.submitted)
    held = state.signed
    state = msgspec.structs.replace(state, tasks=tasks, submitted=(), signed=(), early=left)
    changes: list[Change] = []
    for signed in (*(each.kept for each in waited), *held):
        if isinstance(signed, Responded):
            state, found = _accepted(state, signed, block, listener)
        else:
            state, found = _heard(state, signed, block if signed.at else None, listener)
        changes += found
    due = [block.number] if block.number in state.due else []
    return _pass(state, block.number, block.number, due), changes


def _heard(
    state: Watch[Kept], signed: Signed, block: Block | None, listener: Listener[Kept]
) -> tuple[Watch[Kept], list[Change]]:
    """Those of no member, of an Operator already found or of a response that is none say nothing."""
    watched = state.tasks.get(signed.task_hash)
    if watched is None or not _disputable(signed):
        return state, []
    place = state.members(watched).place(signed.operator)
    if place is None or watched.found >> place & 1:
        return state, []
    held = Held(signed.digest, signed.response, signed.signature, block)
    after, findings = listener.heard(state, watched, place, held)
    return _with(state, watched, after), _said(findings)


def _accepted(
    state: Watch[Kept], responded: Responded, block: Block, listener: Listener[Kept]
) -> tuple[Watch[Kept], list[Change]]:
    watched = state.tasks.get(responded.task_hash)
    if watched is None or responded.non_signers is None or not _disputable(responded):
        return state, []
    signers = state.members(watched).all_but(responded.non_signers)
    after, findings = listener.accepted(state, watched, Quorum(responded, block, signers))
    return _with(state, watched, after), _said(findings)


def _with(state: Watch[Kept], before: Watched[Kept], after: Watched[Kept]) -> Watch[Kept]:
    if after is before:
        return state
    more = after.size - before.size if after.is_late else 0
    return msgspec.structs.replace(
        state, tasks=state.tasks.set(after.task.hash, after), late_size=state.late_size + more
    )


def _said(findings: Iterable[Finding]) -> list[Change]:
    return [Change(None, finding) for finding in findings]


# --- what passes ------------------------------------------------------------------------------------


def _pass(state: Watch[Kept], first: int, last: int, due: Iterable[int]) -> Watch[Kept]:
    """Blocks `first` to `last` have passed: forget what nothing can be found of any more."""
    state = msgspec.structs.replace(state, early=early.passed(state.early, first, last))
    for block in due:
        for task_hash in sorted(state.due.get(block, Map())):
            if (watched := state.tasks.get(task_hash)) is None:
                continue  # gone with one that is kept here
            end = _grace_over(watched.task) + state.window
            state = _keep_late(state, task_hash, end) if end > last else _forget(state, watched)
        if block in state.due:
            state = msgspec.structs.replace(state, due=state.due.delete(block))
    return state


def _keep_late(state: Watch[Kept], task_hash: Hash32, end: int) -> Watch[Kept]:
    """Watch a Task on until `end`, and the oldest no more where there are too many, or too much is kept."""
    late, oldest = state.late.set(state.oldest + len(state.late), task_hash), state.oldest
    newest = msgspec.structs.replace(state.tasks[task_hash], is_late=True)
    state = msgspec.structs.replace(
        state,
        tasks=state.tasks.set(task_hash, newest),
        due=_file(state.due, end, task_hash),
        late_size=state.late_size + newest.size,
    )
    while late and (late[oldest] not in state.tasks or len(late) > LATEST or state.late_size > MOST_LATE):
        if (watched := state.tasks.get(late[oldest])) is not None:
            state = _forget(state, watched)
            ends = _grace_over(watched.task) + state.window
            rest = state.due[ends].delete(watched.task.hash)
            due = state.due.set(ends, rest) if rest else state.due.delete(ends)
            state = msgspec.structs.replace(state, due=due)
        late, oldest = late.delete(oldest), oldest + 1
    return msgspec.structs.replace(state, late=late, oldest=oldest)


def _forget(state: Watch[Kept], watched: Watched[Kept]) -> Watch[Kept]:
    return msgspec.structs.replace(
        state,
        tasks=state.tasks.delete(watched.task.hash),
        registry=operators.release(state.registry, watched.task.set_hash),
        late_size=state.late_size - (watched.size if watched.is_late else 0),
    )


def _grace_over(task: Task) -> int:
    return task.deadline.value + task.grace


def _file(due: Map[int, Map[Hash32, None]], block: int, task_hash: Hash32) -> Map[int, Map[Hash32, None]]:
    return due.set(block, due.get(block, Map()).set(task_hash, None))


# --- what is true of it, and what a stranger is shown -----------------------------------------------


def is_signed(watch: Watch[Kept], watched: Watched[Kept], place: int, held: Held) -> bool:
    """Whether the signature is the member's."""
    digest = bls.signing_digest(watch.chain_id, watch.contract, watched.task.hash, held.digest)
    return bls.verify(watch.members(watched)[place].twin, digest, held.signature)


def is_quorums(watch: Watch[Kept], watched: Watched[Kept], quorum: Quorum) -> bool:
    """Whether its signature is the sum of its signers': of a block whose receipts nobody had, that is a
    provider's word alone."""
    members = watch.members(watched)
    keys = [member.key for place, member in enumerate(members) if quorum.signers >> place & 1]
    responded = quorum.responded
    digest = bls.signing_digest(watch.chain_id, watch.contract, watched.task.hash, quorum.digest)
    try:
        apk = bls.aggregate(keys)
    except bls.InvalidPoint:
        return False
    return bls.keys_match(apk, responded.apk_g2) and bls.verify(responded.apk_g2, digest, responded.signature)


def finding(
    watch: Watch[Kept],
    watched: Watched[Kept],
    place: int,
    signed: Sequence[Held | Quorum],
    condition: str,
    holds: Predicate,
    more: Sequence[tuple[Fact, RefutationClaim]] = (),
) -> Finding:
    """The finding that this member signed these, and of what more is shown, of facts that a stranger would
    come to as well. Raises NotProved where the log contradicts itself: a Task or set that is not what its
    hash is of."""
    task, members = watched.task, watch.members(watched)
    operator = members[place].operator
    assert watched.block is not None  # noqa: S101  signatures are heard once it is closed
    blocks = [block for block in (watched.block, *(each.block for each in signed)) if block is not None]
    newest = max(blocks, key=lambda block: block.number)
    fetch = [sought.event("task_manager", watched.block.ref, task.submitted)]
    facts: list[Fact] = [Submitted(task.preimage, watched.block.ref)]
    whole: list[SignatureClaim | AggregateClaim | RefutationClaim] = []
    for each in signed:
        facts.append(SignedFact(task.hash, operator, each.digest, alone=isinstance(each, Held)))
        if isinstance(each, Held):
            whole.append(
                SignatureClaim(
                    task=Octets(task.preimage),
                    index=place,
                    key_g2=Octets(members[place].twin),
                    response=Octets(each.response),
                    signature=Octets(each.signature),
                )
            )
            continue
        responded = each.responded
        missing = tuple(i for i in range(len(members)) if not each.signers >> i & 1)
        fetch.append(sought.event("task_manager", each.block.ref, responded.at))
        facts.append(Accepted(task.hash, each.digest, missing, each.block.ref))
        whole.append(
            AggregateClaim(
                task=Octets(task.preimage),
                non_signers=missing,
                apk_g2=Octets(responded.apk_g2),
                response=Octets(responded.response),
                signature=Octets(responded.signature),
            )
        )
    facts += [fact for fact, _ in more]
    whole += [claim for _, claim in more]
    holds(Accused(operator, task.hash), facts, {})
    return Finding(
        id=finding_id(condition, watch.chain_id, watch.contract, task.hash, operator),
        condition=condition,
        operator=operator,
        task_hash=task.hash,
        task_number=task.number,
        task_input=task.input,
        block_number=newest.number,
        block_hash=newest.hash,
        block_time=newest.time,
        level=Level.PROVED if all(b.level is Level.PROVED for b in blocks) else Level.LINKED,
        anchor=newest.anchor,
        facts=sought.write(
            Sought(
                *(Octets(task.hash), tuple(fetch), tuple(whole)),
                sets=(SetSought(Octets(members.hash), members.since),),
            )
        ),
    )

"""Equivocation: one Operator signed two responses to one Task.

A taskHash is no fork's but its own, so nobody honest can be made to sign two responses to it. There is one
finding per (task, operator). Its evidence is the first two digests in the order of the log, however many more
are signed; an undo of one takes the finding back, or leaves it to the next two.

Signatures come from attestations (from calldata, of reverted calls too, and from events) and from telemetry,
whoever reports them. They are verified when they first matter, which is when another one stands beside the
one that is held; at most one that is not verified is held for each Operator, so no number of false ones hides
a true one. What telemetry brings before the log has the Task waits for it (`processors/early.py`).

Who is in the quorum of an accepted response has signed that too: the sum of signatures shows it of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from immutables import Map

from nektar import operators
from nektar.chain.keccak import keccak
from nektar.evidence import bls, sought
from nektar.evidence.bundle import AggregateClaim, Bundle, SignatureClaim, finding_id
from nektar.evidence.canonical import Octets
from nektar.evidence.sought import Sought
from nektar.evidence.verify import Accused, NotProved
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
from nektar.networks.encoding import MEMBERS, PAIR, TASK, call, is_answer, members, numbers, word
from nektar.operators import Committed, Registry
from nektar.rows import Change, Finding
from processors import early
from processors.conditions.condition import Dispute

# Blocks after deadline + grace in which a second signature can still be slashed for: the reference contracts'
# slashing window (`SlashingManager.slashingWindow`, immutable there). Later ones prove nothing that counts.
# So long are those Tasks watched that somebody attested for; the others, nearly all, leave with their grace:
# who signs for them first when that is over can't have misled anybody.
SLASHING_WINDOW = 100_000


class Held(msgspec.Struct, frozen=True, array_like=True):
    """The first signature that counts for an Operator's response to a Task."""

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

    @property
    def digest(self) -> Hash32:
        return self.responded.digest


class Watched(msgspec.Struct, frozen=True):
    """A Task for which a second signature can still be slashed. Operators are their places in its set."""

    task: Task
    block: Block | None = None  # of the submission, once it is closed
    held: Map[int, Held] = Map()  # of those in the quorum, what came before it
    quorum: Quorum | None = None
    found: int = 0  # bitmap: Operators that a finding is about


class Watch(msgspec.Struct, frozen=True):
    """The fold's state."""

    chain_id: int
    contract: Address  # the TaskManager; what is signed names it and the chain
    registry: Registry = Registry()
    tasks: Map[Hash32, Watched] = Map()
    due: Map[int, Map[Hash32, None]] = Map()  # block → tasks whose grace, then whose window, ends with it
    submitted: tuple[Hash32, ...] = ()  # in the block that is not closed yet
    signed: tuple[Signed | Responded, ...] = ()  # in that block; heard when it is closed, which names it
    early: early.Waiting = early.Waiting()  # brought before their Task


class Detect:
    """The fold `equivocation`: puts out findings."""

    name = "equivocation"
    state_type = Watch

    def initial(self, network: Network) -> Watch:
        """Nothing watched. Raises UnknownContract where the configuration has no task manager."""
        return Watch(network.chain_id, network.contract("task_manager"))

    def step(self, state: Watch, event: Event) -> tuple[Watch, list[Change]]:
        """What telemetry brings is heard at once, what a block holds when the block is closed."""
        match event:
            case TaskSubmitted(task=task):
                return _submitted(state, task), []
            case Signed(at=None):
                return _brought(state, event)
            case Signed() | Responded():
                if event.task_hash in state.tasks:
                    state = msgspec.structs.replace(state, signed=(*state.signed, event))
                return state, []
            case BlockClosed(block=block):
                return _closed(state, block)
            case GapPassed(first=first, last=last):
                return _pass(state, first, last, sorted(each for each in state.due if each <= last)), []
        registry = operators.step(state.registry, event)
        return (
            state if registry is state.registry else msgspec.structs.replace(state, registry=registry)
        ), []


class Equivocation:
    """The condition `equivocation`."""

    name = "equivocation"
    detect = Detect()

    def claims(self, finding: Finding) -> Sought:
        """The two signatures, with all that makes them this Operator's over this Task."""
        return sought.read(finding.facts)

    def holds(self, accused: Accused, facts: Sequence[Fact], terms: Mapping[str, int]) -> None:
        """A Task that was submitted, and two digests that this Operator signed to it."""
        _holds(accused, facts)

    def dispute(self, bundle: Bundle) -> Dispute | None:
        """Calldata of SlashingManager.proveEquivocation, or of proveEquivocationInQuorum where one of the two
        is a quorum's. None where a response is no Answer of the reference contracts."""
        alone = [claim for claim in bundle.claims if isinstance(claim, SignatureClaim)]
        quorum = next((claim for claim in bundle.claims if isinstance(claim, AggregateClaim)), None)
        if not all(is_answer(each.response) for each in alone) or (quorum and not is_answer(quorum.response)):
            return None
        one = alone[0]
        about = (one.task, members(bundle.sets[0]), word(one.index))
        if quorum is None:
            signed = [part for claim in alone for part in (claim.response, claim.signature)]
            return Dispute("slashing_manager", call(_PROVE, *about, *signed))
        accepted = quorum.response, numbers(quorum.non_signers)
        return Dispute(
            "slashing_manager", call(_PROVE_IN_QUORUM, *about, *accepted, one.response, one.signature)
        )


def _holds(accused: Accused, facts: Sequence[Fact]) -> None:
    task, operator = accused.subject, accused.operator
    if not any(isinstance(fact, Submitted) and keccak(fact.task) == task for fact in facts):
        raise NotProved("equivocation: expected the submission of the Task; it is not shown")
    signed = {
        fact.digest
        for fact in facts
        if isinstance(fact, SignedFact) and (fact.task_hash, fact.operator) == (task, operator)
    }
    in_quorum = any(isinstance(fact, SignedFact) and not fact.alone for fact in facts)
    if in_quorum and not any(isinstance(f, Accepted) and f.task_hash == task for f in facts):
        raise NotProved("equivocation: expected the quorum's response to be accepted; that is not shown")
    if len(signed) != 2:
        raise NotProved(f"equivocation: expected two digests that it signed; {len(signed)} are shown")


# SlashingManager's proofs.
_PROVE = f"proveEquivocation({TASK},{MEMBERS},uint256,{PAIR},{PAIR},{PAIR},{PAIR})"
_PROVE_IN_QUORUM = f"proveEquivocationInQuorum({TASK},{MEMBERS},uint256,{PAIR},uint256[],{PAIR},{PAIR})"


# --- the watch --------------------------------------------------------------------------------------


def _submitted(state: Watch, task: Task) -> Watch:
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
        tasks=state.tasks.set(task.hash, Watched(task)),
        due=_file(state.due, max(_grace_over(task), task.submitted.block), task.hash),
        submitted=(*state.submitted, task.hash),
    )


def _closed(state: Watch, block: Block) -> tuple[Watch, list[Change]]:
    """Hear what waited for the block's Tasks, which is older in the log, then what the block holds."""
    tasks = state.tasks
    for task_hash in state.submitted:
        tasks = tasks.set(task_hash, msgspec.structs.replace(tasks[task_hash], block=block))
    left, waited = early.come(state.early, state.submitted)
    held = state.signed
    state = msgspec.structs.replace(state, tasks=tasks, submitted=(), signed=(), early=left)
    changes: list[Change] = []
    for signed in (*waited, *held):
        if isinstance(signed, Responded):
            state, found = _accepted(state, signed, block)
        else:
            state, found = _heard(state, signed, block if signed.at else None)
        changes += found
    due = [block.number] if block.number in state.due else []
    return _pass(state, block.number, block.number, due), changes


def _pass(state: Watch, first: int, last: int, due: Iterable[int]) -> Watch:
    """Blocks `first` to `last` have passed: forget what no second signature can matter for any more."""
    state = msgspec.structs.replace(state, early=early.passed(state.early, last - first + 1))
    for block in due:
        for task_hash in sorted(state.due[block]):
            watched = state.tasks[task_hash]
            end = _grace_over(watched.task) + SLASHING_WINDOW
            if watched.held and end > last:
                state = msgspec.structs.replace(state, due=_file(state.due, end, task_hash))
            else:
                state = msgspec.structs.replace(
                    state,
                    tasks=state.tasks.delete(task_hash),
                    registry=operators.release(state.registry, watched.task.set_hash),
                )
        state = msgspec.structs.replace(state, due=state.due.delete(block))
    return state


def _grace_over(task: Task) -> int:
    return task.deadline.value + task.grace


def _file(due: Map[int, Map[Hash32, None]], block: int, task_hash: Hash32) -> Map[int, Map[Hash32, None]]:
    return due.set(block, due.get(block, Map()).set(task_hash, None))


# --- signatures -------------------------------------------------------------------------------------


def _brought(state: Watch, signed: Signed) -> tuple[Watch, list[Change]]:
    """Hear what telemetry brings, now or when its Task has come."""
    if signed.task_hash in state.tasks or not _disputable(signed):
        return _heard(state, signed, None)
    return msgspec.structs.replace(state, early=early.wait(state.early, signed)), []


def _disputable(signed: Signed) -> bool:
    """Whether the response is known, and an Answer: another could not be disputed, so that whoever signs it
    first would be safe with two others."""
    return is_answer(signed.response) and keccak(signed.response) == signed.digest


def _heard(state: Watch, signed: Signed, block: Block | None) -> tuple[Watch, list[Change]]:
    """Hold a signature that may come to matter, or find two. Those of no member, of an Operator already found
    or of a response that can't be disputed are none of these."""
    watched = state.tasks.get(signed.task_hash)
    if watched is None or not _disputable(signed):
        return state, []
    committed = state.registry.sets[watched.task.set_hash]
    place = committed.places.get(signed.operator)
    if place is None or watched.found >> place & 1:
        return state, []
    new = Held(signed.digest, signed.response, signed.signature, block)
    held = watched.held.get(place)
    first: Held | Quorum | None = held
    if held and (held.digest, held.signature) == (new.digest, new.signature):
        return state, []
    if held:
        first = _verified(state, watched, committed, place, held)
    if first is None and watched.quorum and watched.quorum.signers >> place & 1:
        first = _true(state, watched, watched.quorum)
    changes: list[Change] = []
    kept = first if isinstance(first, Held) else None
    if first is None:
        kept = _verified(state, watched, committed, place, new) if held else new
    elif first.digest != new.digest:
        second = _verified(state, watched, committed, place, new)
        if second is not None:
            changes.append(Change(None, _finding(state, watched, committed, place, (first, second))))
            watched = msgspec.structs.replace(watched, found=watched.found | 1 << place)
    before = watched.held
    after = before.set(place, kept) if kept else before.delete(place) if held else before
    watched = msgspec.structs.replace(watched, held=after)
    return msgspec.structs.replace(state, tasks=state.tasks.set(signed.task_hash, watched)), changes


def _accepted(state: Watch, responded: Responded, block: Block) -> tuple[Watch, list[Change]]:
    """A quorum's response was accepted: of its signers, who signed another one before is found."""
    watched = state.tasks.get(responded.task_hash)
    if watched is None or watched.quorum or responded.non_signers is None:
        return state, []
    if not is_answer(responded.response) or keccak(responded.response) != responded.digest:
        return state, []
    committed = state.registry.sets[watched.task.set_hash]
    quorum = Quorum(responded, block, committed.all_but(responded.non_signers))
    watched = msgspec.structs.replace(watched, quorum=quorum)
    changes: list[Change] = []
    for place, held in sorted(watched.held.items()):
        if not quorum.signers >> place & 1 or held.digest == quorum.digest or watched.found >> place & 1:
            continue
        first = _verified(state, watched, committed, place, held)
        if first is None:
            watched = msgspec.structs.replace(watched, held=watched.held.delete(place))
        elif _true(state, watched, quorum):
            changes.append(Change(None, _finding(state, watched, committed, place, (first, quorum))))
            watched = msgspec.structs.replace(
                watched, held=watched.held.set(place, first), found=watched.found | 1 << place
            )
    return msgspec.structs.replace(state, tasks=state.tasks.set(responded.task_hash, watched)), changes


def _true(state: Watch, watched: Watched, quorum: Quorum) -> Quorum | None:
    """The quorum, where its signature is the sum of its signers': of a block whose receipts nobody had, that
    is a provider's word alone."""
    members = state.registry.sets[watched.task.set_hash].set.members
    keys = [member.key for place, member in enumerate(members) if quorum.signers >> place & 1]
    responded = quorum.responded
    digest = bls.signing_digest(state.chain_id, state.contract, watched.task.hash, quorum.digest)
    try:
        apk = bls.aggregate(keys)
    except bls.InvalidPoint:
        return None
    if bls.keys_match(apk, responded.apk_g2) and bls.verify(responded.apk_g2, digest, responded.signature):
        return quorum
    return None


def _verified(state: Watch, watched: Watched, committed: Committed, place: int, held: Held) -> Held | None:
    """The signature as verified; None where it is not the member's."""
    if held.verified:
        return held
    digest = bls.signing_digest(state.chain_id, state.contract, watched.task.hash, held.digest)
    if not bls.verify(committed.twins[place], digest, held.signature):
        return None
    return msgspec.structs.replace(held, verified=True)


def _finding(
    state: Watch,
    watched: Watched,
    committed: Committed,
    place: int,
    signed: tuple[Held | Quorum, Held | Quorum],
) -> Finding:
    """The finding, of facts that a stranger would come to as well. Raises NotProved where the log contradicts
    itself: a Task or set that is not what its hash is of."""
    task, operator = watched.task, committed.set.members[place].operator
    assert watched.block is not None  # noqa: S101  signatures are heard once it is closed
    blocks = [block for block in (watched.block, *(each.block for each in signed)) if block is not None]
    newest = max(blocks, key=lambda block: block.number)
    fetch = [sought.event("task_manager", watched.block.ref, task.submitted)]
    facts: list[Fact] = [Submitted(task.preimage, watched.block.ref)]
    whole: list[SignatureClaim | AggregateClaim] = []
    for each in signed:
        facts.append(SignedFact(task.hash, operator, each.digest, alone=isinstance(each, Held)))
        if isinstance(each, Held):
            whole.append(
                SignatureClaim(
                    task=Octets(task.preimage),
                    index=place,
                    key_g2=Octets(committed.twins[place]),
                    response=Octets(each.response),
                    signature=Octets(each.signature),
                )
            )
            continue
        responded = each.responded
        fetch.append(sought.event("task_manager", each.block.ref, responded.at))
        facts.append(Accepted(task.hash, each.digest, (), each.block.ref))
        whole.append(
            AggregateClaim(
                task=Octets(task.preimage),
                non_signers=tuple(i for i in range(len(committed.twins)) if not each.signers >> i & 1),
                apk_g2=Octets(responded.apk_g2),
                response=Octets(responded.response),
                signature=Octets(responded.signature),
            )
        )
    _holds(Accused(operator, task.hash), facts)
    return Finding(
        id=finding_id("equivocation", state.chain_id, state.contract, task.hash, operator),
        condition="equivocation",
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
            Sought(Octets(task.hash), tuple(fetch), tuple(whole), (Octets(committed.set.preimage),))
        ),
    )

"""Equivocation: one Operator signed two responses to one Task.

A taskHash is no fork's but its own, so nobody honest can be made to sign two responses to it. There is one
finding per (task, operator). Its evidence is the first two digests in the order of the log, however many more
are signed; an undo of one takes the finding back, or leaves it to the next two.

Signatures come from attestations (from calldata, of reverted calls too, and from events) and from telemetry,
whoever reports them. They are verified when they first matter, which is when another one stands beside the
one that is held; at most one that is not verified is held for each Operator, so no number of false ones hides
a true one. What telemetry brings before the log has the Task waits for it (`processors/early.py`).

A signature by the aggregate, which `Responded` shows, does not count yet.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import msgspec
from immutables import Map

from nektar import operators
from nektar.chain.keccak import keccak
from nektar.evidence import bls
from nektar.evidence.bundle import Claim, SignatureClaim, Verified
from nektar.evidence.verify import verify
from nektar.model import (
    G1,
    G2,
    Address,
    Block,
    BlockClosed,
    Event,
    GapPassed,
    Hash32,
    Level,
    Network,
    Signed,
    Task,
    TaskSubmitted,
)
from nektar.networks.encoding import ANSWER_WORDS, TASK_WORDS, is_answer, word
from nektar.operators import Committed, Registry
from nektar.rows import Change, Finding
from processors import early

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


class Watched(msgspec.Struct, frozen=True):
    """A Task for which a second signature can still be slashed. Operators are their places in its set."""

    task: Task
    block: Block | None = None  # of the submission, once it is closed
    held: Map[int, Held] = Map()
    found: int = 0  # bitmap: Operators that a finding is about


class Watch(msgspec.Struct, frozen=True):
    """The fold's state."""

    chain_id: int
    contract: Address  # the TaskManager; what is signed names it and the chain
    registry: Registry = Registry()
    tasks: Map[Hash32, Watched] = Map()
    due: Map[int, Map[Hash32, None]] = Map()  # block → tasks whose grace, then whose window, ends with it
    submitted: tuple[Hash32, ...] = ()  # in the block that is not closed yet
    calls: tuple[Signed, ...] = ()  # in that block; heard when it is closed, since that names it
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
            case Signed():
                if event.task_hash in state.tasks:
                    state = msgspec.structs.replace(state, calls=(*state.calls, event))
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

    def claims(self, finding: Finding) -> tuple[SignatureClaim, SignatureClaim]:
        """The two signatures, with all that makes them this Operator's over this Task."""
        return _claims(finding.facts)

    def holds(self, verified: Sequence[Verified]) -> bool:
        """Two digests, and all else the same."""
        return _holds(verified)

    def dispute(self, claims: Sequence[Claim]) -> bytes | None:
        """Calldata of SlashingManager.proveEquivocation(Task, Member[], uint256, Answer, G1, Answer, G1).

        None where a response is no Answer of the reference contracts.
        """
        one, other = claims
        if not all(is_answer(claim.response) for claim in claims):
            return None
        head_words = TASK_WORDS + 1 + 1 + 2 * (ANSWER_WORDS + 2)
        return b"".join(
            (
                _SELECTOR,
                one.task,
                word(head_words * 32),
                word(one.index),
                *(part for claim in (one, other) for part in (claim.response, claim.signature)),
                one.members[32:],  # abi.encode(Member[]) without the head of a lone argument
            )
        )


_TASK = "(bytes32,uint256,bytes32,bytes32,uint64,uint64,uint16,uint16,uint64)"
_PAIR = "(uint256,uint256)"
_SELECTOR = keccak(
    f"proveEquivocation({_TASK},(address,{_PAIR},uint256)[],uint256,{','.join([_PAIR] * 4)})".encode()
)[:4]


def finding_id(
    condition: str, chain_id: int, contract: Address, task_hash: Hash32, operator: Address
) -> bytes:
    """The finding's name: of the fact alone, wherever and whenever it is found, and whatever the reader calls
    the Network."""
    return keccak(_canonical([condition, chain_id, contract.hex(), task_hash.hex(), operator.hex()]).encode())


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
    calls = state.calls
    state = msgspec.structs.replace(state, tasks=tasks, submitted=(), calls=(), early=left)
    changes: list[Change] = []
    for signed in (*waited, *calls):
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
    changes: list[Change] = []
    if held is None:
        kept: Held | None = new
    elif (held.digest, held.signature) == (new.digest, new.signature):
        return state, []
    else:
        kept = _verified(state, watched, committed, place, held)
        if kept is None or kept.digest != new.digest:
            second = _verified(state, watched, committed, place, new)
            if kept is None:
                kept = second
            elif second is not None:
                changes.append(Change(None, _finding(state, watched, committed, place, (kept, second))))
                watched = msgspec.structs.replace(watched, found=watched.found | 1 << place)
    before = watched.held
    after = before.set(place, kept) if kept else before.delete(place)
    watched = msgspec.structs.replace(watched, held=after)
    return msgspec.structs.replace(state, tasks=state.tasks.set(signed.task_hash, watched)), changes


def _verified(state: Watch, watched: Watched, committed: Committed, place: int, held: Held) -> Held | None:
    """The signature as verified; None where it is not the member's."""
    if held.verified:
        return held
    digest = bls.signing_digest(state.chain_id, state.contract, watched.task.hash, held.digest)
    if not bls.verify(committed.twins[place], digest, held.signature):
        return None
    return msgspec.structs.replace(held, verified=True)


def _finding(
    state: Watch, watched: Watched, committed: Committed, place: int, signed: tuple[Held, Held]
) -> Finding:
    """The finding, if a stranger would find the same. Raises NotProved where the log contradicts itself: a
    Task or set that is not what its hash is of, or keys of one Operator that are not twins."""
    task, operator = watched.task, committed.set.members[place].operator
    blocks = [block for block in (watched.block, *(each.block for each in signed)) if block is not None]
    newest = max(blocks, key=lambda block: block.number)
    facts = _canonical(
        {
            "chain_id": state.chain_id,
            "contract": _hex(state.contract),
            "index": place,
            "key_g2": _hex(committed.twins[place]),
            "members": _hex(committed.set.preimage),
            "signed": [
                {
                    "digest": _hex(each.digest),
                    "response": _hex(each.response),
                    "signature": _hex(each.signature),
                }
                for each in signed
            ],
            "task": _hex(task.preimage),
        }
    )
    if not _holds([verify(claim) for claim in _claims(facts)]):
        raise AssertionError("two verified signatures over two digests are an equivocation")
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
        facts=facts,
    )


# --- facts and claims -------------------------------------------------------------------------------


def _claims(facts: str) -> tuple[SignatureClaim, SignatureClaim]:
    known = json.loads(facts)
    first, second = (
        SignatureClaim(
            chain_id=known["chain_id"],
            contract=Address(_octets(known["contract"])),
            task=_octets(known["task"]),
            members=_octets(known["members"]),
            index=known["index"],
            key_g2=G2(_octets(known["key_g2"])),
            response=_octets(each["response"]),
            signature=G1(_octets(each["signature"])),
        )
        for each in known["signed"]
    )
    return first, second


def _holds(verified: Sequence[Verified]) -> bool:
    if len(verified) != 2:
        return False
    one, other = verified
    return one.digest != other.digest and msgspec.structs.replace(one, digest=other.digest) == other


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _hex(octets: bytes) -> str:
    return "0x" + octets.hex()


def _octets(text: str) -> bytes:
    return bytes.fromhex(text[2:])

"""Equivocation: one Operator signed two responses to one Task.

A taskHash is no fork's but its own, so nobody honest can be made to sign two responses to it. There is one
finding per (task, operator). Its evidence is the first two digests in the order of the log, however many more
are signed; an undo of one takes the finding back, or leaves it to the next two.

Signatures come from the calldata of attestations, of reverted ones too, and are verified when they first
matter: when a second digest stands beside a first. One that does not verify is dropped and accuses nobody.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
from eth_hash.auto import keccak
from immutables import Map

from nektar import operators
from nektar.evidence import bls
from nektar.evidence.bundle import Claim, SignatureClaim, Verified
from nektar.model import (
    G1,
    G2,
    Address,
    Block,
    BlockClosed,
    Change,
    Event,
    Finding,
    Hash32,
    Level,
    Network,
    OperatorSet,
    Signed,
    Task,
    TaskSubmitted,
)
from nektar.networks.encoding import word
from nektar.operators import Registry

# How long after deadline + grace a second signature can still be slashed for: the reference contracts'
# slashing window (`SlashingManager.slashingWindow`). A task is let go of after it.
SLASHING_WINDOW = 100_000
# Per (task, operator), of signatures not verified yet. When full, those that do not verify make room: a key
# has one signature over a digest, so what stays is one a digest.
MAX_CANDIDATES = 8


class Candidate(msgspec.Struct, frozen=True):
    """A signature over a response, in the order of the log."""

    digest: Hash32
    response: bytes
    signature: G1
    block: Block | None = None  # of the call; None for what telemetry brought
    verified: bool = False


class Watched(msgspec.Struct, frozen=True):
    """A Task for which a second signature can still be slashed."""

    task: Task
    block: Block | None = None  # of the submission, once it is closed
    signed: Map[Address, tuple[Candidate, ...]] = Map()
    found: frozenset[Address] = frozenset()


class Watch(msgspec.Struct, frozen=True):
    """The fold's state."""

    chain_id: int
    contract: Address
    registry: Registry = Registry()
    sets: Map[Hash32, OperatorSet] = Map()
    tasks: Map[Hash32, Watched] = Map()
    ends: Map[int, tuple[Hash32, ...]] = Map()  # block → tasks whose slashing window ends with it
    open_block: tuple[tuple[Hash32, Address | None], ...] = ()  # what the block not closed yet has touched


class Detect:
    """The fold `equivocation`: puts out findings."""

    name = "equivocation"
    state_type = Watch

    def initial(self, network: Network) -> Watch:
        """Nothing watched. What is signed names the chain and the TaskManager."""
        return Watch(network.chain_id, network.contracts["task_manager"])

    def step(self, state: Watch, event: Event) -> tuple[Watch, list[Change]]:
        """A finding from a call is put out when its block is closed, since that names the block."""
        match event:
            case TaskSubmitted():
                return _submitted(state, event.task), []
            case Signed(at=None):
                return _examine(_signed(state, event), event.task_hash, event.operator)
            case Signed():
                return _touched(_signed(state, event), event.task_hash, event.operator), []
            case BlockClosed():
                return _closed(state, event.block)
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
        facts = json.loads(finding.facts)
        first, second = (
            SignatureClaim(
                chain_id=facts["chain_id"],
                contract=Address(_octets(facts["contract"])),
                task=_octets(facts["task"]),
                members=_octets(facts["members"]),
                index=facts["index"],
                key_g2=G2(_octets(facts["key_g2"])),
                response=_octets(signed["response"]),
                signature=G1(_octets(signed["signature"])),
            )
            for signed in facts["signed"]
        )
        return first, second

    def holds(self, verified: Sequence[Verified]) -> bool:
        """Two digests, and all else the same."""
        if len(verified) != 2:
            return False
        one, other = verified
        same = msgspec.structs.replace(one, digest=other.digest) == other
        return same and one.digest != other.digest

    def dispute(self, claims: Sequence[Claim]) -> bytes:
        """Calldata of SlashingManager.proveEquivocation(Task, Member[], uint256, Answer, G1, Answer, G1)."""
        one, other = claims
        head_words = 9 + 1 + 1 + 2 * (2 + 2)
        members = one.members[32:]  # abi.encode(Member[]) without the head of a lone argument
        return b"".join(
            (
                _SELECTOR,
                one.task,
                word(head_words * 32),
                word(one.index),
                *(part for claim in (one, other) for part in (claim.response, claim.signature)),
                members,
            )
        )


_STRUCTS = {
    "task": "(bytes32,uint256,bytes32,bytes32,uint64,uint64,uint16,uint16,uint64)",
    "member": "(address,(uint256,uint256),uint256)",
    "pair": "(uint256,uint256)",
}
_SELECTOR = keccak(
    f"proveEquivocation({_STRUCTS['task']},{_STRUCTS['member']}[],uint256,"
    f"{','.join([_STRUCTS['pair']] * 4)})".encode()
)[:4]


def finding_id(
    condition: str, chain_id: int, contract: Address, task_hash: Hash32, operator: Address
) -> bytes:
    """The finding's name: of the fact alone, wherever and whenever it is found."""
    return keccak(
        json.dumps(
            [condition, chain_id, contract.hex(), task_hash.hex(), operator.hex()], separators=(",", ":")
        ).encode()
    )


def _submitted(state: Watch, task: Task) -> Watch:
    members = state.registry.newest
    if members is None or members.hash != task.set_hash:
        return state  # its set was committed before the log begins
    end = task.deadline.value + task.grace + SLASHING_WINDOW
    state = msgspec.structs.replace(
        state,
        sets=state.sets.set(task.set_hash, members),
        tasks=state.tasks.set(task.hash, Watched(task)),
        ends=state.ends.set(end, (*state.ends.get(end, ()), task.hash)),
    )
    return _touched(state, task.hash, None)


def _touched(state: Watch, task_hash: Hash32, operator: Address | None) -> Watch:
    if task_hash not in state.tasks or (task_hash, operator) in state.open_block:
        return state
    return msgspec.structs.replace(state, open_block=(*state.open_block, (task_hash, operator)))


def _signed(state: Watch, event: Signed) -> Watch:
    """Keep a signature where it can come to matter: by a member of the set, over a response that is known."""
    watched = state.tasks.get(event.task_hash)
    if watched is None or keccak(event.response) != event.digest:
        return state
    members = state.sets[watched.task.set_hash].members
    if all(m.operator != event.operator for m in members):
        return state
    before = watched.signed.get(event.operator, ())
    candidate = Candidate(event.digest, event.response, event.signature)
    if any((c.digest, c.signature) == (event.digest, event.signature) for c in before):
        return state
    if len(before) >= MAX_CANDIDATES:
        facts = _Facts(state, watched, event.operator)
        before = tuple(valid for c in before if (valid := facts.checked(c)) is not None)
    watched = msgspec.structs.replace(
        watched, signed=watched.signed.set(event.operator, (*before, candidate))
    )
    return msgspec.structs.replace(state, tasks=state.tasks.set(event.task_hash, watched))


def _closed(state: Watch, block: Block) -> tuple[Watch, list[Change]]:
    changes: list[Change] = []
    tasks = state.tasks
    for task_hash, operator in state.open_block:
        watched = tasks[task_hash]
        if operator is None:
            watched = msgspec.structs.replace(watched, block=block)
        else:
            dated = tuple(
                c if c.block is not None else msgspec.structs.replace(c, block=block)
                for c in watched.signed.get(operator, ())
            )
            watched = msgspec.structs.replace(watched, signed=watched.signed.set(operator, dated))
        tasks = tasks.set(task_hash, watched)
    touched = state.open_block
    state = msgspec.structs.replace(state, tasks=tasks, open_block=())
    for task_hash, operator in touched:
        if operator is not None:
            state, found = _examine(state, task_hash, operator)
            changes += found
    if block.number in state.ends:
        state = _forget(state, block.number)
    return state, changes


def _forget(state: Watch, number: int) -> Watch:
    tasks = state.tasks
    for task_hash in state.ends[number]:
        tasks = tasks.delete(task_hash)
    needed = {w.task.set_hash for w in tasks.values()}
    sets = Map({h: s for h, s in state.sets.items() if h in needed})
    return msgspec.structs.replace(state, tasks=tasks, sets=sets, ends=state.ends.delete(number))


def _examine(state: Watch, task_hash: Hash32, operator: Address) -> tuple[Watch, list[Change]]:
    """Whether there are two now. Verifies what has not been, drops what does not verify."""
    watched = state.tasks.get(task_hash)
    if watched is None or operator in watched.found:
        return state, []
    candidates = watched.signed.get(operator, ())
    if len({c.digest for c in candidates}) < 2:
        return state, []
    facts = _Facts(state, watched, operator)
    valid = tuple(v for c in candidates if (v := facts.checked(c)) is not None)
    watched = msgspec.structs.replace(watched, signed=watched.signed.set(operator, valid))
    changes: list[Change] = []
    second = next((c for c in valid if c.digest != valid[0].digest), None)
    if second is not None:
        finding = facts.finding(valid[0], second)
        watched = msgspec.structs.replace(watched, found=watched.found | {operator})
        changes.append(Change(None, finding))
    return msgspec.structs.replace(state, tasks=state.tasks.set(task_hash, watched)), changes


class _Facts:
    """What is known of one Operator's signatures over one Task."""

    def __init__(self, state: Watch, watched: Watched, operator: Address) -> None:
        self._state, self._task, self._operator = state, watched, operator
        self._set = state.sets[watched.task.set_hash]
        self._index = next(i for i, m in enumerate(self._set.members) if m.operator == operator)
        self._twin = state.registry.twins.get(self._set.members[self._index].key)

    def checked(self, candidate: Candidate) -> Candidate | None:
        """The candidate as verified; None where its signature is not the member's."""
        if candidate.verified or self._twin is None:
            return candidate if candidate.verified else None
        state, task = self._state, self._task.task
        digest = bls.signing_digest(state.chain_id, state.contract, task.hash, candidate.digest)
        if not bls.verify(self._twin, digest, candidate.signature):
            return None
        return msgspec.structs.replace(candidate, verified=True)

    def finding(self, one: Candidate, other: Candidate) -> Finding:
        task = self._task.task
        blocks = [b for b in (one.block, other.block, self._task.block) if b is not None]
        newest = max(blocks, key=lambda b: b.number)
        proved = all(b.level is Level.PROVED for b in blocks)
        assert self._twin is not None  # noqa: S101  without it no candidate is verified
        return Finding(
            id=finding_id(
                "equivocation", self._state.chain_id, self._state.contract, task.hash, self._operator
            ),
            condition="equivocation",
            operator=self._operator,
            task_hash=task.hash,
            task_number=task.number,
            task_input=task.input,
            block_number=newest.number,
            block_hash=newest.hash,
            block_time=newest.time,
            level=Level.PROVED if proved else Level.LINKED,
            anchor=newest.anchor,
            facts=self._facts(self._twin, (one, other)),
        )

    def _facts(self, twin: G2, signed: tuple[Candidate, Candidate]) -> str:
        return json.dumps(
            {
                "chain_id": self._state.chain_id,
                "contract": "0x" + self._state.contract.hex(),
                "index": self._index,
                "key_g2": "0x" + twin.hex(),
                "members": "0x" + self._set.preimage.hex(),
                "signed": [
                    {"response": "0x" + c.response.hex(), "signature": "0x" + c.signature.hex()}
                    for c in signed
                ],
                "task": "0x" + self._task.task.preimage.hex(),
            },
            sort_keys=True,
            separators=(",", ":"),
        )


def _octets(text: str) -> bytes:
    return bytes.fromhex(text[2:])

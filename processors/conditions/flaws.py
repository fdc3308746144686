"""What is wrong with a proof that is shown on somebody's word: calldata that no contract has looked at.

`flaw` says why it proves nothing, where that is sure: to the fold, which knows what happened and checks
signatures, and to whoever checks evidence, to whom the one thing is shown that contradicts it. It is read as
the contract would read it, so what that can't read is no proof. What there is nothing to check with has no
flaw: whoever asks accuses the one who shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NamedTuple, Protocol

from nektar.chain.keccak import keccak
from nektar.evidence.bls import key_hash
from nektar.facts import Accepted, Requested, Trusted
from nektar.model import G1, Address, Hash32, OperatorSet
from nektar.networks.answers import refutes
from nektar.networks.calldata import Calldata, Unreadable
from nektar.networks.encoding import (
    ANSWER_WORDS,
    MEMBER_WORDS,
    PROVE_BOND_BREACH,
    PROVE_EQUIVOCATION,
    PROVE_EQUIVOCATION_IN_QUORUM,
    PROVE_INVALID_RESPONSE,
    PROVE_INVALID_RESPONSE_IN_QUORUM,
    PROVE_MISSED_DUTY,
    TASK_WORDS,
    BadEncoding,
    answer_of,
    deadline_of,
    input_of,
    members_of,
    number_of,
    operator_set,
    selector,
    set_hash_of,
)

EQUIVOCATION, INVALID_RESPONSE, MISSED_DUTY, BOND_BREACH = (
    "0x" + keccak(name).hex()
    for name in (b"equivocation", b"invalid_response", b"missed_duty", b"bond_breach")
)

# Those that are about a Task: others may have a set's hash in its place, or whatever a Network likes.
OF_TASKS = frozenset({EQUIVOCATION, INVALID_RESPONSE, MISSED_DUTY})

# Misses that are no offence: a term of the contracts, by its name in the configuration.
ALLOWANCE = "miss_allowance"

# Condition → the functions that prove it.
_PROOFS: Mapping[str, tuple[bytes, ...]] = {
    EQUIVOCATION: (selector(PROVE_EQUIVOCATION), selector(PROVE_EQUIVOCATION_IN_QUORUM)),
    INVALID_RESPONSE: (selector(PROVE_INVALID_RESPONSE), selector(PROVE_INVALID_RESPONSE_IN_QUORUM)),
    MISSED_DUTY: (selector(PROVE_MISSED_DUTY),),
    BOND_BREACH: (selector(PROVE_BOND_BREACH),),
}
_TWO, _TWO_IN_QUORUM, _WRONG, _WRONG_IN_QUORUM = map(
    selector,
    (
        *(PROVE_EQUIVOCATION, PROVE_EQUIVOCATION_IN_QUORUM),
        *(PROVE_INVALID_RESPONSE, PROVE_INVALID_RESPONSE_IN_QUORUM),
    ),
)
# Words of their heads: Task, offset of the members, index, and what each has of responses (two words),
# signatures (two), non-signers (their offset) and a divisor.
_HEADS = {_TWO: 19, _TWO_IN_QUORUM: 18, _WRONG: 16, _WRONG_IN_QUORUM: 15}
_MEMBERS, _INDEX, _FIRST = TASK_WORDS, TASK_WORDS + 1, TASK_WORDS + 2
_SECOND = _FIRST + ANSWER_WORDS  # the first one's signature, or the offset of the non-signers
_MISS_WORDS = TASK_WORDS + 3  # Task, place of its set, index, offset of the non-signers


class Signature(NamedTuple):
    """What is shown as a member's signature over a response to a Task."""

    task: bytes  # preimage of the taskHash
    members: OperatorSet
    place: int  # the member's
    response: bytes
    signature: G1


class Chain(Protocol):
    """What is known of the chain, or shown of it. A False says nothing."""

    def is_forged(self, made: Signature) -> bool:
        """Whether a signature is not the member's."""

    def accepted(self, task_hash: Hash32, is_it: Callable[[Accepted], bool]) -> bool:
        """Whether the response that was accepted to a Task is such a one."""

    def is_unanswered(self, task_hash: Hash32) -> bool:
        """Whether no response to a Task was accepted by the block in which this was shown."""

    def attested(self, task_hash: Hash32, operator: Address) -> bool:
        """Whether an Operator attested a Task by itself."""

    def counted(self, task_hash: Hash32, request: Requested) -> bool:
        """Whether an Operator's miss of a Task had counted when this request to slash it was made."""

    def is_of_before(self, set_hash: Hash32) -> bool:
        """Whether another OperatorSet was the newest all through the block in which this was shown."""

    def had_left(self, operator: Address, key_hash: Hash32) -> bool:
        """Whether the registration in which an Operator brought a key had ended before that block."""

    def kept_its_bond(self, operator: Address) -> bool:
        """Whether an Operator had the stake that it has to have all through that block, but for slashings."""


def flaw(said: Trusted, request: Requested, chain: Chain, terms: Mapping[str, int]) -> str:
    """Why what is shown for a request does not prove that its Operator is in breach of its condition with its
    Task; empty: it may be so."""
    evidence, condition = said.evidence, request.condition
    if not evidence or condition not in _PROOFS:
        return ""
    if evidence[:4] not in _PROOFS[condition]:
        return "it is no proof of that condition"
    try:
        if condition == BOND_BREACH:
            return _of_bond(Calldata(evidence, 2), request, chain)
        if request.task_hash is None:
            return ""
        if condition == MISSED_DUTY:
            return _of_misses(Calldata(evidence, 2), said, request, chain, terms)
        proof = evidence[:4]
        return _of_responses(proof, Calldata(evidence, _HEADS[proof]), request, chain)
    except BadEncoding:
        return "no contract can read it"


def _of_responses(proof: bytes, shown: Calldata, request: Requested, chain: Chain) -> str:
    task, index = shown.argument(0, TASK_WORDS), int.from_bytes(shown.argument(_INDEX))
    members = operator_set(shown.members(*shown.array(_MEMBERS, MEMBER_WORDS), MEMBER_WORDS))
    in_quorum = proof in (_TWO_IN_QUORUM, _WRONG_IN_QUORUM)
    out = shown.numbers(*shown.array(_SECOND, 1)) if in_quorum else ()
    task_hash, first = Hash32(keccak(task)), shown.argument(_FIRST, ANSWER_WORDS)
    if task_hash != request.task_hash:
        return "it is about another task"
    if why := _of_member(members, set_hash_of(task), index, request.operator):
        return why
    alone: list[tuple[bytes, G1]] = []
    if not in_quorum:
        alone.append((first, G1(shown.argument(_SECOND, 2))))
    after = _SECOND + (1 if in_quorum else 2)
    if proof in (_TWO, _TWO_IN_QUORUM):
        other = shown.argument(after, ANSWER_WORDS)
        if first == other:
            return "its two responses are the same"
        alone.append((other, G1(shown.argument(after + ANSWER_WORDS, 2))))
    elif not refutes(input_of(task), *answer_of(first), int.from_bytes(shown.argument(after))):
        return "nothing shows that its response is wrong"
    if in_quorum:
        if index in out:
            return "the operator is not among those who signed its response"
        record = Hash32(keccak(first)), out
        if chain.accepted(task_hash, lambda fact: (fact.digest, fact.non_signers) != record):
            return "its response is not the one that was accepted"
        if chain.is_unanswered(task_hash):
            return "no response was accepted"
    if any(chain.is_forged(Signature(task, members, index, *each)) for each in alone):
        return "a signature is not the operator's"
    return ""


class _Miss(NamedTuple):
    """A Task that the Operator is said to have missed."""

    task: bytes
    members: OperatorSet | None  # None: none is given
    place: int  # the Operator's
    out: tuple[int, ...] | None  # of the accepted response; None: can't be read, which matters to one alone


def _of_misses(
    shown: Calldata, said: Trusted, request: Requested, chain: Chain, terms: Mapping[str, int]
) -> str:
    misses = _misses(shown, terms)
    if not misses:
        return "it has another number of misses than is needed"
    if keccak(misses[-1].task) != request.task_hash:
        return "it is about another task"
    if any(number_of(later.task) <= number_of(earlier.task) for earlier, later in pairwise(misses)):
        return "its tasks do not rise"
    for miss in misses:
        if miss.members is None:
            return "its members are not those that the task committed to"
        if why := _of_member(miss.members, set_hash_of(miss.task), miss.place, request.operator):
            return why
        if said.at.number <= sum(deadline_of(miss.task)):
            return "the grace of a task is not over"
        if why := _of_miss(miss, request, chain):
            return why
    return ""


def _of_miss(miss: _Miss, request: Requested, chain: Chain) -> str:
    task_hash = Hash32(keccak(miss.task))
    if chain.attested(task_hash, request.operator):
        return "the operator attested a task"
    if chain.accepted(task_hash, lambda fact: miss.place not in fact.non_signers):
        return "the operator signed the response to a task"
    if chain.accepted(task_hash, lambda fact: fact.non_signers != miss.out):
        return "others did not sign the response to a task"
    if chain.counted(task_hash, request):
        return "the miss of a task has counted already"
    return ""


def _misses(shown: Calldata, terms: Mapping[str, int]) -> list[_Miss]:
    """Those that are looked at: as many as are needed at most, and the last alone where nobody says how many
    these are; of more, none. So there is an end to what can be shown. Raises Unreadable, BadEncoding."""
    sets, set_count = shown.array(0, 1)
    arrays = [shown.array_below(sets, sets + 32 * i, MEMBER_WORDS) for i in range(set_count)]
    start, count = shown.array(1, 1)
    if ALLOWANCE in terms and count != terms[ALLOWANCE] + 1:
        return []
    found, read = [], dict[bytes, OperatorSet]()
    for i in range(0 if ALLOWANCE in terms else max(0, count - 1), count):
        at = shown.below(start, start + 32 * i, _MISS_WORDS)
        place, index = (shown.number(at + 32 * (TASK_WORDS + j)) for j in range(2))
        task, members = shown.octets(at, TASK_WORDS), None
        if place < set_count:
            given = shown.members(*arrays[place], MEMBER_WORDS)
            # Members are made of what the Task committed to alone, and once: a forged proof may show very
            # many, and for each of its Tasks.
            if (hash_ := keccak(given)) != set_hash_of(task):
                members_of(given)
            else:
                members = read[hash_] = read.get(hash_) or operator_set(given)
        found.append(_Miss(task, members, index, _non_signers(shown, at)))
    return found


def _non_signers(shown: Calldata, miss: int) -> tuple[int, ...] | None:
    try:
        return shown.numbers(*shown.array_below(miss, miss + 32 * (_MISS_WORDS - 1), 1))
    except Unreadable:
        return None


def _of_bond(shown: Calldata, request: Requested, chain: Chain) -> str:
    members = operator_set(shown.members(*shown.array(0, MEMBER_WORDS), MEMBER_WORDS))
    index = int.from_bytes(shown.argument(1))
    if request.set_hash not in (None, members.hash):
        return "its members are not the set that it is about"
    if why := _of_member(members, members.hash, index, request.operator):
        return why
    if chain.is_of_before(members.hash):
        return "its members are not the newest set"
    if chain.had_left(request.operator, key_hash(members.members[index].key)):
        return "the operator had left"
    if chain.kept_its_bond(request.operator):
        return "the operator was in no breach"
    return ""


def _of_member(members: OperatorSet, set_hash: Hash32, index: int, operator: Address) -> str:
    if members.hash != set_hash:
        return "its members are not those that the task committed to"
    if index >= len(members.members) or members.members[index].operator != operator:
        return "it is about another operator"
    return ""

"""What is wrong with a proof that is shown on somebody's word: calldata that no contract has looked at.

`flaw` says why it proves nothing, where that is sure: to the fold, which knows keys and checks signatures
with them, and to whoever checks evidence, to whom it is shown that one is false. What can't be read, and what
there is nothing to check with, has no flaw: whoever asks accuses the one who shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from nektar.chain.keccak import keccak
from nektar.model import G1, Address, Hash32, OperatorSet
from nektar.networks.answers import refutes
from nektar.networks.encoding import (
    ANSWER_WORDS,
    PROVE_BOND_BREACH,
    PROVE_EQUIVOCATION,
    PROVE_EQUIVOCATION_IN_QUORUM,
    PROVE_INVALID_RESPONSE,
    PROVE_INVALID_RESPONSE_IN_QUORUM,
    PROVE_MISSED_DUTY,
    TASK_WORDS,
    BadEncoding,
    answer_of,
    input_of,
    operator_set,
    selector,
    set_hash_of,
    word,
)

EQUIVOCATION, INVALID_RESPONSE, MISSED_DUTY, BOND_BREACH = (
    "0x" + keccak(name).hex()
    for name in (b"equivocation", b"invalid_response", b"missed_duty", b"bond_breach")
)

# Those that are about a Task: others may have a set's hash in its place, or whatever a Network likes.
OF_TASKS = frozenset({EQUIVOCATION, INVALID_RESPONSE, MISSED_DUTY})

# Condition → the functions that prove it.
_PROOFS: Mapping[str, tuple[bytes, ...]] = {
    EQUIVOCATION: (selector(PROVE_EQUIVOCATION), selector(PROVE_EQUIVOCATION_IN_QUORUM)),
    INVALID_RESPONSE: (selector(PROVE_INVALID_RESPONSE), selector(PROVE_INVALID_RESPONSE_IN_QUORUM)),
    MISSED_DUTY: (selector(PROVE_MISSED_DUTY),),
    BOND_BREACH: (selector(PROVE_BOND_BREACH),),
}
_TWO_RESPONSES, _WRONG_RESPONSE = selector(PROVE_EQUIVOCATION), selector(PROVE_INVALID_RESPONSE)
# Words before the members, of the two proofs that are checked: Task, place of the members, index, what was
# signed, and a divisor.
_SIGNED = ANSWER_WORDS + 2
_HEADS = {_TWO_RESPONSES: TASK_WORDS + 2 + 2 * _SIGNED, _WRONG_RESPONSE: TASK_WORDS + 2 + _SIGNED + 1}


class Signature(NamedTuple):
    """What is shown as a member's signature over a response to a Task."""

    task: bytes  # preimage of the taskHash
    members: OperatorSet
    place: int  # the member's
    response: bytes
    signature: G1


def flaw(
    evidence: bytes,
    condition: str,
    task_hash: Hash32 | None,
    operator: Address,
    is_forged: Callable[[Signature], bool],
) -> str:
    """Why this does not prove that the Operator is in breach of the condition with this Task; empty: it may
    be so."""
    if not evidence or condition not in _PROOFS:
        return ""
    if (proof := evidence[:4]) not in _PROOFS[condition]:
        return "it is no proof of that condition"
    if proof not in _HEADS or task_hash is None:
        return ""
    head, words = _HEADS[proof], evidence[4:]
    if words[TASK_WORDS * 32 : (TASK_WORDS + 1) * 32] != word(head * 32) or len(words) % 32:
        return ""  # encoded otherwise
    numbers = [int.from_bytes(words[i : i + 32], "big") for i in range(0, head * 32, 32)]
    task = words[: TASK_WORDS * 32]
    try:
        members = operator_set(word(32) + words[head * 32 :])
    except BadEncoding:
        return ""
    if keccak(task) != task_hash:
        return "it is about another task"
    if members.hash != set_hash_of(task):
        return "its members are not those that the task committed to"
    index = numbers[TASK_WORDS + 1]
    if index >= len(members.members) or members.members[index].operator != operator:
        return "it is about another operator"
    signed = [
        (words[at : at + 64], G1(words[at + 64 : at + 128]))
        for at in range((TASK_WORDS + 2) * 32, (head - 1) * 32, _SIGNED * 32)
    ]
    if proof == _TWO_RESPONSES and signed[0][0] == signed[1][0]:
        return "its two responses are the same"
    if proof == _WRONG_RESPONSE and not refutes(input_of(task), *answer_of(signed[0][0]), numbers[head - 1]):
        return "nothing shows that its response is wrong"
    if any(is_forged(Signature(task, members, index, *each)) for each in signed):
        return "a signature is not the operator's"
    return ""

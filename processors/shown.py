"""What is shown for a slashing on somebody's word: calldata of a proof that no contract has looked at.

`flaw` says why it proves nothing, where that is sure. What it can't read, and what it lacks something to
check, has no flaw: whoever asks accuses the one who shows it.
"""

from __future__ import annotations

from collections.abc import Mapping

from nektar.chain.keccak import keccak
from nektar.evidence import bls
from nektar.model import G1, Address, Hash32
from nektar.networks.encoding import ANSWER_WORDS, TASK_WORDS, BadEncoding, operator_set, set_hash_of, word
from nektar.operators import UNKNOWN_TWIN, Registry

EQUIVOCATION, INVALID_RESPONSE, MISSED_DUTY, BOND_BREACH = (
    "0x" + keccak(name).hex()
    for name in (b"equivocation", b"invalid_response", b"missed_duty", b"bond_breach")
)
_TASK = "(bytes32,uint256,bytes32,bytes32,uint64,uint64,uint16,uint16,uint64)"
_PAIR = "(uint256,uint256)"
_MEMBERS = f"(address,{_PAIR},uint256)[]"


def _selector(signature: str) -> bytes:
    return keccak(signature.encode())[:4]


_TWO_RESPONSES = _selector(f"proveEquivocation({_TASK},{_MEMBERS},uint256,{','.join([_PAIR] * 4)})")
_WRONG_RESPONSE = _selector(f"proveInvalidResponse({_TASK},{_MEMBERS},uint256,{_PAIR},{_PAIR},uint256)")
# Condition → the functions that prove it.
_PROOFS: Mapping[str, tuple[bytes, ...]] = {
    EQUIVOCATION: (
        _TWO_RESPONSES,
        _selector(f"proveEquivocationInQuorum({_TASK},{_MEMBERS},uint256,{_PAIR},uint256[],{_PAIR},{_PAIR})"),
    ),
    INVALID_RESPONSE: (
        _WRONG_RESPONSE,
        _selector(f"proveInvalidResponseInQuorum({_TASK},{_MEMBERS},uint256,{_PAIR},uint256[],uint256)"),
    ),
    MISSED_DUTY: (_selector(f"proveMissedDuty({_MEMBERS}[],({_TASK},uint256,uint256,uint256[])[])"),),
    BOND_BREACH: (_selector(f"proveBondBreach({_MEMBERS},uint256)"),),
}
# Words before the members, of the two proofs that are checked: Task, place of the members, index, what was
# signed, and a divisor.
_SIGNED = ANSWER_WORDS + 2
_HEADS = {_TWO_RESPONSES: TASK_WORDS + 2 + 2 * _SIGNED, _WRONG_RESPONSE: TASK_WORDS + 2 + _SIGNED + 1}
_INPUT = 1  # of a Task


def flaw(
    evidence: bytes,
    condition: str,
    task_hash: Hash32 | None,
    operator: Address,
    registry: Registry,
    chain_id: int,
    contract: Address,
) -> str:
    """Why this does not prove that the Operator is in breach of the condition with this Task; empty: it may.
    `contract` is the TaskManager."""
    if not evidence or condition not in _PROOFS:
        return ""
    if (selector := evidence[:4]) not in _PROOFS[condition]:
        return "it is no proof of that condition"
    if selector not in _HEADS or task_hash is None:
        return ""
    head, words = _HEADS[selector], evidence[4:]
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
    if members.hash != (set_hash := set_hash_of(task)):
        return "its members are not those that the task committed to"
    index = numbers[TASK_WORDS + 1]
    if index >= len(members.members) or members.members[index].operator != operator:
        return "it is about another operator"
    signed = [
        (words[at : at + 64], G1(words[at + 64 : at + 128]))
        for at in range((TASK_WORDS + 2) * 32, (head - 1) * 32, _SIGNED * 32)
    ]
    if selector == _TWO_RESPONSES and signed[0][0] == signed[1][0]:
        return "its two responses are the same"
    if selector == _WRONG_RESPONSE and not _refutes(numbers[_INPUT], signed[0][0], numbers[head - 1]):
        return "nothing shows that its response is wrong"
    committed = registry.sets.get(set_hash)
    if committed is None or (twin := committed.twins[index]) == UNKNOWN_TWIN:
        return ""
    for response, signature in signed:
        digest = bls.signing_digest(chain_id, contract, task_hash, keccak(response))
        if not bls.verify(twin, digest, signature):
            return "a signature is not the operator's"
    return ""


def _refutes(n: int, answer: bytes, divisor: int) -> bool:
    """As TaskManager.refutes."""
    p, q = (int.from_bytes(answer[i : i + 32], "big") for i in (0, 32))
    return p < 2 or n % p != 0 or n // p != q or (1 < divisor < p and n % divisor == 0)

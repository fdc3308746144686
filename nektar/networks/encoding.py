"""How the reference contracts encode what they hash: Task, Member[], Answer (`devnet/contracts/Types.sol`).

All of it is static words but for the array's two-word head, so it is written and read by position. Whoever
checks evidence needs this and nothing heavier: no pyarrow, no ABI library.
"""

from __future__ import annotations

from collections.abc import Sequence

from nektar.chain.keccak import keccak
from nektar.errors import NektarError
from nektar.model import G1, Address, Hash32, Member, OperatorSet, Position

# How function signatures write the structs.
TASK = "(bytes32,uint256,bytes32,bytes32,uint64,uint64,uint16,uint16,uint64)"
PAIR = "(uint256,uint256)"  # an Answer, or a point of G1
MEMBERS = f"(address,{PAIR},uint256)[]"

# The proofs that SlashingManager checks.
PROVE_EQUIVOCATION = f"proveEquivocation({TASK},{MEMBERS},uint256,{PAIR},{PAIR},{PAIR},{PAIR})"
PROVE_EQUIVOCATION_IN_QUORUM = (
    f"proveEquivocationInQuorum({TASK},{MEMBERS},uint256,{PAIR},uint256[],{PAIR},{PAIR})"
)
PROVE_INVALID_RESPONSE = f"proveInvalidResponse({TASK},{MEMBERS},uint256,{PAIR},{PAIR},uint256)"
PROVE_INVALID_RESPONSE_IN_QUORUM = (
    f"proveInvalidResponseInQuorum({TASK},{MEMBERS},uint256,{PAIR},uint256[],uint256)"
)
PROVE_MISSED_DUTY = f"proveMissedDuty({MEMBERS}[],({TASK},uint256,uint256,uint256[])[])"
PROVE_BOND_BREACH = f"proveBondBreach({MEMBERS},uint256)"

TASK_WORDS = 9  # taskType, input, parentHash, setHash, deadline, grace, two thresholds, number
ANSWER_WORDS = 2  # p, q
MEMBER_WORDS = 4  # operator, key.x, key.y, stake
_INPUT, _SET_HASH, _DEADLINE, _GRACE, _NUMBER = 1, 3, 4, 5, 8
# The contracts' own bound on a set is far below this.
MAX_MEMBERS = 100_000
_NO_BYTES = bytes(12)  # before an address


class BadEncoding(NektarError):
    """Bytes that the contracts can't have hashed."""


def word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def padded(address: bytes) -> bytes:
    """The word that stands for an address."""
    return address.rjust(32, b"\0")


class Dynamic(bytes):
    """An argument whose place among a call's is taken by its offset (ABI, "dynamic types")."""


def numbers(values: Sequence[int]) -> Dynamic:
    """A uint256[]."""
    return Dynamic(word(len(values)) + b"".join(map(word, values)))


def array(elements: Sequence[bytes]) -> Dynamic:
    """An array of elements that are encoded already."""
    return Dynamic(word(len(elements)) + tuple_of(*elements))


def members(preimage: bytes) -> Dynamic:
    """The Member[] whose hash is a set's: abi.encode puts an offset before a lone argument."""
    return Dynamic(preimage[32:])


def tuple_of(*parts: bytes) -> bytes:
    """abi.encode of these parts: static ones in place, dynamic ones by their offsets."""
    head = sum(32 if isinstance(part, Dynamic) else len(part) for part in parts)
    heads, tails = b"", b""
    for part in parts:
        if isinstance(part, Dynamic):
            heads += word(head + len(tails))
            tails += part
        else:
            heads += part
    return heads + tails


def selector(signature: str) -> bytes:
    """What names the function of this signature in a call: four octets."""
    return keccak(signature.encode())[:4]


def call(signature: str, *parts: bytes) -> bytes:
    """The calldata of a call of the function of this signature."""
    return selector(signature) + tuple_of(*parts)


def request_id(chain_id: int, manager: bytes, condition: str, subject: bytes, operator: bytes) -> bytes:
    """What each of its proofs answers with, and the request that it makes is called:
    `SlashingManager.requestIdOf`."""
    named = keccak(condition.encode()), subject, padded(operator)
    return keccak(tuple_of(word(chain_id), padded(manager), *named))


def encode_task(fields: Sequence[int | bytes]) -> bytes:
    """abi.encode(Task) of its nine fields in the struct's order. Raises BadEncoding."""
    if len(fields) != TASK_WORDS:
        raise BadEncoding(f"Task: expected {TASK_WORDS} fields; got {len(fields)}")
    words = [f if isinstance(f, bytes) else word(f) for f in fields]
    if any(len(each) != 32 for each in words):
        raise BadEncoding(f"Task: expected words of 32 bytes; got {[len(each) for each in words]}")
    return b"".join(words)


def set_hash_of(task: bytes) -> Hash32:
    """The OperatorSet that an encoded Task commits to. Raises BadEncoding."""
    if len(task) != TASK_WORDS * 32:
        raise BadEncoding(f"Task: expected {TASK_WORDS * 32} bytes; got {len(task)}")
    return Hash32(task[_SET_HASH * 32 : (_SET_HASH + 1) * 32])


def input_of(task: bytes) -> int:
    """The number that an encoded Task asks about. Raises BadEncoding."""
    return _task_word(task, _INPUT)


def number_of(task: bytes) -> int:
    """The number of an encoded Task, a label that rises. Raises BadEncoding."""
    return _task_word(task, _NUMBER)


def deadline_of(task: bytes) -> tuple[int, int]:
    """(deadline, grace) of an encoded Task. Raises BadEncoding."""
    return _task_word(task, _DEADLINE), _task_word(task, _GRACE)


def _task_word(task: bytes, place: int) -> int:
    set_hash_of(task)
    return int.from_bytes(task[place * 32 : (place + 1) * 32])


def encode_answer(p: int, q: int) -> bytes:
    """abi.encode(Answer): the response, whose hash is the digest that is signed."""
    return word(p) + word(q)


def is_answer(response: bytes) -> bool:
    """Whether this is abi.encode(Answer) of some answer."""
    return len(response) == ANSWER_WORDS * 32


def answer_of(response: bytes) -> tuple[int, int]:
    """(p, q) of an encoded Answer. Raises BadEncoding."""
    if not is_answer(response):
        raise BadEncoding(f"Answer: expected {ANSWER_WORDS * 32} bytes; got {len(response)}")
    return int.from_bytes(response[:32]), int.from_bytes(response[32:])


def encode_members(members: Sequence[tuple[bytes, bytes, int]]) -> bytes:
    """abi.encode(Member[]) of (operator, key, stake)."""
    head = word(32) + word(len(members))
    return head + b"".join(bytes(12) + operator + key + word(stake) for operator, key, stake in members)


def members_of(preimage: bytes) -> range:
    """Where each of the members that abi.encode(Member[]) stands for begins. Raises BadEncoding for anything
    that does not encode back to the same bytes."""
    count, size = int.from_bytes(preimage[32:64], "big"), MEMBER_WORDS * 32
    if count > MAX_MEMBERS or preimage[:32] != word(32) or len(preimage) != 64 + count * size:
        raise BadEncoding(f"Member[]: expected 64 bytes and {size} a member; got {len(preimage)}")
    starts = range(64, len(preimage), size)
    if any(preimage[start : start + 12] != _NO_BYTES for start in starts):
        raise BadEncoding("Member[]: an address with dirty upper bytes")
    return starts


def operator_set(preimage: bytes, asset: str = "") -> OperatorSet:
    """The OperatorSet that abi.encode(Member[]) stands for; `asset` names the collateral.

    Raises BadEncoding for anything that does not encode back to the same bytes.
    """
    members = []
    for start in members_of(preimage):
        operator = Address(preimage[start + 12 : start + 32])
        stake = int.from_bytes(preimage[start + 96 : start + 128], "big")
        members.append(Member(operator, G1(preimage[start + 32 : start + 96]), (Position(asset, stake),)))
    return OperatorSet(Hash32(keccak(preimage)), tuple(members), preimage)

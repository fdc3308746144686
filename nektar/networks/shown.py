"""What the reference contracts' logs and storage show (`devnet/contracts`), read by position: whoever checks
evidence needs neither an ABI library nor the adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nektar.chain.keccak import keccak
from nektar.chain.receipt import Entry
from nektar.facts import (
    Accepted,
    Cancelled,
    Counted,
    Executed,
    Fact,
    Listed,
    Paused,
    Requested,
    Submitted,
    Trusted,
    Vetoed,
)
from nektar.model import Address, BlockRef, Hash32, Moment
from nektar.networks.encoding import ANSWER_WORDS, MEMBERS, PAIR, TASK, TASK_WORDS, BadEncoding, word


def kind_of(contract: str) -> str:
    """As `adapter.kind`: of several contracts of one kind, each has a name after a slash."""
    return contract.partition("/")[0]


class Kind(NamedTuple):
    """An event, and which of its topics names the Task and the Operator that it is about (0: none)."""

    contract: str | tuple[str, ...]  # kinds, where the fact says which contract made it
    signature: str
    task: int = 0
    operator: int = 0

    def is_of(self, contract: str) -> bool:
        """Whether the contract of this name makes it."""
        if isinstance(self.contract, str):
            return contract == self.contract
        return kind_of(contract) in self.contract

    @property
    def topic(self) -> Hash32:
        return Hash32(keccak(self.signature.encode()))


PROVES, TRUSTS = "slashing_manager", "trusted_slasher"
_SLASHERS = (PROVES, TRUSTS)
EVENTS = {
    "TaskSubmitted": Kind("task_manager", f"TaskSubmitted(bytes32,uint64,address,{TASK})", task=1),
    "Responded": Kind(
        "task_manager",
        f"Responded(bytes32,bytes32,{PAIR},uint256[],bytes32,{PAIR},(uint256[2],uint256[2]),uint64)",
        task=1,
    ),
    "Attested": Kind(
        "task_manager",
        f"Attested(bytes32,address,bytes32,{PAIR},{PAIR},bool,bool)",
        task=1,
        operator=2,
    ),
    "TaskCancelled": Kind("task_manager", "TaskCancelled(bytes32)", task=1),
    "Paused": Kind("task_manager", "Paused(address)"),
    "Unpaused": Kind("task_manager", "Unpaused(address)"),
    "SlashingRequested": Kind(
        _SLASHERS,
        "SlashingRequested(bytes32,bytes32,address,bytes32,uint256,uint64,uint64)",
        operator=3,
    ),
    "RequestedOnTrust": Kind((TRUSTS,), "RequestedOnTrust(bytes32,address,address,bytes)"),
    "MissCounted": Kind((PROVES,), "MissCounted(bytes32,bytes32,address)", task=2, operator=3),
    "SlashingVetoed": Kind(_SLASHERS, "SlashingVetoed(bytes32)"),
    "SlashingExecuted": Kind(_SLASHERS, "SlashingExecuted(bytes32,address,uint256,address)", operator=2),
    "NetworkListed": Kind("network_registry", "NetworkListed(bytes32,address,address)"),
    "OperatorSetCommitted": Kind("operator_registry", f"OperatorSetCommitted(bytes32,uint64,{MEMBERS})"),
    "Delegated": Kind("delegation", "Delegated(address,address,uint256)", operator=1),
}
_NAMES = {kind.topic: name for name, kind in EVENTS.items()}

# No fact by itself: what it holds shows by its own hash that it is the set.
SET_COMMITTED = EVENTS["OperatorSetCommitted"].topic


def set_of(data: bytes) -> bytes:
    """What the hash of the set is of that was committed, of the event's data: the set's number, and its
    members behind their offset."""
    return word(32) + data[64:]


class Slot(NamedTuple):
    """Where a variable stands: below so many mappings from a slot on, then so many slots further, and of that
    one's 32 bytes `size` from the byte `first` on, counted from the lowest.

    An `array`'s elements stand behind each other from the slot's hash on, as many in one as have room; which
    one it is, the last key says.
    """

    contract: str
    slot: int
    mappings: int = 0
    further: int = 0
    size: int = 32
    first: int = 0
    array: bool = False


# As solc lays them out; tests/nektar/networks/test_shown.py asks it.
VARIABLES = {
    "_status.state": Slot("task_manager", 3, mappings=1, size=1),
    "_status.submittedBlock": Slot("task_manager", 3, mappings=1, further=1, size=8),
    "_status.pauses": Slot("task_manager", 3, mappings=1, further=1, size=8, first=8),
    "_status.recordHash": Slot("task_manager", 3, mappings=1, further=3),
    "_pauses": Slot("task_manager", 4, size=8, array=True),
    "attestedDigest": Slot("task_manager", 6, mappings=2),
    "setHash": Slot("operator_registry", 2),
    "_keys.registration": Slot("operator_registry", 5, mappings=1, further=4, size=8),
    "_ends": Slot("operator_registry", 8, mappings=1, size=8),
    "isUnderbonded": Slot("delegation", 3, mappings=1, size=1),
}


# `_status.state` of a Task that was called off.
CANCELLED = 4


class Stands(NamedTuple):
    """Where a value stands in a contract's storage."""

    slot: bytes  # its 32 bytes
    first: int  # of the bytes of the word there, counted from the lowest
    size: int

    def value(self, stored: int) -> int:
        """Of the word in which it stands."""
        return stored >> 8 * self.first & (1 << 8 * self.size) - 1


def stands(contract: str, name: str, keys: Sequence[bytes]) -> Stands:
    """Where a variable's value stands. Raises BadEncoding."""
    found = VARIABLES.get(name)
    if found is None or found.contract != contract:
        raise BadEncoding(f"expected a variable of {contract} among {', '.join(VARIABLES)}; got {name}")
    count = found.mappings + found.array
    if len(keys) != count or any(len(key) != 32 for key in keys):
        raise BadEncoding(f"{name}: expected {count} keys of 32 bytes; got {len(keys)}")
    place, first = found.slot, found.first
    for key in keys[: found.mappings]:
        place = int.from_bytes(keccak(key + word(place)))
    if found.array:
        further, among = divmod(int.from_bytes(keys[-1]), 32 // found.size)
        place, first = int.from_bytes(keccak(word(place))) + further, among * found.size
    return Stands(word((place + found.further) % 2**256), first, found.size)


def fact_of(
    contract: str, entry: Entry, at: BlockRef, place: tuple[int, int] = (0, 0), time: int = 0
) -> Fact:
    """What a contract's log says that stands in this place of the block. Raises BadEncoding for one that is
    no evidence, or not of this contract."""
    topics, data = entry.topics, entry.data
    name = _NAMES.get(topics[0]) if topics else None
    if name is None or not EVENTS[name].is_of(contract):
        raise BadEncoding(f"expected an event of {contract} that is evidence; got another")
    if name == "TaskSubmitted" and len(topics) == 4 and len(data) == TASK_WORDS * 32:
        if keccak(data) != topics[1]:
            raise BadEncoding("TaskSubmitted: expected the hash of its Task; got another")
        return Submitted(data, at)
    if name == "Responded" and len(topics) == 3:
        return Accepted(topics[1], topics[2], _non_signers(data), at)
    if name == "TaskCancelled" and len(topics) == 2 and not data:
        return Cancelled(topics[1], at)
    if name in ("Paused", "Unpaused") and len(topics) == 1 and len(data) == 32:
        return Paused(at)
    if name == "SlashingRequested" and len(topics) == 4 and len(data) == 4 * 32:
        return _requested(contract, entry, at, place)
    if name == "RequestedOnTrust" and len(topics) == 3 and len(data) >= 3 * 32:
        return Trusted(entry.address, topics[1], _address(data[:32]), _octets(data), at)
    if name == "MissCounted" and len(topics) == 4 and not data:
        return Counted(entry.address, topics[1], topics[2], _address(topics[3]), at, place)
    if name == "SlashingVetoed" and len(topics) == 2 and not data:
        return Vetoed(entry.address, topics[1], at, place)
    if name == "SlashingExecuted" and len(topics) == 3 and len(data) == 2 * 32:
        return Executed(entry.address, topics[1], _address(data[32:]), at, place, time)
    if name == "NetworkListed" and len(topics) == 3 and len(data) == 32:
        return Listed(topics[1], _address(data), at)
    raise BadEncoding(f"{name}: expected its arguments; got {len(topics)} topics, {len(data)} bytes")


_BOND_BREACH = keccak(b"bond_breach")  # the condition with a set's hash in the place of a Task's


def _requested(contract: str, entry: Entry, at: BlockRef, place: tuple[int, int]) -> Requested:
    _, request, condition, operator = entry.topics
    task, _, veto, execution = (entry.data[i : i + 32] for i in range(0, 4 * 32, 32))
    return Requested(
        slasher=entry.address,
        request=request,
        operator=_address(operator),
        condition="0x" + condition.hex(),
        task_hash=None if condition == _BOND_BREACH else Hash32(task),
        set_hash=Hash32(task) if condition == _BOND_BREACH else None,
        proved=kind_of(contract) == PROVES,
        veto_deadline=Moment("block", int.from_bytes(veto)),
        execution_deadline=Moment("block", int.from_bytes(execution)),
        at=at,
        place=place,
    )


def _address(octets: bytes) -> Address:
    if any(octets[:12]):
        raise BadEncoding("expected an address; got one with dirty upper bytes")
    return Address(octets[12:])


def _octets(data: bytes) -> bytes:
    """The bytes at the end of a log's data, of which the second word says where they begin."""
    length = int.from_bytes(data[64:96])
    if data[32:64] != word(64) or len(data) != 96 + (length + 31) // 32 * 32 or any(data[96 + length :]):
        raise BadEncoding("RequestedOnTrust: expected its evidence at the end; got something else")
    return data[96 : 96 + length]


class AttestCall(NamedTuple):
    """A call of TaskManager.attest(Task, Answer, Member[], uint256, G1)."""

    task: bytes
    response: bytes
    place: int  # in the Task's set, of whom it says that it signed
    signature: bytes


_ATTEST = keccak(f"attest({TASK},{PAIR},{MEMBERS},uint256,{PAIR})".encode())[:4]
_RESPOND = keccak(f"respond({TASK},{PAIR},{MEMBERS},uint256[],{PAIR},(uint256[2],uint256[2]))".encode())[:4]


def is_response(calldata: bytes) -> bool:
    """Whether a call brings the TaskManager a response, of one Operator or of a quorum."""
    return calldata[:4] in (_ATTEST, _RESPOND)


def attest_of(calldata: bytes) -> AttestCall | None:
    """What a call of `attest` says; None for any other."""
    words = [calldata[i : i + 32] for i in range(4, 4 + 32 * (TASK_WORDS + ANSWER_WORDS + 4), 32)]
    if calldata[:4] != _ATTEST or len(words[-1]) != 32:
        return None
    task, response, rest = words[:TASK_WORDS], words[TASK_WORDS : TASK_WORDS + ANSWER_WORDS], words[-3:]
    return AttestCall(b"".join(task), b"".join(response), int.from_bytes(rest[0]), b"".join(rest[1:]))


# Words before the array's own: answer, its offset, record hash, signature, apkG2, challenge deadline.
_HEAD = ANSWER_WORDS + 1 + 1 + 2 + 4 + 1


def _non_signers(data: bytes) -> tuple[int, ...]:
    words = [int.from_bytes(data[i : i + 32]) for i in range(0, len(data), 32)]
    if (
        len(data) % 32
        or len(words) <= _HEAD
        or words[ANSWER_WORDS] != _HEAD * 32
        or len(words) != _HEAD + 1 + words[_HEAD]
    ):
        raise BadEncoding("Responded: expected its non-signers at the end; got something else")
    return tuple(words[_HEAD + 1 :])

"""What checked claims establish. A condition says what these add up to; a detector says them of its log."""

from __future__ import annotations

import msgspec

from nektar.model import Address, BlockRef, Hash32, Moment


class Submitted(msgspec.Struct, frozen=True):
    """A Task was submitted in this block."""

    task: bytes  # preimage of the taskHash
    at: BlockRef


class Accepted(msgspec.Struct, frozen=True):
    """The contract accepted a response of a quorum."""

    task_hash: Hash32
    digest: Hash32
    non_signers: tuple[int, ...]
    at: BlockRef


class Member(msgspec.Struct, frozen=True):
    """An Operator owes a response to a Task."""

    task_hash: Hash32
    operator: Address
    index: int
    key_hash: Hash32


class NotMember(msgspec.Struct, frozen=True):
    """An Operator is not in the set that a Task committed to."""

    task_hash: Hash32
    operator: Address


class InSet(msgspec.Struct, frozen=True):
    """An Operator is a member of an OperatorSet, whatever commits to that."""

    set_hash: Hash32
    operator: Address
    index: int
    key_hash: Hash32


class Signed(msgspec.Struct, frozen=True):
    """An Operator signed a response to a Task, alone or in a quorum."""

    task_hash: Hash32
    operator: Address
    digest: Hash32
    alone: bool


class Forged(msgspec.Struct, frozen=True):
    """This is no signature of an Operator's over a response to a Task."""

    task_hash: Hash32
    operator: Address
    digest: Hash32
    signature: bytes


class Refuted(msgspec.Struct, frozen=True):
    """A response to a Task is wrong."""

    task_hash: Hash32
    digest: Hash32


class Cancelled(msgspec.Struct, frozen=True):
    """A Task was called off."""

    task_hash: Hash32
    at: BlockRef


class Paused(msgspec.Struct, frozen=True):
    """The Network was paused at this block: a pause began in it, or ended."""

    at: BlockRef


class Requested(msgspec.Struct, frozen=True):
    """A contract was asked to slash somebody."""

    slasher: Address
    request: Hash32
    operator: Address
    condition: str
    task_hash: Hash32 | None
    proved: bool  # the contract has checked a proof
    veto_deadline: Moment
    execution_deadline: Moment | None
    at: BlockRef
    place: tuple[int, int]  # of its transaction in the block, and of its log among that one's
    set_hash: Hash32 | None = None  # the OperatorSet that a breach of a bond is about


class Trusted(msgspec.Struct, frozen=True):
    """What more is said of a request on somebody's word."""

    slasher: Address
    request: Hash32
    receiver: Address | None
    evidence: bytes
    at: BlockRef


class Counted(msgspec.Struct, frozen=True):
    """An Operator's miss of a Task counted for a request, and counts for no other."""

    slasher: Address
    request: Hash32
    task_hash: Hash32
    operator: Address
    at: BlockRef
    place: tuple[int, int]


class Vetoed(msgspec.Struct, frozen=True):
    """A request was overruled."""

    slasher: Address
    request: Hash32
    at: BlockRef
    place: tuple[int, int]


class Executed(msgspec.Struct, frozen=True):
    """A request was executed."""

    slasher: Address
    request: Hash32
    receiver: Address | None
    at: BlockRef
    place: tuple[int, int]
    time: int  # of the block


class Listed(msgspec.Struct, frozen=True):
    """A Network has this Burner."""

    network: Hash32
    burner: Address
    at: BlockRef


class Stored(msgspec.Struct, frozen=True):
    """What a contract's variable was after a block."""

    contract: str
    name: str
    keys: tuple[bytes, ...]
    value: int
    at: BlockRef


class Called(msgspec.Struct, frozen=True):
    """Somebody called a contract, and what became of it."""

    contract: str
    transaction: Hash32
    sender: Address
    input: bytes
    succeeded: bool | None  # None: before Byzantium receipts did not say
    at: BlockRef


class Absent(msgspec.Struct, frozen=True):
    """No such log was made in blocks `first` to `last`."""

    event: str
    first: int
    last: int
    task_hash: Hash32 | None
    operator: Address | None


Fact = (
    Submitted
    | Accepted
    | Member
    | NotMember
    | InSet
    | Signed
    | Forged
    | Refuted
    | Cancelled
    | Paused
    | Requested
    | Trusted
    | Counted
    | Vetoed
    | Executed
    | Listed
    | Stored
    | Called
    | Absent
)

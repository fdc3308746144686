"""The model of a Network: its nouns, and what can happen to them.

Everything above speaks these types. An adapter in `nektar/networks/` turns a Network's own contract
events and calls into the events below; folds turn events into rows and findings (`rows.py`). The model is
wider than the reference Network: deadlines may be blocks, timestamps or epochs, stake is a set of
positions, a signature names its scheme.

Units: block numbers and block counts are ints; times are seconds since 1970 UTC, as the chain says;
amounts are in the collateral's smallest unit (wei).
"""

from __future__ import annotations

import enum
from typing import Literal, NewType

import msgspec

from nektar.errors import NektarError
from nektar.telemetry import Step

Hash32 = NewType("Hash32", bytes)
"""32 bytes: a block hash, a taskHash, a digest."""
Address = NewType("Address", bytes)
"""20 bytes."""


class Level(enum.StrEnum):
    """How well a block was checked (docs/DESIGN.md, "Trust nothing that can be checked")."""

    PROVED = "proved"  # header hash, transactionsRoot and receiptsRoot recomputed
    LINKED = "linked"  # header chain holds; no provider could serve the receipts
    REPORTED = "reported"  # eth_getLogs believed; never in a Network's log


class BlockRef(msgspec.Struct, frozen=True, array_like=True):
    """One block, named so that no fork can be meant instead."""

    number: int
    hash: Hash32


class Block(msgspec.Struct, frozen=True, array_like=True):
    """A block as the log carries it."""

    number: int
    hash: Hash32
    parent: Hash32
    time: int
    level: Level
    provider: str  # the provider's name in nektar.yaml, never its URL: URLs hold secrets
    anchor: str  # what makes it canonical: "single:<provider>", "quorum m/n" or "pinned"

    @property
    def ref(self) -> BlockRef:
        return BlockRef(self.number, self.hash)


class At(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Where on the chain something happened. Sorts in the chain's own order.

    A call has the log index -1, so that it stands before the logs that it made.
    """

    block: int
    tx: int
    log: int


class Moment(msgspec.Struct, frozen=True, array_like=True):
    """A moment in the Network's own unit: a block, a second since 1970 UTC, an epoch of its contracts."""

    unit: Literal["block", "timestamp", "epoch"]
    value: int


Deadline = Moment
"""The last moment that still counts. Where a contract names the first that does not, it is one less."""


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Collateral of one kind behind an Operator: a token, or a strategy or vault that holds some."""

    asset: str
    amount: int
    unit: Literal["wei", "wad"] = "wei"  # wad: so many parts in 10^18 of what the Operator has of it


G1 = NewType("G1", bytes)
"""A point of BN254's G1 as the EVM's precompiles read it: 64 bytes, x ‖ y, big-endian. All zero is the
identity, which is never a key or a signature."""
G2 = NewType("G2", bytes)
"""A point of BN254's G2 as EIP-197 reads it: 128 bytes, x.c1 ‖ x.c0 ‖ y.c1 ‖ y.c0, big-endian."""


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One Operator in a committed OperatorSet. Its index in the set is its bit in every bitmap."""

    operator: Address
    key: G1
    stake: tuple[Position, ...]


class OperatorSet(msgspec.Struct, frozen=True):
    """The Operators that a Task committed to, in the order of the commitment."""

    hash: Hash32
    members: tuple[Member, ...]
    preimage: bytes = b""  # what `hash` is the hash of, as the contracts encode it


class SetAt(msgspec.Struct, frozen=True, array_like=True):
    """An OperatorSet that is kept member by member, as it stood at this moment's end."""

    set: Hash32  # the contracts' own name of it
    at: Moment


class Task(msgspec.Struct, frozen=True):
    """A unit of work. `hash` is its identity, which no fork can reuse; `number` is only a label.

    Where the contracts know a Task by its number alone, `hash` is of (chain id, contract, number) and there
    is no preimage: another fork can reuse it, so that a signature for it accuses nobody.
    """

    hash: Hash32
    number: int
    type: Hash32
    input: str  # as people read it: a decimal for a number, 0x… for bytes
    set_hash: Hash32
    submitted: At
    deadline: Deadline
    grace: int  # in the deadline's unit; attestations in it are `late`
    response_threshold: int  # basis points of members
    stake_threshold: int  # basis points of stake, in each of `sets` where there are several
    submitter: Address
    preimage: bytes = b""  # what `hash` is the hash of, as the contracts encode it
    sets: tuple[SetAt, ...] = ()  # what `set_hash` stands for, where no set is committed whole


# --- what can happen --------------------------------------------------------------------------------


class OperatorRegistered(msgspec.Struct, frozen=True, tag=True):
    at: At
    operator: Address
    key: G1
    key_g2: G2
    region: str
    validators: int


class KeyRotated(msgspec.Struct, frozen=True, tag=True):
    """The new key counts from the next OperatorSet on; open Tasks keep the set they committed to."""

    at: At
    operator: Address
    key: G1
    key_g2: G2


class OperatorDeregistered(msgspec.Struct, frozen=True, tag=True):
    at: At
    operator: Address
    effective: int  # first block at which it no longer owes duties for new Tasks


class OperatorSetCommitted(msgspec.Struct, frozen=True, tag=True):
    at: At
    set: OperatorSet


class OperatorAdded(msgspec.Struct, frozen=True, tag=True):
    """An OperatorSet that is kept member by member has a new member."""

    at: At
    set: Hash32
    operator: Address


class OperatorRemoved(msgspec.Struct, frozen=True, tag=True):
    at: At
    set: Hash32
    operator: Address


class StakeChanged(msgspec.Struct, frozen=True, tag=True):
    """What an Operator has at stake of one kind in such a set; it may be said before it is a member.

    `operator` is the hash of its key (`evidence.bls.key_hash`) where the contract names it by that alone.
    """

    at: At
    set: Hash32
    operator: Address | Hash32
    position: Position
    effective: Moment


class CollateralOpened(msgspec.Struct, frozen=True, tag=True):
    """The contract that keeps collateral came to be: none is behind anybody yet."""

    at: At


class Delegated(msgspec.Struct, frozen=True, tag=True):
    """Collateral was put behind an Operator, and counts as its stake."""

    at: At
    operator: Address
    amount: int


class WithdrawalRequested(msgspec.Struct, frozen=True, tag=True):
    """Collateral was asked back: it counts as stake no more, and can be slashed until it is taken back."""

    at: At
    withdrawal: int
    operator: Address
    amount: int


class Withdrawn(msgspec.Struct, frozen=True, tag=True):
    """What was asked back was taken back, or what slashings left of it."""

    at: At
    withdrawal: int
    amount: int


class Slashed(msgspec.Struct, frozen=True, tag=True):
    """Collateral behind an Operator was taken, from its stake and what waits to be taken back alike."""

    at: At
    operator: Address
    amount: int


class TaskSubmitted(msgspec.Struct, frozen=True, tag=True):
    at: At
    task: Task


class Responded(msgspec.Struct, frozen=True, tag=True):
    """The Aggregator's response was accepted. Signers = set − non_signers: indices into the set, or keys.

    None where the log does not tell them: a contract may take them as arguments and emit but their hash.
    """

    at: At
    task_hash: Hash32
    digest: Hash32
    non_signers: tuple[int | G1, ...] | None
    challenge_deadline: int = 0  # last moment to challenge it, in the unit of the Task's deadline; 0: none
    response: bytes = b""  # what `digest` is the hash of, where it is known
    signature: G1 = G1(b"")  # the sum of the signers', where the log tells it
    apk_g2: G2 = G2(b"")  # the sum of their keys in G2


class ResponseChallenged(msgspec.Struct, frozen=True, tag=True):
    """The accepted response was refuted, and is accepted no more."""

    at: At
    task_hash: Hash32


class Attested(msgspec.Struct, frozen=True, tag=True):
    """An Operator put its own response on chain. `kept` is false where the contract held an earlier one."""

    at: At
    task_hash: Hash32
    operator: Address
    digest: Hash32
    kept: bool


class TaskCancelled(msgspec.Struct, frozen=True, tag=True):
    at: At
    task_hash: Hash32


class Paused(msgspec.Struct, frozen=True, tag=True):
    """The Network takes no Tasks and no responses, until it is `Unpaused`."""

    at: At


class Unpaused(msgspec.Struct, frozen=True, tag=True):
    at: At


class SlashingRequested(msgspec.Struct, frozen=True, tag=True):
    """Somebody asked `slasher` to take collateral. `request` is a name of that contract's own.

    A penalty in `wad` is of what the Operator has in the set. One without an asset is of that which the
    execution names in its place.
    """

    at: At
    slasher: Address
    request: Hash32
    operator: Address
    penalty: tuple[Position, ...]
    veto_deadline: Deadline
    condition: str = ""  # what the contract says it is for: 0x… for a hash
    task_hash: Hash32 | None = None
    set: Hash32 | None = None  # of Networks with several: in which of them
    captured: Moment | None = None  # whose stake is slashed; a later one that is executed voids this request
    execution_deadline: Deadline | None = None  # None: none, or the log does not say
    proved: bool = False  # the contract checked a proof; else somebody's word was enough
    set_hash: Hash32 | None = None  # of a breach of a bond: the OperatorSet that it is about


class SlashingTrusted(msgspec.Struct, frozen=True, tag=True):
    """What more is said of a request that was just made on somebody's word."""

    at: At
    slasher: Address
    request: Hash32
    authority: Address  # whose word it is
    receiver: Address | None = None  # who is to get what is taken
    evidence: bytes = b""  # calldata of a proof, if any is shown: no contract has looked at it


class VetoVoted(msgspec.Struct, frozen=True, tag=True):
    """A member of the VetoCommittee voted to overrule a request, of this Network's or another's."""

    at: At
    slasher: Address
    request: Hash32
    member: Address
    votes: int  # that there are now
    needed: int = 0  # so many overrule it; 0: the log does not say


class MissCounted(msgspec.Struct, frozen=True, tag=True):
    """A miss counted for a request of `slasher`; it counts for no other."""

    at: At
    slasher: Address
    request: Hash32
    task_hash: Hash32
    operator: Address


class SlashingVetoed(msgspec.Struct, frozen=True, tag=True):
    at: At
    slasher: Address
    request: Hash32


class SlashingExecuted(msgspec.Struct, frozen=True, tag=True):
    """Collateral was taken: of what the Operator has in all sets, where the penalty is in `wad`."""

    at: At
    slasher: Address
    request: Hash32 | None  # None: it was not requested first, or the log does not say which it is
    operator: Address | None  # None: the request's
    penalty: tuple[Position, ...]
    condition: str = ""
    set: Hash32 | None = None
    captured: Moment | None = None
    receiver: Address | None = None  # where it went; None: the log does not say


class NetworkListed(msgspec.Struct, frozen=True, tag=True):
    """The registry has this Network; its slashed collateral may go nowhere but to the Burner."""

    at: At
    network: Hash32  # its id there
    builder: Address
    burner: Address


class Signed(msgspec.Struct, frozen=True, tag=True):
    """An Operator's signature over a response to a Task, not yet verified: it is when it first matters.

    From calldata `at` says where and the operator is the transaction's sender; from telemetry `at` is None
    and `brought_by` names the sender who reported it, whoever signed it.
    """

    at: At | None
    task_hash: Hash32
    operator: Address
    digest: Hash32
    signature: G1
    response: bytes = b""  # what `digest` is the hash of, where it is known
    scheme: Literal["bls-bn254"] = "bls-bn254"
    brought_by: str = ""  # whose token did (`senders.Sender`); empty from calldata


class Report(msgspec.Struct, frozen=True, tag=True):
    """What a sender of telemetry says of a part of the work on a Task: a span, in short. It explains and
    never decides; an Operator's is of itself alone."""

    brought_by: str
    role: str  # operator, aggregator or observer
    operator: Address  # whom it is about
    task_hash: Hash32
    step: Step
    span: bytes  # its id, 8 bytes
    begun: int  # number of the newest block that the sender knew then; -1: not said
    ended: int
    error: str = ""  # OpenTelemetry's error.type; empty: none
    response: bytes = b""  # that was computed, signed or sent, where it is said


class Heartbeat(msgspec.Struct, frozen=True, tag=True):
    """An Operator says that it has followed the chain from block `first` to `last` without a break."""

    operator: Address
    first: int
    last: int


Told = Report | Heartbeat
"""What explains duties."""


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """A contract refused a response: the call reverted. Who sent it is all that is sure; whether the member
    in this place signed what it holds is to be verified."""

    at: At
    transaction: Hash32
    sender: Address
    task_hash: Hash32
    digest: Hash32
    index: int | None = None  # of whom it says that it signed alone, in the Task's set; None: an aggregate
    response: bytes = b""
    signature: G1 = G1(b"")


class BlockClosed(msgspec.Struct, frozen=True, tag=True):
    """The last event of every block: all that happened in it has been said."""

    block: Block


class GapPassed(msgspec.Struct, frozen=True, tag=True):
    """Blocks `first` to `last` can't be had: no negative claim may rest on them."""

    first: int
    last: int


ChainEvent = (
    OperatorRegistered
    | KeyRotated
    | OperatorDeregistered
    | OperatorSetCommitted
    | OperatorAdded
    | OperatorRemoved
    | StakeChanged
    | CollateralOpened
    | Delegated
    | WithdrawalRequested
    | Withdrawn
    | Slashed
    | TaskSubmitted
    | Responded
    | ResponseChallenged
    | Attested
    | TaskCancelled
    | Paused
    | Unpaused
    | SlashingRequested
    | MissCounted
    | SlashingTrusted
    | VetoVoted
    | SlashingVetoed
    | SlashingExecuted
    | NetworkListed
    | Signed
    | Rejected
)
Event = ChainEvent | Told | BlockClosed | GapPassed
Brought = Signed | Told
"""What telemetry brings onto a Network's log: it is in no block."""


class Network(msgspec.Struct, frozen=True):
    """What a fold must know of the Network that it folds; part of its input, so part of every replay."""

    name: str
    chain_id: int
    contracts: dict[str, Address]  # the adapter's names: "task_manager", "operator_registry", …
    generation: int = 1
    selector: dict[str, str] = {}  # which part of contracts that many Networks share is this one's
    terms: dict[str, int] = {}  # what contracts hold in their code and no event says: windows, periods

    def contract(self, name: str) -> Address:
        """The address of a contract that a fold can't do without. Raises UnknownContract."""
        if name not in self.contracts:
            raise UnknownContract(
                f"networks.{self.name}.contracts: expected {name}, on which this rests; "
                f"got {', '.join(sorted(self.contracts)) or 'none'}"
            )
        return self.contracts[name]

    def term(self, name: str) -> int:
        """What a contract holds in its code. Raises UnknownTerm."""
        if name not in self.terms:
            raise UnknownTerm(
                f"networks.{self.name}.terms: expected {name}, on which slashing conditions rest; "
                f"got {', '.join(sorted(self.terms)) or 'none'}"
            )
        return self.terms[name]


class UnknownContract(NektarError):
    """The configuration does not name a contract that is needed."""

    exit_code = 2


class UnknownTerm(NektarError):
    """The configuration does not say what a contract holds in its code."""

    exit_code = 2

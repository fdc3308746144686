"""The bundle: what a stranger is shown, complete, so that it is checked offline. Its format is the document
docs/EVIDENCE.md.

A claim is checkable by itself, against the bundle's blocks and sets, with nothing believed of who shows it.
What it establishes is one of the `facts.py`; what facts add up to is the condition's to say.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from nektar.chain.keccak import keccak
from nektar.evidence import canonical
from nektar.evidence.canonical import Natural, NotCanonical, Octets

FORMAT: Literal["nektar-evidence/1"] = "nektar-evidence/1"
# A miss over a hundred devnet blocks is some hundred kB, a thousand Operators' set some more.
MAX_BYTES = 16 * 1024 * 1024
# Most of a bundle's are nodes of tries, and long; short ones would take longest to read.
MAX_OCTETS = 1 << 18

# How contracts, events, variables and conditions are called: names that can be shown on any terminal.
Name = Annotated[str, msgspec.Meta(pattern="^[!-~]+$", max_length=100)]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A block, as far as it is shown."""

    header: Octets  # RLP
    receipts: tuple[Octets, ...] | None = None  # all of the block's, where an absence needs them


class EventClaim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="event", tag_field="claim"):
    """A contract made this log."""

    contract: Name
    block: Natural
    transaction: Natural  # its place in the block
    log: Natural  # its place in the receipt
    receipt: Octets  # envelope, as the trie holds it
    proof: tuple[Octets, ...]  # nodes from receiptsRoot on


class CallClaim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="call", tag_field="claim"):
    """A transaction called a contract, and this is what became of it."""

    contract: Name
    block: Natural
    index: Natural  # its place in the block
    transaction: Octets  # envelope
    transaction_proof: tuple[Octets, ...]  # nodes from transactionsRoot on
    receipt: Octets
    receipt_proof: tuple[Octets, ...]


class MemberClaim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="member", tag_field="claim"):
    """An Operator is in the set that a Task committed to: it owes a response."""

    task: Octets  # preimage of the taskHash
    index: Natural  # its place in the set


class SetMemberClaim(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="set_member", tag_field="claim"
):
    """An Operator is in an OperatorSet; that any Task committed to it is not said."""

    set: Octets  # its hash
    index: Natural  # the Operator's place in it


class NonMemberClaim(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="non_member", tag_field="claim"
):
    """An Operator is not in the set that a Task committed to: it owes nothing."""

    task: Octets
    operator: Octets


class SignatureClaim(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="signature", tag_field="claim"
):
    """A member of the set that a Task committed to signed this response to it."""

    task: Octets
    index: Natural
    key_g2: Octets  # the member's key in G2
    response: Octets  # preimage of the response digest
    signature: Octets


class ForgeryClaim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="forgery", tag_field="claim"):
    """This is no signature over the response, of the member of the set that a Task committed to."""

    task: Octets
    index: Natural
    key_g2: Octets
    response: Octets
    signature: Octets  # 64 bytes, as a contract would take them


class AggregateClaim(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="aggregate_signature", tag_field="claim"
):
    """All members but these signed this response to a Task. Whoever it takes for a signer is one, and the
    hash of the record (task, response, non-signers) follows."""

    task: Octets
    non_signers: tuple[Natural, ...]  # places in the set, rising
    apk_g2: Octets  # the sum of the signers' keys in G2
    response: Octets
    signature: Octets  # the sum of theirs


class Variable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A variable in a contract's storage, by the name and keys from which its slot follows."""

    name: Name
    keys: tuple[Octets, ...]
    proof: tuple[Octets, ...]  # nodes from the storage root on


class StateClaim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="state", tag_field="claim"):
    """What stood in a contract's storage after a block (EIP-1186)."""

    contract: Name
    block: Natural
    account: tuple[Octets, ...]  # nodes from stateRoot on
    variables: tuple[Variable, ...]


class AbsenceClaim(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag="absence",
    tag_field="claim",
):
    """A contract made no such log in blocks `first` to `last`."""

    contract: Name
    event: Name
    first: Natural
    last: Natural
    task: Octets | None = None  # no such log of this Task
    operator: Octets | None = None  # and of this Operator


class RefutationClaim(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="refutation", tag_field="claim"
):
    """The contracts' own check rejects this response to a Task."""

    task: Octets
    response: Octets
    divisor: Octets  # 32 bytes; zero where the response refutes itself


Claim = (
    EventClaim
    | CallClaim
    | MemberClaim
    | SetMemberClaim
    | NonMemberClaim
    | SignatureClaim
    | AggregateClaim
    | ForgeryClaim
    | StateClaim
    | AbsenceClaim
    | RefutationClaim
)


class Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a verdict needs, and nothing else."""

    format: Literal["nektar-evidence/1"]
    condition: Name
    chain_id: Natural
    contracts: dict[Name, Octets]  # that claims are about; held against the reader's own
    operator: Octets  # who is accused
    subject: Octets  # what the accusation is about: a taskHash, a set's hash, a request
    blocks: tuple[Part, ...]  # by rising number
    sets: tuple[Octets, ...]  # preimages of the hashes of OperatorSets that claims name, sorted
    claims: tuple[Claim, ...]


def write(bundle: Bundle) -> bytes:
    """The bundle's one text."""
    return canonical.encode(bundle)


def read(text: bytes) -> Bundle:
    """The bundle of a text. Raises NotCanonical."""
    if len(text) > MAX_BYTES:
        raise NotCanonical(f"bundle: expected at most {MAX_BYTES} bytes; got {len(text)}")
    if (octets := text.count(b'"0x')) > MAX_OCTETS:
        raise NotCanonical(f"bundle: expected at most {MAX_OCTETS} strings of bytes; got {octets}")
    return canonical.decode(text, Bundle)


def finding_id(condition: str, chain_id: int, contract: bytes, subject: bytes, operator: bytes) -> bytes:
    """A finding's name: of the fact alone, wherever and whenever it is found, and whatever the reader calls
    the Network. `contract` is its TaskManager."""
    parts = [condition, chain_id, contract.hex(), subject.hex(), operator.hex()]
    return keccak(canonical.encode(parts))

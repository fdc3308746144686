"""What a finding says of the evidence for it: claims that are whole, and what is to be fetched for others.

It is made of the log alone, so it is part of the finding (`rows.Finding.facts`). Blocks are named by their
hashes, so that what is fetched later, from whomever, is of the chain on which it was found.
"""

from __future__ import annotations

import msgspec

from nektar.evidence import canonical
from nektar.evidence.bundle import (
    AggregateClaim,
    ForgeryClaim,
    MemberClaim,
    NonMemberClaim,
    RefutationClaim,
    SetMemberClaim,
    SignatureClaim,
)
from nektar.evidence.canonical import Natural, Octets
from nektar.model import At, BlockRef, Hash32


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a log stands."""

    number: Natural
    hash: Octets
    transaction: Natural
    log: Natural  # in the block


class EventSought(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="event", tag_field="sought"):
    """The log in this place."""

    contract: str
    place: Place


class CallSought(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="call", tag_field="sought"):
    """The call in this place."""

    contract: str
    number: Natural
    hash: Octets
    index: Natural  # of its transaction in the block


class AbsenceSought(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag="absence",
    tag_field="sought",
):
    """That a contract made no such log in these blocks, the last of which has this hash."""

    contract: str
    event: str
    first: Natural
    last: Natural
    hash: Octets
    task: Octets | None = None
    operator: Octets | None = None


class VariableSought(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A variable; an empty key stands for the value of the one before it."""

    name: str
    keys: tuple[Octets, ...]


class StateSought(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="state", tag_field="sought"):
    """What stood in a contract's storage after the finding's block."""

    contract: str
    variables: tuple[VariableSought, ...]


class SetSought(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """The preimage of an OperatorSet's hash. It is large, and its own hash shows that it is it: so a finding
    says in which block it was committed, and whoever gathers the claims has it from anybody."""

    hash: Octets
    block: Natural


Whole = (
    MemberClaim
    | SetMemberClaim
    | NonMemberClaim
    | SignatureClaim
    | AggregateClaim
    | ForgeryClaim
    | RefutationClaim
)
ToFetch = EventSought | CallSought | AbsenceSought | StateSought


class Sought(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The claims of a finding, in their order: those to be fetched, and those that are whole."""

    subject: Octets  # what the finding is about: a taskHash, a set's hash, a request
    fetch: tuple[ToFetch, ...] = ()
    whole: tuple[Whole, ...] = ()
    sets: tuple[SetSought, ...] = ()  # sorted, each once
    reason: str = ""  # where a condition has several
    notes: dict[str, str] = {}  # for people: what the claims are about, and show


def event(contract: str, block: BlockRef, at: At) -> EventSought:
    """The log at `at` in the block."""
    return EventSought(contract, Place(block.number, Octets(block.hash), at.tx, at.log))


def pinned(sought: Sought, found_at: BlockRef) -> frozenset[BlockRef]:
    """The blocks that a finding of this block names by their hashes. What is shown of it rests on these and
    those below that they are linked to, and on no other: nothing else is known to be of the log's chain."""
    pins = {found_at}
    for each in sought.fetch:
        match each:
            case EventSought(place=place):
                pins.add(BlockRef(place.number, Hash32(place.hash)))
            case CallSought(number=number, hash=hash_) | AbsenceSought(last=number, hash=hash_):
                pins.add(BlockRef(number, Hash32(hash_)))
    return frozenset(pins)


def write(sought: Sought) -> str:
    """The text that a finding carries."""
    return canonical.encode(sought).decode()


def read(text: str) -> Sought:
    """What `write` wrote. Raises NotCanonical."""
    return canonical.decode(text.encode(), Sought)

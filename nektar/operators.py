"""The Operators of a Network as its registry's events tell: who they are, their keys, the committed sets.

A small pure fold of its own, which ledgers and conditions keep in their state. A Task names the OperatorSet
that it committed to, so a set stays while it is the newest or a Task holds it, with what is asked of it
later: each member's place, its key's twin in G2, and whether it has left since.

Grows with the Operators that ever registered (some 400 bytes each); a row of theirs may change at any time.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from immutables import Map

from nektar.model import (
    G1,
    G2,
    Address,
    Event,
    Hash32,
    KeyRotated,
    OperatorDeregistered,
    OperatorRegistered,
    OperatorSet,
    OperatorSetCommitted,
)

# The twin of a key that was registered before the log begins: nothing verifies under the identity.
UNKNOWN_TWIN = G2(bytes(128))


class Operator(msgspec.Struct, frozen=True):
    """One Operator as the registry knows it."""

    key: G1
    key_g2: G2
    region: str
    validators: int
    registered: int  # block
    deregistered: int = 0  # first block without duties for new Tasks; 0: it is registered


class Committed(msgspec.Struct, frozen=True):
    """An OperatorSet since its (last) commitment. A member's place is its index, and its bit in bitmaps."""

    set: OperatorSet
    places: Map[Address, int]
    twins: tuple[G2, ...]  # of the members' keys, by place
    left: Map[int, int] = Map()  # place → first block without duties, of those that deregistered since
    holds: int = 0  # Tasks that need it
    since: int = 0  # block of the commitment since which it is here

    @property
    def everyone(self) -> int:
        """The bitmap of all members."""
        return (1 << len(self.set.members)) - 1

    def all_but(self, non_signers: Iterable[int | G1]) -> int:
        """The bitmap of all members but these, named by their places or their keys."""
        named = {*non_signers}
        places = {each for each in named if isinstance(each, int)}
        if len(places) < len(named):
            places |= {place for place, member in enumerate(self.set.members) if member.key in named}
        return self.everyone & ~sum(1 << place for place in places if place < len(self.set.members))

    def left_by(self, block: int) -> int:
        """The bitmap of members whose deregistration has taken effect by this block.

        Who registers again after it brings a new key, is a member from the next set on, and owes nothing
        as a member of this one.
        """
        return sum(1 << place for place, effective in self.left.items() if effective <= block)


class Registry(msgspec.Struct, frozen=True):
    """What the registry's events add up to."""

    operators: Map[Address, Operator] = Map()
    sets: Map[Hash32, Committed] = Map()
    newest: Hash32 | None = None

    @property
    def newest_set(self) -> Committed | None:
        return self.sets.get(self.newest) if self.newest is not None else None


def step(registry: Registry, event: Event) -> Registry:
    """The registry after the event; the same object where the event is none of its business."""
    match event:
        case OperatorRegistered():
            operator = Operator(event.key, event.key_g2, event.region, event.validators, event.at.block)
            return _with_operator(registry, event.operator, operator)
        case KeyRotated():
            known = registry.operators.get(event.operator)
            if known is None:  # registered before the log begins
                known = Operator(event.key, event.key_g2, "", 0, 0)
            operator = msgspec.structs.replace(known, key=event.key, key_g2=event.key_g2)
            return _with_operator(registry, event.operator, operator)
        case OperatorDeregistered():
            return _deregistered(registry, event)
        case OperatorSetCommitted():
            return _committed(registry, event.set, event.at.block)
    return registry


def hold(registry: Registry, set_hash: Hash32) -> Registry:
    """A Task needs this set, which is known, until it is released."""
    committed = registry.sets[set_hash]
    held = msgspec.structs.replace(committed, holds=committed.holds + 1)
    return msgspec.structs.replace(registry, sets=registry.sets.set(set_hash, held))


def release(registry: Registry, set_hash: Hash32) -> Registry:
    """A Task that held this set needs it no more."""
    committed = registry.sets[set_hash]
    held = msgspec.structs.replace(committed, holds=committed.holds - 1)
    return _let_go(msgspec.structs.replace(registry, sets=registry.sets.set(set_hash, held)), set_hash)


def _with_operator(registry: Registry, address: Address, operator: Operator) -> Registry:
    return msgspec.structs.replace(registry, operators=registry.operators.set(address, operator))


def _deregistered(registry: Registry, event: OperatorDeregistered) -> Registry:
    sets = registry.sets
    for set_hash, committed in registry.sets.items():
        if (place := committed.places.get(event.operator)) is not None:
            effective = min(event.effective, committed.left.get(place, event.effective))
            left = committed.left.set(place, effective)
            sets = sets.set(set_hash, msgspec.structs.replace(committed, left=left))
    registry = msgspec.structs.replace(registry, sets=sets)
    if (known := registry.operators.get(event.operator)) is None:
        return registry
    return _with_operator(
        registry, event.operator, msgspec.structs.replace(known, deregistered=event.effective)
    )


def _committed(registry: Registry, set_: OperatorSet, block: int) -> Registry:
    """Members are registered at the commitment, with the keys that the set names. Of one that Tasks hold the
    first commitment is kept: what rests on that, an undo of a later one leaves as it is."""
    twins = []
    for member in set_.members:
        known = registry.operators.get(member.operator)
        twins.append(known.key_g2 if known and known.key == member.key else UNKNOWN_TWIN)
    before = registry.sets.get(set_.hash)
    committed = Committed(
        set=set_,
        places=Map((member.operator, place) for place, member in enumerate(set_.members)),
        twins=tuple(twins),
        holds=before.holds if before else 0,
        since=before.since if before else block,
    )
    former = registry.newest
    registry = msgspec.structs.replace(
        registry, sets=registry.sets.set(set_.hash, committed), newest=set_.hash
    )
    return registry if former is None else _let_go(registry, former)


def _let_go(registry: Registry, set_hash: Hash32) -> Registry:
    if set_hash == registry.newest or registry.sets[set_hash].holds > 0:
        return registry
    return msgspec.structs.replace(registry, sets=registry.sets.delete(set_hash))

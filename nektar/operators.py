"""The Operators of a Network as its registry's events tell: who they are, their keys, the committed sets.

A small pure fold of its own, which ledgers and conditions keep in their state. A Task names the OperatorSet
that it committed to, so a set stays while it is the newest or a Task holds it, with what is asked of it
later: each member's place, its key's twin in G2, and whether it has left since.

Conditions hold the sets of Tasks for as long as these can be slashed for, and a set may change with every few
of them; most members of one are those of the other. So a key that an Operator brought is kept once, however
many sets have it, and goes with the last of them; a set is the numbers of its members' keys, four bytes each.
Beside that it grows with the Operators that ever registered (some 400 bytes each); a row of theirs may change
at any time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache

import msgspec
from immutables import Map

from nektar.evidence import bls
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

# The twin of a key that was registered before the log begins, or whose own was not told: nothing verifies
# under the identity.
UNKNOWN_TWIN = G2(bytes(128))

# Keys whose twins were checked: as many as a few large OperatorSets hold.
_CHECKED = 4096

_NUMBER = 4  # bytes


class Operator(msgspec.Struct, frozen=True):
    """One Operator as the registry knows it."""

    key: G1
    key_g2: G2
    region: str
    validators: int
    registered: int  # block
    deregistered: int = 0  # first block without duties for new Tasks; 0: it is registered


class Key(msgspec.Struct, frozen=True, array_like=True):
    """A key that an Operator has in some set."""

    operator: Address
    key: G1
    told: G2  # as its twin
    sets: int = 0  # so many of those that are held have it

    @property
    def twin(self) -> G2:
        """The same key in G2; UNKNOWN_TWIN where it is not known.

        The registry takes no two keys that are not twins. But what a block without receipts tells is a
        provider's word, and under another key's twin true signatures are false and a liar's true. So it is
        checked, when somebody asks for it: most folds never do.
        """
        return self.told if _are_twins(self.key, self.told) else UNKNOWN_TWIN


@lru_cache(_CHECKED)
def _are_twins(key: G1, told: G2) -> bool:
    return bls.keys_match(key, told)


class Committed(msgspec.Struct, frozen=True):
    """An OperatorSet since its (last) commitment. A member's place is its index, and its bit in bitmaps."""

    keys: bytes  # the numbers of its members' keys, by place
    left: Map[int, int] = Map()  # place → first block without duties, of those that deregistered since
    holds: int = 0  # Tasks that need it
    since: int = 0  # block of the commitment since which it is here
    renewed: int = 0  # block of the last commitment


class Registry(msgspec.Struct, frozen=True):
    """What the registry's events add up to."""

    operators: Map[Address, Operator] = Map()
    keys: Map[int, Key] = Map()
    numbers: Map[Address, tuple[int, ...]] = Map()  # of an Operator's keys
    next: int = 0  # number of a key
    sets: Map[Hash32, Committed] = Map()
    newest: Hash32 | None = None
    stakes: tuple[int, ...] = ()  # in the newest set, by place; of several kinds of collateral together

    def held(self, set_hash: Hash32) -> Members:
        """The set of this hash, which is here."""
        return Members(self, set_hash, self.sets[set_hash])

    @property
    def newest_set(self) -> Members | None:
        return None if self.newest is None else self.held(self.newest)


class Members:
    """A set that is held, by its members' places."""

    __slots__ = ("_committed", "_registry", "hash")

    def __init__(self, registry: Registry, set_hash: Hash32, committed: Committed) -> None:
        self._registry = registry
        self._committed = committed
        self.hash = set_hash

    def __len__(self) -> int:
        return len(self._committed.keys) // _NUMBER

    def __iter__(self) -> Iterator[Key]:
        """The members' keys, by place."""
        return map(self._registry.keys.__getitem__, _numbers(self._committed.keys))

    def __getitem__(self, place: int) -> Key:
        at = place * _NUMBER
        if not 0 <= at < len(self._committed.keys):
            raise IndexError(place)
        return self._registry.keys[int.from_bytes(self._committed.keys[at : at + _NUMBER])]

    def place(self, operator: Address) -> int | None:
        """An Operator's place; None: it is no member."""
        for number in self._registry.numbers.get(operator, ()):
            if (place := _place(self._committed.keys, number)) is not None:
                return place
        return None

    @property
    def since(self) -> int:
        """Block of the commitment since which it is here."""
        return self._committed.since

    @property
    def renewed(self) -> int:
        """Block of its last commitment."""
        return self._committed.renewed

    @property
    def left(self) -> Map[int, int]:
        """Place → first block without duties, of those that deregistered since the last commitment."""
        return self._committed.left

    @property
    def everyone(self) -> int:
        """The bitmap of all members."""
        return (1 << len(self)) - 1

    def all_but(self, non_signers: Iterable[int | G1]) -> int:
        """The bitmap of all members but these, named by their places or their keys."""
        named = {*non_signers}
        places = {each for each in named if isinstance(each, int)}
        if len(places) < len(named):
            places |= {place for place, member in enumerate(self) if member.key in named}
        return self.everyone & ~sum(1 << place for place in places if place < len(self))

    def left_by(self, block: int) -> int:
        """The bitmap of members whose deregistration has taken effect by this block.

        Who registers again after it brings a new key, is a member from the next set on, and owes nothing
        as a member of this one.
        """
        return sum(1 << place for place, effective in self.left.items() if effective <= block)


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
        if (place := registry.held(set_hash).place(event.operator)) is not None:
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
    before, former = registry.sets.get(set_.hash), registry.newest
    registry, keys = _with_keys(registry, set_)
    committed = Committed(
        keys=keys,
        holds=before.holds if before else 0,
        since=before.since if before else block,
        renewed=block,
    )
    registry = msgspec.structs.replace(
        registry,
        sets=registry.sets.set(set_.hash, committed),
        newest=set_.hash,
        stakes=tuple(sum(position.amount for position in member.stake) for member in set_.members),
    )
    if before is not None:
        registry = _without_keys(registry, before)
    return registry if former is None else _let_go(registry, former)


def _let_go(registry: Registry, set_hash: Hash32) -> Registry:
    committed = registry.sets[set_hash]
    if set_hash == registry.newest or committed.holds > 0:
        return registry
    registry = msgspec.structs.replace(registry, sets=registry.sets.delete(set_hash))
    return _without_keys(registry, committed)


# --- the keys of sets -------------------------------------------------------------------------------


def _with_keys(registry: Registry, set_: OperatorSet) -> tuple[Registry, bytes]:
    """With the keys of a set more; and their numbers, as a set holds them."""
    keys, numbers, next_ = registry.keys.mutate(), registry.numbers.mutate(), registry.next
    found = []
    for member in set_.members:
        known = registry.operators.get(member.operator)
        told = known.key_g2 if known and known.key == member.key else UNKNOWN_TWIN
        mine = numbers.get(member.operator, ())
        number = next((n for n in mine if (keys[n].key, keys[n].told) == (member.key, told)), next_)
        if number == next_:
            next_ += 1
            keys[number] = Key(member.operator, member.key, told, 1)
            numbers[member.operator] = (*mine, number)
        else:
            keys[number] = msgspec.structs.replace(keys[number], sets=keys[number].sets + 1)
        found.append(number.to_bytes(_NUMBER))
    after = msgspec.structs.replace(registry, keys=keys.finish(), numbers=numbers.finish(), next=next_)
    return after, b"".join(found)


def _without_keys(registry: Registry, committed: Committed) -> Registry:
    """Without those that this set alone has, which is not held any more."""
    keys, numbers = registry.keys.mutate(), registry.numbers.mutate()
    for number in _numbers(committed.keys):
        key = keys[number]
        if key.sets > 1:
            keys[number] = msgspec.structs.replace(key, sets=key.sets - 1)
            continue
        del keys[number]
        if left := tuple(each for each in numbers[key.operator] if each != number):
            numbers[key.operator] = left
        else:
            del numbers[key.operator]
    return msgspec.structs.replace(registry, keys=keys.finish(), numbers=numbers.finish())


def _numbers(keys: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(keys) // _NUMBER}I", keys)


def _place(keys: bytes, number: int) -> int | None:
    """Where among the numbers this one is."""
    wanted = number.to_bytes(_NUMBER)
    at = keys.find(wanted)
    while at % _NUMBER and at >= 0:  # across two others
        at = keys.find(wanted, at + 1)
    return None if at < 0 else at // _NUMBER

"""What contradicts a slashing: what is to be shown of it, and the facts that this establishes."""

from __future__ import annotations

import msgspec

from nektar.evidence import sought
from nektar.evidence.canonical import Octets
from nektar.evidence.sought import AbsenceSought, SetSought, StateSought, ToFetch, VariableSought, Whole
from nektar.evidence.verify import TASK_MANAGER
from nektar.facts import Absent, Fact, Stored
from nektar.model import Address, At, BlockRef, Hash32, Level
from nektar.networks.encoding import word
from nektar.operators import Members
from processors.conditions.bond_breach import REGISTRY


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where an event of the chain stands, by which it is shown."""

    block: int
    hash: Hash32
    tx: int
    log: int
    level: Level

    @property
    def ref(self) -> BlockRef:
        return BlockRef(self.block, self.hash)

    @property
    def order(self) -> tuple[int, int]:
        return self.tx, self.log


class Exhibits:
    """What is shown for a finding, beside the request that it is about."""

    def __init__(self) -> None:
        self.fetch: list[ToFetch] = []
        self.claims: list[Whole] = []
        self.sets: list[SetSought] = []
        self.facts: list[Fact] = []
        self.levels: list[Level] = []

    def event(self, contract: str, place: Place, fact: Fact) -> Exhibits:
        """With this event of a contract."""
        self.fetch.append(sought.event(contract, place.ref, At(place.block, place.tx, place.log)))
        self.facts.append(fact)
        self.levels.append(place.level)
        return self

    def stored(
        self,
        name: str,
        keys: tuple[bytes, ...],
        value: int,
        at: BlockRef,
        level: Level = Level.PROVED,
        contract: str = TASK_MANAGER,
    ) -> Exhibits:
        """With what a contract holds after the finding's block."""
        variable = VariableSought(name, tuple(map(Octets, keys)))
        self.fetch.append(StateSought(contract, (variable,)))
        self.facts.append(Stored(contract, name, keys, value, at))
        self.levels.append(level)
        return self

    def ended(self, key_hash: Hash32, block: int, at: BlockRef) -> Exhibits:
        """With what the registry holds then: the registration in which this key was brought has ended by this
        block. No event says which one it is, so a number stands for any."""
        registration, ends = "_keys.registration", "_ends"
        variables = VariableSought(registration, (Octets(key_hash),)), VariableSought(ends, (Octets(b""),))
        self.fetch.append(StateSought(REGISTRY, variables))
        self.facts.append(Stored(REGISTRY, registration, (key_hash,), 1, at))
        self.facts.append(Stored(REGISTRY, ends, (word(1),), block, at))
        return self

    def absent(self, contract: str, event: str, at: BlockRef, operator: Address | None = None) -> Exhibits:
        """With no such event in the finding's block."""
        named = None if operator is None else Octets(operator)
        where = at.number, at.number, Octets(at.hash)
        self.fetch.append(AbsenceSought(contract, event, *where, operator=named))
        self.facts.append(Absent(event, at.number, at.number, None, operator))
        return self

    def whole(self, claim: Whole, fact: Fact, members: Members) -> Exhibits:
        """With this claim, which needs an OperatorSet."""
        self.claims.append(claim)
        self.sets.append(SetSought(Octets(members.hash), members.since))
        self.facts.append(fact)
        return self

"""Breach of bond: stake under the minimum, since it was asked back, behind a member of the newest OperatorSet
that has not deregistered. Tasks submitted now would count on what is leaving.

There is one finding per (set, operator), at the block after which it is so: new stake, leaving or a new set
mends it, and what happens within a block counts for nothing at its end. Nothing that happened takes it back:
it was so. Its proof holds only while it is so, so that dry runs are pinned to that block.

What is behind whom `nektar/bonds.py` says, of proved blocks alone, none left out. Who comes to be in breach
does so by what is asked back, so a block costs a look at those from whom it asks. Of every finding
(set, operator) stays in the state: the same set may be committed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from immutables import Map

from nektar import bonds, operators
from nektar.bonds import Bonds
from nektar.evidence import bls, sought
from nektar.evidence.bundle import Bundle, SetMemberClaim, finding_id
from nektar.evidence.canonical import Octets
from nektar.evidence.sought import SetSought, Sought, StateSought, VariableSought
from nektar.evidence.verify import TASK_MANAGER, Accused, NotProved
from nektar.facts import Fact, InSet, Stored
from nektar.model import Address, Block, BlockClosed, Event, Hash32, Network, WithdrawalRequested
from nektar.networks.encoding import PROVE_BOND_BREACH, call, members, padded, word
from nektar.operators import Members, Registry
from nektar.rows import Change, Finding
from processors.conditions.condition import Dispute

REGISTRY, DELEGATION = "operator_registry", "delegation"


class Watch(msgspec.Struct, frozen=True):
    """The fold's state."""

    chain_id: int
    contract: Address  # the TaskManager, by which findings are named
    bonds: Bonds
    registry: Registry = Registry()
    asked: tuple[Address, ...] = ()  # from whom the block that is not closed yet asked collateral back
    found: Map[Hash32, int] = Map()  # set → bitmap of places: members that a finding is about


class Detect:
    """The fold `bond_breach`: puts out findings."""

    name = "bond_breach"
    state_type = Watch

    def initial(self, network: Network) -> Watch:
        """Nothing is known. Raises UnknownContract, UnknownTerm where the configuration does not name what
        breaches rest on."""
        for name in (REGISTRY, DELEGATION):
            network.contract(name)
        return Watch(network.chain_id, network.contract(TASK_MANAGER), Bonds(network.term("minimum")))

    def step(self, state: Watch, event: Event) -> tuple[Watch, list[Change]]:
        """Breaches are looked for when a block is closed."""
        known, registry = bonds.step(state.bonds, event), operators.step(state.registry, event)
        if known is not state.bonds or registry is not state.registry:
            state = msgspec.structs.replace(state, bonds=known, registry=registry)
        match event:
            case WithdrawalRequested(operator=operator) if operator not in state.asked:
                state = msgspec.structs.replace(state, asked=(*state.asked, operator))
            case BlockClosed(block) if state.asked:
                return _closed(state, block)
        return state, []


class BondBreach:
    """The condition `bond_breach`."""

    name = "bond_breach"
    detect = Detect()

    def claims(self, finding: Finding) -> Sought:
        """The member of the set, and what the contracts held after the block."""
        return sought.read(finding.facts)

    def holds(self, accused: Accused, facts: Sequence[Fact], terms: Mapping[str, int]) -> None:
        """After one block, a member of the newest set whose registration stood, and which was underbonded."""
        _holds(accused, facts)

    def dispute(self, bundle: Bundle) -> Dispute | None:
        """Calldata of SlashingManager.proveBondBreach, which holds while it is so."""
        member = next(claim for claim in bundle.claims if isinstance(claim, SetMemberClaim))
        return Dispute(
            "slashing_manager", call(PROVE_BOND_BREACH, members(bundle.sets[0]), word(member.index))
        )


def _holds(accused: Accused, facts: Sequence[Fact]) -> None:
    """The registration in which the key was brought is a name of the contract's own, by which its end is
    found (`OperatorRegistry.effectiveBlockOf`)."""
    shown = [fact for fact in facts if isinstance(fact, InSet)]
    if [(each.set_hash, each.operator) for each in shown] != [(accused.subject, accused.operator)]:
        raise NotProved("bond_breach: expected the Operator, and it alone, to be shown as the set's member")
    (member,) = shown
    stored = [fact for fact in facts if isinstance(fact, Stored)]
    if len({fact.at for fact in stored}) != 1:
        raise NotProved("bond_breach: expected what was stored after one block; got none, or several")

    def value(contract: str, name: str, *keys: bytes) -> int:
        for fact in stored:
            if (fact.contract, fact.name, fact.keys) == (contract, name, keys):
                return fact.value
        raise NotProved(f"bond_breach: expected {contract}'s {name}; it is not shown")

    if value(REGISTRY, "setHash") != int.from_bytes(accused.subject):
        raise NotProved("bond_breach: expected the set to be the newest; another was")
    registration = value(REGISTRY, "_keys.registration", member.key_hash)
    if not registration or value(REGISTRY, "_ends", word(registration)):
        raise NotProved("bond_breach: expected the Operator to be registered; it had left")
    if not value(DELEGATION, "isUnderbonded", padded(accused.operator)):
        raise NotProved("bond_breach: expected less stake than the minimum, asked back; it was not so")


def _closed(state: Watch, block: Block) -> tuple[Watch, list[Change]]:
    """Who is in breach now, of those from whom this block asked something back. Where a stake is known, it is
    known too which set is the newest and who has left it: it was committed since, or the log tells all."""
    changes: list[Change] = []
    found, newest = state.found, state.registry.newest_set
    for operator in state.asked if newest else ():
        assert newest is not None  # noqa: S101  else there are none
        bond, place = state.bonds.of(operator), newest.place(operator)
        if bond is None or not bond.underbonded or place is None or place in newest.left:
            continue
        known = found.get(newest.hash, 0)
        if not known >> place & 1:
            found = found.set(newest.hash, known | 1 << place)
            changes.append(Change(None, _finding(state, newest, place, block)))
    return msgspec.structs.replace(state, asked=(), found=found), changes


def _finding(state: Watch, newest: Members, place: int, block: Block) -> Finding:
    """The finding, of facts that a stranger would come to as well; no event says which registration it is."""
    member, set_hash = newest[place], newest.hash
    key_hash, at, some = bls.key_hash(member.key), block.ref, 1
    _holds(
        Accused(member.operator, set_hash),
        [
            InSet(set_hash, member.operator, place, key_hash),
            Stored(REGISTRY, "setHash", (), int.from_bytes(set_hash), at),
            Stored(REGISTRY, "_keys.registration", (key_hash,), some, at),
            Stored(REGISTRY, "_ends", (word(some),), 0, at),
            Stored(DELEGATION, "isUnderbonded", (padded(member.operator),), 1, at),
        ],
    )
    registry = StateSought(
        REGISTRY,
        (
            VariableSought("setHash", ()),
            VariableSought("_keys.registration", (Octets(key_hash),)),
            VariableSought("_ends", (Octets(b""),)),
        ),
    )
    underbonded = VariableSought("isUnderbonded", (Octets(padded(member.operator)),))
    return Finding(
        id=finding_id("bond_breach", state.chain_id, state.contract, set_hash, member.operator),
        condition="bond_breach",
        operator=member.operator,
        task_hash=Hash32(bytes(32)),
        task_number=0,
        task_input="",
        block_number=block.number,
        block_hash=block.hash,
        block_time=block.time,
        level=block.level,
        anchor=block.anchor,
        facts=sought.write(
            Sought(
                subject=Octets(set_hash),
                fetch=(registry, StateSought(DELEGATION, (underbonded,))),
                whole=(SetMemberClaim(Octets(set_hash), place),),
                sets=(SetSought(Octets(set_hash), newest.since),),
            )
        ),
    )

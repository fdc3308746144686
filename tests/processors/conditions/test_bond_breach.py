"""Breaches of bonds, against a chain that knows at every block who is in breach."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak
from immutables import Map

from nektar import checkpoint
from nektar.evidence import bls
from nektar.evidence.bundle import FORMAT, Bundle, SetMemberClaim, finding_id
from nektar.evidence.canonical import Octets
from nektar.evidence.sought import SetSought, StateSought, VariableSought
from nektar.evidence.verify import Accused, NotProved
from nektar.facts import Fact, InSet, Stored
from nektar.fold import Step
from nektar.model import (
    Address,
    At,
    Block,
    BlockClosed,
    BlockRef,
    ChainEvent,
    CollateralOpened,
    Delegated,
    Event,
    GapPassed,
    Hash32,
    KeyRotated,
    Level,
    Network,
    OperatorDeregistered,
    OperatorSet,
    OperatorSetCommitted,
    Slashed,
    UnknownContract,
    UnknownTerm,
    WithdrawalRequested,
    Withdrawn,
)
from nektar.networks.encoding import encode_members, operator_set, word
from nektar.rows import Change, Finding
from processors.conditions.bond_breach import BondBreach, Watch
from tests.processors.test_reorgs import life, retracted_in_lives
from tests.processors.world import (
    CHAIN_ID,
    FIRST,
    MANAGER,
    OPERATORS,
    Rows,
    World,
    block,
    history,
    key_of,
    put,
    registered,
)
from tests.seeds import seeds

CONDITION = BondBreach()
FOLD = CONDITION.detect
MINIMUM, STAKE = 10, 20
OTHER = Address(b"\x0d" * 20)
CONTRACTS = {"task_manager": MANAGER, "operator_registry": OTHER, "delegation": OTHER}
BONDED = Network("home", CHAIN_ID, CONTRACTS, terms={"minimum": MINIMUM})
SEEDS = seeds(48, 120)


class Truth(NamedTuple):
    """What the contracts hold after a block."""

    newest: Hash32 | None
    breached: frozenset[Address]


# Of every block that any world ever made.
TRUTHS: dict[Hash32, Truth] = {}


class Bonded(World):
    """Collateral moves in it. Each Operator has some at first, which half of the worlds' logs begin with."""

    def __init__(self, rng: random.Random, pauses: bool = True) -> None:
        super().__init__(rng, pauses)
        self._begins = rng.random() < 0.5
        self._stakes = dict.fromkeys(OPERATORS, STAKE)
        self._waiting = dict.fromkeys(OPERATORS, 0)
        self._under: set[Address] = set()
        self._asked: dict[int, tuple[Address, int]] = {}
        self._withdrawals = 0
        self._left: set[Address] = set()  # of the newest set

    def next_block(self, level: Level | None = None) -> tuple[Block, list[ChainEvent]]:
        first: list[ChainEvent] = []
        if self.number == FIRST and self._begins:
            at = At(FIRST, 0, 0)
            first = [CollateralOpened(at), *(Delegated(at, operator, STAKE) for operator in OPERATORS)]
        made, events = super().next_block(level)
        members = self._sets[self._newest] if self._newest else {}
        breached = frozenset(each for each in members if each in self._under and each not in self._left)
        TRUTHS[made.hash] = Truth(self._newest, breached)
        return made, [*first, *events]

    def _any(self, at: At) -> ChainEvent | None:
        operator = self.rng.choice(OPERATORS)
        makers = [self._delegate, *[self._ask_back] * 3, self._take_back, self._slash]
        if self.rng.random() < 0.5:
            return self.rng.choice(makers)(at, operator)
        return self.rng.choice([self._commit, self._leave_or_come, super()._any])(at)

    def _delegate(self, at: At, operator: Address) -> ChainEvent:
        amount = self.rng.choice((1, 5, 12))
        self._stakes[operator] += amount
        if self._stakes[operator] >= MINIMUM:
            self._under.discard(operator)
        return Delegated(at, operator, amount)

    def _ask_back(self, at: At, operator: Address) -> ChainEvent | None:
        stake = self._stakes[operator]
        amount = min(stake, self.rng.choice((1, 5, max(1, stake - MINIMUM), stake - MINIMUM + 1)))
        if amount <= 0:
            return None
        if stake - amount < MINIMUM <= stake:
            self._under.add(operator)
        self._stakes[operator] -= amount
        self._waiting[operator] += amount
        self._withdrawals += 1
        self._asked[self._withdrawals] = (operator, amount)
        return WithdrawalRequested(at, self._withdrawals, operator, amount)

    def _take_back(self, at: At, _: Address) -> ChainEvent | None:
        if not self._asked:
            return None
        id_ = self.rng.choice(sorted(self._asked))
        operator, amount = self._asked.pop(id_)
        amount = min(amount, self._waiting[operator])
        self._waiting[operator] -= amount
        return Withdrawn(at, id_, amount)

    def _slash(self, at: At, operator: Address) -> ChainEvent:
        total = self._stakes[operator] + self._waiting[operator]
        amount = min(total, self.rng.choice((0, 1, 4, 11)))
        waiting = self._waiting[operator] * amount // total if total else 0
        self._waiting[operator] -= waiting
        self._stakes[operator] -= amount - waiting
        return Slashed(at, operator, amount)

    def _commit(self, at: At) -> ChainEvent | None:
        members = sorted((o, s) for o, s in self._keys.items() if self._stakes[o] >= MINIMUM)
        committed = operator_set(encode_members([(o, key_of(s)[0], self._stakes[o]) for o, s in members]))
        if not members or committed.hash == self._newest:
            return None
        self._sets[committed.hash] = dict(members)
        self._newest = committed.hash
        self._left = set()
        return OperatorSetCommitted(at, committed)

    def _leave_or_come(self, at: At) -> ChainEvent | None:
        event = super()._leave_or_come(at)
        if isinstance(event, OperatorDeregistered):
            self._left.add(event.operator)
        return event


# --- the oracle -------------------------------------------------------------------------------------


def oracle(events: Sequence[Event]) -> dict[bytes, int]:
    """Finding id → block: the first at which it was so and the log could tell."""
    found: dict[bytes, int] = {}
    for i, event in enumerate(events):
        if not isinstance(event, BlockClosed):
            continue
        truth, proved = TRUTHS[event.block.hash], stretch(events[: i + 1])
        for operator in sorted(truth.breached):
            assert truth.newest
            if can_tell(proved, operator):
                name = finding_id("bond_breach", CHAIN_ID, MANAGER, truth.newest, operator)
                found.setdefault(name, event.block.number)
    return found


def stretch(events: Sequence[Event]) -> Sequence[Event]:
    """Those since the last block that is not proved."""
    doubtful = (
        i + 1
        for i, event in enumerate(events)
        if isinstance(event, GapPassed)
        or (isinstance(event, BlockClosed) and event.block.level is not Level.PROVED)
    )
    return events[max(doubtful, default=0) :]


def can_tell(events: Sequence[Event], operator: Address) -> bool:
    """Whether these say what stake is behind the Operator: all that ever happened, or what a set says of it
    with no slashing since, which may have fallen on what was asked back before."""
    if any(isinstance(event, CollateralOpened) for event in events):
        return True
    sets = [i for i, e in enumerate(events) if isinstance(e, OperatorSetCommitted) if holds(e.set, operator)]
    return bool(sets) and not any(
        isinstance(event, Slashed) and event.operator == operator and event.amount
        for event in events[sets[-1] :]
    )


def holds(committed: OperatorSet, operator: Address) -> bool:
    return any(member.operator == operator for member in committed.members)


def told(rows: Rows) -> dict[bytes, int]:
    findings = [row for row in rows.values() if isinstance(row, Finding)]
    assert len(findings) == len(rows)
    for finding in findings:
        assert finding.level == "proved"
        assert finding.task_hash == bytes(32)
    return {finding.id: finding.block_number for finding in findings}


@pytest.mark.parametrize("part", range(3))
def test_what_is_found_is_what_was_so(part: int) -> None:
    found = 0
    for seed in range(part, SEEDS, 3):
        events = history(random.Random(f"bonds {seed}"), 30, of=Bonded)
        state, rows = FOLD.initial(BONDED), Rows()
        for event in events:
            state, changes = FOLD.step(state, event)
            put(rows, changes)
        assert told(rows) == oracle(events), f"seed {seed}"
        found += len(rows)
    assert found > SEEDS // 5


def test_after_any_reorgs_it_is_what_the_surviving_chain_shows() -> None:
    lives = (life(random.Random(f"bonded lives {seed}"), 25, Bonded) for seed in range(25))
    assert retracted_in_lives(FOLD, BONDED, lives, told, oracle) > 5


# --- one rule at a time -----------------------------------------------------------------------------

ALICE, BOB = OPERATORS[:2]


def set_of(*members: tuple[Address, int, int]) -> OperatorSet:
    """The set of these (operator, secret, stake)."""
    return operator_set(encode_members([(o, key_of(secret)[0], stake) for o, secret, stake in members]))


MEMBERS = set_of((ALICE, 1, STAKE), (BOB, 2, STAKE))
BEGIN: list[Event] = [
    registered(At(1, 0, 0), ALICE, 1),
    registered(At(1, 1, 0), BOB, 2),
    OperatorSetCommitted(At(1, 2, 0), MEMBERS),
    BlockClosed(block(1)),
]
IDS = iter(range(1, 1_000_000))


def ask(number: int, amount: int, operator: Address = ALICE) -> WithdrawalRequested:
    return WithdrawalRequested(At(number, 0, 0), next(IDS), operator, amount)


def closed(*numbers: int) -> Iterator[Event]:
    return (BlockClosed(block(number)) for number in numbers)


def play(*events: Event, begin: Sequence[Event] = BEGIN) -> tuple[Watch, list[Finding]]:
    state, said = FOLD.initial(BONDED), list[Change]()
    for event in (*begin, *events):
        state, changes = FOLD.step(state, event)
        said += changes
    return state, [change.after for change in said if isinstance(change.after, Finding)]


def test_who_asks_back_too_much_is_found_at_the_end_of_the_block() -> None:
    _, said = play(ask(2, 11))
    assert said == []
    _, (finding,) = play(ask(2, 11), *closed(2))
    assert (finding.operator, finding.block_number, finding.block_hash) == (ALICE, 2, block(2).hash)
    assert (finding.condition, finding.task_hash, finding.level) == ("bond_breach", bytes(32), "proved")


def test_it_is_said_once_for_each_set_however_often_it_is_mended() -> None:
    mended = Delegated(At(3, 0, 0), ALICE, 11)
    state, found = play(ask(2, 11), *closed(2), mended, *closed(3), ask(4, 11), *closed(4))
    assert len(found) == 1
    # Nor when the same set comes back, after another.
    other = OperatorSetCommitted(At(5, 0, 0), set_of((BOB, 2, STAKE)))
    again = [other, *closed(5), mended, OperatorSetCommitted(At(6, 0, 0), MEMBERS), *closed(6)]
    for event in (*again, ask(7, 11), *closed(7)):
        state, changes = FOLD.step(state, event)
        assert changes == []
    # But of a new set it is another.
    larger = OperatorSetCommitted(At(8, 1, 0), set_of((ALICE, 1, STAKE), (BOB, 2, STAKE + 1)))
    said = list[Change]()
    for event in (mended, larger, *closed(8), ask(9, 11), *closed(9)):
        state, changes = FOLD.step(state, event)
        said += changes
    assert len(said) == 1


@pytest.mark.parametrize(
    "events",
    [
        (ask(2, 10),),  # the minimum is left
        (OperatorDeregistered(At(2, 0, 0), ALICE, 3), ask(2, 20)),
        (ask(2, 20), OperatorDeregistered(At(2, 0, 0), ALICE, 3)),
        (ask(2, 11), Delegated(At(2, 1, 0), ALICE, 1)),
        (ask(2, 11), OperatorSetCommitted(At(2, 1, 0), set_of((BOB, 2, STAKE)))),
        (OperatorSetCommitted(At(2, 0, 0), set_of((BOB, 2, STAKE))), ask(2, 11)),
        (ask(2, 11, operator=OTHER),),  # no member
        (Slashed(At(2, 0, 0), ALICE, 11), ask(2, 1)),  # it was slashed below
        (CollateralOpened(At(2, 0, 0)), ask(2, 11)),
    ],
)
def test_who_is_honest_is_not_found(events: Sequence[Event]) -> None:
    assert play(*events, *closed(2, 3))[1] == []


def test_another_key_is_no_way_out() -> None:
    _, (finding,) = play(KeyRotated(At(2, 0, 0), ALICE, *key_of(7)), ask(2, 11), *closed(2))
    registry = CONDITION.claims(finding).fetch[0]
    assert isinstance(registry, StateSought)
    assert registry.variables[1].keys == (bls.key_hash(key_of(1)[0]),)


def test_what_rests_on_a_block_that_is_not_proved_is_not_said() -> None:
    linked = BlockClosed(block(2, level=Level.LINKED))
    assert play(ask(2, 11), linked)[1] == []
    assert play(linked, ask(3, 11), *closed(3))[1] == []
    assert play(GapPassed(2, 9), ask(10, 11), *closed(10))[1] == []
    fresh = OperatorSetCommitted(At(3, 0, 0), set_of((ALICE, 1, STAKE)))
    assert len(play(linked, fresh, ask(3, 11), *closed(3))[1]) == 1


def test_a_network_whose_collateral_or_minimum_is_not_named_is_refused() -> None:
    for name in ("delegation", "operator_registry", "task_manager"):
        contracts = {key: value for key, value in CONTRACTS.items() if key != name}
        with pytest.raises(UnknownContract, match=f"expected {name}"):
            FOLD.initial(Network("home", 1, contracts, terms={"minimum": 1}))
    with pytest.raises(UnknownTerm, match="expected minimum"):
        FOLD.initial(Network("home", 1, CONTRACTS))


def test_a_checkpoint_loses_nothing() -> None:
    opened = [CollateralOpened(At(1, 0, 0)), *(Delegated(At(1, 0, 0), each, STAKE) for each in (ALICE, BOB))]
    state, _ = play(ask(2, 11, BOB), *closed(2), ask(3, 11), begin=[*opened, *BEGIN])
    again = checkpoint.decode(checkpoint.encode(Step(0, None, state, Map(), -1, None)), FOLD).state
    assert again == state
    (end,) = closed(3)
    assert FOLD.step(again, end) == FOLD.step(state, end)
    assert len(FOLD.step(again, end)[1]) == 1


# --- claims, and what they add up to ----------------------------------------------------------------


def test_the_claims_are_the_member_and_what_the_contracts_held() -> None:
    _, (finding,) = play(ask(2, 11, BOB), *closed(2))
    said = CONDITION.claims(finding)
    assert (said.subject, said.sets) == (MEMBERS.hash, (SetSought(Octets(MEMBERS.hash), 1),))
    assert said.whole == (SetMemberClaim(Octets(MEMBERS.hash), 1),)
    registry = (
        VariableSought("setHash", ()),
        VariableSought("_keys.registration", (Octets(bls.key_hash(key_of(2)[0])),)),
        VariableSought("_ends", (Octets(b""),)),
    )
    underbonded = (VariableSought("isUnderbonded", (Octets(bytes(12) + BOB),)),)
    assert said.fetch == (
        StateSought("operator_registry", registry),
        StateSought("delegation", underbonded),
    )


def test_it_holds_for_what_proves_it_and_for_nothing_else() -> None:
    key, at = Hash32(b"k" * 32), BlockRef(2, Hash32(bytes(32)))
    accused = Accused(ALICE, MEMBERS.hash)
    member = InSet(MEMBERS.hash, ALICE, 0, key)
    newest = Stored("operator_registry", "setHash", (), int.from_bytes(MEMBERS.hash), at)
    brought = Stored("operator_registry", "_keys.registration", (key,), 7, at)
    end = Stored("operator_registry", "_ends", (word(7),), 0, at)
    under = Stored("delegation", "isUnderbonded", (bytes(12) + ALICE,), 1, at)
    true: list[Fact] = [member, newest, brought, end, under]
    CONDITION.holds(accused, true, {})
    replace = msgspec.structs.replace
    for i in range(len(true)):
        with pytest.raises(NotProved, match="bond_breach: expected"):
            CONDITION.holds(accused, true[:i] + true[i + 1 :], {})
    for changed, into in (
        (member, replace(member, operator=BOB)),
        (member, replace(member, set_hash=Hash32(bytes(32)))),
        (member, replace(member, key_hash=Hash32(bytes(32)))),
        (newest, replace(newest, value=5)),
        (brought, replace(brought, value=0)),
        (brought, replace(brought, value=8)),
        (end, replace(end, value=2)),
        (end, replace(end, keys=(word(8),))),
        (under, replace(under, value=0)),
        (under, replace(under, keys=(bytes(12) + BOB,))),
        (under, replace(under, contract="operator_registry")),
        (under, replace(under, at=BlockRef(3, Hash32(bytes(32))))),
    ):
        with pytest.raises(NotProved, match="bond_breach: expected"):
            CONDITION.holds(accused, [into if fact is changed else fact for fact in true], {})
    with pytest.raises(NotProved, match="it alone"):
        CONDITION.holds(accused, [replace(member, operator=BOB), *true], {})


def test_calldata_is_what_an_abi_library_would_write() -> None:
    _, (finding,) = play(ask(2, 11, BOB), *closed(2))
    said = CONDITION.claims(finding)
    named = (FORMAT, "bond_breach", CHAIN_ID, {}, Octets(finding.operator), said.subject, ())
    bundle = Bundle(*named, sets=(Octets(MEMBERS.preimage),), claims=said.whole)
    types = ["(address,(uint256,uint256),uint256)[]", "uint256"]
    keys = [(int.from_bytes(m.key[:32]), int.from_bytes(m.key[32:])) for m in MEMBERS.members]
    members = [("0x" + m.operator.hex(), k, STAKE) for m, k in zip(MEMBERS.members, keys, strict=True)]
    selector = keccak(f"proveBondBreach({','.join(types)})".encode())[:4]
    assert CONDITION.dispute(bundle) == ("slashing_manager", selector + encode(types, [members, 1]))

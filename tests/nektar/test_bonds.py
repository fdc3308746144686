"""What the events say is behind Operators, against the contract that holds it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest

from devnet.deploy import TOKEN
from nektar import bonds
from nektar.bonds import Bond, Bonds
from nektar.model import (
    Address,
    At,
    Block,
    BlockClosed,
    CollateralOpened,
    Delegated,
    Event,
    GapPassed,
    Level,
    OperatorSetCommitted,
    Slashed,
    WithdrawalRequested,
    Withdrawn,
)
from tests.devnet.contracts.conftest import TERMS, Refused, Site, on_anvil
from tests.processors.real_chain import ADAPTER, log, network
from tests.processors.world import OPERATORS, block, set_of
from tests.seeds import seeds

MINIMUM = 100 * TOKEN
SLASHER = "0x" + "1".rjust(64, "0")  # the slot that says who may slash, so that anything can be at any time

site = pytest.fixture(scope="module", name="site")(on_anvil)


class Truth(NamedTuple):
    """What the contract says of an Operator after a block."""

    underbonded: bool
    stake: int
    slashable: int


class Lived(NamedTuple):
    """A chain's events, blocks closed among them, and the truth after each block in which something moved."""

    events: list[Event]
    truth: dict[int, dict[Address, Truth]]


def act(site: Site, rng: random.Random, waiting: dict[int, object]) -> None:
    """Anything that moves collateral; most of it about where the minimum is."""
    behind = rng.choice([*site.operators, None])
    operator = behind.account.address if behind else site.stranger.address
    delegator = rng.choice([site.stranger, behind.account if behind else site.stranger])
    stake = site.ask("delegation", "stakeOf", operator)
    near = max(1, stake - MINIMUM + rng.choice((-1, 0, 1)))
    amount = rng.choice([near, near, 1, 3, stake or 1, rng.randrange(1, 200 * TOKEN)])
    match rng.choice("ddaaawsc"):
        case "d":
            short = MINIMUM - stake + rng.choice((-1, 0, 1))
            amount = max(1, rng.choice([short, short, amount]))
            site.do(site.admin, "collateral_token", "mint", delegator.address, amount)
            site.do(delegator, "collateral_token", "approve", site.contracts["delegation"], amount)
            site.do(delegator, "delegation", "delegate", operator, amount)
        case "a":
            mine = site.ask("delegation", "delegatedBy", operator, delegator.address)
            asked = site.do(delegator, "delegation", "requestWithdrawal", operator, min(amount, mine))
            waiting[asked["WithdrawalRequested"]["withdrawalId"]] = delegator
        case "w" if waiting:
            id_ = rng.choice(sorted(waiting))
            if rng.random() < 0.3:
                site.chain.mine(TERMS.bonding_period)
            site.do(waiting[id_], "delegation", "withdraw", id_)  # type: ignore[arg-type]
            del waiting[id_]
        case "s" if behind:
            total = site.ask("delegation", "slashableOf", operator)
            cut = rng.choice([1, total // 3, total, total + 1, stake - MINIMUM + 1, rng.randrange(total + 1)])
            site.do(site.admin, "delegation", "slash", operator, max(0, cut))
        case "c":
            site.do(site.stranger, "operator_registry", "commitSet")


@pytest.fixture(scope="module", params=range(seeds(1, 3)))
def lived(request: pytest.FixtureRequest, site: Site) -> Iterator[Lived]:
    snapshot = site.chain.rpc("evm_snapshot")
    delegation, slasher = site.contracts["delegation"], site.admin.address.removeprefix("0x")
    site.chain.rpc("anvil_setStorageAt", delegation, SLASHER, "0x" + slasher.rjust(64, "0"))
    assert site.ask("delegation", "slasher") == site.admin.address
    rng, waiting = random.Random(f"bonds {request.param}"), dict[int, object]()
    addresses = [*(each.account.address for each in site.operators), site.stranger.address]
    truth: dict[int, dict[Address, Truth]] = {}
    done = 0
    while done < 60:
        try:
            act(site, rng, waiting)
        except Refused:
            continue
        done += 1
        truth[site.head] = {
            Address(bytes.fromhex(each[2:])): Truth(
                site.ask("delegation", "isUnderbonded", each),
                site.ask("delegation", "stakeOf", each),
                site.ask("delegation", "slashableOf", each),
            )
            for each in addresses
        }
    record, events = log(site), list[Event]()
    happened = ADAPTER.events(network(site), record.tables)
    for closed in record.blocks:
        events += [event for event in happened if event.at and event.at.block == closed.number]
        events.append(BlockClosed(closed))
    yield Lived(events, truth)
    assert site.chain.rpc("evm_revert", snapshot)


@pytest.mark.real
def test_a_log_from_the_contracts_beginning_tells_all_that_the_contract_knows(lived: Lived) -> None:
    state, seen = Bonds(MINIMUM), 0
    for event in lived.events:
        state = bonds.step(state, event)
        if not isinstance(event, BlockClosed):
            continue
        for operator, truth in lived.truth.get(event.block.number, {}).items():
            bond = state.of(operator)
            assert bond is not None
            assert bond.waiting is not None
            assert Truth(bond.underbonded, bond.stake, bond.stake + bond.waiting) == truth
            seen += truth.underbonded
    assert seen > 5


@pytest.mark.real
def test_a_log_that_begins_later_or_has_gaps_tells_nothing_that_is_not_so(lived: Lived) -> None:
    told = 0
    for seed in range(20):
        rng = random.Random(seed)
        began = rng.randrange(len(lived.events) // 2)
        state = Bonds(MINIMUM)
        for event in lived.events[began:]:
            if isinstance(event, BlockClosed) and rng.random() < 0.02:
                number = event.block.number
                doubtful = rng.choice([GapPassed(number, number), BlockClosed(linked(number))])
                state = bonds.step(state, doubtful)
                assert not state.known
                continue
            state = bonds.step(state, event)
            if not isinstance(event, BlockClosed):
                continue
            for operator, truth in lived.truth.get(event.block.number, {}).items():
                if bond := state.of(operator):
                    told += 1
                    assert (bond.underbonded, bond.stake) == truth[:2]
    assert told > 100


def linked(number: int) -> Block:
    return block(number, level=Level.LINKED)


# --- one rule at a time -----------------------------------------------------------------------------

ALICE, BOB = OPERATORS[:2]
AT = At(1, 0, 0)
OPENED = CollateralOpened(AT)


def after(*events: Event, minimum: int = 10) -> Bonds:
    state = Bonds(minimum)
    for event in events:
        state = bonds.step(state, event)
    return state


def put(amount: int) -> Delegated:
    return Delegated(AT, ALICE, amount)


def ask(amount: int, id_: int = 1) -> WithdrawalRequested:
    return WithdrawalRequested(AT, id_, ALICE, amount)


@pytest.mark.parametrize(
    ("events", "bond"),
    [
        ((), Bond(0, 0)),
        ((put(20),), Bond(20, 0)),
        ((put(20), ask(10)), Bond(10, 10)),
        ((put(20), ask(11)), Bond(9, 11, True)),
        ((put(9), ask(1)), Bond(8, 1)),  # it never had the minimum
        ((put(20), Slashed(AT, ALICE, 11), ask(1)), Bond(8, 1)),  # nor is who was slashed in breach
        ((put(20), ask(11), put(1)), Bond(10, 11)),
        ((put(20), ask(12), put(1)), Bond(9, 12, True)),
        ((put(20), ask(11), Slashed(AT, ALICE, 10)), Bond(4, 6, True)),
        ((put(20), ask(20), Withdrawn(AT, 1, 20)), Bond(0, 0, True)),
        ((put(20), ask(3), ask(4, 2), Withdrawn(AT, 1, 3)), Bond(13, 4)),
        ((put(20), ask(10), Slashed(AT, ALICE, 20), Withdrawn(AT, 1, 0)), Bond(0, 0)),
        ((put(3), Slashed(AT, ALICE, 0)), Bond(3, 0)),
    ],
)
def test_what_is_behind_an_operator(events: Sequence[Event], bond: Bond) -> None:
    assert after(OPENED, *events).of(ALICE) == bond


def test_nothing_is_known_of_a_contract_that_was_there_before() -> None:
    assert after(put(20), ask(11), Withdrawn(AT, 1, 11), Slashed(AT, ALICE, 1)) == Bonds(10)


def test_a_set_says_what_its_members_have_and_what_waits_stays_unknown() -> None:
    committed = OperatorSetCommitted(AT, set_of([(ALICE, 20)]))
    state = after(put(5), committed)
    assert (state.of(ALICE), state.of(BOB)) == (Bond(20, None), None)
    assert after(committed, ask(11), put(3)).of(ALICE) == Bond(12, None)
    assert after(committed, ask(11)).of(ALICE) == Bond(9, None, True)
    assert after(committed, Slashed(AT, ALICE, 1)).of(ALICE) is None
    assert after(committed, Slashed(AT, ALICE, 1), committed).of(ALICE) == Bond(20, None)


def test_what_stands_nowhere_else_is_forgotten_with_a_block_that_is_not_proved() -> None:
    for doubtful in (BlockClosed(linked(2)), GapPassed(2, 2)):
        assert after(OPENED, put(20), ask(3), doubtful) == Bonds(10)
    assert after(OPENED, put(20), BlockClosed(block(2))).of(ALICE) == Bond(20, 0)


def test_what_can_not_be_is_no_reason_to_stop() -> None:
    """A provider may tell anything of a block whose receipts nobody has; its level comes last."""
    for event in (ask(21), Slashed(AT, ALICE, 21), Withdrawn(AT, 7, 99)):
        state = after(OPENED, put(20), ask(2, 7), event)
        assert state == Bonds(10)
    assert after(OPENED, Slashed(AT, ALICE, 1)) == Bonds(10)


def test_what_is_empty_takes_no_room() -> None:
    assert after(OPENED, put(5), ask(5), Withdrawn(AT, 1, 5)) == after(OPENED)

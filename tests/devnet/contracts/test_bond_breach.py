"""SlashingManager.proveBondBreach: whose stake is under the minimum while a set counts on it."""

from __future__ import annotations

import pytest

from devnet.deploy import (
    BOND_BREACH,
    TOKEN,
    key_arguments,
)
from tests.devnet.contracts.conftest import (
    LIAR,
    accuse,
    add,
    in_one_block,
    refused,
    request,
    slash,
)

pytestmark = pytest.mark.real

MINIMUM = 100 * TOKEN
STAKE = 1000 * TOKEN
BREACH = STAKE - MINIMUM + 1  # so much leaves one wei less than the minimum


def newest(site, index=LIAR):
    return (list(site.ask("operator_registry", "eligible")), index)


def ask_back(site, amount=BREACH, operator=LIAR, delegator=None):
    account = site.operators[operator].account
    return (delegator or account, "delegation", "requestWithdrawal", account.address, amount)


def kept(site, stake):
    return f"BondKept({site.operators[LIAR].account.address}, {stake}, {MINIMUM})"


def test_who_falls_below_the_minimum_while_the_newest_set_holds_it_is_accused(site):
    members, set_hash = newest(site), site.ask("operator_registry", "setHash")
    site.do(*ask_back(site))
    made = accuse(site, "proveBondBreach", *members)
    # Of all that is here, what is leaving too.
    assert made == request(site, BOND_BREACH, set_hash)
    assert made["amount"] == site.ask("delegation", "slashableOf", made["operator"]) // 10
    assert refused(site, "proveBondBreach", *members).startswith("AlreadyRequested")
    site.mine_to(made["vetoDeadline"])
    executed = site.do(site.stranger, "slashing_manager", "execute", made["requestId"])
    assert executed["SlashingExecuted"]["amount"] == STAKE // 10


def test_the_minimum_is_enough(site):
    members = newest(site)
    assert refused(site, "proveBondBreach", *members) == kept(site, STAKE)
    site.do(*ask_back(site, BREACH - 1))
    assert refused(site, "proveBondBreach", *members) == kept(site, MINIMUM)
    site.do(*ask_back(site, 1))
    accuse(site, "proveBondBreach", *members)


def test_who_deregisters_first_is_in_no_breach(site):
    operator, members = site.operators[LIAR].account, newest(site)
    in_one_block(site, (operator, "operator_registry", "deregister"), ask_back(site, STAKE))
    gone = f"HasLeft({operator.address})"
    assert refused(site, "proveBondBreach", *members) == gone
    # Nor is who has come back, whom no set holds yet.
    add(site, operator, MINIMUM)
    registry = site.contracts["operator_registry"]
    new = key_arguments(77, site.chain.chain_id, registry, operator.address)
    site.do(operator, "operator_registry", "register", *new, "eu", 1)
    site.do(*ask_back(site, 1))
    assert site.ask("delegation", "isUnderbonded", operator.address)
    assert refused(site, "proveBondBreach", *members) == gone


def test_another_key_is_no_way_out_of_a_breach(site):
    operator, members = site.operators[LIAR].account, newest(site)
    new = key_arguments(77, site.chain.chain_id, site.contracts["operator_registry"], operator.address)
    site.do(operator, "operator_registry", "rotateKey", *new)
    site.do(*ask_back(site))
    accuse(site, "proveBondBreach", *members)


def test_a_breach_is_mended_by_new_stake_or_a_new_set(site):
    operator, members = site.operators[LIAR].account, newest(site)
    site.do(*ask_back(site, BREACH + 1))
    add(site, operator, 1)
    assert site.ask("delegation", "isUnderbonded", operator.address)
    add(site, operator, 1)
    assert refused(site, "proveBondBreach", *members) == kept(site, MINIMUM)
    site.do(*ask_back(site, 1))
    site.do(site.stranger, "operator_registry", "commitSet")
    assert refused(site, "proveBondBreach", *members).startswith("WrongOperatorSet")
    assert len(newest(site)[0]) == 3
    assert refused(site, "proveBondBreach", newest(site)[0], 3) == "MemberUnknown(3, 3)"


def test_nobody_is_slashed_for_having_been_slashed(site):
    members = newest(site)
    slash(site, LIAR, STAKE - MINIMUM + 1)
    assert refused(site, "proveBondBreach", *members) == kept(site, MINIMUM - 1)
    site.do(*ask_back(site, 1))  # it was below already
    assert refused(site, "proveBondBreach", *members) == kept(site, MINIMUM - 2)


def test_a_breach_stays_one_when_it_is_slashed_further(site):
    members = newest(site)
    site.do(*ask_back(site))
    slash(site, LIAR, TOKEN)
    assert accuse(site, "proveBondBreach", *members)["amount"] == (STAKE - TOKEN) // 10


def test_delegators_who_leave_bring_nobody_below_a_minimum_of_its_own(site):
    operator, members = site.operators[LIAR].account, newest(site)
    site.do(*ask_back(site, BREACH - 1))
    add(site, site.stranger, 5 * TOKEN)
    for amount in (1, 3 * TOKEN):
        site.do(*ask_back(site, amount, delegator=site.stranger))
    rest = site.ask("delegation", "delegatedBy", operator.address, site.stranger.address)
    site.do(*ask_back(site, rest, delegator=site.stranger))
    assert refused(site, "proveBondBreach", *members) == kept(site, MINIMUM)
    # It answers for what it left to them.
    add(site, site.stranger, 5 * TOKEN)
    site.do(*ask_back(site, TOKEN))
    assert refused(site, "proveBondBreach", *members) == kept(site, MINIMUM + 4 * TOKEN)
    site.do(*ask_back(site, 5 * TOKEN, delegator=site.stranger))
    accuse(site, "proveBondBreach", *members)


def test_a_breach_is_about_the_newest_set_and_the_conditions_of_the_network(site):
    members, index = newest(site)
    site.do(*ask_back(site))
    assert refused(site, "proveBondBreach", members[:3], index).startswith("WrongOperatorSet")
    assert refused(site, "proveBondBreach", members, 4) == "MemberUnknown(4, 4)"
    network = site.ask("task_manager", "network")
    site.do(site.admin, "network_registry", "allowCondition", network, BOND_BREACH, False)
    assert refused(site, "proveBondBreach", members, index).startswith("ConditionNotAllowed")

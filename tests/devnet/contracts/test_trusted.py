"""TrustedSlasher: what a Network may let somebody do on their word alone, and nobody else."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode

from devnet.deploy import EQUIVOCATION, MISSED_DUTY, TOKEN, keccak
from tests.devnet.contracts.conftest import CHAIN_ID, LIAR, TERMS, account
from tests.devnet.contracts.test_slashing import proof, prove, request_id, stake_of

pytestmark = pytest.mark.real

BURNER = "0x" + "00" * 20  # as `request` takes it
HONEST = 0
UNKNOWN = keccak(b"no task")
THIEF = "0x" + "77" * 20


def ask(site, task_hash, condition=MISSED_DUTY, operator=HONEST, receiver=BURNER, shown=b""):
    """A request by the authority for five tokens, and what it emitted."""
    victim = site.operators[operator].account.address
    return site.do(site.authority, *call(condition, task_hash, victim, 5 * TOKEN, receiver, shown))


def call(*arguments):
    return ("trusted_slasher", "request", *arguments)


def executed(site, request, sender=None, function="execute"):
    return site.do(sender or site.stranger, "trusted_slasher", function, request)["SlashingExecuted"]


def vetoed(site, request):
    for voter in site.voters[:2]:
        site.do(voter, "veto_committee", "vote", site.contracts["trusted_slasher"], request)
    assert site.ask("trusted_slasher", "requestOf", request)[0] == 2


def held(site, address):
    return site.ask("collateral_token", "balanceOf", address)


def named(identity):
    return "0x" + identity.hex()


def test_the_authority_needs_no_proof_and_its_request_lives_as_a_proved_one(site):
    victim, before = site.operators[HONEST].account.address, stake_of(site, HONEST)
    told = ask(site, UNKNOWN, shown=b"\1\2")
    parts = (CHAIN_ID, site.contracts["trusted_slasher"], MISSED_DUTY, UNKNOWN, victim, 0)
    request = keccak(encode(["uint256", "address", "bytes32", "bytes32", "address", "uint256"], parts))
    last = site.head + TERMS.veto_window
    assert told["SlashingRequested"] == {
        **{"requestId": request, "condition": MISSED_DUTY, "operator": victim, "taskHash": UNKNOWN},
        **{"amount": 5 * TOKEN, "vetoDeadline": last, "executionDeadline": last + TERMS.execution_window},
    }
    assert told["RequestedOnTrust"] == {
        **{"requestId": request, "authority": site.authority.address},
        **{"receiver": site.contracts["burner"], "evidence": b"\1\2"},
    }
    execute = ("trusted_slasher", "execute", request)
    site.mine_to(last - 1)
    assert site.refusal(site.authority, *execute) == f"VetoWindowOpen({last})"
    taken = executed(site, request)
    assert (taken["amount"], taken["receiver"]) == (5 * TOKEN, site.contracts["burner"])
    assert stake_of(site, HONEST) == before - 5 * TOKEN
    assert site.refusal(site.stranger, *execute) == f"RequestClosed({named(request)}, 3)"
    late = ask(site, UNKNOWN)["SlashingRequested"]
    site.mine_to(late["executionDeadline"])
    refused = site.refusal(site.stranger, "trusted_slasher", "execute", late["requestId"])
    assert refused == f"ExecutionWindowPassed({late['executionDeadline']})"


def test_only_whom_the_builder_appointed_may_ask_and_zero_is_nobody(site):
    victim = site.operators[HONEST].account.address
    asking = call(MISSED_DUTY, UNKNOWN, victim, 1, BURNER, b"")
    others = (site.stranger, site.admin, site.voters[0])
    for sender in others:
        assert site.refusal(sender, *asking) == f"NotAuthority({sender.address})"
    for sender in (site.stranger, site.authority):
        refused = site.refusal(sender, "trusted_slasher", "appoint", sender.address)
        assert refused == f"NotBuilder({sender.address})"
    assert site.do(site.admin, "trusted_slasher", "appoint", BURNER) == {
        "AuthorityAppointed": {"authority": BURNER}
    }
    for sender in (*others, site.authority):
        assert site.refusal(sender, *asking).startswith("NotAuthority")
    site.do(site.admin, "trusted_slasher", "appoint", site.stranger.address)
    assert "RequestedOnTrust" in site.do(site.stranger, *asking)


def test_the_network_must_have_the_condition(site):
    victim, unheard = site.operators[HONEST].account.address, keccak(b"impolite")
    refused = site.refusal(site.authority, *call(unheard, UNKNOWN, victim, 1, BURNER, b""))
    assert refused == f"ConditionNotAllowed({named(unheard)})"


def test_one_offence_can_be_asked_for_twice_here_and_beside_its_proof(site):
    """All three are executed: a slashing for which there is a proof does not stop one on somebody's word."""
    task, before = site.submit(window=20), stake_of(site)
    proved = site.do(*prove(site, *proof(site, task)))["SlashingRequested"]["requestId"]
    first, second = (
        ask(site, task.hash, EQUIVOCATION, LIAR)["SlashingRequested"]["requestId"] for _ in range(2)
    )
    assert len({proved, first, second}) == 3
    liar = site.operators[LIAR].account.address
    assert site.ask("trusted_slasher", "requestsFor", EQUIVOCATION, task.hash, liar) == 2
    assert site.ask("trusted_slasher", "requestIdOf", EQUIVOCATION, task.hash, liar, 1) == second
    site.mine_to(site.head + TERMS.veto_window)
    site.do(site.stranger, "slashing_manager", "execute", proved)
    for request in (first, second):
        executed(site, request)
    assert stake_of(site) == before - before // 10 - 10 * TOKEN


def test_an_offence_too_far_back_for_a_proof_can_still_be_asked_for(site):
    task = site.submit(window=2, grace=0)
    site.mine_to(task.end + TERMS.slashing_window)
    assert site.refusal(*prove(site, *proof(site, task))).startswith("SlashingWindowPassed")
    assert "SlashingRequested" in ask(site, task.hash, EQUIVOCATION)


def test_the_authority_names_who_gets_it(site):
    request = ask(site, UNKNOWN, receiver=THIEF)["SlashingRequested"]["requestId"]
    burned = held(site, site.contracts["burner"])
    site.mine_to(site.head + TERMS.veto_window)
    assert executed(site, request)["receiver"] == THIEF
    assert held(site, THIEF) == 5 * TOKEN
    assert held(site, site.contracts["burner"]) == burned


def test_the_authority_can_execute_what_was_vetoed_and_before_and_after_its_window(site):
    request = ask(site, UNKNOWN)["SlashingRequested"]["requestId"]
    vetoed(site, request)
    site.mine_to(site.head + TERMS.veto_window)
    refused = site.refusal(site.stranger, "trusted_slasher", "execute", request)
    assert refused == f"RequestClosed({named(request)}, 2)"
    regardless = ("trusted_slasher", "executeRegardless", request)
    refused = site.refusal(site.stranger, *regardless)
    assert refused == f"NotAuthority({site.stranger.address})"
    assert executed(site, request, site.authority, "executeRegardless")["amount"] == 5 * TOKEN
    assert site.refusal(site.authority, *regardless) == f"RequestClosed({named(request)}, 3)"

    early = ask(site, UNKNOWN)["SlashingRequested"]
    assert executed(site, early["requestId"], site.authority, "executeRegardless")["amount"] == 5 * TOKEN
    late = ask(site, UNKNOWN)["SlashingRequested"]
    site.mine_to(late["executionDeadline"])
    assert executed(site, late["requestId"], site.authority, "executeRegardless")["amount"] == 5 * TOKEN
    refused = site.refusal(site.authority, "trusted_slasher", "executeRegardless", UNKNOWN)
    assert refused == f"RequestUnknown({named(UNKNOWN)})"


def test_only_the_committee_vetoes_and_only_in_time(site):
    asked = ask(site, UNKNOWN)["SlashingRequested"]
    request = asked["requestId"]
    for sender in (site.stranger, site.admin, site.authority, site.voters[0]):
        refused = site.refusal(sender, "trusted_slasher", "veto", request)
        assert refused == f"NotVetoCommittee({sender.address})"
    assert site.head > asked["vetoDeadline"]
    vote = ("veto_committee", "vote", site.contracts["trusted_slasher"], request)
    told = site.do(site.voters[0], *vote)["VetoVoted"]
    assert (told["votes"], told["threshold"]) == (1, TERMS.veto_threshold)
    assert site.refusal(site.voters[1], *vote) == f"VetoWindowPassed({asked['vetoDeadline']})"


def test_withdrawals_wait_for_as_long_as_it_can_be_executed(site):
    victim = site.operators[HONEST].account
    asked = site.do(victim, "delegation", "requestWithdrawal", victim.address, TOKEN)["WithdrawalRequested"]
    site.mine_to(asked["readyBlock"] - 1)
    last = ask(site, UNKNOWN)["SlashingRequested"]["executionDeadline"]
    withdraw = (victim, "delegation", "withdraw", asked["withdrawalId"])
    site.mine_to(last - 1)
    assert site.refusal(*withdraw) == f"WithdrawalNotReady({asked['withdrawalId']}, {last + 1})"
    assert "Withdrawn" in site.do(*withdraw)


def test_proved_slashings_go_nowhere_but_to_the_burner_and_nobody_else_slashes(site):
    victim = site.operators[HONEST].account.address
    for sender in (site.authority, site.admin, site.stranger):
        refused = site.refusal(sender, "delegation", "slashTo", victim, 1, THIEF)
        assert refused == f"NotSlasher({sender.address})"
        assert site.refusal(sender, "delegation", "freeze", victim, 10**6) == f"NotSlasher({sender.address})"
        assert site.refusal(sender, "trusted_slasher", "executeRegardless", UNKNOWN).startswith(
            "RequestUnknown" if sender is site.authority else "NotAuthority"
        )
    refused = site.refusal(site.admin, "delegation", "setTrustedSlasher", site.admin.address)
    assert refused == f"SlasherAlreadySet({site.contracts['trusted_slasher']})"
    # Neither slasher may use the other's way.
    for slasher, function, arguments in (
        ("slashing_manager", "slashTo", (victim, 1, THIEF)),
        ("trusted_slasher", "slash", (victim, 1)),
    ):
        sender = site.contracts[slasher]
        data = site.abis["delegation"].encode(function, *arguments)
        told = {"from": sender, "to": site.contracts["delegation"], "data": "0x" + data.hex()}
        with pytest.raises(Exception) as refused:  # noqa: PT011  whatever it is, the data says why
            site.chain.rpc("eth_call", told, "latest")
        assert site.error(refused.value.data) == f"NotSlasher({sender})"


def test_a_request_there_is_none_here(site):
    task = site.submit(window=20)
    site.do(*prove(site, *proof(site, task)))
    refused = site.refusal(site.authority, "trusted_slasher", "executeRegardless", request_id(site, task))
    assert refused == f"RequestUnknown({named(request_id(site, task))})"
    assert account("authority").address == site.ask("trusted_slasher", "authority")

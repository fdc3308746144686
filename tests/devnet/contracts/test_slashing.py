"""SlashingManager, Delegation, VetoCommittee: proof, window, execution, and funds that go one way."""

from __future__ import annotations

import json

import pytest
from eth_abi.abi import encode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devnet.chain import Reverted
from devnet.compile import ARTIFACTS_FILE
from devnet.deploy import EQUIVOCATION, TOKEN, keccak
from tests.devnet.contracts.conftest import CHAIN_ID, TERMS, slash
from tests.seeds import seeds

pytestmark = pytest.mark.real

RIGHT, WRONG = (7, 13), (13, 7)
LIAR = 1


def proof(site, task, index=LIAR, a=RIGHT, b=WRONG):
    """The arguments of `proveEquivocation`, signed by the operator of that index."""
    return (task.fields, task.members, index, a, site.sign(index, task, a), b, site.sign(index, task, b))


def prove(site, *arguments):
    return (site.stranger, "slashing_manager", "proveEquivocation", *arguments)


def request_id(site, task, operator=LIAR, condition=EQUIVOCATION):
    """The request that this offence makes, as anyone can name it in advance."""
    manager, offender = site.contracts["slashing_manager"], site.operators[operator].account.address
    parts = (CHAIN_ID, manager, condition, task.hash, offender)
    return keccak(encode(["uint256", "address", "bytes32", "bytes32", "address"], parts))


def named(identity):
    return "0x" + identity.hex()


def stake_of(site, operator=LIAR):
    return site.ask("delegation", "stakeOf", site.operators[operator].account.address)


def balance(site, name):
    return site.ask("collateral_token", "balanceOf", site.contracts[name])


def test_equivocation_is_proved_and_after_the_window_slashed_to_the_burner(site):
    task, before = site.submit(), stake_of(site)
    held = balance(site, "delegation")
    event = site.do(*prove(site, *proof(site, task)))["SlashingRequested"]
    veto_deadline = site.head + 3
    assert event == {
        "requestId": request_id(site, task),
        "condition": EQUIVOCATION,
        "operator": site.operators[LIAR].account.address,
        "taskHash": task.hash,
        "amount": before // 10,
        "vetoDeadline": veto_deadline,
        "executionDeadline": veto_deadline + TERMS.execution_window,
    }
    execute = (site.stranger, "slashing_manager", "execute", event["requestId"])
    site.mine_to(veto_deadline - 1)
    assert site.refusal(*execute) == f"VetoWindowOpen({veto_deadline})"
    assert site.head == veto_deadline
    executed = site.do(*execute)["SlashingExecuted"]
    assert executed["amount"] == before // 10
    assert executed["receiver"] == site.contracts["burner"]
    assert stake_of(site) == before - before // 10
    assert balance(site, "burner") == before // 10
    assert balance(site, "delegation") == held - before // 10
    assert site.refusal(*execute).startswith("RequestClosed")
    supply = site.ask("collateral_token", "totalSupply")
    assert site.do(site.stranger, "burner", "burn")["Burned"] == {"amount": before // 10}
    assert site.ask("collateral_token", "totalSupply") == supply - before // 10


def test_m_of_n_votes_block_the_execution(site):
    task, before = site.submit(), stake_of(site)
    veto_deadline = site.do(*prove(site, *proof(site, task)))["SlashingRequested"]["vetoDeadline"]
    vote = ("veto_committee", "vote", site.contracts["slashing_manager"], request_id(site, task))
    assert site.refusal(site.stranger, *vote) == f"NotCommitteeMember({site.stranger.address})"
    assert set(site.do(site.voters[0], *vote)) == {"VetoVoted"}
    # One vote is not a veto, also where it is cast twice. (The refused vote is a block of its own.)
    assert site.refusal(site.voters[0], *vote).startswith("AlreadyVoted")
    assert site.head == veto_deadline
    assert site.refusal(site.voters[1], *vote) == f"VetoWindowPassed({veto_deadline})"

    other = site.submit()
    veto_deadline = site.do(*prove(site, *proof(site, other)))["SlashingRequested"]["vetoDeadline"]
    request = request_id(site, other)
    vote = (*vote[:-1], request)
    site.do(site.voters[2], *vote)
    site.mine_to(veto_deadline - 1)
    assert site.do(site.voters[0], *vote)["SlashingVetoed"] == {"requestId": request}
    site.mine_to(veto_deadline + 5)
    refused = site.refusal(site.stranger, "slashing_manager", "execute", request)
    assert refused == f"RequestClosed({named(request)}, 2)"
    assert stake_of(site) == before
    assert site.refusal(*prove(site, *proof(site, other))) == f"AlreadyRequested({named(request)})"


def test_a_request_that_nobody_executed_in_its_window_has_expired(site):
    late, last = site.submit(), site.submit()
    veto_deadline = site.do(*prove(site, *proof(site, last)))["SlashingRequested"]["vetoDeadline"]
    site.do(*prove(site, *proof(site, late)))
    execute = ("slashing_manager", "execute")
    site.mine_to(veto_deadline + TERMS.execution_window - 1)
    assert "SlashingExecuted" in site.do(site.stranger, *execute, request_id(site, last))
    site.mine_to(veto_deadline + 1 + TERMS.execution_window)
    before = stake_of(site)
    refused = site.refusal(site.stranger, *execute, request_id(site, late))
    assert refused == f"ExecutionWindowPassed({veto_deadline + 1 + TERMS.execution_window})"
    assert stake_of(site) == before
    # It stays as it was, cannot be vetoed any more, and is not made anew.
    assert site.ask("slashing_manager", "requestOf", request_id(site, late))[0] == 1
    vote = ("veto_committee", "vote", site.contracts["slashing_manager"], request_id(site, late))
    site.do(site.voters[0], *vote)
    assert site.refusal(site.voters[1], *vote) == f"VetoWindowPassed({veto_deadline + 1})"
    assert site.refusal(*prove(site, *proof(site, late))).startswith("AlreadyRequested")


def raw(site, sender, ahead, contract, function, *args):
    """A transaction of the sender's that is signed and not sent, `ahead` of its next nonce."""
    nonce = int(site.chain.rpc("eth_getTransactionCount", sender.address, "latest"), 16) + ahead
    data = site.abis[contract].encode(function, *args)
    return sender.sign(CHAIN_ID, nonce, site.contracts[contract], data)


def happened(site, block):
    """What the contracts emitted in a block, in its order, and how its transactions ended."""
    receipts = site.chain.rpc("eth_getBlockReceipts", hex(block))
    read = [site.read(log) for receipt in receipts for log in receipt["logs"]]
    return read, [int(receipt["status"], 16) for receipt in receipts]


def test_a_veto_that_a_reorg_brings_back_overrules_the_same_offence_or_none(site):
    """On the old fork LIAR's request came first and was vetoed; on the new one another's comes first."""
    task, other = site.submit(window=20), 2
    mine, others = request_id(site, task), request_id(site, task, other)
    proofs = [
        raw(site, site.stranger, 0, "slashing_manager", "proveEquivocation", *proof(site, task, index))
        for index in (LIAR, other)
    ]
    vote = ("veto_committee", "vote", site.contracts["slashing_manager"], mine)
    votes = [raw(site, voter, 0, *vote) for voter in site.voters[:2]]
    for transactions in ([proofs[0]], votes):
        for each in transactions:
            site.chain.rpc("eth_sendRawTransaction", "0x" + each.hex())
        site.chain.mine()
    assert site.ask("slashing_manager", "requestOf", mine)[0] == 2  # vetoed

    # Only the other's request on the new fork: the votes find none of their own, and touch no other.
    head, _ = site.chain.reorg(2, [(proofs[1], 0), *((each, 1) for each in votes)])
    (told, _), (_, statuses) = happened(site, head - 1), happened(site, head)
    assert [event["requestId"] for name, event in told if name == "SlashingRequested"] == [others]
    assert statuses == [1, 0], "the vote that would be the veto is refused"
    states = [site.ask("slashing_manager", "requestOf", each)[0] for each in (mine, others)]
    assert states == [0, 1]

    # Both, the other's first: the votes are for LIAR's all the same.
    second = raw(site, site.stranger, 0, "slashing_manager", "proveEquivocation", *proof(site, task))
    head, _ = site.chain.reorg(2, [(proofs[1], 0), (second, 0), *((each, 1) for each in votes)])
    told, statuses = happened(site, head)
    assert [event for name, event in told if name == "SlashingVetoed"] == [{"requestId": mine}]
    assert statuses == [1, 1]
    states = [site.ask("slashing_manager", "requestOf", each)[0] for each in (mine, others)]
    assert states == [2, 1]


def test_a_request_is_named_by_chain_contract_and_offence(site):
    task, other = site.submit(), site.submit()
    address = site.operators[LIAR].account.address
    asked = site.ask("slashing_manager", "requestIdOf", EQUIVOCATION, task.hash, address)
    assert asked == request_id(site, task)
    named_otherwise = {
        request_id(site, other),
        request_id(site, task, operator=0),
        request_id(site, task, condition=keccak(b"another")),
    }
    assert len(named_otherwise - {asked}) == 3


def test_only_the_committee_vetoes_and_only_the_slasher_slashes(site):
    task = site.submit()
    site.do(*prove(site, *proof(site, task)))
    request, unknown = request_id(site, task), request_id(site, task, operator=0)
    for sender in (site.stranger, site.admin, site.voters[0]):
        refused = site.refusal(sender, "slashing_manager", "veto", request)
        assert refused == f"NotVetoCommittee({sender.address})"
        victim = site.operators[0].account.address
        assert site.refusal(sender, "delegation", "slash", victim, 1) == f"NotSlasher({sender.address})"
        assert site.refusal(sender, "delegation", "freeze", victim, 99).startswith("NotSlasher")
    assert site.refusal(site.admin, "delegation", "setSlasher", site.admin.address).startswith(
        "SlasherAlreadySet"
    )
    refused = site.refusal(site.stranger, "slashing_manager", "execute", unknown)
    assert refused == f"RequestUnknown({named(unknown)})"


def test_the_same_answer_twice_is_no_offence(site):
    task = site.submit()
    assert site.refusal(*prove(site, *proof(site, task, b=RIGHT))).startswith("SameResponse")


def test_an_honest_operator_can_t_be_accused(site):
    task, other = site.submit(), site.submit()
    fields, members, _, *liar_s = proof(site, task)
    honest = 0
    hers = site.sign(honest, task, RIGHT)
    forgeries = {
        "another's over that answer": site.sign(LIAR, task, WRONG),
        "hers over another task": site.sign(honest, other, WRONG),
        "the identity": (0, 0),
        "no signature of anybody": (1, 2),
    }
    for forged in forgeries.values():
        for accusation in ((RIGHT, hers, WRONG, forged), (WRONG, forged, RIGHT, hers)):
            refused = site.refusal(*prove(site, fields, members, honest, *accusation))
            assert refused.startswith("SignatureInvalid(" if any(forged) else "IdentityPoint")
    # Another's two signatures under her index.
    assert site.refusal(*prove(site, fields, members, honest, *liar_s)).startswith("SignatureInvalid(")


def test_an_offence_is_about_a_known_task_its_set_and_a_member(site):
    task = site.submit()
    fields, members, *rest = proof(site, task)
    unknown = (*fields[:8], 99)
    assert site.refusal(*prove(site, unknown, members, *rest)).startswith("TaskUnknown")
    assert site.refusal(*prove(site, fields, members[:2], *rest)).startswith("WrongOperatorSet")
    assert site.refusal(*prove(site, fields, members, 4, *rest[1:])) == "MemberUnknown(4, 4)"


def test_what_the_network_does_not_slash_for_is_refused(site):
    task = site.submit()
    network = site.ask("task_manager", "network")
    site.do(site.admin, "network_registry", "allowCondition", network, keccak(b"equivocation"), False)
    assert site.refusal(*prove(site, *proof(site, task))).startswith("ConditionNotAllowed")


def test_an_offence_is_proved_within_the_slashing_window(site):
    task, other = site.submit(window=2, grace=1), site.submit(window=2, grace=1)
    site.mine_to(task.end + 49)
    site.do(*prove(site, *proof(site, task)))
    site.mine_to(other.end + 50)
    assert site.refusal(*prove(site, *proof(site, other))) == f"SlashingWindowPassed({other.end + 50})"


def test_both_attestations_of_a_cancelled_task_still_prove_it(site):
    task = site.submit(window=20)
    site.do(site.submitter, "task_manager", "cancelTask", task.fields)
    assert "SlashingRequested" in site.do(*prove(site, *proof(site, task)))


def test_collateral_on_its_way_out_is_slashed_for_the_last_offence_that_it_stands_for(site):
    """LIAR asks for its collateral in the very block of the set that counts it. The last Task of that set is
    as long as can be, and the offence is proved in the last block."""
    members, before = list(site.ask("operator_registry", "eligible")), stake_of(site)
    liar, half = site.operators[LIAR].account, before // 2
    registry, delegation = site.abis["operator_registry"], site.abis["delegation"]
    ask = delegation.encode("requestWithdrawal", liar.address, half)
    site.chain.send(site.stranger, site.contracts["operator_registry"], registry.encode("commitSet"))
    site.chain.send(liar, site.contracts["delegation"], ask)
    asked_at, _ = site.chain.mine()
    ((_, asked),) = happened(site, asked_at)[0]
    assert asked["readyBlock"] == asked_at + TERMS.bonding_period
    assert stake_of(site) == before - half

    site.mine_to(asked_at + TERMS.max_set_age - 1)
    task = site.submit(window=TERMS.max_duration, grace=0)._replace(members=members)
    last = task.end + TERMS.slashing_window
    withdraw = delegation.encode("withdraw", asked["withdrawalId"])
    proving = site.abis["slashing_manager"].encode("proveEquivocation", *proof(site, task))
    site.mine_to(last - 1)
    sent = [
        site.chain.send(liar, site.contracts["delegation"], withdraw),
        site.chain.send(site.stranger, site.contracts["slashing_manager"], proving),
    ]
    site.chain.mine()
    assert [int(site.chain.receipt(each)["status"], 16) for each in sent] == [0, 1]

    # Ready, and held back until the slashing was executed or there was time to.
    withdraw = (liar, "delegation", "withdraw", asked["withdrawalId"])
    site.mine_to(asked["readyBlock"] - 1)
    assert site.refusal(*withdraw).startswith("WithdrawalNotReady")
    frozen = last + TERMS.veto_window + TERMS.execution_window
    site.mine_to(last + TERMS.veto_window)
    site.do(site.stranger, "slashing_manager", "execute", request_id(site, task))
    site.mine_to(frozen - 1)
    assert site.refusal(*withdraw) == f"WithdrawalNotReady({asked['withdrawalId']}, {frozen + 1})"
    assert site.do(*withdraw)["Withdrawn"]["amount"] == half - half // 10
    assert stake_of(site) == (before - half) - half // 10
    assert site.ask("collateral_token", "balanceOf", liar.address) == half - half // 10


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({}, None),
        ({"slashing_window": 51}, "BondingPeriodTooShort(211, 211)"),
        ({"slashing_window": 2**64 - 1}, f"BondingPeriodTooShort(211, {2**64 - 1 + 100 + 60})"),
        ({"veto_window": 0}, "VetoWindowIsZero()"),
        ({"execution_window": 0}, "ExecutionWindowIsZero()"),
        ({"penalty": 0}, "PenaltyOutOfRange(0)"),
        ({"penalty": 10_001}, "PenaltyOutOfRange(10001)"),
        ({"miss_window": 2**64 - 1, "miss_allowance": 2**16 - 1}, None),
        ({"miss_window": 0}, "MissWindowIsZero()"),
    ],
)
def test_a_slashing_manager_that_offenders_could_leave_in_time_is_not_created(site, changed, error):
    terms = {"veto_window": 3, "execution_window": 6, "slashing_window": 50, "penalty": 1_000}
    terms = terms | {"miss_allowance": 2, "miss_window": 12} | changed
    code = json.loads(ARTIFACTS_FILE.read_text())["slashing_manager"]["bytecode"]
    arguments = (site.contracts["task_manager"], site.contracts["veto_committee"], *terms.values())
    data = code + site.abis["slashing_manager"].constructor(*arguments).hex()
    create = ("eth_call", {"from": site.admin.address, "data": data}, "latest")
    if error is None:
        assert len(site.chain.rpc(*create)) > 2
    else:
        with pytest.raises(Reverted) as refused:
            site.chain.rpc(*create)
        assert site.error(refused.value.data) == error


def test_stake_stays_between_its_bounds(site):
    liar = site.operators[LIAR].account
    most = site.ask("delegation", "maximum")
    site.do(site.admin, "collateral_token", "mint", site.stranger.address, most)
    site.do(site.stranger, "collateral_token", "approve", site.contracts["delegation"], most)
    delegate = (site.stranger, "delegation", "delegate", liar.address)
    assert site.refusal(*delegate, most).startswith("AboveMaximum")
    assert site.refusal(*delegate, 0) == "AmountTooSmall()"
    site.do(*delegate, most - stake_of(site))
    withdraw = ("delegation", "requestWithdrawal", liar.address)
    assert site.refusal(liar, *withdraw, 1000 * TOKEN + 1).startswith("NotEnoughDelegated")
    assert site.refusal(liar, *withdraw, 0) == "AmountTooSmall()"
    assert site.refusal(site.admin, *withdraw, 1) == "NotEnoughDelegated(1, 0)"


def test_nobody_withdraws_for_another_or_twice(site):
    liar = site.operators[LIAR].account
    site.do(liar, "delegation", "requestWithdrawal", liar.address, TOKEN)
    site.mine_to(site.head + TERMS.bonding_period - 1)
    assert site.refusal(site.stranger, "delegation", "withdraw", 1) == "WithdrawalUnknown(1)"
    site.do(liar, "delegation", "withdraw", 1)
    assert site.refusal(liar, "delegation", "withdraw", 1) == "WithdrawalUnknown(1)"


def test_collateral_that_was_slashed_to_nothing_leaves_no_claims(site):
    liar, before = site.operators[LIAR].account, stake_of(site)
    ask = (liar, "delegation", "requestWithdrawal", liar.address)
    site.do(*ask, before // 4)
    slash(site, LIAR, before + 1)
    assert site.ask("delegation", "slashableOf", liar.address) == 0
    assert balance(site, "burner") == before
    # What comes after belongs to who brought it, on both sides.
    site.do(site.admin, "collateral_token", "mint", liar.address, 300)
    site.do(liar, "collateral_token", "approve", site.contracts["delegation"], 300)
    site.do(liar, "delegation", "delegate", liar.address, 300)
    assert site.ask("delegation", "delegatedBy", liar.address, liar.address) == 300
    site.do(*ask, 100)
    site.mine_to(site.head + TERMS.bonding_period)
    assert site.do(liar, "delegation", "withdraw", 1)["Withdrawn"]["amount"] == 0
    assert site.do(liar, "delegation", "withdraw", 2)["Withdrawn"]["amount"] == 100
    assert stake_of(site) == 200


moves = st.lists(
    st.tuples(
        st.sampled_from(["delegate", "ask", "withdraw", "slash"]), st.integers(0, 1), st.integers(1, 10**21)
    ),
    min_size=4,
    max_size=16,
)


@given(moves=moves)
@settings(max_examples=seeds(6, 15), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_delegation_owes_never_more_than_it_holds(deployed, moves):
    """Whatever is delegated, asked back, slashed and withdrawn, in whatever order, the books balance."""
    site = deployed
    snapshot = site.chain.rpc("evm_snapshot")
    delegation, operator = site.contracts["delegation"], site.operators[0].account
    try:
        people = [operator, site.stranger]
        for person in people:
            site.do(site.admin, "collateral_token", "mint", person.address, 10**23)
            site.do(person, "collateral_token", "approve", delegation, 10**23)
        asked = []
        for move, who, amount in moves:
            person, bystander = people[who], people[1 - who]
            spared = site.ask("delegation", "delegatedBy", operator.address, bystander.address)
            held = site.ask("delegation", "delegatedBy", operator.address, person.address)
            if move == "delegate":
                site.do(person, "delegation", "delegate", operator.address, amount)
            elif move == "ask" and held:
                event = site.do(
                    person, "delegation", "requestWithdrawal", operator.address, 1 + amount % held
                )
                asked.append((person, event["WithdrawalRequested"]["withdrawalId"]))
            elif move == "withdraw" and asked:
                person, withdrawal = asked.pop(amount % len(asked))
                site.chain.mine(TERMS.bonding_period)
                site.do(person, "delegation", "withdraw", withdrawal)
            elif move == "slash":
                slash(site, 0, amount)
            stake = site.ask("delegation", "stakeOf", operator.address)
            claims = [site.ask("delegation", "delegatedBy", operator.address, p.address) for p in people]
            assert 0 <= stake - sum(claims) <= len(people)
            assert move == "slash" or claims[1 - who] >= spared, "nobody gains by another's move"
            others = sum(site.ask("delegation", "slashableOf", o.account.address) for o in site.operators[1:])
            slashable = site.ask("delegation", "slashableOf", operator.address)
            assert site.ask("collateral_token", "balanceOf", delegation) == others + slashable
    finally:
        assert site.chain.rpc("evm_revert", snapshot)

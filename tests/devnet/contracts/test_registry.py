"""OperatorRegistry: keys that prove themselves, and sets that hold who they should."""

from __future__ import annotations

import pytest

from devnet.deploy import TOKEN, created_address, g1_argument, g2_argument, key_arguments
from nektar.evidence import bls

pytestmark = pytest.mark.real

IDENTITY = (0, 0)
NOBODY = ((0, 0), (0, 0))
RIGHT = (7, 13)
MINIMUM = 100 * TOKEN


def keys(site, secret, account):
    return key_arguments(secret, site.chain.chain_id, site.contracts["operator_registry"], account.address)


def register(site, key, twin, proof, region="eu", validators=3):
    return (site.stranger, "operator_registry", "register", key, twin, proof, region, validators)


def stake(site, account, amount):
    site.do(site.admin, "collateral_token", "mint", account.address, amount)
    site.do(account, "collateral_token", "approve", site.contracts["delegation"], amount)
    site.do(account, "delegation", "delegate", account.address, amount)


@pytest.fixture
def site(site):
    """The Network, and a stranger who has enough stake to register."""
    stake(site, site.stranger, MINIMUM)
    return site


def set_of(site):
    return [member[0] for member in site.ask("operator_registry", "eligible")]


def test_an_operator_registers_with_all_it_says_of_itself(site):
    key, twin, proof = keys(site, 77, site.stranger)
    event = site.do(*register(site, key, twin, proof))["OperatorRegistered"]
    assert event == {
        "operator": site.stranger.address,
        "key": key,
        "keyG2": twin,
        "region": "eu",
        "validators": 3,
    }
    assert site.refusal(*register(site, *keys(site, 78, site.stranger))).startswith("AlreadyRegistered")


def test_a_key_without_a_proof_of_possession_is_refused(site):
    key, twin, proof = keys(site, 77, site.stranger)
    others = {
        "of another key": keys(site, 78, site.stranger)[2],
        "for another operator": keys(site, 77, site.submitter)[2],
        "in another domain": g1_argument(
            bls.sign(
                77,
                bls.proof_digest(
                    site.chain.chain_id,
                    bytes.fromhex(site.contracts["task_manager"][2:]),
                    bytes.fromhex(site.stranger.address[2:]),
                    bls.public_keys(77)[0],
                ),
            )
        ),
    }
    for other in others.values():
        assert site.refusal(*register(site, key, twin, other)) == "ProofOfPossessionInvalid()"
    assert site.refusal(*register(site, key, twin, IDENTITY)) == "IdentityPoint()"
    assert site.refusal(*register(site, key, twin, (proof[0], proof[1] ^ 1))) == "InvalidPoint()"


def test_a_signed_response_is_no_proof_of_possession(site):
    task = site.submit()
    key, twin, _ = keys(site, 77, site.stranger)
    signed = g1_argument(bls.sign(77, site.digest(task, RIGHT)))
    assert site.refusal(*register(site, key, twin, signed)) == "ProofOfPossessionInvalid()"


def test_twins_of_different_secrets_are_refused(site):
    key, twin, proof = keys(site, 77, site.stranger)
    other_key, other_twin, _ = keys(site, 78, site.stranger)
    assert site.refusal(*register(site, key, other_twin, proof)) == "ProofOfPossessionInvalid()"
    assert site.refusal(*register(site, other_key, twin, proof)) == "ProofOfPossessionInvalid()"


def test_a_rogue_key_has_no_proof(site):
    # The key that would cancel all others, so that one's own signature passes for everybody's.
    whole = sum(each.secret for each in site.operators)
    key, twin, _ = keys(site, bls.R - whole + 99, site.stranger)
    mine = g1_argument(bls.sign(99, b"\x01" * 32))
    assert site.refusal(*register(site, key, twin, mine)) == "ProofOfPossessionInvalid()"


def test_the_identity_and_points_that_are_none_are_no_keys(site):
    key, twin, proof = keys(site, 77, site.stranger)
    assert site.refusal(*register(site, IDENTITY, NOBODY, IDENTITY)) == "IdentityPoint()"
    assert site.refusal(*register(site, IDENTITY, twin, proof)) == "IdentityPoint()"
    assert site.refusal(*register(site, key, NOBODY, proof)) == "IdentityPoint()"
    assert site.refusal(*register(site, (key[0], key[1] ^ 1), twin, proof)) == "InvalidPoint()"
    (a, b), (c, d) = twin
    assert site.refusal(*register(site, key, ((a, b), (c, d ^ 1)), proof)) == "InvalidPoint()"


def test_a_key_is_unique_for_ever(site):
    first = site.operators[0]
    for secret, holder in ((first.secret, site.stranger), (first.secret, first.account)):
        refused = site.refusal(
            holder,
            *("operator_registry", "register" if holder is site.stranger else "rotateKey"),
            *keys(site, secret, holder),
            *(("eu", 1) if holder is site.stranger else ()),
        )
        assert refused.startswith("KeyAlreadyUsed")
    site.do(first.account, "operator_registry", "rotateKey", *keys(site, 500, first.account))
    site.do(first.account, "operator_registry", "deregister")
    for secret in (first.secret, 500):
        assert site.refusal(*register(site, *keys(site, secret, site.stranger))).startswith("KeyAlreadyUsed")


def test_a_region_s_name_is_bounded(site):
    arguments = keys(site, 77, site.stranger)
    assert site.refusal(*register(site, *arguments, region="x" * 65)) == "RegionTooLong(65, 64)"
    site.do(*register(site, *arguments, region="x" * 64))


def test_a_set_holds_registered_operators_with_enough_stake(site):
    members = set_of(site)
    site.do(*register(site, *keys(site, 77, site.stranger)))
    assert set_of(site) == [*members, site.stranger.address]
    event = site.do(site.submitter, "operator_registry", "commitSet")["OperatorSetCommitted"]
    assert event["setNumber"] == 2
    assert event["members"][-1] == (site.stranger.address, keys(site, 77, site.stranger)[0], MINIMUM)
    assert site.ask("operator_registry", "setHash") == event["setHash"]
    site.do(site.stranger, "delegation", "requestWithdrawal", site.stranger.address, 1)
    assert set_of(site) == members
    stake(site, site.stranger, 1)
    assert set_of(site) == [*members, site.stranger.address]


def test_nobody_registers_without_the_minimum_of_stake(site):
    mine = keys(site, 77, site.stranger)
    withdraw = (site.stranger, "delegation", "requestWithdrawal", site.stranger.address)
    site.do(*withdraw, 1)
    refused = site.refusal(*register(site, *mine))
    assert refused == f"StakeBelowMinimum({MINIMUM - 1}, {MINIMUM})"
    site.do(*withdraw, MINIMUM - 1)
    assert site.refusal(*register(site, *mine)) == f"StakeBelowMinimum(0, {MINIMUM})"
    stake(site, site.stranger, MINIMUM)
    assert "OperatorRegistered" in site.do(*register(site, *mine))


def test_there_are_so_many_places_and_no_more(site):
    # The length of the list of the registered is the one slot that holds how many there are.
    registry, most = site.contracts["operator_registry"], site.ask("operator_registry", "MAX_OPERATORS")
    slots = [hex(slot) for slot in range(16)]
    read = [int(site.chain.rpc("eth_getStorageAt", registry, slot, "latest"), 16) for slot in slots]
    assert read.count(len(site.operators)) == 1
    length = slots[read.index(len(site.operators))]
    for taken, refused in ((most, f"TooManyOperators({most})"), (most - 1, None)):
        site.chain.rpc("anvil_setStorageAt", registry, length, f"0x{taken:064x}")
        arguments = register(site, *keys(site, 77, site.stranger))
        if refused:
            assert site.refusal(*arguments) == refused
        else:
            assert "OperatorRegistered" in site.do(*arguments)


def test_who_falls_below_the_minimum_can_be_evicted_by_anyone_and_nobody_else_can(site):
    # Else a few minima, moved from one account to the next, would in time fill the registry.
    site.do(*register(site, *keys(site, 77, site.stranger)))
    evict = (site.submitter, "operator_registry", "evict")
    refused = site.refusal(*evict, site.stranger.address)
    assert refused == f"StakeIsEnough({MINIMUM}, {MINIMUM})"
    site.do(site.stranger, "delegation", "requestWithdrawal", site.stranger.address, 1)
    event = site.do(*evict, site.stranger.address)["OperatorDeregistered"]
    assert event == {"operator": site.stranger.address, "effectiveBlock": site.head + 1}
    assert not site.ask("operator_registry", "isRegistered", site.stranger.address)
    assert site.refusal(*evict, site.stranger.address).startswith("NotRegistered")
    assert site.refusal(site.stranger, "operator_registry", "deregister").startswith("NotRegistered")
    # With enough stake it can come back, with a new key.
    stake(site, site.stranger, 1)
    assert site.refusal(*register(site, *keys(site, 77, site.stranger))).startswith("KeyAlreadyUsed")
    site.do(*register(site, *keys(site, 78, site.stranger)))


def test_a_set_that_did_not_change_is_not_committed_again(site):
    before = site.ask("operator_registry", "setHash")
    assert site.do(site.stranger, "operator_registry", "commitSet") == {}
    assert site.ask("operator_registry", "setHash") == before


def test_a_deregistration_counts_from_the_next_block_and_no_later_set_holds_it(site):
    leaver = site.operators[1].account
    event = site.do(leaver, "operator_registry", "deregister")["OperatorDeregistered"]
    assert event == {"operator": leaver.address, "effectiveBlock": site.head + 1}
    assert leaver.address not in set_of(site)
    # The committed set stands until the next one: the leaver is in it, and is excused.
    task = site.submit()
    committed = site.ask("operator_registry", "setHash")
    assert task.fields[3] == committed
    after = site.do(site.admin, "operator_registry", "commitSet")["OperatorSetCommitted"]
    assert leaver.address not in [member[0] for member in after["members"]]
    assert site.refusal(leaver, "operator_registry", "deregister").startswith("NotRegistered")
    assert site.refusal(leaver, "operator_registry", "rotateKey", *keys(site, 600, leaver)).startswith(
        "NotRegistered"
    )


def test_who_left_can_come_back_with_a_new_key(site):
    leaver = site.operators[1].account
    site.do(leaver, "operator_registry", "deregister")
    site.do(leaver, "operator_registry", "register", *keys(site, 600, leaver), "eu", 1)
    assert leaver.address in set_of(site)


def test_an_operator_can_t_leave_and_come_back_in_one_block(site):
    leaver, registry = site.operators[1].account, site.contracts["operator_registry"]
    abi = site.abis["operator_registry"]
    sent = [
        site.chain.send(leaver, registry, data)
        for data in (abi.encode("deregister"), abi.encode("register", *keys(site, 600, leaver), "eu", 1))
    ]
    site.chain.mine()
    assert [int(site.chain.receipt(each)["status"], 16) for each in sent] == [1, 0]


def test_a_rotated_key_counts_from_the_next_set_on(site):
    rotator, old = site.operators[0].account, site.operators[0].secret
    task = site.submit()
    key, twin, proof = keys(site, 700, rotator)
    event = site.do(rotator, "operator_registry", "rotateKey", key, twin, proof)["KeyRotated"]
    assert event == {"operator": rotator.address, "key": key, "keyG2": twin}

    attest = (rotator, "task_manager", "attest", task.fields, RIGHT, task.members, 0)
    with_new = g1_argument(bls.sign(700, site.digest(task, RIGHT)))
    assert site.refusal(*attest, with_new) == "SignatureInvalid()"
    site.do(*attest, g1_argument(bls.sign(old, site.digest(task, RIGHT))))

    site.do(site.admin, "operator_registry", "commitSet")
    later = site.submit()
    assert later.members[0][:2] == (rotator.address, key)
    attest = (rotator, "task_manager", "attest", later.fields, RIGHT, later.members, 0)
    assert (
        site.refusal(*attest, g1_argument(bls.sign(old, site.digest(later, RIGHT)))) == "SignatureInvalid()"
    )
    site.do(*attest, g1_argument(bls.sign(700, site.digest(later, RIGHT))))


def test_an_unknown_key_has_no_twin(site):
    with pytest.raises(Exception, match="KeyUnknown"):
        site.ask("operator_registry", "keyG2Of", (1, 2))
    key, twin = bls.public_keys(site.operators[0].secret)
    assert site.ask("operator_registry", "keyG2Of", g1_argument(key)) == g2_argument(twin)


def test_a_set_of_nobody_is_refused(site):
    for each in site.operators:
        site.do(each.account, "operator_registry", "deregister")
    assert site.refusal(site.admin, "operator_registry", "commitSet") == "NoEligibleOperators()"


def test_a_network_is_listed_once_and_by_the_owner(site):
    network, burner = site.ask("task_manager", "network"), site.contracts["burner"]
    listing = ("network_registry", "listNetwork")
    assert site.refusal(site.stranger, *listing, b"\x01" * 32, burner, burner).startswith(
        "OwnableUnauthorizedAccount"
    )
    assert site.refusal(site.admin, *listing, network, burner, burner).startswith("NetworkAlreadyListed")
    nobody = "0x" + "00" * 20
    assert site.refusal(site.admin, *listing, b"\x01" * 32, burner, nobody) == "AddressIsZero()"
    unknown = ("network_registry", "allowTaskType", b"\x02" * 32, b"\x01" * 32, True)
    assert site.refusal(site.admin, *unknown).startswith("NetworkUnknown")


def test_addresses_follow_from_the_creator_s_nonces(site):
    for nonce, name in ((0, "collateral_token"), (7, "slashing_manager")):
        assert site.contracts[name] == created_address(site.admin.address, nonce)
        assert site.chain.rpc("eth_getCode", site.contracts[name], "latest") != "0x"

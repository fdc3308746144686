"""Breaches of bonds on a real chain, and what the real slashing contract says to their proofs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from devnet.chain import Account
from devnet.deploy import BOND_BREACH, TOKEN, key_arguments
from nektar.evidence.bundle import Bundle, SetMemberClaim, StateClaim, read, write
from nektar.evidence.canonical import Octets
from nektar.evidence.verify import NotProved, verify
from nektar.rows import Finding
from processors.conditions.bond_breach import BondBreach
from tests.devnet.contracts.conftest import Site, add, in_one_block, on_anvil, slash
from tests.processors.conditions.test_dispute_of_invalid_responses import address, called, refused
from tests.processors.real_chain import found, gathered, reader

pytestmark = pytest.mark.real
CONDITION = BondBreach()
MINIMUM, STAKE = 100 * TOKEN, 1000 * TOKEN
BREACH = STAKE - MINIMUM + 1


deployed = pytest.fixture(scope="module", name="deployed")(on_anvil)


@pytest.fixture(name="site")
def fresh(deployed: Site) -> Any:
    snapshot = deployed.chain.rpc("evm_snapshot")
    yield deployed
    assert deployed.chain.rpc("evm_revert", snapshot)


def ask_back(
    site: Site, operator: int, amount: int = BREACH, by: Account | None = None
) -> tuple[Account, str, str, str, int]:
    account = site.operators[operator].account
    return (by or account, "delegation", "requestWithdrawal", account.address, amount)


def request(site: Site, finding: Finding) -> Any:
    subject = CONDITION.claims(finding).subject
    named = (BOND_BREACH, subject, "0x" + finding.operator.hex())
    return site.ask("slashing_manager", "requestIdOf", *named)


def checked(site: Site, finding: Finding) -> Bundle:
    bundle = gathered(site, CONDITION, finding)
    assert read(write(bundle)) == bundle
    verdict = verify(bundle, reader(site), lambda name: CONDITION.holds)
    assert (verdict.id, verdict.accused.operator) == (finding.id, finding.operator)
    assert verdict.canonical == (finding.block,)
    return bundle


def test_a_breach_is_found_verified_and_disputed_at_its_block_and_no_longer_once_it_is_mended(
    site: Site,
) -> None:
    site.do(*ask_back(site, 1))
    at = site.head
    (finding,) = found(site, CONDITION)
    assert (finding.operator, finding.block_number) == (address(site, 1), at)
    bundle = checked(site, finding)
    assert called(site, CONDITION.dispute(bundle)) == request(site, finding)
    add(site, site.operators[1].account, 1, operator=1)
    assert found(site, CONDITION) == [finding]
    assert "BondKept" in refused(site, CONDITION.dispute(bundle))
    assert checked(site, finding) == bundle
    assert called(site, CONDITION.dispute(bundle), at) == request(site, finding)


def test_several_in_one_block_are_each_found_and_honest_ones_are_not(site: Site) -> None:
    leaving = site.operators[0].account
    add(site, site.stranger, 5 * TOKEN, operator=3)
    in_one_block(
        site,
        (leaving, "operator_registry", "deregister"),
        ask_back(site, 0, STAKE),
        ask_back(site, 1),
        ask_back(site, 2, STAKE),
        ask_back(site, 3, 4 * TOKEN, by=site.stranger),
    )
    findings = found(site, CONDITION)
    assert [each.operator for each in findings] == [address(site, 1), address(site, 2)]
    assert len({each.id for each in findings}) == 2
    for finding in findings:
        assert called(site, CONDITION.dispute(checked(site, finding))) == request(site, finding)


def test_another_key_is_no_way_out_and_an_eviction_is(site: Site) -> None:
    operator = site.operators[1].account
    registry = site.contracts["operator_registry"]
    new = key_arguments(77, site.chain.chain_id, registry, operator.address)
    site.do(operator, "operator_registry", "rotateKey", *new)
    site.do(*ask_back(site, 1))
    (finding,) = found(site, CONDITION)
    bundle = checked(site, finding)
    assert called(site, CONDITION.dispute(bundle)) == request(site, finding)
    site.do(site.stranger, "operator_registry", "evict", operator.address)
    assert "HasLeft" in refused(site, CONDITION.dispute(bundle))
    in_one_block(
        site,
        ask_back(site, 2),
        (site.stranger, "operator_registry", "evict", site.operators[2].account.address),
    )
    site.do(site.stranger, "operator_registry", "commitSet")
    assert found(site, CONDITION) == [finding]


def test_a_slashing_that_is_executed_is_counted_and_is_no_breach(site: Site) -> None:
    """It is a request of its own for a breach of this bond, executed once the veto's time is over."""
    site.do(*ask_back(site, 1))
    (finding,) = found(site, CONDITION)
    dispute = CONDITION.dispute(checked(site, finding))
    assert dispute is not None
    site.chain.send(site.stranger, site.contracts[dispute.contract], dispute.calldata)
    site.chain.mine(5)
    assert "AlreadyRequested" in refused(site, dispute)
    site.do(site.stranger, "slashing_manager", "execute", request(site, finding))
    stake = site.ask("delegation", "stakeOf", site.operators[1].account.address)
    assert stake < MINIMUM - 1
    add(site, site.operators[1].account, MINIMUM - stake, operator=1)
    assert not site.ask("delegation", "isUnderbonded", site.operators[1].account.address)
    site.do(site.stranger, "operator_registry", "commitSet")
    site.do(*ask_back(site, 1, 1))
    first, again = found(site, CONDITION)
    assert (first, again.operator, again.block_number) == (finding, finding.operator, site.head)
    assert called(site, CONDITION.dispute(checked(site, again))) == request(site, again)


def test_who_was_slashed_below_the_minimum_can_be_shown_to_be_in_no_breach(site: Site) -> None:
    """A bundle of what is not so says what the contract says of it."""
    site.do(*ask_back(site, 1))
    (finding,) = found(site, CONDITION)
    slash(site, 2, STAKE - MINIMUM + 1)
    number, hash_ = site.chain.head()
    there = msgspec.structs.replace(
        finding, block_number=number, block_hash=bytes.fromhex(hash_.removeprefix("0x"))
    )
    sought = CONDITION.claims(finding)
    padded = Octets(bytes(12) + address(site, 2))
    registry, delegation = sought.fetch
    (underbonded,) = delegation.variables  # type: ignore[union-attr]
    moved = msgspec.structs.replace(
        delegation, variables=(msgspec.structs.replace(underbonded, keys=(padded,)),)
    )
    false = msgspec.structs.replace(
        sought,
        fetch=(registry, moved),
        whole=(SetMemberClaim(sought.subject, 2),),
    )

    class Framing(BondBreach):
        def claims(self, finding: Finding) -> Any:
            return false

    bundle = gathered(site, Framing(), msgspec.structs.replace(there, operator=address(site, 2)))
    assert "BondKept" in refused(site, CONDITION.dispute(bundle))
    with pytest.raises(NotProved):
        verify(bundle, reader(site), lambda name: CONDITION.holds)


def test_altered_bundles_are_refused(site: Site) -> None:
    site.do(*ask_back(site, 1))
    (finding,) = found(site, CONDITION)
    bundle = gathered(site, CONDITION, finding)
    replace = msgspec.structs.replace
    registry, delegation, member = bundle.claims
    assert isinstance(registry, StateClaim)
    assert isinstance(delegation, StateClaim)
    assert isinstance(member, SetMemberClaim)
    set_hash, brought, end = registry.variables
    (underbonded,) = delegation.variables
    other = Octets(bytes(12) + address(site, 2))
    for claims in (
        (registry, delegation),
        (registry, member),
        (delegation, member),
        (registry, delegation, replace(member, index=2)),
        (registry, delegation, replace(member, index=99)),
        (registry, delegation, replace(member, set=Octets(bytes(32)))),
        (registry, delegation, member, replace(member, index=2)),
        (replace(registry, variables=(set_hash, brought)), delegation, member),
        (replace(registry, variables=(set_hash, end)), delegation, member),
        (replace(registry, variables=(brought, end)), delegation, member),
        (replace(registry, variables=(set_hash, brought, replace(end, name="setHash"))), delegation, member),
        (replace(registry, contract="delegation"), delegation, member),
        (registry, replace(delegation, block=finding.block_number - 1), member),
        (registry, replace(delegation, account=registry.account), member),
        (
            registry,
            replace(delegation, variables=(replace(underbonded, keys=(other,)),)),
            member,
        ),
        (registry, replace(delegation, variables=(replace(underbonded, proof=()),)), member),
    ):
        with pytest.raises(NotProved):
            verify(replace(bundle, claims=claims), reader(site), lambda name: CONDITION.holds)
    for changed in (
        {"operator": Octets(address(site, 2))},
        {"subject": Octets(bytes(32))},
        {"sets": ()},
        {"blocks": ()},
        {"contracts": {**bundle.contracts, "slashing_manager": bundle.contracts["delegation"]}},
    ):
        with pytest.raises(NotProved):
            verify(replace(bundle, **changed), reader(site), lambda name: CONDITION.holds)
    assert "MemberUnknown(99, 4)" in refused(
        site, CONDITION.dispute(replace(bundle, claims=(replace(member, index=99),)))
    )
    assert "BondKept" in refused(site, CONDITION.dispute(replace(bundle, claims=(replace(member, index=2),))))

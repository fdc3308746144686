"""A finding from a real chain, and what the real slashing contract says to its proof."""

from __future__ import annotations

import msgspec
import pytest
from eth_hash.auto import keccak

from devnet.deploy import EQUIVOCATION
from nektar import fold as calculus
from nektar.evidence.bundle import SignatureClaim, read, write
from nektar.evidence.verify import verify
from nektar.model import Hash32
from nektar.networks.encoding import request_id
from nektar.rows import Finding
from processors.conditions.equivocation import Equivocation
from processors.folds.tasks import Tasks
from tests.devnet.contracts.conftest import CHAIN_ID, Refused, Site, Task, on_anvil
from tests.processors.real_chain import ADAPTER, found, gathered, log, network, reader
from tests.processors.world import Rows, put

pytestmark = pytest.mark.real
CONDITION = Equivocation()
RIGHT, WRONG, LATE = (7, 13), (13, 7), (91, 1)


site = pytest.fixture(scope="module", name="site")(on_anvil)


@pytest.fixture(scope="module")
def task(site: Site) -> Task:
    """One that Operators 0 and 1 signed two responses to: 0 in two attestations, 1 in one and in one that
    came too late. Operator 2 attested once, and 3 not at all."""
    task = site.submit(n=91)
    for operator, answer in ((0, RIGHT), (0, WRONG), (1, RIGHT), (2, RIGHT)):
        site.attest(operator, task, answer)
    site.mine_to(task.end)
    with pytest.raises(Refused, match="GracePassed"):
        site.attest(1, task, LATE)
    return task


@pytest.fixture(scope="module")
def findings(site: Site, task: Task) -> list[Finding]:
    return found(site, CONDITION)


def test_who_signed_two_responses_is_found_the_reverted_call_included(
    site: Site, task: Task, findings: list[Finding]
) -> None:
    guilty = [bytes.fromhex(site.operators[i].account.address[2:]) for i in (0, 1)]
    assert sorted(finding.operator for finding in findings) == sorted(guilty)
    assert {finding.task_hash for finding in findings} == {task.hash}


def test_duties_of_a_real_chain(site: Site, task: Task) -> None:
    record, rows = log(site), Rows()
    events = ADAPTER.events(network(site), record.tables)
    _, changes = calculus.apply(Tasks(), calculus.begin(Tasks(), network(site)), record, events)
    put(rows, changes)
    states = {row.operator: row.state for row in rows.values() if hasattr(row, "operator")}
    accounts = [bytes.fromhex(each.account.address[2:]) for each in site.operators]
    assert [states[each] for each in accounts] == ["signed", "signed", "signed", "missed"]


def test_a_bundle_is_verified_and_the_contract_accepts_its_dispute(
    site: Site, task: Task, findings: list[Finding]
) -> None:
    for finding in findings:
        bundle = gathered(site, CONDITION, finding)
        assert read(write(bundle)) == bundle
        verdict = verify(bundle, reader(site), lambda name: CONDITION.holds)
        assert (verdict.id, verdict.accused.operator) == (finding.id, finding.operator)
        assert (
            verdict.canonical[-1] == finding.block or not verdict.canonical[-1].number > finding.block_number
        )
        dispute = CONDITION.dispute(bundle)
        assert dispute is not None
        named = ("requestIdOf", EQUIVOCATION, finding.task_hash, "0x" + finding.operator.hex())
        manager = site.contracts[dispute.contract]
        assert site.chain.call(manager, dispute.calldata) == site.ask("slashing_manager", *named)


@pytest.mark.parametrize("condition", ["equivocation", "invalid_response", "missed_duty", "bond_breach"])
def test_a_request_is_called_as_the_contract_calls_it(site: Site, condition: str) -> None:
    known, subject = network(site), Hash32(b"s" * 32)
    named = request_id(CHAIN_ID, known.contract("slashing_manager"), condition, subject, b"o" * 20)
    about = keccak(condition.encode()), subject, "0x" + (b"o" * 20).hex()
    assert named == site.ask("slashing_manager", "requestIdOf", *about)


def test_the_contract_refuses_an_altered_dispute(site: Site, findings: list[Finding]) -> None:
    bundle = gathered(site, CONDITION, findings[0])
    event, *signed = bundle.claims
    one, other = (claim for claim in signed if isinstance(claim, SignatureClaim))
    replace = msgspec.structs.replace
    for claims, error in (
        ((one, one), "SameResponse"),
        ((replace(one, signature=other.signature), other), "SignatureInvalid"),
        ((replace(one, index=2), replace(other, index=2)), "SignatureInvalid"),
        ((replace(one, index=9), replace(other, index=9)), "MemberUnknown"),
    ):
        dispute = CONDITION.dispute(replace(bundle, claims=(event, *claims)))
        assert dispute is not None
        with pytest.raises(Exception, match="revert") as refused:
            site.chain.call(site.contracts[dispute.contract], dispute.calldata)
        assert error in site.error(refused.value.data)  # type: ignore[attr-defined]


def test_who_is_in_the_quorum_of_one_response_and_signed_another_is_found(site: Site) -> None:
    task = site.submit(n=91)
    site.attest(2, task, WRONG)
    site.do(site.stranger, "task_manager", "respond", *site.response(task, RIGHT, [0, 2, 3]))
    site.attest(3, task, WRONG)
    guilty = {bytes.fromhex(site.operators[i].account.address[2:]) for i in (2, 3)}
    findings = [each for each in found(site, CONDITION) if each.task_hash == task.hash]
    assert {finding.operator for finding in findings} == guilty
    for finding in findings:
        bundle = gathered(site, CONDITION, finding)
        verify(bundle, reader(site), lambda name: CONDITION.holds)
        dispute = CONDITION.dispute(bundle)
        assert dispute is not None
        named = ("requestIdOf", EQUIVOCATION, finding.task_hash, "0x" + finding.operator.hex())
        said = site.chain.call(site.contracts[dispute.contract], dispute.calldata)
        assert said == site.ask("slashing_manager", *named)


def test_a_dispute_that_is_sent_makes_a_request(site: Site, findings: list[Finding]) -> None:
    dispute = CONDITION.dispute(gathered(site, CONDITION, findings[0]))
    assert dispute is not None
    sent = site.chain.send(site.stranger, site.contracts[dispute.contract], dispute.calldata)
    site.chain.mine()
    names = [site.read(each)[0] for each in site.chain.receipt(sent)["logs"]]
    assert "SlashingRequested" in names

"""A finding from a real chain, and what the real slashing contract says to its proof."""

from __future__ import annotations

import msgspec
import pytest

from devnet.deploy import EQUIVOCATION
from nektar import fold as calculus
from nektar.evidence.verify import verify
from nektar.model import G1
from nektar.rows import Change, Finding
from processors.conditions.equivocation import Equivocation
from processors.folds.tasks import Tasks
from tests.devnet.contracts.conftest import Refused, Site, Task, on_anvil
from tests.processors.real_chain import ADAPTER, log, network
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
    record = log(site)
    begun = calculus.begin(CONDITION.detect, network(site))
    events = ADAPTER.events(network(site), record.tables)
    _, changes = calculus.apply(CONDITION.detect, begun, record, events)
    return [
        change.after for change in changes if isinstance(change, Change) and isinstance(change.after, Finding)
    ]


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


def test_the_contract_accepts_the_dispute_and_refuses_an_altered_one(
    site: Site, findings: list[Finding]
) -> None:
    manager = site.contracts["slashing_manager"]
    for finding in findings:
        claims = CONDITION.claims(finding)
        assert CONDITION.holds([verify(claim) for claim in claims])
        calldata = CONDITION.dispute(claims)
        assert calldata is not None
        named = ("requestIdOf", EQUIVOCATION, finding.task_hash, "0x" + finding.operator.hex())
        assert site.chain.call(manager, calldata) == site.ask("slashing_manager", *named)
        one, other = claims
        stolen = G1(other.signature)
        for altered, error in (
            (CONDITION.dispute((one, one)), "SameResponse"),
            (CONDITION.dispute((msgspec.structs.replace(one, signature=stolen), other)), "SignatureInvalid"),
            (
                CONDITION.dispute([msgspec.structs.replace(each, index=2) for each in claims]),
                "SignatureInvalid",
            ),
            (CONDITION.dispute([msgspec.structs.replace(each, index=9) for each in claims]), "MemberUnknown"),
        ):
            assert altered is not None
            with pytest.raises(Exception, match="revert") as refused:
                site.chain.call(manager, altered)
            assert error in site.error(refused.value.data)  # type: ignore[attr-defined]


def test_a_dispute_that_is_sent_makes_a_request(site: Site, findings: list[Finding]) -> None:
    calldata = CONDITION.dispute(CONDITION.claims(findings[0]))
    assert calldata is not None
    sent = site.chain.send(site.stranger, site.contracts["slashing_manager"], calldata)
    site.chain.mine()
    names = [site.read(each)[0] for each in site.chain.receipt(sent)["logs"]]
    assert "SlashingRequested" in names

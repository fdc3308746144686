"""However many Operators a Network has, and however many of them an incident is about: what is found of each
is small, and none of it holds an OperatorSet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import nektar.fold as calculus
from bench import incidents
from bench.folds import NETWORK
from nektar import checkpoint
from nektar.log import Mark, New
from nektar.rows import Finding
from processors import outputs
from processors.conditions.condition import Condition
from processors.conditions.equivocation import Equivocation
from processors.conditions.invalid_response import InvalidResponse
from processors.conditions.missed_duty import MissedDuty

# Of facts and of all that is said of one finding: a Task's own bytes, where its events stand, signatures.
FACTS, SAID = 6_000, 8_000
SMALL, LARGE = 30, 120


@pytest.fixture
def operators(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(incidents, "OPERATORS", request.param)
    monkeypatch.setattr(incidents, "SIGNERS", request.param * 2 // 3)
    incidents.keys.cache_clear()
    incidents.committed.cache_clear()
    yield request.param
    incidents.keys.cache_clear()
    incidents.committed.cache_clear()


@pytest.mark.parametrize("operators", [SMALL, LARGE], indirect=True)
@pytest.mark.parametrize(
    ("name", "condition", "share"),
    [
        ("outage", MissedDuty(), 1.0),
        ("backfill", MissedDuty(), 8.0),
        ("quorum", InvalidResponse(), 2 / 3),
        ("quorum", Equivocation(), 0.0),
    ],
    ids=lambda each: getattr(each, "name", str(each)),
)
def test_what_is_said_of_each_finding_is_small(
    name: str, condition: Condition, share: float, operators: int
) -> None:
    blocks = list(incidents.INCIDENTS[name]())
    record = New(tuple(block for block, _ in blocks), {})
    folded = calculus.begin(condition.detect, NETWORK)
    before = len(checkpoint.encode(folded.steps[0]))
    folded, found = calculus.apply(
        condition.detect, folded, record, [e for _, those in blocks for e in those]
    )
    findings = [change.after for change in found if isinstance(change.after, Finding)]
    assert len(findings) == int(share * operators)
    head = blocks[-1][0].ref
    _, marked = calculus.apply(condition.detect, folded, Mark(head, blocks[0][0].ref))
    for changes in (found, marked):
        said = outputs.messages(NETWORK, condition.name, 0, changes)
        assert sum(len(message.value) for message in said) <= SAID * len(findings)
    members = incidents.committed().preimage.hex()
    for finding in findings:
        assert len(finding.facts) < FACTS
        assert members[:512] not in finding.facts
    open_ = calculus.resume(folded.steps[-1]).steps[0]
    sets = 4 * len(members) + 2_000 * operators
    assert len(checkpoint.encode(open_)) <= before + sets + SAID * len(findings)

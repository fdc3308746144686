"""However many Operators a Network has, and however many of them an incident is about: what is found of each
is small, and none of it holds an OperatorSet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import nektar.fold as calculus
from bench import folds as bench_folds
from bench import incidents, state
from bench.folds import NETWORK
from cli.settings import folds as all_folds
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


def kept(rotate: int) -> dict[str, int]:
    """Bytes of each fold's checkpoint after some Tasks, all of which can still be slashed for."""
    sizes = {}
    blocks = list(state.history(TASKS, 2, rotate=rotate))
    record = New(tuple(block for block, _ in blocks), {})
    for fold in all_folds():
        folded = calculus.begin(fold, NETWORK)
        folded, _ = calculus.apply(fold, folded, record, [e for _, those in blocks for e in those])
        sizes[fold.name] = len(checkpoint.encode(folded.steps[-1]))
    return sizes


TASKS = 60


def test_each_set_more_is_little_to_every_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a new set with every second Task, whose members are all but one what they were."""
    for module in (state, bench_folds):
        monkeypatch.setattr(module, "OPERATORS", LARGE)
        monkeypatch.setattr(module, "MEMBERS", bench_folds.MEMBERS[:LARGE])
    one, many = kept(rotate=0), kept(rotate=2)
    sets = TASKS // 2
    for name, size in many.items():
        # Four bytes a member, in base64, a key that is new, and what there is of any set; of a set with Tasks
        # whose Duties are yet to be decided stakes as well, where they are counted by these.
        each = 30 if name in ("service_levels", "diagnosis") else 8
        assert size - one[name] < sets * (each * LARGE + 1_500), name

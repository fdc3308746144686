"""What each panel must answer of a demo, from what others know of it: the plan's truth, the judge's account
of the final chain, and what agents counted themselves. None of it comes from the store.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from devnet.deploy import Terms
from devnet.plan import Fact, Plan
from nektar.config import DEFAULT_OBJECTIVE
from nektar.role import ROLES
from nektar.telemetry import CHAIN

Rows = Sequence[Mapping[str, Any]]

# The services of what the pipeline reports of itself, as much as it takes: nobody else counts it.
_OWN = {f"nektar-{role}" for role in ROLES}
_DECIDED = ("signed", "late", "missed")
_MILLIONTH = 10**12  # of a token


class Between(NamedTuple):
    """What is known of a number where nobody but the pipeline knows it exactly. Both ends included."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.low} to {self.high}"


class Known(msgspec.Struct, frozen=True):
    """What is known of a run, apart from the pipeline."""

    facts: Sequence[Fact]
    chain: Mapping[str, Any]  # the judge's account of the final chain
    undone: Between  # blocks that reorgs took away from what was stored
    reported: Mapping[str, int]  # spans that the collector took, by the agent that sent them
    processors: Collection[str]  # all of which have put out what follows from the head


class Must(NamedTuple):
    """What of a panel's answer is compared, and what it must be; `asked` is when, in seconds since 1970."""

    said: Callable[[Rows], object]
    true: Callable[[Known, Between], object]


def undone(plan: Plan) -> Between:
    """How many blocks reorgs take back: those of which the driver waited until they were stored surely, the
    others where the pipeline was quick enough."""
    reorgs = [scene.reorg for scene in plan.scenes if scene.reorg]
    return Between(sum(r.depth for r in reorgs if r.witnessed), sum(r.depth for r in reorgs))


def chain_spans(known: Known) -> int:
    """What the chain tells of Tasks is a span an event, and one over all of a Task once its grace is over."""
    return int(sum(known.chain["events"].values()) + known.chain["over"])


def untrue(answers: Mapping[str, Rows], known: Known, asked: Between) -> Iterator[tuple[str, str]]:
    """(panel's id, what it says and what is true) of each whose answer is not true."""
    for id, rows in answers.items():
        said, true = MUST[id].said(rows), MUST[id].true(known, asked)
        if not _agree(said, true):
            yield id, f"answers {said}, and {true} is true"


def _agree(said: object, true: object) -> bool:
    if isinstance(true, Between):
        return isinstance(said, int) and true.low <= said <= true.high
    if isinstance(said, float) and isinstance(true, float):
        return math.isclose(said, true, rel_tol=1e-9)
    return said == true


# --- what panels say --------------------------------------------------------------------------------


def _number(column: str) -> Callable[[Rows], object]:
    def said(rows: Rows) -> object:
        (row,) = rows
        return int(row[column])

    return said


def _counts(name: str, count: str) -> Callable[[Rows], object]:
    """Name → count, of those that have any."""
    return lambda rows: _some({row[name]: int(row[count]) for row in rows})


def _findings(rows: Rows) -> object:
    return {row["condition"]: _some({k: int(v) for k, v in row.items() if k != "condition"}) for row in rows}


def _operators(rows: Rows) -> object:
    place = ("operator", "region", "stake", "in_set")
    return {
        row["operator"]: (
            *(row["region"], float(row["stake"]), bool(row["in_set"])),
            _some({k: int(v) for k, v in row.items() if k not in place}),
        )
        for row in rows
    }


def _levels(rows: Rows) -> object:
    return {
        row["operator"]: (
            *(round(float(row[share]), 6) for share in ("on_time", "budget_left")),
            int(row["misses_left"]),
        )
        for row in rows
    }


def _spans(rows: Rows) -> object:
    """By service, without the pipeline's own."""
    spans = {row["service"]: int(row["spans"]) for row in rows}
    spans["all"] -= sum(spans.pop(service, 0) for service in _OWN)
    return spans


# --- what is true -----------------------------------------------------------------------------------


def _duties(known: Known, *states: str) -> Iterator[Fact]:
    """Those in one of `states`; all where none is named."""
    return (f for f in known.facts if f.kind == "duty" and (not states or f.value in states))


def _missed(known: Known) -> dict[str, int]:
    by_operator = Counter(fact.operator.lower() for fact in _duties(known, "missed"))
    return _some({**by_operator, "all": by_operator.total()})


def _share(known: Known) -> float:
    def stake(*states: str) -> int:
        staked = known.chain["stakes"]
        return sum(staked.get(fact.operator.lower(), 0) for fact in _duties(known, *states))

    return stake("signed") / stake(*_DECIDED)


def _found(known: Known) -> dict[str, dict[str, int]]:
    found = [fact for fact in known.facts if fact.kind == "finding"]
    conditions = sorted({str(fact.condition) for fact in found})
    by_condition = {c: dict(Counter(f.value for f in found if f.condition == c)) for c in conditions}
    return {**by_condition, "all": dict(Counter(fact.value for fact in found))}


def _standing(known: Known) -> dict[str, tuple[object, ...]]:
    stakes = known.chain["stakes"]
    return {
        operator: (
            *(region, stakes.get(operator, 0) // _MILLIONTH / 1e6, operator in stakes),
            dict(Counter(fact.value for fact in _duties(known) if fact.operator.lower() == operator)),
        )
        for operator, region in known.chain["regions"].items()
    }


def _kept(known: Known) -> dict[str, tuple[object, ...]]:
    """By Operator, and of all: the share of stake on time by each Task's own set, what that leaves of the
    error budget, and the misses that can still come. A demo is over before any of it leaves a window."""
    owed, on_time = Counter[str](), Counter[str]()
    for fact in _duties(known, *_DECIDED):
        for operator in (fact.operator.lower(), "all"):
            stake = known.chain["owed"][fact.task][fact.operator.lower()]
            owed[operator] += stake
            on_time[operator] += stake * (fact.value == "signed")
    allowance = Terms().miss_allowance
    missed = Counter(fact.operator.lower() for fact in _duties(known, "missed"))
    found = Counter(f.operator.lower() for f in known.facts if f.condition == "missed_duty")
    left = {each: allowance - missed[each] + (allowance + 1) * found[each] for each in owed if each != "all"}
    left["all"] = min(left.values())
    shares = {operator: on_time[operator] / owed[operator] for operator in owed}
    return {
        operator: (round(share, 6), round(1 - (1 - share) / (1 - DEFAULT_OBJECTIVE), 6), left[operator])
        for operator, share in shares.items()
    }


def _reported(known: Known) -> dict[str, int]:
    spans = _some({**known.reported, CHAIN: chain_spans(known)})
    return {**spans, "all": sum(spans.values())}


def _some(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


# --- panel → what it must say -----------------------------------------------------------------------


MUST: Mapping[str, Must] = {
    "newest_block": Must(_number("block"), lambda known, asked: known.chain["head"]),
    "block_age": Must(
        _number("age"), lambda known, asked: Between(*(max(0, at - known.chain["time"]) for at in asked))
    ),
    "on_time_by_stake": Must(lambda rows: rows[0]["share"], lambda known, asked: _share(known)),
    "reorged_blocks": Must(_number("blocks"), lambda known, asked: known.undone),
    "coverage": Must(_counts("level", "count"), lambda known, asked: known.chain["levels"]),
    "tasks_by_state": Must(_counts("state", "count"), lambda known, asked: known.chain["tasks"]),
    "duties_by_state": Must(
        _counts("state", "count"), lambda known, asked: dict(Counter(f.value for f in _duties(known)))
    ),
    "missed_by_operator": Must(_counts("operator", "missed"), lambda known, asked: _missed(known)),
    "causes": Must(
        _counts("cause", "count"),
        lambda known, asked: dict(Counter(fact.value for fact in known.facts if fact.kind == "cause")),
    ),
    "responses_over_time": Must(
        lambda rows: [sum(int(row[of]) for row in rows) for of in ("responses", "attestations")],
        lambda known, asked: [known.chain["events"].get(of, 0) for of in ("responded", "attested")],
    ),
    "findings": Must(_findings, lambda known, asked: _found(known)),
    "operators": Must(_operators, lambda known, asked: _standing(known)),
    "processors_behind": Must(
        lambda rows: {row["processor"]: int(row["behind"]) for row in rows},
        lambda known, asked: dict.fromkeys(known.processors, 0),
    ),
    "service_levels": Must(_levels, lambda known, asked: _kept(known)),
    "spans_by_service": Must(_spans, lambda known, asked: _reported(known)),
}

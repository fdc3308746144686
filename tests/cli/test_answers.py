"""The demo holds every number of every panel to what is known apart from it, and fails on one that is off."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest

from cli.answers import MUST, Between, Known, undone
from cli.panels import Ran, run_all
from dashboards.boards import BOARDS
from devnet.judge import _account
from devnet.plan import Fact, plan

Rows = list[dict[str, Any]]
PANELS = [panel for board in BOARDS for panel in board.panels]
ONE, TWO, GONE = "0xaa", "0xbb", "0xcc"
HEAD_TIME = int(time.time()) - 1_000_000


def event(name: str, **arguments: object) -> tuple[str, ...]:
    return ("event", "0xb", "0xt", "0", "0", "0xc", name, json.dumps(arguments))


CHAIN = _account(
    [
        *(("block", str(n), f"0x{n}", "0x", str(HEAD_TIME - 12 * (40 - n)), "proved") for n in range(40)),
        ("block", "40", "0x40", "0x39", str(HEAD_TIME), "linked"),
        ("task", "0x0", "0", "0", "0x1", "0x", "10", "18", "3"),
        *(("task", f"0x{n}", str(n), str(n), "0x2", "0x", "10", "18", "3") for n in (1, 2)),
        ("task", "0x3", "3", "3", "0x2", "0x", "38", "100", "3"),
        ("operator", ONE, "0xkey", "eu", "10"),
        ("operator", TWO, "0xkey", "us", "11"),
        ("operator", GONE, "0xkey", "eu", "12"),
        event(
            "operatorsetcommitted",
            setHash="0x2",
            setNumber=2,
            members=[[ONE, [1, 2], 10**21], [TWO, [1, 2], 5 * 10**20]],
        ),
        event(
            "operatorsetcommitted",
            setHash="0x1",
            setNumber=1,
            members=[[ONE, [1, 2], 10**20], [TWO, [1, 2], 10**20], [GONE, [1, 2], 10**21]],
        ),
        *(event("tasksubmitted", taskHash=f"0x{n}") for n in range(4)),
        event("responded", taskHash="0x0"),
        event("attested", taskHash="0x0"),
        event("attested", taskHash="0x1"),
        event("taskcancelled", taskHash="0x2"),
    ]
)
FACTS = [
    *(
        Fact("duty", None, "0", who, state)
        for who, state in ((ONE, "signed"), (TWO, "missed"), (GONE, "late"))
    ),
    *(Fact("duty", None, "1", who, "signed") for who in (ONE, TWO)),
    Fact("cause", None, "0", TWO, "network"),
    Fact("cause", None, "0", GONE, "clock"),
    Fact("finding", "equivocation", "0", ONE, "final"),
    Fact("finding", "equivocation", "1", ONE, "retracted"),
]
KNOWN = Known(
    facts=FACTS,
    chain=CHAIN,
    undone=Between(7, 7),
    reported={"operator-0": 5, "aggregator": 3},
    processors={"tasks", "traces"},
)
STATES = ("signed", "late", "missed", "excused", "unknown", "pending")
TRUE: Mapping[str, Rows] = {
    "newest_block": [{"block": 40}],
    "on_time_by_stake": [{"share": 2_500 / 3_000}],
    "reorged_blocks": [{"blocks": 7}],
    "coverage": [{"level": n, "count": c} for n, c in (("proved", 40), ("linked", 1), ("reported", 0))],
    "tasks_by_state": [
        {"state": s, "count": c}
        for s, c in (("open", 1), ("responded", 1), ("challenged", 0), ("expired", 1), ("cancelled", 1))
    ],
    "duties_by_state": [
        {"state": s, "count": c} for s, c in (("signed", 3), ("late", 1), ("missed", 1), ("excused", 0))
    ],
    "missed_by_operator": [
        {"operator": o, "missed": c} for o, c in ((TWO, 1), (ONE, 0), (GONE, 0), ("all", 1))
    ],
    "causes": [{"cause": s, "count": c} for s, c in (("clock", 1), ("network", 1), ("offline", 0))],
    "responses_over_time": [
        {"time": "t", "responses": 1, "attestations": 0},
        {"time": "t", "responses": 0, "attestations": 2},
    ],
    "findings": [
        {"condition": c, "seen": 0, "safe": 0, "final": 1, "retracted": 1} for c in ("equivocation", "all")
    ],
    "operators": [
        {"operator": o, "region": r, "stake": s, "in_set": s > 0} | dict.fromkeys(STATES, 0) | duties
        for o, r, s, duties in (
            (ONE, "eu", 1000, {"signed": 2}),
            (TWO, "us", 500, {"signed": 1, "missed": 1}),
            (GONE, "eu", 0, {"late": 1}),
        )
    ],
    "processors_behind": [{"processor": p, "behind": 0} for p in ("tasks", "traces")],
    "service_levels": [
        {"operator": o, "on_time": share, "budget_left": 1 - (1 - share) / 0.01, "misses_left": left}
        for o, share, left in ((ONE, 1, 2), (TWO, 5 / 6, 1), (GONE, 0, 2), ("all", 16 / 27, 1))
    ],
    "spans_by_service": [
        {"service": s, "spans": c}
        for s, c in (("aggregator", 3), ("chain", 11), ("nektar-store", 90), ("operator-0", 5), ("all", 109))
    ],
}


def ran(answers: Mapping[str, Rows], off: int = 0) -> Ran:
    """What the demo makes of these answers, and of the newest block's age, said by `off` seconds too old."""
    ids = iter([None, *(panel.id for panel in PANELS)])

    def ask(sql: str) -> Rows:
        id = next(ids)
        if id is None:
            return [{"start": 0, "end": 1}]
        if id == "block_age":
            return [{"age": int(time.time()) - HEAD_TIME + off}]
        return answers[id]

    return run_all(ask, "devnet", KNOWN)


def numbers(answers: Mapping[str, Rows]) -> list[tuple[str, int, str]]:
    """Every number that panels answer: (panel, row, column)."""
    return [
        (id, i, column)
        for id, rows in answers.items()
        for i, row in enumerate(rows)
        for column, value in row.items()
        if isinstance(value, int | float)
    ]


def test_every_panel_of_every_board_is_held_to_something() -> None:
    assert MUST.keys() == {panel.id for panel in PANELS} == {*TRUE, "block_age"}


def test_what_is_true_is_nothing_wrong() -> None:
    assert ran(TRUE) == Ran({"run": 15, "empty": 0, "failed": 0, "untrue": 0}, None)


@pytest.mark.parametrize(("id", "row", "column"), numbers(TRUE))
def test_a_number_that_is_off_by_one_fails_the_demo(id: str, row: int, column: str) -> None:
    answers = deepcopy(dict(TRUE))
    value = answers[id][row][column]
    answers[id][row][column] = not value if isinstance(value, bool) else value + 1
    said = ran(answers)
    assert said.counts["untrue"] == 1
    (title,) = (panel.title for panel in PANELS if panel.id == id)
    assert said.wrong is not None
    assert said.wrong.startswith(f"{title!r} answers")


@pytest.mark.parametrize("off", [-5, 5])
def test_an_age_of_a_block_that_is_not_the_newest_fails_the_demo(off: int) -> None:
    assert "'How far behind" in str(ran(TRUE, off).wrong)


def test_a_row_that_is_missing_or_of_nobody_fails_the_demo() -> None:
    for id in TRUE:
        assert ran({**TRUE, id: []}).counts["empty"] == 1
    strange = {"service": "operator-9", "spans": 0}
    assert ran({**TRUE, "spans_by_service": [*TRUE["spans_by_service"], strange]}).counts["untrue"] == 1
    assert ran({**TRUE, "operators": TRUE["operators"][1:]}).counts["untrue"] == 1
    assert ran({**TRUE, "processors_behind": TRUE["processors_behind"][1:]}).counts["untrue"] == 1


def test_the_plan_says_how_many_blocks_go_away_and_of_how_many_it_is_sure() -> None:
    of_plan = undone(plan(7))
    assert 6 <= of_plan.low <= of_plan.high  # five reorgs of one block or two are waited for in every run
    assert of_plan.high == sum(scene.reorg.depth for scene in plan(7).scenes if scene.reorg)

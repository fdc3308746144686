"""The demo's comparison of what its watcher was told with what was due: nothing wrong passes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from cli.told import DUE, Told, compare
from devnet.receiver import Delivery

STATUSES = ("seen", "safe", "retracted", "seen")
CAME = [
    Delivery(
        f"id-{i}", True, 100.0 + i, "/n", "t", "0x01", "equivocation", "0x02", "15", status, f"0xb{i // 3}"
    )
    for i, status in enumerate(STATUSES)
]
ANNOUNCED = {"0xb0": 99.0, "0xb1": 102.5}
LAST = {
    "finding": "0x01",
    "condition": "equivocation",
    "operator": "0x02",
    "task_input": "15",
    "status": "seen",
}


def told(
    came: Sequence[Delivery], due: int = 4, announced: Mapping[str, float] = ANNOUNCED, **found: str
) -> Told:
    def ask(statement: str) -> list[Mapping[str, Any]]:
        return [{"n": due}] if statement == DUE else [LAST | found]

    lying = {f"id-{i}": 99.9 + i for i in range(due)}
    return compare(ask, lying, announced, {"requests": 9, "deliveries": msgspec.to_builtins(list(came))})


def test_all_that_was_due_is_right_repeats_and_late_ones_of_before_too() -> None:
    said = told([*CAME[:3], CAME[1], CAME[0], CAME[3], CAME[2]])
    assert said.wrong == ""
    assert said.webhooks == {
        "due": 4,
        "sent": 9,
        "delivered": 4,
        "verified": 4,
        "retracted": 1,
        "repeated_id": 3,
    }
    assert said.latencies["block_to_webhook"] == {"p50": 1000.0, "p99": 1000.0, "n": 2}
    assert said.latencies["fold_to_webhook"]["n"] == 4


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (told(CAME[:3]), "4 due, 3 delivered, 3 verified"),
        (
            told([*CAME[:3], msgspec.structs.replace(CAME[3], verified=False)]),
            "4 due, 4 delivered, 3 verified",
        ),
        (told(CAME, due=3), "3 due, 4 delivered, 4 verified"),
        (told([*CAME[:3], msgspec.structs.replace(CAME[3], id="of nobody")]), "not what lies on the bus"),
        (told([CAME[0], CAME[1], CAME[3], CAME[2]]), "the last that was told"),
        (told(CAME, operator="0x03"), "the last that was told"),
        (told(CAME, announced={"0xb9": 99.0}), "expected to time at least one finding"),
    ],
)
def test_what_is_missing_forged_beyond_or_out_of_order_is_named(said: Told, words: str) -> None:
    assert words in said.wrong

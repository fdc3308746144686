"""The judge sees what a history says again, and lets stand what a reorg took back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from devnet import judge


def said_again(
    monkeypatch: pytest.MonkeyPatch, states: Sequence[tuple[str, int]], undone: Sequence[int]
) -> int:
    """How many lines of one duty's history, of (state, decided block), the judge counts as doubled."""
    lines = [
        {
            "network": "n",
            "task_hash": "t",
            "operator": "o",
            "state": state,
            "decided_block": block,
            "is_deleted": int(state == "gone"),
            "generation": 1,
            "log_offset": offset,
            "position": 0,
        }
        for offset, (state, block) in enumerate(states)
    ]

    def query(sql: str, statement: str) -> list[dict[str, Any]]:
        if "blocks_rows" in statement:
            return [{"number": number} for number in undone]
        return lines if "duties_history" in statement else []

    monkeypatch.setattr(judge, "query", query)
    return len([*judge._said_twice(""), *judge._said_again("")])


PENDING, SIGNED, GONE = ("pending", 5), ("signed", 7), ("gone", 7)


def test_a_history_that_only_goes_forward_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said_again(monkeypatch, [PENDING, SIGNED], []) == 0


def test_a_line_twice_is_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said_again(monkeypatch, [PENDING, SIGNED, SIGNED], []) > 0


def test_a_batch_that_is_said_again_is_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said_again(monkeypatch, [PENDING, SIGNED, PENDING, SIGNED], []) == 1


def test_what_a_reorg_took_back_may_be_said_again_once_for_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said_again(monkeypatch, [PENDING, SIGNED, PENDING, SIGNED], [7]) == 0
    assert said_again(monkeypatch, [PENDING, SIGNED, GONE], [7]) == 0
    assert said_again(monkeypatch, [PENDING, SIGNED, PENDING, SIGNED, PENDING, SIGNED], [7]) == 1
    assert said_again(monkeypatch, [PENDING, SIGNED, PENDING, SIGNED], [6, 8]) == 1

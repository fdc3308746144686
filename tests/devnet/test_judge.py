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
    return len([*judge._said_twice(""), *judge._said_again("", [])])


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


def test_a_finding_is_seen_again_as_often_as_a_reorg_made_its_block_unsafe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seed 7: a reorg of block 161 moved `safe` below 153."""
    statuses = ("seen", "safe", "seen", "safe", "final")
    lines = [
        {"network": "n", "id": "f", "status": status, "block_number": 153, "log_offset": offset}
        for offset, status in enumerate(statuses)
    ]

    def query(sql: str, statement: str) -> list[dict[str, Any]]:
        return lines if "findings_history" in statement else []

    def again(*unsafe: int) -> int:
        return len([*judge._said_again("", unsafe)])

    monkeypatch.setattr(judge, "query", query)
    assert again(153) == 0
    assert again() == again(152) == 1


def test_what_became_of_a_slashing_is_what_its_events_say() -> None:
    names = ("executed", "vetoed", "passed_over", "open", "expired")
    proved, trusted = "0xproved", "0xtrusted"
    ids = {name: name.encode().ljust(32, b".") for name in names}
    events: list[tuple[str, str, dict[str, Any]]] = []
    for name in names:
        last = 30 if name == "open" else 29
        asked = {"requestId": ids[name], "operator": "0xAA", "amount": 7, "executionDeadline": last}
        events.append((trusted, "SlashingRequested", asked))
        events.append((trusted, "RequestedOnTrust", {"requestId": ids[name], "receiver": "0xBB"}))
    events.append((proved, "SlashingRequested", {**asked, "requestId": ids["executed"]}))
    for name in ("vetoed", "passed_over"):
        for votes in (1, 2):
            vote = {"target": "0xTrusted", "requestId": ids[name], "votes": votes}
            events.append(("0xcommittee", "VetoVoted", vote))
        events.append((trusted, "SlashingVetoed", {"requestId": ids[name]}))
    for slasher, name in ((trusted, "passed_over"), (trusted, "executed"), (proved, "executed")):
        taken = {"requestId": ids[name], "amount": 5, "receiver": "0xCC"}
        events.append((slasher, "SlashingExecuted", taken))
    became = {(row[1], row[2]): row[3:] for row in judge._slashings(events, head=30)}
    assert became == {
        (slasher, "0x" + ids[name].hex()): ("0xaa", "7", *rest)
        for slasher, name, rest in (
            (trusted, "executed", ("5", "0xcc", "0", "executed")),
            (trusted, "vetoed", ("0", "0xbb", "2", "vetoed")),
            (trusted, "passed_over", ("5", "0xcc", "2", "executed")),
            (trusted, "open", ("0", "0xbb", "0", "requested")),
            (trusted, "expired", ("0", "0xbb", "0", "expired")),
            (proved, "executed", ("5", "0xcc", "0", "executed")),
        )
    }

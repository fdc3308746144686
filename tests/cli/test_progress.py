"""The account at a demo's end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.progress import Account, show_account

SUMMARY: dict[str, Any] = {
    "truth": [
        {"kind": "duty", "condition": None, "value": "signed", "reason": ""},
        *(
            {"kind": "finding", "condition": "wrongful_slashing", "value": "final", "reason": reason}
            for reason in ("early", "twice", "twice")
        ),
    ],
    "found": [
        {"kind": "duty", "condition": None, "value": "signed", "reason": ""},
        {"kind": "finding", "condition": "wrongful_slashing", "value": "final", "reason": "twice"},
    ],
    "precision": 1.0,
    "recall": 1.0,
    "counted": {"chain": 9, "store": 9},
    "lost": 0,
    "duplicated": 0,
    "spans": {"sent": 5, "stored": 5, "refused": 2, "refused_of_left": 2},
    "webhooks": {"due": 2, "delivered": 2, "verified": 2, "retracted": 1, "sent": 2, "repeated_id": 0},
    "provable": {"found": 4, "dry_run_accepted": 4, "verified_offline": 3},
    "diagnosis": {
        "clock": {"injected": 3, "right": 2, "wrong": 0, "none_reported": 1},
        "network": {"injected": 2, "right": 1, "wrong": 1, "none_reported": 0},
    },
    "panels": {"run": 14, "empty": 0, "failed": 0, "untrue": 0},
    "blocks": 40,
    "tasks": 1,
    "reorgs": 1,
    "undone_blocks": 1,
    "seconds": 9.9,
    "latency_ms": {"block_to_store": {"p50": 1.0, "p99": 2.0, "n": 40}},
}


def test_the_account_says_what_was_sent_told_and_asked(capsys: pytest.CaptureFixture[str]) -> None:
    show_account(Account(SUMMARY, Path("build/demo")))
    out = capsys.readouterr().out
    lines = [line.split("  ", 1)[-1].strip() for line in map(str.strip, out.splitlines())]
    told = {line.split("final")[0].strip(): line.split()[-2:] for line in out.splitlines() if "final" in line}
    assert told == {"wrongful_slashing: early": ["1", "0"], "wrongful_slashing: twice": ["2", "1"]}
    assert "9 and 9 things compared: 0 lost, 0 doubled" in lines
    assert "3 of 5 duties not done in time explained rightly, 1 of an operator who reports nothing" in lines
    assert (
        "5 sent by operators and the aggregator, 5 stored, 2 refused, 2 of them from operators that had left"
    ) in lines
    assert "3 of 4 findings verified offline, and 4 accepted by the slashing contract in a dry run" in lines
    assert "14 of the board run on this: 0 empty, 0 failed, 0 untrue" in lines

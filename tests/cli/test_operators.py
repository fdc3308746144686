"""`nektar operators`: what is left to each Operator, of its error budget and of misses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.ask import operators
from nektar.config import load
from nektar.rows import OperatorRow, ServiceRow
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from nektar.store.service import say_objectives
from tests.cli.stored import YAML, put

ALICE, BOB = (bytes([c]) * 20 for c in (1, 2))
TOKENS = 10**18


def test_it_says_what_is_left_and_nothing_of_whom_no_duty_was_decided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nektar.yaml"
    path.write_text(YAML)
    with open_store(load(path).store_url) as store:
        migrate(store, [])
        say_objectives(store, {"one": 0.9})
        put(store, "one", [OperatorRow(o, bytes(64), "eu", 1, 5 * TOKENS, True, 1, 0) for o in (ALICE, BOB)])
        owed = [100 * TOKENS] * 6
        failed = [0, 0, 0, 0, 0, 5 * TOKENS]
        put(store, "one", [ServiceRow(ALICE, *owed, *failed, 0, 2, 1, 0)])  # type: ignore[call-arg]
    operators(path, None, as_json=True)
    alice, bob = map(json.loads, capsys.readouterr().out.splitlines())
    assert (alice["on_time"], alice["budget_left"], alice["misses_left"]) == (0.95, 0.5, 2)
    assert (bob["on_time"], bob["budget_left"], bob["misses_left"]) == (None, None, None)
    assert (alice["alert"], alice["findings"], bob["stake_tokens"]) == ("", 0, 5)

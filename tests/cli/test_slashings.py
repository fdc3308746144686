"""`nektar slashings`: what can still be overruled stands first, in the order in which it is due."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.ask import slashings
from nektar.config import load
from nektar.rows import SlashingRow, SlashingState
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from tests.cli.stored import YAML, put

SLASHER, ALICE, BOB = (bytes([c]) * 20 for c in (1, 2, 3))


def row(name: int, operator: bytes, state: SlashingState, veto: int, captured: int = 0) -> SlashingRow:
    return SlashingRow(
        *(SLASHER, bytes([name]) * 32, operator, "0x01", bytes(32), False, bytes(20), "wei", 2**80, 0),
        *(bytes(20), state, 1, 2, "block", veto, 0, veto + 9, 0, captured, 5, 5 + name),
    )


def test_what_can_still_be_overruled_stands_first_and_says_in_which_turn_it_is_to_be_executed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nektar.yaml"
    path.write_text(YAML)
    with open_store(load(path).store_url) as store:
        migrate(store, [])
        asked = SlashingState.REQUESTED
        said = [
            row(1, ALICE, SlashingState.EXECUTED, 3),
            row(2, ALICE, asked, 30, captured=9),
            row(3, ALICE, asked, 40, captured=8),
            row(4, BOB, asked, 20),
            row(5, BOB, SlashingState.VETOED, 3),
        ]
        put(store, "one", [*said])
    slashings(path, None, 10, as_json=True)
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = [(each["request"][:4], each["state"], each["turn"]) for each in shown]
    assert told == [
        ("0x04", "requested", 1),
        ("0x02", "requested", 2),
        ("0x03", "requested", 1),
        ("0x05", "vetoed", 0),
        ("0x01", "executed", 0),
    ]
    assert int(shown[0]["asked"]) == 2**80
    slashings(path, None, 1, as_json=False)
    assert "1 of 2" in capsys.readouterr().out

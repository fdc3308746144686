"""What others wrote reaches a terminal as text, and does nothing there."""

from __future__ import annotations

import json

import pytest

from cli.show import fields, rows

EVIL = "a\x1b]0;owned\x07\x1b[2K\rb\x9b1A\x7f\u202ec\tä→"
SHOWN = "a\ufffd]0;owned\ufffd\ufffd[2K\ufffdb\ufffd1A\ufffd\ufffdc\ufffdä→"


def test_what_is_no_character_of_a_cell_is_shown_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    rows([{"what": EVIL, "n": 1}], ["what", "n"], as_json=False, title="t")
    assert SHOWN in capsys.readouterr().out
    fields({"block_hash": EVIL})
    assert capsys.readouterr().out == f"        block hash  {SHOWN}\n"


def test_lines_of_a_cell_stay_in_its_column_and_are_none_among_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows([{"who": "x", "what": "one\ntwo"}], ["who", "what"], as_json=False)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "who  what",
        "x    one",
        "     two",
    ]
    fields({"input": "6\nstate  final", "number": None})
    assert capsys.readouterr().out == "             input  6\ufffdstate  final\n            number  \n"


def test_programs_get_every_byte(capsys: pytest.CaptureFixture[str]) -> None:
    rows([{"what": EVIL}], [], as_json=True)
    assert json.loads(capsys.readouterr().out) == {"what": EVIL}

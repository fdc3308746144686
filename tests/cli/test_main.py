"""The command: quick to help, one clear line for a mistake, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nektar.config import load
from tests.cli.command import MISTAKE, ROOT, nektar, refused, write

HEAVY = ("web3", "pyarrow", "numpy", "chdb", "kafka", "aiohttp", "rich", "clickhouse_connect", "zksnake")
HEAVY += ("pydantic", "uvicorn", "starlette")


@pytest.mark.parametrize("command", [["--help"], ["init"], ["sql", "SELECT 1"], ["tasks"], ["up", "king"]])
def test_no_command_imports_more_than_it_needs(tmp_path: Path, command: list[str]) -> None:
    write(tmp_path)
    code = (
        f"import sys\nsys.argv = ['nektar', *{command!r}]\nfrom cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"heavy = [m for m in {HEAVY!r} if m in sys.modules]\nassert not heavy, heavy"
    )
    here = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **here)
    assert done.returncode == 0, done.stderr


def test_every_command_is_in_the_help_and_has_help_of_its_own() -> None:
    commands = ["demo", "devnet", "init", "check", "up", "sql", "tasks", "operators", "findings"]
    commands += ["migrate", "replay", "dead"]
    listed = nektar("--help").stdout
    for command in commands:
        assert f"  {command}" in listed
    assert "--seed" in nektar("demo", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["bogus"], 2, "No such command"),
        (["demo", "--seed", "x"], 2, "--seed"),
        (["demo", "--kill", "king"], 1, "expected roles of indexer, processors, store"),
        (["demo", "--tasks", "3"], 1, "--tasks: expected at least 20"),
        (["up", "king"], 1, "expected one of indexer, processors, store"),
        (["check", "--config", "/no/such/nektar.yaml"], 2, "/no/such/nektar.yaml"),
    ],
)
def test_a_mistake_gets_one_line_and_an_exit_code(
    arguments: list[str], code: int, says: str, tmp_path: Path
) -> None:
    done = nektar(*arguments, cwd=tmp_path)
    refused(done, says, code=code)
    assert done.stderr.count("\n") == 1


def test_init_writes_a_file_that_is_valid_and_never_over_another(tmp_path: Path) -> None:
    assert nektar("init", cwd=tmp_path).returncode == 0
    assert load(tmp_path / "nektar.yaml").networks[0].name == "my-network"
    refused(nektar("init", cwd=tmp_path), "is there already", code=MISTAKE)

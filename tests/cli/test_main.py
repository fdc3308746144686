"""The command: quick to help, one clear line for a mistake, never a traceback."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli import main
from devnet.plan import DEFAULT_TASKS

HEAVY = ("web3", "pyarrow", "chdb", "kafka", "aiohttp", "rich", "clickhouse_connect", "zksnake")


def nektar(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['nektar', '--help']\nfrom cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        f"heavy = [m for m in {HEAVY!r} if m in sys.modules]\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout


def test_every_command_is_in_the_help_and_has_help_of_its_own() -> None:
    commands = ["demo", "devnet", "init", "check", "up", "sql", "tasks", "operators", "findings", "slashings"]
    commands += ["index", "coverage", "migrate", "replay", "dead", "watchers", "dashboards"]
    listed = nektar("--help").stdout
    for command in commands:
        assert f"  {command}" in listed
    assert "--seed" in nektar("demo", "--help").stdout
    assert "  test " in nektar("watchers", "--help").stdout
    assert "  build " in nektar("dashboards", "--help").stdout


def test_a_demo_has_as_many_tasks_by_default_as_hold_everything_twice() -> None:
    assert inspect.signature(main.demo).parameters["tasks"].default == DEFAULT_TASKS


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["bogus"], 2, "No such command"),
        (["demo", "--seed", "x"], 2, "--seed"),
        (["demo", "--kill", "king"], 2, "expected roles of indexer, collector, processors, prosecutor"),
        (["demo", "--tasks", "3"], 2, "--tasks: expected at least 21"),
        (["watchers"], 2, "Missing command"),
        (["up", "king"], 2, "expected one of indexer, collector, processors, prosecutor"),
        (["sql", "SELECT 1"], 2, "nektar init"),
        (["check", "--config", "/no/such/nektar.yaml"], 2, "/no/such/nektar.yaml"),
    ],
)
def test_a_mistake_gets_one_line_and_an_exit_code(
    arguments: list[str], code: int, says: str, tmp_path: Path
) -> None:
    done = nektar(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_init_writes_a_file_that_is_valid_and_never_over_another(tmp_path: Path) -> None:
    assert nektar("init", cwd=tmp_path).returncode == 0
    from nektar.config import load

    assert load(tmp_path / "nektar.yaml").networks[0].name == "my-network"
    again = nektar("init", cwd=tmp_path)
    assert again.returncode == 2
    assert "is there already" in again.stderr

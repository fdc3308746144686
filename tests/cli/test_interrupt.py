"""Ctrl-C on the demo ends all that it has started, whenever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devnet.anvil import find_anvil
from devnet.chain import DevnetError
from nektar.role import ROLES

pytestmark = pytest.mark.real
ROOT = Path(__file__).parent.parent.parent
INTERRUPTED = 130
# A shell that puts a command into the background has it ignore SIGINT.
DEMO = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.argv.pop() == "in a hook":
    os.register_at_fork(after_in_parent=lambda: signal.raise_signal(signal.SIGINT))
from cli.main import main
main()
"""


@pytest.fixture(autouse=True)
def anvil_is_here() -> None:
    try:
        find_anvil()
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")


def demo(directory: Path, when: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DEMO, "demo", "--keep", str(directory / "demo"), when],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def descendants(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has ended
        return []
    return children + [each for child in children for each in descendants(child)]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_ctrl_c_ends_the_demo_and_all_that_it_started(tmp_path: Path) -> None:
    running = demo(tmp_path, "by a person")
    roles = [tmp_path / "demo" / "run" / f"{role}.pid" for role in ROLES]
    deadline = time.monotonic() + 60
    while not all(role.exists() for role in roles):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started = descendants(running.pid)
    assert {int(role.read_text()) for role in roles} <= set(started)
    os.killpg(running.pid, signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == INTERRUPTED, said
    assert "Traceback" not in said
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []


def test_ctrl_c_while_a_process_is_started_is_not_lost(tmp_path: Path) -> None:
    running = demo(tmp_path, "in a hook")
    said, _ = running.communicate(timeout=60)
    assert running.returncode == INTERRUPTED, said
    assert "Traceback" not in said

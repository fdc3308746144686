"""Bells: heard across processes, and gone with the process that hung them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from nektar.bus.bell import Bell, Ringer, alive

HANG = """
import sys
from pathlib import Path
from nektar.bus.bell import Bell
bell = Bell(Path(sys.argv[1]))
print("hung", flush=True)
bell.wait(30)
print("heard", flush=True)
sys.stdin.readline()
"""


def test_a_bell_is_heard_in_another_process_and_dies_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HANG, str(tmp_path / "b")]
    ringer = Ringer(tmp_path)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hung\n"
        assert alive(tmp_path / "b")
        ringer.ring()
        assert process.stdout.readline() == "heard\n"
        process.kill()
    assert not alive(tmp_path / "b")
    ringer.ring()
    Ringer(tmp_path).ring()
    assert list(tmp_path.iterdir()) == []
    ringer.close()


def test_a_ring_before_the_wait_is_not_lost_and_rings_are_one(tmp_path: Path) -> None:
    bell, ringer = Bell(tmp_path / "b"), Ringer(tmp_path)
    for _ in range(70_000):  # more than a FIFO holds
        ringer.ring()
    bell.wait(30)
    began = time.monotonic()
    bell.wait(0.05)
    assert 0.04 < time.monotonic() - began < 5
    bell.close()
    ringer.close()
    assert not alive(tmp_path / "b")


def test_ringing_where_nobody_listens_is_nothing(tmp_path: Path) -> None:
    Ringer(tmp_path / "none").ring()

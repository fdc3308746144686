"""What a tool is to the bench: how it is installed and run, and what it has kept.

Each has a folder of its own under `build/peers`, apart from the project's environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from bench.index import compiled
from bench.load import Load

HOME = Path("build/peers").resolve()
# cryo's wheel is for these two alone.
PYTHONS = ("python3.11", "python3.12")
# Whoever has not ended by then is stuck.
PATIENCE = 900.0
STOP_SECONDS = 10.0


class Row(NamedTuple):
    """An event, as every tool can say it."""

    block: int
    log: int
    block_hash: str
    who: str
    amount: int
    place: int


def row(block: int, log: int, block_hash: str, topic: str, data: str) -> Row:
    """The row of a log that was kept as it came, of which hex is the topic and the data."""
    data = data.removeprefix("0x")
    return Row(block, log, block_hash, f"0x{topic[-40:]}", int(data[:64], 16), int(data[64:128], 16))


class Ended(NamedTuple):
    """How a command ended: all that it did, until its output was complete."""

    status: int | None  # its exit code; None: it was stopped, since nothing came of it
    seconds: float
    rss_mb: int
    words: str  # what it said, on standard output and standard error

    def then(self, more: Ended) -> Ended:
        """Both, one after the other."""
        return Ended(
            self.status or more.status,
            self.seconds + more.seconds,
            max(self.rss_mb, more.rss_mb),
            self.words + more.words,
        )


class Tool(Protocol):
    """One way of having a contract's events on one's own disk."""

    name: str
    keeps: str  # what it makes of them
    share: int  # it is given one of so many logs

    def install(self) -> None:
        """Into `HOME`, unless it is there. Raises CalledProcessError, FileNotFoundError."""

    def run(self, of: Load, into: Path) -> Ended:
        """Index the load into a new folder."""

    def count(self, into: Path) -> int:
        """How many events it has kept there."""

    def rows(self, into: Path) -> Iterable[Row]:
        """The events it has kept there."""


def installed(name: str, pins: Sequence[str], install: Callable[[Path], None]) -> Path:
    """The folder of what `install` puts there, once for these versions."""
    folder, wanted = HOME / name, "\n".join(pins) + "\n"
    stamp = folder / "pins.txt"
    if not stamp.is_file() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        install(folder)
        stamp.write_text(wanted)
    return folder


def from_pypi(folder: Path, pins: Sequence[str], without_dependencies: Sequence[str] = ()) -> None:
    """A virtual environment with these packages."""
    python = next(filter(None, map(shutil.which, PYTHONS)), None)
    if python is None:
        raise FileNotFoundError(f"needs {' or '.join(PYTHONS)} on the PATH")
    said = folder / "install.txt"
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    with said.open("w") as out:
        for command in (
            [python, "-m", "venv", str(folder)],
            [*pip, *pins],
            [*pip, "--no-deps", *without_dependencies] if without_dependencies else [],
        ):
            if command:
                subprocess.run(command, check=True, stdout=out, stderr=subprocess.STDOUT)


def fresh(into: Path) -> Path:
    """The folder, with nothing in it."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    return into


def run(
    command: Sequence[str],
    into: Path,
    *,
    env: Mapping[str, str] | None = None,
    complete: Callable[[], bool] | None = None,
) -> Ended:
    """Run a command in `into` to its end; or, of one that goes on serving, until it is `complete`."""
    said = into / "said.txt"
    began = time.perf_counter()
    with said.open("w") as out:
        process = subprocess.Popen(
            command, cwd=into, env={**compiled(), **(env or {})}, stdout=out, stderr=subprocess.STDOUT
        )
    done, gone, status, used = False, 0, 0, None
    while not gone and not done and time.perf_counter() - began < PATIENCE:
        gone, status, used = os.wait4(process.pid, os.WNOHANG)
        done = not gone and complete is not None and complete()
        if not gone and not done:
            time.sleep(0.005)
    seconds = time.perf_counter() - began
    if not gone:
        killed_at = time.perf_counter() + STOP_SECONDS
        process.terminate()
        while not gone:
            if time.perf_counter() > killed_at:
                process.kill()
            gone, status, used = os.wait4(process.pid, os.WNOHANG)
            time.sleep(0.005)
        code = 0 if done else None
    else:
        code = os.waitstatus_to_exitcode(status)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert used is not None
    kilobytes = used.ru_maxrss if sys.platform != "darwin" else used.ru_maxrss // 1024
    return Ended(code, seconds, kilobytes // 1024, said.read_text(errors="replace"))

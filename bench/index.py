"""`nektar index` against the floor: the whole command, from its start to a count by SQL of what it stored.

    python -m bench.index [--logs N] [--single N] [--rounds N]

Rounds alternate, and each figure is a median of them. `build/bench/index.json` has the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.floor import floor
from bench.load import BUNDLED, SINGLE, Load, Shape, load

OUT = Path("build/bench/index.json")
# Large enough that what the command takes to start is a small part, small enough for a chain of minutes.
LOGS, SINGLE_LOGS, ROUNDS = 500_000, 50_000, 5


class Run(NamedTuple):
    """One whole command."""

    rate: float  # logs a second
    cpu: float  # µs a log, in all of its threads
    rss_mb: int


def compiled() -> dict[str, str]:
    """The environment, where Python keeps what it has compiled, as it does for users."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def index(of: Load, directory: Path, *more: str) -> Run:
    """Index the load into a new store."""
    shutil.rmtree(directory, ignore_errors=True)
    command = [sys.executable, "-m", "cli.main", "index", "--rpc", of.url, "--abi", str(of.abi)]
    command += ["--address", of.address, "--from", str(of.first), "--to", str(of.last)]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--dir", str(directory), "--json", *more],
        stdout=subprocess.PIPE,
        text=True,
        env=compiled(),
    )
    assert process.stdout is not None
    said = json.loads(process.stdout.read())
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert sum(said["stored"].values()) == of.logs, said
    kilobytes = used.ru_maxrss if sys.platform != "darwin" else used.ru_maxrss // 1024
    return Run(of.logs / seconds, (used.ru_utime + used.ru_stime) / of.logs * 1e6, kilobytes // 1024)


LEVELS = ("reported", "proved")


def measure(shape: Shape, logs: int, rounds: int, directory: Path) -> dict[str, float]:
    """Medians over rounds that alternate; of what is said in multiples of the floor, the spread too."""
    floors: list[float] = []
    runs: dict[str, list[Run]] = {level: [] for level in LEVELS}
    with load(shape, logs) as of:
        for number in range(1, rounds + 1):
            floors.append(floor(of))
            print(f"  round {number}: floor {floors[-1]:,.0f} logs/s", flush=True)
            for level, done in runs.items():
                done.append(run := index(of, directory, "--check", level))
                ratio = f"{run.rate / floors[-1]:.2f} ×"
                print(
                    f"    {level} {run.rate:,.0f} ({ratio}), {run.cpu:.2f} µs CPU each, {run.rss_mb} MB",
                    flush=True,
                )
    shutil.rmtree(directory, ignore_errors=True)
    found: dict[str, float] = {"logs": logs, "floor": round(statistics.median(floors))}
    for level, done in runs.items():
        ratios = sorted(run.rate / below for run, below in zip(done, floors, strict=True))
        found |= {
            level: round(statistics.median(run.rate for run in done)),
            f"{level}_ratio": round(statistics.median(ratios), 3),
            f"{level}_ratio_min": round(ratios[0], 3),
            f"{level}_ratio_max": round(ratios[-1], 3),
            f"{level}_cpu_us": round(statistics.median(run.cpu for run in done), 2),
            f"{level}_rss_mb": max(run.rss_mb for run in done),
        }
    return found


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="bench index")
    parser.add_argument("--logs", type=int, default=LOGS)
    parser.add_argument("--single", type=int, default=SINGLE_LOGS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args(arguments)
    directory = OUT.parent / "store"
    OUT.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, float] = {}
    for suffix, shape, logs in (("", BUNDLED, chosen.logs), ("_single", SINGLE, chosen.single)):
        print(f"{shape.logs_a_transaction} logs a transaction, {shape.transactions_a_block} of them a block")
        measured = measure(shape, logs, chosen.rounds, directory)
        found |= {f"{name}{suffix}": value for name, value in measured.items()}
    found["rss_mb"] = max(value for name, value in found.items() if "rss_mb" in name)
    OUT.write_text(json.dumps(found, indent=1) + "\n")
    print(OUT.read_text())


if __name__ == "__main__":
    main(sys.argv[1:])

"""`nektar index` on ever more logs: how fast, and whether its memory stays what it was.

    python -m bench.growth [--logs N …]

One chain holds the largest number; smaller ones are its beginning. A figure is of the whole command, from its
start to a count by SQL, and its memory is the most that the process ever had, the store in it included.
`build/bench/growth.json` has the figures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.index import LEVELS, index
from bench.load import BUNDLED, load

OUT = Path("build/bench/growth.json")
LOGS = (10_000, 100_000, 1_000_000)


def measure(sizes: Sequence[int], directory: Path) -> list[dict[str, float | str]]:
    """What each run took, smallest first."""
    found: list[dict[str, float | str]] = []
    with load(BUNDLED, max(sizes)) as of:
        for logs in sorted(sizes):
            for level in LEVELS:
                run = index(of.beginning(logs), directory, "--check", level)
                found.append(
                    {
                        "logs": logs,
                        "check": level,
                        "logs_s": round(run.rate),
                        "seconds": round(logs / run.rate, 2),
                        "rss_mb": run.rss_mb,
                    }
                )
                print(_row(found[-1]), flush=True)
    shutil.rmtree(directory, ignore_errors=True)
    return found


HEAD = "| logs | check | logs/s | seconds | peak MB |\n|---:|---|---:|---:|---:|"


def _row(run: dict[str, float | str]) -> str:
    return (
        f"| {run['logs']:,} | {run['check']} | {run['logs_s']:,} | {run['seconds']:.1f} | {run['rss_mb']:,} |"
    )


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="bench growth")
    parser.add_argument("--logs", type=int, nargs="+", default=LOGS)
    chosen = parser.parse_args(arguments)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    print(HEAD)
    OUT.write_text(json.dumps(measure(chosen.logs, OUT.parent / "growth"), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

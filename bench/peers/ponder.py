"""ponder (TypeScript): a typed table in PGlite, its own database, filled by a function an event.

It goes on serving when it is done; `/ready` is how it says so. Its ranges are its own: they were fastest.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.load import Load
from bench.peers.tool import Ended, Row, fresh, installed, run
from bench.peers.versions import PONDER
from devnet.anvil import free_port

HERE = Path(__file__).parent / "ponder_project"
# How often it is asked whether it is ready, in seconds.
ASKED_EVERY = 0.05


class Ponder:
    name = "ponder"
    keeps = "a typed table of PGlite"
    share = 5

    def install(self) -> None:
        def npm(folder: Path) -> None:
            (folder / "package.json").write_text('{"private": true, "type": "module"}')
            with (folder / "install.txt").open("w") as out:
                subprocess.run(
                    ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", *PONDER],
                    check=True,
                    cwd=folder,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )

        self._home = installed("ponder", PONDER, npm)

    def run(self, of: Load, into: Path) -> Ended:
        shutil.copytree(HERE, fresh(into), dirs_exist_ok=True)
        (into / "package.json").write_text('{"private": true, "type": "module"}')
        (into / "node_modules").symlink_to(self._home / "node_modules")
        (into / "load.json").write_text(json.dumps({**of._asdict(), "abi": json.loads(of.abi.read_text())}))
        port = free_port()
        env = {"PONDER_TELEMETRY_DISABLED": "1", "PORT": str(port)}
        ponder = self._home / "node_modules" / "ponder" / "dist" / "esm" / "bin" / "ponder.js"
        command = ["node", str(ponder), "start", "--schema", "bench", "--log-format", "json"]
        return run(command, into, env=env, complete=_is_ready(port))

    def count(self, into: Path) -> int:
        return int(self._asked(into, "SELECT count(*) AS logs FROM bench.sample")[0]["logs"])

    def rows(self, into: Path) -> Iterator[Row]:
        for said in self._asked(into, "SELECT * FROM bench.sample"):
            yield Row(
                int(said["block_number"]),
                said["log_index"],
                said["block_hash"],
                said["who"],
                int(said["amount"]),
                int(said["place"]),
            )

    def _asked(self, into: Path, query: str) -> list[dict[str, Any]]:
        command = ["node", "read.mjs", "data", query]
        answer = subprocess.run(command, check=True, cwd=into, stdout=subprocess.PIPE)
        said: list[dict[str, Any]] = json.loads(answer.stdout)
        return said


def _is_ready(port: int) -> Callable[[], bool]:
    asked = 0.0

    def ready() -> bool:
        nonlocal asked
        if time.perf_counter() - asked < ASKED_EVERY:
            return False
        asked = time.perf_counter()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:  # not yet
            return False

    return ready

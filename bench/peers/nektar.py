"""`nektar index`, as whoever uses it would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.load import Load
from bench.peers.tool import Ended, Row, fresh, run

ROOT = Path(__file__).parents[2]
ENV = {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
NEKTAR = (sys.executable, "-m", "cli.main")


class Nektar:
    keeps = "typed tables of ClickHouse"
    share = 1

    def __init__(self, level: str) -> None:
        self.name = f"`nektar index --check {level}`"
        self._level = level

    def install(self) -> None:
        """It is here."""

    def run(self, of: Load, into: Path) -> Ended:
        return self._index(of, fresh(into), "--check", self._level)

    def _index(self, of: Load, into: Path, *more: str) -> Ended:
        command = [*NEKTAR, "index", "--rpc", of.url, "--abi", str(of.abi), "--address", of.address]
        command += ["--from", str(of.first), "--to", str(of.last), "--dir", str(into / "store"), "--json"]
        return run([*command, *more], into, env=ENV)

    def count(self, into: Path) -> int:
        return int(next(self._asked(into, "SELECT count() AS logs FROM event_sample"))["logs"])

    def rows(self, into: Path) -> Iterator[Row]:
        columns = "block_number, log_index, block_hash, who, amount, place"
        for said in self._asked(into, f"SELECT {columns} FROM event_sample"):
            yield Row(
                int(said["block_number"]),
                int(said["log_index"]),
                said["block_hash"],
                said["who"],
                int(said["amount"]),
                int(said["place"]),
            )

    def _asked(self, into: Path, query: str) -> Iterator[dict[str, str]]:
        command = [*NEKTAR, "sql", "--dir", str(into / "store"), "--format", "JSONEachRow", query]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, env={**os.environ, **ENV})
        return map(json.loads, answer.stdout.splitlines())


class Audited(Nektar):
    """What was only reported is audited later, by another provider."""

    def __init__(self, auditor: str) -> None:
        super().__init__("reported")
        self.name += ", later `--audit`"
        self._auditor = auditor

    def run(self, of: Load, into: Path) -> Ended:
        reported = super().run(of, into)
        return reported.then(self._index(of._replace(url=self._auditor), into, "--audit"))

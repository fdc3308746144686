"""ethereum-etl (Python): CSV of all receipts' logs, not decoded.

It exports a block range's transactions, and the logs of their receipts: it has no filter by contract, and on
this load there is nothing else. Batches and workers are what was fastest of a few.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from bench.load import Load
from bench.peers.tool import Ended, Row, fresh, from_pypi, installed, row, run
from bench.peers.versions import ETHEREUM_ETL, ETHEREUM_ETL_NEWER

KNOBS = ("--max-workers", "2", "--batch-size", "50")


class EthereumEtl:
    name = "ethereum-etl"
    keeps = "CSV, not decoded"
    share = 5

    def install(self) -> None:
        self._home = installed(
            "ethereum-etl",
            (*ETHEREUM_ETL, *ETHEREUM_ETL_NEWER),
            lambda folder: from_pypi(folder, ETHEREUM_ETL, ETHEREUM_ETL_NEWER),
        )

    def run(self, of: Load, into: Path) -> Ended:
        fresh(into)
        blocks = ("--start-block", str(of.first), "--end-block", str(of.last))
        provider = ("--provider-uri", of.url)
        done = Ended(0, 0.0, 0, "")
        for command in (
            ("export_blocks_and_transactions", *blocks, *provider, *KNOBS, "--transactions-output", "of.csv"),
            ("extract_csv_column", "--input", "of.csv", "--column", "hash", "--output", "hashes.txt"),
            ("export_receipts_and_logs", "-t", "hashes.txt", *provider, *KNOBS, "--logs-output", "logs.csv"),
        ):
            if done.status == 0:
                done = done.then(run([str(self._home / "bin" / "ethereumetl"), *command], into))
        return done

    def count(self, into: Path) -> int:
        return sum(1 for _ in self._logs(into))

    def rows(self, into: Path) -> Iterator[Row]:
        for log in self._logs(into):
            topic = log["topics"].split(",")[1]
            yield row(int(log["block_number"]), int(log["log_index"]), log["block_hash"], topic, log["data"])

    def _logs(self, into: Path) -> Iterator[dict[str, str]]:
        if (file := into / "logs.csv").is_file():
            with file.open(newline="") as lines:
                yield from csv.DictReader(lines)

"""cryo (Rust), by its wheel: Parquet of what `eth_getLogs` says, not decoded.

Its knobs are at what was fastest of a grid (blocks a request, requests and files at once, blocks a file).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from bench.load import Load
from bench.peers.tool import Ended, Row, fresh, from_pypi, installed, row, run
from bench.peers.versions import CRYO

# It ends at once when all is written: the interpreter's own end now and then dies of its threads (SIGSEGV).
FREEZE = "import cryo, json, os, sys; cryo.freeze('logs', **json.loads(sys.argv[1])); os._exit(0)"
KNOBS = {
    "inner_request_size": 10,
    "max_concurrent_requests": 4,
    "max_concurrent_chunks": 4,
    "chunk_size": 500,
}


class Cryo:
    name = "cryo"
    keeps = "Parquet, not decoded"
    share = 1

    def install(self) -> None:
        self._home = installed("cryo", CRYO, lambda folder: from_pypi(folder, CRYO))

    def run(self, of: Load, into: Path) -> Ended:
        said = {
            "rpc": of.url,
            "contract": [of.address],
            "topic0": [of.topic],
            "start_block": of.first,
            "end_block": of.last + 1,
            "include_columns": ["block_hash"],
            "output_dir": str(fresh(into)),
            "verbose": False,
            **KNOBS,
        }
        return run([str(self._home / "bin" / "python"), "-c", FREEZE, json.dumps(said)], into)

    def count(self, into: Path) -> int:
        return sum(len(pq.read_table(file, columns=["log_index"])) for file in into.glob("*.parquet"))

    def rows(self, into: Path) -> Iterator[Row]:
        for file in into.glob("*.parquet"):
            for log in pq.read_table(file).to_pylist():
                yield row(
                    log["block_number"],
                    log["log_index"],
                    f"0x{log['block_hash'].hex()}",
                    log["topic1"].hex(),
                    log["data"].hex(),
                )

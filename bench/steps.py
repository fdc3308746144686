"""Where the time of `nektar index` goes: each step alone, on one core, for one answer of a thousand logs.

    python -m bench.steps

First what the chain itself takes to answer, each kind of question; then what is made of the answers; and what
starting takes. `docs/PERFORMANCE.md` reads the figures.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bench.index import compiled, index
from bench.load import BUNDLED, SINGLE, Load, Shape, load
from indexer import proved, reported
from nektar.chain import abi, logs, receipts
from nektar.chain.transaction import read_transaction
from nektar.chain.trie import ordered_root
from nektar.model import Address
from nektar.store.client import open_store
from nektar.store.schema import abi_table, create_table, stored

LOGS = 1_000  # in an answer
REPEATS = 30
ROWS = 100_000  # in an insert
OUT = Path("build/bench/steps.json")

Ask = tuple[str, list[Any]]


def post(url: str, calls: Sequence[Ask]) -> bytes:
    asked = [
        {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}
        for id_, (method, params) in enumerate(calls, 1)
    ]
    body = json.dumps(asked if len(asked) > 1 else asked[0]).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return bytes(response.read())


def fastest(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Seconds of the quickest of some runs."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def measure(of: Load, shape: Shape) -> dict[str, float]:
    """µs a log, of each step."""
    numbers = range(of.first, of.first + LOGS // shape.logs_a_block)
    address = Address(bytes.fromhex(of.address[2:]))
    contracts = {address: abi.load(json.loads(of.abi.read_text()))}
    filter_ = {"address": of.address, "fromBlock": hex(numbers[0]), "toBlock": hex(numbers[-1])}
    asked: dict[str, list[Ask]] = {
        "eth_getLogs": [("eth_getLogs", [filter_])],
        "eth_getBlockByNumber, whole": [("eth_getBlockByNumber", [hex(n), True]) for n in numbers],
        "eth_getBlockByNumber, hashes": [("eth_getBlockByNumber", [hex(n), False]) for n in numbers],
        "eth_getBlockReceipts": [("eth_getBlockReceipts", [hex(n)]) for n in numbers],
    }
    found = {f"chain: {name}": fastest(partial(post, of.url, calls), 5) for name, calls in asked.items()}

    bodies = {name: post(of.url, calls) for name, calls in asked.items()}
    blocks = [reply["result"] for reply in msgspec.json.decode(bodies["eth_getBlockByNumber, whole"])]
    headers = [proved.header(block, n) for block, n in zip(blocks, numbers, strict=True)]
    transactions = [[read_transaction(tx).raw for tx in block["transactions"]] for block in blocks]
    receipts_body, logs_body = bodies["eth_getBlockReceipts"], bodies["eth_getLogs"]
    said = receipts.read(receipts_body)
    assert said is not None
    filters = receipts.blooms(said)
    raw = receipts.encoded(said, filters)
    in_block = len(raw) // len(numbers)
    held = proved.logs(headers, said)
    assert len(held.number) == LOGS
    steps: dict[str, Callable[[], object]] = {
        "reported: read logs": lambda: logs.read(logs_body),
        "both: decode into columns": lambda: reported.batches(held, contracts),
        "proved: headers and transactions": lambda: [
            proved.header(block, n) for block, n in zip(blocks, numbers, strict=True)
        ],
        "  of which transactions": lambda: [
            read_transaction(tx) for block in blocks for tx in block["transactions"]
        ],
        "  of which transactionsRoot": lambda: [ordered_root(each) for each in transactions],
        "proved: read receipts": lambda: receipts.read(receipts_body),
        "proved: hold them against the headers": lambda: proved.logs(headers, said),
        "  of which blooms": lambda: receipts.blooms(said),
        "  of which RLP": lambda: receipts.encoded(said, filters),
        "  of which receiptsRoot": lambda: [
            ordered_root(raw[at : at + in_block]) for at in range(0, len(raw), in_block)
        ],
    }
    found |= {name: fastest(work) for name, work in steps.items()}
    ((event, rows),), _ = reported.batches(held, contracts)
    found["both: insert"] = insert(event, rows)
    return {name: round(seconds / LOGS * 1e6, 2) for name, seconds in found.items()}


def insert(event: Any, rows: Any) -> float:
    """Seconds for `LOGS` rows, of an insert of `ROWS`."""
    from nektar.arrow import pa

    table = abi_table(event)
    whole = stored(pa.Table.from_batches([rows] * (ROWS // LOGS)), "bench", 1, False, "proved")
    with tempfile.TemporaryDirectory() as directory, open_store(f"chdb://{directory}/store") as store:
        store.command(create_table(table))
        number = iter(range(100))
        return fastest(lambda: store.insert(table.name, whole, str(next(number))), 8) * LOGS / ROWS


def start(of: Load) -> dict[str, float]:
    """Seconds until a command does something, and of an index of one block."""
    help_ = [sys.executable, "-m", "cli.main", "index", "--help"]
    one = of.beginning(100)
    with tempfile.TemporaryDirectory() as directory:
        index(one, Path(directory) / "store")
        return {
            "help": fastest(
                lambda: subprocess.run(help_, env=compiled(), capture_output=True, check=True), 5
            ),
            "index of one block": fastest(lambda: index(one, Path(directory) / "store"), 5),
        }


def main(arguments: Sequence[str] = ()) -> None:
    found: dict[str, dict[str, float]] = {}
    for name, shape in (("bundled", BUNDLED), ("single", SINGLE)):
        with load(shape, LOGS) as of:
            found[name] = measure(of, shape)
            if shape == BUNDLED:
                found["start, seconds"] = {step: round(taken, 2) for step, taken in start(of).items()}
    for step in found["bundled"]:
        print(f"  {step:42} {found['bundled'][step]:8.2f} {found['single'][step]:8.2f} µs a log")
    print(f"  {found['start, seconds']}")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

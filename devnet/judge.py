"""The judge: compares what was found with what was done. `python -m devnet.judge CASE.json`.

It stands apart from the pipeline and imports nothing of it: what was found it reads through SQL over HTTP,
what happened it counts on the final chain itself with web3, and what was done it reads from the truth that
the scenario wrote down before anything ran. It prints its verdict as one JSON object and never decides by it.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

Fact: TypeAlias = tuple[str, str | None, str, str, str]

# What has no counterpart is listed up to this many; the counts are always whole.
LISTED = 20
SQL_TIMEOUT = 30.0
BLOCKS_AT_ONCE = 500


def judge(case: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict on a case: {truth, sql, rpc, contracts: {name: address}, abi: {name: ABI}}."""
    truth = [_fact(f) for f in case["truth"]]
    found = list(_found(case["sql"]))
    right = sum((Counter(truth) & Counter(found)).values())
    on_chain = _recount(case["rpc"], case["contracts"], case["abi"])
    in_store = _stored(case["sql"])
    lost, doubled = on_chain - in_store, in_store - on_chain
    return {
        "found": [_record(f) for f in sorted(found, key=str)],
        "precision": right / len(found) if found else float(not truth),
        "recall": right / len(truth) if truth else 1.0,
        "missing": [_record(f) for f in _some(Counter(truth) - Counter(found))],
        "surplus": [_record(f) for f in _some(Counter(found) - Counter(truth))],
        "counted": {"chain": sum(on_chain.values()), "store": sum(in_store.values())},
        "lost": sum(lost.values()),
        "duplicated": sum(doubled.values()),
        "lost_sample": [list(x) for x in _some(lost)],
        "duplicated_sample": [list(x) for x in _some(doubled)],
    }


def _fact(record: Mapping[str, Any]) -> Fact:
    return (record["kind"], record["condition"], record["task"], record["operator"], record["value"])


def _record(fact: Fact) -> dict[str, Any]:
    return dict(zip(("kind", "condition", "task", "operator", "value"), fact, strict=True))


def _some(counter: Counter[Any]) -> list[Any]:
    return sorted(counter.elements(), key=str)[:LISTED]


def _found(sql: str) -> Iterable[Fact]:
    for row in query(sql, "SELECT task_input, operator, state FROM duties"):
        yield ("duty", None, row["task_input"], row["operator"], row["state"])
    for row in query(sql, "SELECT condition, task_input, operator, status FROM findings"):
        yield ("finding", row["condition"], row["task_input"], row["operator"], row["status"])


def _stored(sql: str) -> Counter[tuple[str, ...]]:
    """Every event and every call that the store says is true now, with how often it says so."""
    rows: Counter[tuple[str, ...]] = Counter()
    for row in query(sql, "SELECT block_hash, log_index, address, event FROM events"):
        name = row["event"].removeprefix("event_")
        rows["event", row["block_hash"], str(row["log_index"]), row["address"], _plain(name)] += 1
    for row in query(sql, "SELECT block_hash, tx_hash, address FROM calls"):
        rows["call", row["block_hash"], row["tx_hash"], row["address"]] += 1
    return rows


def _recount(
    rpc: str, contracts: Mapping[str, str], abi: Mapping[str, list[dict[str, Any]]]
) -> Counter[tuple[str, ...]]:
    """Every event and every call on the final chain, read and named by web3."""
    from web3 import Web3
    from web3.types import TxData

    w3 = Web3(Web3.HTTPProvider(rpc))
    names = {address.lower(): _event_names(w3, address, abi[name]) for name, address in contracts.items()}
    rows: Counter[tuple[str, ...]] = Counter()
    head = w3.eth.block_number
    addresses = [w3.to_checksum_address(address) for address in contracts.values()]
    for first in range(0, head + 1, BLOCKS_AT_ONCE):
        last = min(head, first + BLOCKS_AT_ONCE - 1)
        for log in w3.eth.get_logs({"fromBlock": first, "toBlock": last, "address": addresses}):
            address = log["address"].lower()
            name = names[address][log["topics"][0].to_0x_hex()]
            rows["event", log["blockHash"].to_0x_hex(), str(log["logIndex"]), address, _plain(name)] += 1
    for number in range(head + 1):
        block = w3.eth.get_block(number, full_transactions=True)
        for tx in cast(Sequence[TxData], block["transactions"]):
            to = str(tx.get("to") or "").lower()
            if to in names:
                rows["call", block["hash"].to_0x_hex(), tx["hash"].to_0x_hex(), to] += 1
    return rows


def _event_names(w3: Any, address: str, abi: list[dict[str, Any]]) -> dict[str, str]:
    """topic0 → name, as web3 derives them."""
    contract = w3.eth.contract(address=w3.to_checksum_address(address), abi=abi)
    return {"0x" + event.topic.removeprefix("0x"): event.event_name for event in contract.events}


def _plain(name: str) -> str:
    """A name without the case and underscores by which SQL and Solidity write it differently."""
    return name.replace("_", "").lower()


def query(sql: str, statement: str) -> list[dict[str, Any]]:
    """The rows that the SQL endpoint at `sql` answers."""
    request = urllib.request.Request(  # noqa: S310  a URL of this machine, given by the driver
        f"{sql}/?default_format=JSONEachRow", statement.encode()
    )
    with urllib.request.urlopen(request, timeout=SQL_TIMEOUT) as response:  # noqa: S310
        return [json.loads(line) for line in response.read().splitlines() if line]


if __name__ == "__main__":
    print(json.dumps(judge(json.loads(Path(sys.argv[1]).read_text()))))  # noqa: T201

"""The judge: compares what was found with what was done. `python -m devnet.judge CASE.json`.

It stands apart from the pipeline and imports nothing of it: what was found it reads through SQL over HTTP,
what happened it reads on the final chain itself with web3, and what was done from the truth that was written
down before anything ran. It prints its verdict as one JSON object and exits with 1 unless all is right.

Every block, event and call on the chain is held against the store whole, arguments included, and so is every
Task, Operator and slashing: what the store lacks, or has otherwise, is `lost`; what it has beyond the chain,
or said again in a history without a reorg that accounts for it, is `duplicated`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias, cast

Fact: TypeAlias = tuple[str, str | None, str, str, str, str]
FACT = ("kind", "condition", "task", "operator", "value", "reason")
Row: TypeAlias = tuple[str, ...]

# What has no counterpart is listed up to this many; the counts are always whole.
LISTED = 20
SQL_TIMEOUT = 30.0
BLOCKS_AT_ONCE = 500
# Columns that stand before an event's or a call's arguments.
EVENT_PLACE = (
    "network",
    "block_number",
    "block_hash",
    "block_time",
    "tx_index",
    "tx_hash",
    "log_index",
    "address",
    "level",
)
TASK_COLUMNS = (
    "task_hash",
    "number",
    "input",
    "set_hash",
    "submitter",
    "submitted_block",
    "deadline",
    "grace",
)
OPERATOR_COLUMNS = ("operator", "bls_key", "region", "validators")
SLASHING_COLUMNS = ("slasher", "request", "operator", "asked", "taken", "receiver", "votes", "state")
# Events that tell the life of a request to slash.
SLASHING_EVENTS = ("SlashingRequested", "RequestedOnTrust", "VetoVoted", "SlashingVetoed", "SlashingExecuted")
NOBODY = "0x" + "00" * 20
# A finding is said with a rising status; `retracted` rises above all but `final`, which nothing follows.
FINDING_RISES = ("seen", "safe", "retracted", "final")
# Events about Tasks, and the state to which they move one: what comes later here is said later of a Task.
TASK_STATES = {"responded": "responded", "taskcancelled": "cancelled", "responsechallenged": "challenged"}
TASK_EVENTS = ("tasksubmitted", "attested", *TASK_STATES)
# History → what names the row that its lines are versions of.
HISTORIES = {
    "duties_history": ("task_hash", "operator"),
    "findings_history": ("id",),
    "slashings_history": ("slasher", "request"),
}
CALL_PLACE = (*EVENT_PLACE[:6], "sender", "address", "value", "status", "revert", "level")


def judge(case: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict on a case: {truth: {file, sha256}, sql, rpc, contracts: {name: address}, abi: {name: ABI},
    withheld: [[first, last], …], unsafe: [block, …], that a reorg made so, as often as it did}."""
    written = Path(case["truth"]["file"]).read_bytes()
    if hashlib.sha256(written).hexdigest() != case["truth"]["sha256"]:
        raise SystemExit("the truth is not what it was before the run")
    truth = [_fact(f) for f in json.loads(written)]
    found = list(_found(case["sql"]))
    right = sum((Counter(truth) & Counter(found)).values())
    on_chain = Counter(_recount(case["rpc"], case["contracts"], case["abi"], case["withheld"]))
    in_store = Counter(_stored(case["sql"]))
    lost, beyond = on_chain - in_store, in_store - on_chain
    said_twice = [*_said_twice(case["sql"]), *_said_again(case["sql"], case["unsafe"])]
    doubled = sum(beyond.values()) + len(said_twice)
    return {
        "right": Counter(truth) == Counter(found) and bool(truth) and not lost and not doubled,
        "found": [_record(f) for f in sorted(found, key=str)],
        "precision": right / len(found) if found else float(not truth),
        "recall": right / len(truth) if truth else 1.0,
        "missing": [_record(f) for f in _some(Counter(truth) - Counter(found))],
        "surplus": [_record(f) for f in _some(Counter(found) - Counter(truth))],
        "chain": _account(on_chain),
        "counted": {"chain": sum(on_chain.values()), "store": sum(in_store.values())},
        "lost": sum(lost.values()),
        "duplicated": doubled,
        "lost_sample": [list(x) for x in _some(lost)],
        "duplicated_sample": [list(x) for x in [*_some(beyond), *said_twice][:LISTED]],
    }


def _fact(record: Mapping[str, Any]) -> Fact:
    return cast(Fact, tuple(record[name] for name in FACT))


def _record(fact: Fact) -> dict[str, Any]:
    return dict(zip(FACT, fact, strict=True))


def _some(counter: Counter[Any]) -> list[Any]:
    return sorted(counter.elements(), key=str)[:LISTED]


def _found(sql: str) -> Iterable[Fact]:
    for row in query(sql, "SELECT task_input, operator, state FROM duties"):
        yield ("duty", None, row["task_input"], row["operator"], row["state"], "")
    for row in query(sql, "SELECT task_input, operator, cause FROM diagnoses"):
        yield ("cause", None, row["task_input"], row["operator"], row["cause"], "")
    reason = "JSONExtractString(facts, 'reason') AS reason"
    for row in query(sql, f"SELECT condition, task_input, operator, status, {reason} FROM findings"):  # noqa: S608
        said = row["condition"], row["task_input"], row["operator"], row["status"], row["reason"]
        yield "finding", *said


def _stored(sql: str) -> Iterator[Row]:
    """Every block, Task, Operator, slashing, event and call that the store says is true now, as often as it
    says so."""
    for row in query(sql, "SELECT number, hash, parent, toUnixTimestamp(time) AS time, level FROM blocks"):
        yield "block", str(row["number"]), row["hash"], row["parent"], str(row["time"]), row["level"]
    for row in query(sql, f"SELECT {', '.join(TASK_COLUMNS)} FROM tasks"):  # noqa: S608  named above
        yield "task", *(str(row[name]) for name in TASK_COLUMNS)
    for row in query(sql, f"SELECT {', '.join(OPERATOR_COLUMNS)} FROM operators"):  # noqa: S608
        yield "operator", *(str(row[name]) for name in OPERATOR_COLUMNS)
    for row in query(sql, f"SELECT {', '.join(SLASHING_COLUMNS)} FROM slashings"):  # noqa: S608
        yield "slashing", *(str(row[name]) for name in SLASHING_COLUMNS)
    for (view,) in query_names(sql, "SELECT DISTINCT event AS view FROM events"):
        for row in query(sql, f"SELECT * FROM `{view}`"):  # noqa: S608  a name that the store gave
            arguments = {k: v for k, v in row.items() if k not in EVENT_PLACE}
            place = (
                row["block_hash"],
                row["tx_hash"],
                str(row["tx_index"]),
                str(row["log_index"]),
                row["address"],
                row["level"],
            )
            yield "event", *place, _plain(view.removeprefix("event_")), _said(arguments)
    for (view,) in query_names(sql, "SELECT DISTINCT call AS view FROM calls"):
        for row in query(sql, f"SELECT * FROM `{view}`"):  # noqa: S608  a name that the store gave
            arguments = {k: v for k, v in row.items() if k not in CALL_PLACE}
            called = row["block_hash"], row["tx_hash"], row["sender"], row["address"], str(row["value"])
            yield (
                "call",
                *called,
                str(row["status"]),
                row["level"],
                _plain(view.removeprefix("call_")),
                _said(arguments),
            )


def _to(tx: Mapping[str, Any]) -> str:
    return str(tx.get("to") or "").lower()


def _recount(
    rpc: str,
    contracts: Mapping[str, str],
    abi: Mapping[str, list[dict[str, Any]]],
    withheld: Sequence[Sequence[int]],
) -> Iterator[Row]:
    """Every block of the final chain, and every Task, Operator, slashing, event and call in it, decoded by
    web3. The status of a call in a block whose receipts were withheld is not for the pipeline to know:
    None."""
    from web3 import Web3
    from web3.types import TxData

    def level(number: int) -> str:
        """How well a block in which anything happened to the contracts can be checked."""
        return "linked" if any(a <= number <= b for a, b in withheld) else "proved"

    w3 = Web3(Web3.HTTPProvider(rpc))
    names = {address.lower(): name for name, address in contracts.items()}
    decoders = {
        address: w3.eth.contract(address=w3.to_checksum_address(address), abi=cast(Any, abi[name]))
        for address, name in names.items()
    }
    events = {
        (address, "0x" + event.topic.removeprefix("0x")): event
        for address, contract in decoders.items()
        for event in cast(Iterable[Any], contract.events)
    }
    head = w3.eth.block_number
    operators: dict[str, list[str]] = {}
    slashings: list[tuple[str, str, Mapping[str, Any]]] = []
    busy: set[int] = set()  # blocks in which anything happened to the contracts
    for first in range(0, head + 1, BLOCKS_AT_ONCE):
        last = min(head, first + BLOCKS_AT_ONCE - 1)
        addresses = [contract.address for contract in decoders.values()]
        for log in w3.eth.get_logs({"fromBlock": first, "toBlock": last, "address": addresses}):
            address = log["address"].lower()
            busy.add(log["blockNumber"])
            event = events[address, log["topics"][0].to_0x_hex()]
            arguments = event().process_log(log)["args"]
            where = (
                log["blockHash"].to_0x_hex(),
                log["transactionHash"].to_0x_hex(),
                str(log["transactionIndex"]),
                str(log["logIndex"]),
            )
            at_level = level(log["blockNumber"])
            yield "event", *where, address, at_level, _plain(event.event_name), _said(arguments)
            if event.event_name in SLASHING_EVENTS:
                slashings.append((address, event.event_name, arguments))
            match event.event_name:
                case "TaskSubmitted":
                    yield _task(arguments, log["blockNumber"])
                case "OperatorRegistered":
                    told = arguments["region"], str(arguments["validators"])
                    operators[arguments["operator"].lower()] = [_key(arguments["key"]), *told]
                case "KeyRotated":
                    operators[arguments["operator"].lower()][0] = _key(arguments["key"])
    for operator, told_last in operators.items():
        yield "operator", operator, *told_last
    yield from _slashings(slashings, head)
    for number in range(head + 1):
        block = w3.eth.get_block(number, full_transactions=True)
        if any(_to(tx) in names for tx in cast(Sequence[TxData], block["transactions"])):
            busy.add(number)
        known = block["hash"].to_0x_hex(), block["parentHash"].to_0x_hex(), str(block["timestamp"])
        yield "block", str(number), *known, level(number) if number in busy else "proved"
        for tx in cast(Sequence[TxData], block["transactions"]):
            to = _to(tx)
            if to not in names:
                continue
            status = str(None)
            if level(number) == "proved":
                status = str(bool(w3.eth.get_transaction_receipt(tx["hash"])["status"]))
            function, arguments = decoders[to].decode_function_input(tx["input"])
            place = (
                block["hash"].to_0x_hex(),
                tx["hash"].to_0x_hex(),
                tx["from"].lower(),
                to,
                str(tx["value"]),
            )
            yield "call", *place, status, level(number), _plain(function.fn_name), _said(arguments)


def _slashings(happened: Iterable[tuple[str, str, Mapping[str, Any]]], head: int) -> Iterator[Row]:
    """What became of each request to slash by the block `head`, in the order of SLASHING_COLUMNS. `happened`
    are (contract, event, arguments)."""
    known: dict[tuple[str, str], dict[str, str]] = {}
    last: dict[tuple[str, str], int] = {}
    for address, event, said in happened:
        slasher = said["target"].lower() if event == "VetoVoted" else address
        key = slasher, "0x" + said["requestId"].hex()
        if event == "SlashingRequested":
            names = {"operator": said["operator"].lower(), "asked": str(said["amount"])}
            names |= {"taken": "0", "receiver": NOBODY, "votes": "0", "state": "requested"}
            known[key], last[key] = names, said["executionDeadline"]
        elif event == "RequestedOnTrust":
            known[key]["receiver"] = said["receiver"].lower()
        elif event == "VetoVoted":
            known[key]["votes"] = str(said["votes"])
        elif event == "SlashingVetoed":
            known[key]["state"] = "vetoed"
        else:
            known[key] |= {"taken": str(said["amount"]), "receiver": said["receiver"].lower()}
            known[key]["state"] = "executed"
    for key, names in known.items():
        if names["state"] == "requested" and last[key] < head:
            names["state"] = "expired"
        yield "slashing", *key, *(names[column] for column in SLASHING_COLUMNS[2:])


def _account(on_chain: Iterable[Row]) -> dict[str, Any]:
    """What all that is on the chain comes to, for whoever shows sums: the head's number and time, blocks by
    check level, Tasks by state, events about Tasks by kind, Tasks whose grace is over, members' stakes in the
    newest OperatorSet and, by a Task's input, in the set that it committed to, and Operators' regions."""
    blocks, tasks, regions = {}, {}, {}
    events: dict[str, list[dict[str, Any]]] = {}
    for kind, *row in on_chain:
        if kind == "block":
            blocks[int(row[0])] = row
        elif kind == "task":
            tasks[row[0]] = dict(zip(TASK_COLUMNS, row, strict=True))
        elif kind == "operator":
            regions[row[0]] = row[2]
        elif kind == "event":
            events.setdefault(row[-2], []).append(json.loads(row[-1]))
    head = max(blocks)
    states = {task: "expired" if int(said["deadline"]) <= head else "open" for task, said in tasks.items()}
    for event, state in TASK_STATES.items():
        states |= {said["taskHash"]: state for said in events.get(event, ())}
    committed = events["operatorsetcommitted"]
    sets = {said["setHash"]: _stakes(said["members"]) for said in committed}
    newest = max(committed, key=lambda said: int(said["setNumber"]))["setHash"]
    return {
        "head": head,
        "time": int(blocks[head][3]),
        "levels": Counter(row[4] for row in blocks.values()),
        "tasks": Counter(states.values()),
        "events": {name: len(events.get(name, ())) for name in TASK_EVENTS},
        "over": sum(int(task["deadline"]) + int(task["grace"]) <= head for task in tasks.values()),
        "stakes": sets[newest],
        "owed": {task["input"]: sets[task["set_hash"]] for task in tasks.values()},
        "regions": regions,
    }


def _stakes(members: Iterable[Sequence[Any]]) -> dict[str, int]:
    """Operator → stake."""
    return {operator: stake for operator, _, stake in members}


def _said_twice(sql: str) -> Iterator[Row]:
    """Lines of the histories that stand twice, or that change nothing about the row they are a version of."""
    for history, key in HISTORIES.items():
        versions: dict[Row, list[dict[str, Any]]] = {}
        for row in query(sql, f"SELECT * FROM {history}"):  # noqa: S608  named above
            versions.setdefault((row["network"], *(row[k] for k in key)), []).append(row)
        for of_row, lines in versions.items():
            lines.sort(key=lambda line: (line["generation"], line["log_offset"], line["position"]))
            for before, after in pairwise(lines):
                place = ("generation", "log_offset", "position")
                if {**before, **{k: after[k] for k in place}} == after:
                    yield history, *of_row, str(after["log_offset"])


def _said_again(sql: str, unsafe: Iterable[int]) -> Iterator[Row]:
    """Lines of the histories that go back on an earlier one without a block undone under it: as often as
    blocks of its number were undone, and no more, a row may be said as it stood before. A finding may also as
    often as its block was `safe` no more."""
    undone = Counter(row["number"] for row in query(sql, "SELECT number FROM blocks_rows WHERE is_deleted"))
    for history, key, block, may in (
        ("duties_history", ("task_hash", "operator"), "decided_block", undone),
        ("findings_history", ("id",), "block_number", undone + Counter(unsafe)),
    ):
        lines = query(sql, f"SELECT * FROM {history} ORDER BY log_offset, position")  # noqa: S608  named above
        standing: dict[Row, dict[str, Any]] = {}
        back: Counter[tuple[Row, int]] = Counter()
        for line in lines:
            row = (line["network"], *(line[k] for k in key))
            before = standing.get(row)
            standing[row] = line
            if before is None or not _goes_back(before, line, block):
                continue
            back[row, before[block]] += 1
            if back[row, before[block]] > may[before[block]]:
                yield history, *row, str(line["log_offset"])


def _goes_back(before: Mapping[str, Any], after: Mapping[str, Any], block: str) -> bool:
    """Whether a line says less than the one before it. A finding's statuses rise, a duty's blocks do."""
    if "status" in after:
        return FINDING_RISES.index(after["status"]) <= FINDING_RISES.index(before["status"])
    return bool(after["is_deleted"]) or after[block] < before[block]


def _task(arguments: Mapping[str, Any], block: int) -> Row:
    """A Task as its submission says it, in the order of TASK_COLUMNS."""
    task = arguments["task"]
    return (
        "task",
        "0x" + arguments["taskHash"].hex(),
        str(task["number"]),
        str(task["input"]),
        "0x" + task["setHash"].hex(),
        arguments["submitter"].lower(),
        str(block),
        str(task["deadline"]),
        str(task["grace"]),
    )


def _key(key: Mapping[str, int]) -> str:
    return f"0x{key['x']:064x}{key['y']:064x}"


def query_names(sql: str, statement: str) -> list[tuple[str]]:
    """The names in a query's column `view`."""
    return [(row["view"],) for row in query(sql, statement)]


def _said(arguments: Mapping[str, Any]) -> str:
    """Arguments by name, the same however they were decoded: a struct is the list of its members, bytes and
    addresses are 0x and lower case. A name that the store had to change ends in an underscore there."""
    return json.dumps({name.rstrip("_"): _canonical(value) for name, value in sorted(arguments.items())})


def _canonical(value: Any) -> Any:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, Mapping):
        return [_canonical(each) for each in value.values()]
    if isinstance(value, list | tuple):
        return [_canonical(each) for each in value]
    if isinstance(value, str) and value.startswith("0x"):
        return value.lower()
    return value


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
    verdict = judge(json.loads(Path(sys.argv[1]).read_text()))
    print(json.dumps(verdict))  # noqa: T201
    sys.exit(0 if verdict["right"] else 1)

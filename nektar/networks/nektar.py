"""What the reference contracts' events and calls mean (`devnet/contracts`; interface in docs/DESIGN.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eth_hash.auto import keccak

from nektar.chain.abi import load
from nektar.chain.table import values
from nektar.model import (
    G1,
    G2,
    Address,
    At,
    Attested,
    ChainEvent,
    Deadline,
    Hash32,
    KeyRotated,
    Network,
    OperatorDeregistered,
    OperatorRegistered,
    OperatorSetCommitted,
    Paused,
    Responded,
    Signed,
    Task,
    TaskCancelled,
    TaskSubmitted,
    Unpaused,
)
from nektar.networks.adapter import AdapterError
from nektar.networks.encoding import encode_answer, encode_members, encode_task, operator_set, word

Values = Mapping[str, Any]


class NektarNetwork:
    """The adapter `nektar`."""

    name = "nektar"

    def __init__(self) -> None:
        text = Path(__file__).with_name("nektar.abi.json").read_text("utf-8")
        self._abi: dict[str, list[dict[str, Any]]] = json.loads(text)
        # table → (contract whose rows count, what a row means)
        self._meaning: dict[str, tuple[str, Callable[[Values, Network], ChainEvent]]] = {}
        for contract, meanings in _EVENTS.items():
            abi = load(self._abi[contract])
            for event, meaning in meanings.items():
                self._meaning[abi.event(event).table] = (contract, meaning)
        attest = load(self._abi["task_manager"]).function("attest")
        self._meaning[attest.table] = ("task_manager", _signed)

    def abi(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Contract name → its ABI."""
        return self._abi

    def events(self, network: Network, tables: Mapping[str, bytes]) -> Sequence[ChainEvent]:
        """What the rows mean, in the chain's order. Raises AdapterError for what no contract of this
        flavour can have emitted."""
        found: list[tuple[At, ChainEvent]] = []
        for table, stream in tables.items():
            if table not in self._meaning:
                continue
            contract, meaning = self._meaning[table]
            address = network.contracts.get(contract)
            for row in values(stream):
                if row["address"] == address:
                    found.append((_at(row), meaning(row, network)))
        found.sort(key=lambda pair: pair[0])
        return [event for _, event in found]


def _at(row: Values) -> At:
    return At(row["block_number"], row["tx_index"], row.get("log_index", -1))


def _g1(point: Values) -> G1:
    return G1(word(point["x"]) + word(point["y"]))


def _g2(point: Values) -> G2:
    return G2(b"".join(word(c) for c in (*point["x"], *point["y"])))


def _task_preimage(task: Values) -> bytes:
    return encode_task(
        [
            task["taskType"],
            task["input"],
            task["parentHash"],
            task["setHash"],
            task["deadline"],
            task["grace"],
            task["responseThreshold"],
            task["stakeThreshold"],
            task["number"],
        ]
    )


def _task_submitted(row: Values, network: Network) -> ChainEvent:
    task, preimage = row["task"], _task_preimage(row["task"])
    if keccak(preimage) != row["taskHash"]:
        raise AdapterError(f"TaskSubmitted at {_at(row)}: its taskHash is not the hash of its task")
    return TaskSubmitted(
        _at(row),
        Task(
            hash=Hash32(row["taskHash"]),
            number=row["number"],
            type=Hash32(task["taskType"]),
            input=str(task["input"]),
            set_hash=Hash32(task["setHash"]),
            submitted=_at(row),
            deadline=Deadline("block", task["deadline"]),
            grace=task["grace"],
            response_threshold=task["responseThreshold"],
            stake_threshold=task["stakeThreshold"],
            submitter=Address(row["submitter"]),
            preimage=preimage,
        ),
    )


def _responded(row: Values, network: Network) -> ChainEvent:
    return Responded(
        _at(row), Hash32(row["taskHash"]), Hash32(row["responseDigest"]), tuple(row["nonSigners"])
    )


def _attested(row: Values, network: Network) -> ChainEvent:
    digest, operator = Hash32(row["responseDigest"]), Address(row["operator"])
    return Attested(_at(row), Hash32(row["taskHash"]), operator, digest, row["kept"])


def _signed(row: Values, network: Network) -> ChainEvent:
    """A call of `attest`, whether it succeeded or not: a signature proves itself, and its sender alone can
    be accused by it."""
    response = encode_answer(row["answer"]["p"], row["answer"]["q"])
    return Signed(
        _at(row),
        Hash32(keccak(_task_preimage(row["task"]))),
        Address(row["sender"]),
        Hash32(keccak(response)),
        _g1(row["signature"]),
        response,
    )


def _set_committed(row: Values, network: Network) -> ChainEvent:
    members = [(m["operator"], word(m["key"]["x"]) + word(m["key"]["y"]), m["stake"]) for m in row["members"]]
    committed = operator_set(encode_members(members), asset="collateral")
    if committed.hash != row["setHash"]:
        raise AdapterError(f"OperatorSetCommitted at {_at(row)}: its setHash is not the hash of its members")
    return OperatorSetCommitted(_at(row), committed)


def _registered(row: Values, network: Network) -> ChainEvent:
    return OperatorRegistered(
        _at(row),
        Address(row["operator"]),
        _g1(row["key"]),
        _g2(row["keyG2"]),
        row["region"],
        row["validators"],
    )


_EVENTS: dict[str, dict[str, Callable[[Values, Network], ChainEvent]]] = {
    "operator_registry": {
        "OperatorRegistered": _registered,
        "KeyRotated": lambda row, network: KeyRotated(
            _at(row), Address(row["operator"]), _g1(row["key"]), _g2(row["keyG2"])
        ),
        "OperatorDeregistered": lambda row, network: OperatorDeregistered(
            _at(row), Address(row["operator"]), row["effectiveBlock"]
        ),
        "OperatorSetCommitted": _set_committed,
    },
    "task_manager": {
        "TaskSubmitted": _task_submitted,
        "Responded": _responded,
        "Attested": _attested,
        "TaskCancelled": lambda row, network: TaskCancelled(_at(row), Hash32(row["taskHash"])),
        "Paused": lambda row, network: Paused(_at(row)),
        "Unpaused": lambda row, network: Unpaused(_at(row)),
    },
}

"""What a client of the Network sees of the chain: open tasks and committed sets, right through reorgs.

A view keeps a snapshot for each recent block; states are immutable, so going back is dropping snapshots.
Clients act on the view of the newest head alone, so that whatever a reorg removed is simply due again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from immutables import Map

from devnet.chain import Chain, Contract, DevnetError, load_abi
from nektar.model import G1

# Deeper reorgs than this are below the devnet's finality many times over.
KEPT_SNAPSHOTS = 128


class SetMember(msgspec.Struct, frozen=True):
    operator: str
    key: tuple[int, int]
    stake: int

    @property
    def g1(self) -> G1:
        return G1(self.key[0].to_bytes(32, "big") + self.key[1].to_bytes(32, "big"))


class OpenTask(msgspec.Struct, frozen=True):
    """One task as the chain shows it at the head."""

    hash: bytes
    fields: tuple[Any, ...]  # the contract's Task struct, in its order
    submitted: int
    members: tuple[SetMember, ...]
    non_signers: frozenset[int] | None = None  # None: no response accepted yet
    attested: Map[str, frozenset[bytes]] = Map()  # operator → digests
    cancelled: bool = False
    challenged: bool = False  # the accepted response was refuted

    @property
    def input(self) -> int:
        return int(self.fields[1])

    @property
    def number(self) -> int:
        return int(self.fields[8])

    @property
    def deadline(self) -> int:
        return int(self.fields[4])

    @property
    def end(self) -> int:
        return self.deadline + int(self.fields[5])

    @property
    def thresholds(self) -> tuple[int, int]:
        """(responses, stake), in basis points."""
        return int(self.fields[6]), int(self.fields[7])

    def index(self, operator: str) -> int | None:
        """The operator's place in the set that the task committed to."""
        return next((i for i, m in enumerate(self.members) if m.operator == operator), None)

    def includes(self, operator: str) -> bool:
        """Whether the chain already shows a response of this operator."""
        return self.in_quorum(operator) or operator in self.attested

    def in_quorum(self, operator: str) -> bool:
        """Whether it is among the signers of the accepted response."""
        index = self.index(operator)
        return self.non_signers is not None and index is not None and index not in self.non_signers


class _State(msgspec.Struct, frozen=True):
    tasks: Map[bytes, OpenTask] = Map()
    sets: Map[bytes, tuple[SetMember, ...]] = Map()
    paused: bool = False


class View:
    """Follows the head of `chain`; `advance` brings it up to date."""

    def __init__(self, chain: Chain, contracts: Mapping[str, str]) -> None:
        self._chain = chain
        self._addresses = [contracts["task_manager"], contracts["operator_registry"]]
        self._contracts = Contract([*load_abi("task_manager"), *load_abi("operator_registry")])
        self._snapshots: list[tuple[int, str, _State]] = []

    @property
    def head(self) -> tuple[int, str]:
        """(number, hash) of the newest block seen."""
        number, block_hash, _ = self._snapshots[-1]
        return number, block_hash

    @property
    def tasks(self) -> list[OpenTask]:
        """Tasks whose grace is not over at the head, in the order of their hashes."""
        number, _ = self.head
        return sorted((t for t in self.known if t.end >= number), key=lambda t: t.hash)

    @property
    def known(self) -> list[OpenTask]:
        """These, and those that closed a while ago."""
        return list(self._snapshots[-1][2].tasks.values())

    @property
    def paused(self) -> bool:
        """Whether the Network is, at the head: then it takes no responses."""
        return self._snapshots[-1][2].paused

    def advance(self) -> bool:
        """Look at the chain; whether the head is another block than before."""
        head = self._block("latest")
        if not self._snapshots:
            logs = self._chain.rpc(
                "eth_getLogs", {"address": self._addresses, "fromBlock": "0x0", "toBlock": head["number"]}
            )
            self._push(head, self._apply(_State(), logs))
            return True
        if head["hash"] == self._snapshots[-1][1]:
            return False
        known = {block_hash: i for i, (_, block_hash, _) in enumerate(self._snapshots)}
        path = [head]
        while path[-1]["parentHash"] not in known:
            if len(path) > KEPT_SNAPSHOTS:
                raise DevnetError(
                    f"the chain left what this client knew more than {KEPT_SNAPSHOTS} blocks ago"
                )
            path.append(self._block(path[-1]["parentHash"]))
        del self._snapshots[known[path[-1]["parentHash"]] + 1 :]
        for block in reversed(path):
            logs = self._chain.rpc("eth_getLogs", {"address": self._addresses, "blockHash": block["hash"]})
            self._push(block, self._apply(self._snapshots[-1][2], logs, int(block["number"], 16)))
        return True

    def _block(self, which: str) -> dict[str, Any]:
        method = "eth_getBlockByHash" if len(which) == 66 else "eth_getBlockByNumber"
        block: dict[str, Any] | None = self._chain.rpc(method, which, False)
        if block is None:
            raise DevnetError(f"the chain has no block {which}")
        return block

    def _push(self, block: Mapping[str, Any], state: _State) -> None:
        self._snapshots.append((int(block["number"], 16), block["hash"], state))
        del self._snapshots[:-KEPT_SNAPSHOTS]

    def _apply(self, state: _State, logs: Sequence[Mapping[str, Any]], number: int | None = None) -> _State:
        tasks, sets, paused = state.tasks, state.sets, state.paused
        if number is not None:
            for closed in [h for h, t in tasks.items() if t.end + KEPT_SNAPSHOTS < number]:
                tasks = tasks.delete(closed)
        for log in logs:
            event = self._contracts.event(log)
            if event is None:
                continue
            name, args = event
            if name == "OperatorSetCommitted":
                members = tuple(SetMember(o, tuple(key), stake) for o, key, stake in args["members"])
                sets = sets.set(args["setHash"], members)
            elif name == "TaskSubmitted":
                fields = args["task"]
                submitted = OpenTask(args["taskHash"], fields, int(log["blockNumber"], 16), sets[fields[3]])
                tasks = tasks.set(submitted.hash, submitted)
            elif name in ("Paused", "Unpaused"):
                paused = name == "Paused"
            elif (task := tasks.get(args.get("taskHash", b""))) is not None:
                tasks = tasks.set(task.hash, _changed(task, name, args))
        return _State(tasks, sets, paused)


def _changed(task: OpenTask, name: str, args: Mapping[str, Any]) -> OpenTask:
    replace = msgspec.structs.replace
    if name == "Responded":
        return replace(task, non_signers=frozenset(args["nonSigners"]))
    if name == "Attested":
        before = task.attested.get(args["operator"], frozenset())
        after = before | {args["responseDigest"]}
        return replace(task, attested=task.attested.set(args["operator"], after))
    if name == "TaskCancelled":
        return replace(task, cancelled=True)
    if name == "ResponseChallenged":
        return replace(task, challenged=True)
    return task

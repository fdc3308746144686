"""A toy adapter: what EigenLayer's events mean in the model's terms (docs/MODEL.md), for tests alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eth_abi.abi import decode, encode
from eth_hash.auto import keccak

from nektar.model import (
    G1,
    G2,
    Address,
    At,
    ChainEvent,
    Deadline,
    Hash32,
    KeyRotated,
    Moment,
    Network,
    OperatorAdded,
    OperatorRemoved,
    Position,
    Responded,
    ResponseChallenged,
    SetAt,
    SlashingExecuted,
    SlashingRequested,
    SlashingVetoed,
    StakeChanged,
    Task,
    TaskSubmitted,
)
from nektar.networks.adapter import kind
from nektar.networks.encoding import word
from tests.nektar.foreign.chain import ABIS, Rows

BN254 = 2  # KeyRegistrar's CurveType
CERTIFICATE = (
    "(uint32,bytes32,(uint256,uint256),(uint256[2],uint256[2]),"
    "(uint32,bytes,((uint256,uint256),uint256[]))[])"
)


class EigenLayer:
    """One AVS: its own middleware contracts, and its part of the core's, which all share."""

    name = "eigenlayer"
    selector = frozenset({"avs"})
    terms = frozenset({"response_window", "veto_period"})

    def abi(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        return ABIS["eigenlayer"]

    def events(self, network: Network, tables: Mapping[str, bytes]) -> Sequence[ChainEvent]:
        addresses: dict[str, list[Address]] = {}
        for name, address in network.contracts.items():
            addresses.setdefault(kind(name), []).append(address)
        rows = Rows("eigenlayer", addresses, tables)
        avs = Address(bytes.fromhex(network.selector["avs"][2:]))
        found = [*_sets(rows, avs), *_tasks(rows, network, avs), *_mailbox(rows, avs)]
        return sorted((*found, *_slashings(rows, network, avs)), key=lambda event: event.at)


def set_key(avs: Address, number: int) -> Hash32:
    """OperatorSetLib.key, for quorums as for operator sets."""
    return Hash32(avs + number.to_bytes(12, "big"))


def numbered_task(network: Network, contract: Address, number: int) -> Hash32:
    """The identity of a Task that its contract knows by a number alone."""
    return Hash32(keccak(word(network.chain_id) + bytes(12) + contract + word(number)))


def _at(row: Mapping[str, Any]) -> At:
    return At(row["block_number"], row["tx_index"], row.get("log_index", -1))


def _g1(point: Mapping[str, int]) -> G1:
    return G1(word(point["X"]) + word(point["Y"]))


def _sets(rows: Rows, avs: Address) -> list[ChainEvent]:
    found: list[ChainEvent] = []
    for name, kind_ in (
        ("OperatorAddedToOperatorSet", OperatorAdded),
        ("OperatorRemovedFromOperatorSet", OperatorRemoved),
    ):
        for row in rows("allocation_manager", name):
            if row["operatorSet"]["avs"] == avs:
                key = set_key(avs, row["operatorSet"]["id"])
                found.append(kind_(_at(row), key, Address(row["operator"])))
    for row in rows("allocation_manager", "AllocationUpdated"):
        if row["operatorSet"]["avs"] == avs:
            key = set_key(avs, row["operatorSet"]["id"])
            position = Position("0x" + row["strategy"].hex(), row["magnitude"], "wad")
            effective = Moment("block", row["effectBlock"])
            found.append(StakeChanged(_at(row), key, Address(row["operator"]), position, effective))
    for row in rows("key_registrar", "KeyRegistered"):
        if row["operatorSet"]["avs"] == avs and row["curveType"] == BN254:
            key = row["pubkey"]
            found.append(KeyRotated(_at(row), Address(row["operator"]), G1(key[:64]), G2(key[64:])))
    for row in rows("apk_registry", "NewPubkeyRegistration"):
        twin = G2(b"".join(map(word, (*row["pubkeyG2"]["X"], *row["pubkeyG2"]["Y"]))))
        found.append(KeyRotated(_at(row), Address(row["operator"]), _g1(row["pubkeyG1"]), twin))
    for name, kind_ in (
        ("OperatorAddedToQuorums", OperatorAdded),
        ("OperatorRemovedFromQuorums", OperatorRemoved),
    ):
        for row in rows("apk_registry", name):
            operator = Address(row["operator"])
            found += (kind_(_at(row), set_key(avs, quorum), operator) for quorum in row["quorumNumbers"])
    for row in rows("stake_registry", "OperatorStakeUpdate"):
        at, key = _at(row), set_key(avs, row["quorumNumber"])
        position = Position("weight", row["stake"])
        effective = Moment("block", at.block)
        found.append(StakeChanged(at, key, Hash32(row["operatorId"]), position, effective))
    return found


def _tasks(rows: Rows, network: Network, avs: Address) -> list[ChainEvent]:
    """Of task managers made as incredible-squaring's is."""
    found: list[ChainEvent] = []
    for row in rows("task_manager", "NewTaskCreated"):
        task, at, manager = row["task"], _at(row), Address(row["address"])
        created = task["taskCreatedBlock"]
        sets = tuple(
            SetAt(set_key(avs, quorum), Moment("block", created)) for quorum in task["quorumNumbers"]
        )
        submitted = Task(
            hash=numbered_task(network, manager, row["taskIndex"]),
            number=row["taskIndex"],
            type=Hash32(bytes(12) + manager),
            input=str(task["numberToBeSquared"]),
            set_hash=_named(sets),
            submitted=at,
            deadline=Deadline("block", created + network.terms["response_window"]),
            grace=0,
            response_threshold=0,
            stake_threshold=task["quorumThresholdPercentage"] * 100,
            submitter=Address(bytes(20)),
            sets=sets,
        )
        found.append(TaskSubmitted(at, submitted))
    calls = {(row["block_number"], row["tx_index"]): row for row in rows("task_manager", "respondToTask")}
    for row in rows("task_manager", "TaskResponded"):
        response, at, manager = row["taskResponse"], _at(row), Address(row["address"])
        digest = Hash32(keccak(word(response["referenceTaskIndex"]) + word(response["numberSquared"])))
        call = calls.get((at.block, at.tx))
        keys: tuple[G1, ...] | None = None
        if call is not None and (call["address"], call["taskResponse"]) == (manager, response):
            keys = tuple(map(_g1, call["nonSignerStakesAndSignature"]["nonSignerPubkeys"]))
        task_hash = numbered_task(network, manager, response["referenceTaskIndex"])
        found.append(Responded(at, task_hash, digest, keys))
    for row in rows("task_manager", "TaskChallengedSuccessfully"):
        task_hash = numbered_task(network, Address(row["address"]), row["taskIndex"])
        found.append(ResponseChallenged(_at(row), task_hash))
    return found


def _mailbox(rows: Rows, avs: Address) -> list[ChainEvent]:
    found: list[ChainEvent] = []
    for row in rows("task_mailbox", "TaskCreated"):
        if row["avs"] != avs:
            continue
        at, captured = _at(row), Moment("timestamp", row["operatorTableReferenceTimestamp"])
        sets = (SetAt(set_key(avs, row["executorOperatorSetId"]), captured),)
        task = Task(
            hash=Hash32(row["taskHash"]),
            number=0,
            type=Hash32(bytes(12) + row["address"]),
            input="0x" + row["payload"].hex(),
            set_hash=_named(sets),
            submitted=at,
            deadline=Deadline("timestamp", row["taskDeadline"]),
            grace=0,
            response_threshold=0,
            stake_threshold=0,
            submitter=Address(row["creator"]),
            sets=sets,
        )
        found.append(TaskSubmitted(at, task))
    for row in rows("task_mailbox", "TaskVerified"):
        if row["avs"] == avs:
            task_hash = Hash32(row["taskHash"])
            digest = Hash32(keccak(encode(["bytes32", "bytes"], [task_hash, row["result"]])))
            ((_, _, _, _, witnesses),) = decode([CERTIFICATE], row["executorCert"])
            found.append(Responded(_at(row), task_hash, digest, tuple(w[0] for w in witnesses)))
    return found


def _slashings(rows: Rows, network: Network, avs: Address) -> list[ChainEvent]:
    found: list[ChainEvent] = []
    for row in rows("slasher", "SlashingRequested"):
        ends = row["block_time"] + network.terms["veto_period"] - 1  # its end is the first to execute
        requested = SlashingRequested(
            at=_at(row),
            slasher=Address(row["address"]),
            request=Hash32(word(row["requestId"])),
            operator=Address(row["operator"]),
            penalty=tuple(Position("", wad, "wad") for wad in row["wadsToSlash"]),
            veto_deadline=Deadline("timestamp", ends),
            condition=row["description"],
            set=set_key(avs, row["operatorSetId"]),
        )
        found.append(requested)
    for row in rows("slasher", "SlashingRequestCancelled"):
        found.append(SlashingVetoed(_at(row), Address(row["address"]), Hash32(word(row["requestId"]))))
    for row in rows("allocation_manager", "OperatorSlashed"):
        if row["operatorSet"]["avs"] == avs:
            executed = SlashingExecuted(
                at=_at(row),
                slasher=Address(row["address"]),
                request=None,
                operator=Address(row["operator"]),
                penalty=tuple(
                    Position("0x" + strategy.hex(), wad, "wad")
                    for strategy, wad in zip(row["strategies"], row["wadSlashed"], strict=True)
                ),
                condition=row["description"],
                set=set_key(avs, row["operatorSet"]["id"]),
            )
            found.append(executed)
    return found


def _named(sets: Sequence[SetAt]) -> Hash32:
    return Hash32(keccak(b"".join(each.set + word(each.at.value) for each in sets)))

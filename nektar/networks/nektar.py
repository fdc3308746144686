"""What the reference contracts' events and calls mean (`devnet/contracts`; interface in docs/DESIGN.md).

Rows of a table become events one by one, from no more of its columns than their meaning needs: the
calldata of an attestation holds the whole OperatorSet, which nobody has to read a thousand times.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from nektar.arrow import pa
from nektar.chain.abi import load
from nektar.chain.keccak import keccak
from nektar.chain.table import values
from nektar.model import (
    G1,
    G2,
    Address,
    At,
    Attested,
    ChainEvent,
    CollateralOpened,
    Deadline,
    Delegated,
    Hash32,
    KeyRotated,
    MissCounted,
    Network,
    NetworkListed,
    OperatorDeregistered,
    OperatorRegistered,
    OperatorSetCommitted,
    Paused,
    Position,
    Rejected,
    Responded,
    ResponseChallenged,
    Signed,
    Slashed,
    SlashingExecuted,
    SlashingRequested,
    SlashingTrusted,
    SlashingVetoed,
    Task,
    TaskCancelled,
    TaskSubmitted,
    Unpaused,
    VetoVoted,
    WithdrawalRequested,
    Withdrawn,
)
from nektar.networks.adapter import AdapterError, kind
from nektar.networks.encoding import encode_answer, encode_members, encode_task, operator_set, word

Values = Mapping[str, Any]


class Meaning(NamedTuple):
    """What rows of a table mean, where the contract of this name is behind them."""

    contract: str
    name: str  # of the event, or of the function
    columns: tuple[str, ...]  # arguments that it needs
    events: Callable[[At, Values], Sequence[ChainEvent]]


class NektarNetwork:
    """The adapter `nektar`.

    `selector.network` is the Network's id in the registry: without it, nobody knows its Burner. Of `terms`,
    `slashing_window` is SlashingManager's: without it, nobody knows for which offences it has passed.
    """

    name = "nektar"
    selector = frozenset({"network"})
    # Of the SlashingManager: misses that are no offence, the blocks of the window in which Tasks of misses
    # are submitted, and those in which an offence can be proved; of the Delegation: a member's least stake;
    # of the TaskManager: most blocks from a Task's submission to the end of its grace.
    terms = frozenset({"miss_allowance", "miss_window", "slashing_window", "minimum", "max_duration"})

    def __init__(self) -> None:
        text = Path(__file__).with_name("nektar.abi.json").read_bytes()
        self._abi: dict[str, list[dict[str, Any]]] = json.loads(text)
        contracts = {name: load(abi) for name, abi in self._abi.items()}
        self._meanings: dict[str, list[Meaning]] = {}  # several where contracts share an event
        for meaning in _EVENTS:
            table = contracts[meaning.contract].event(meaning.name).table
            self._meanings.setdefault(table, []).append(meaning)
        for meaning in _CALLS:
            table = contracts[meaning.contract].function(meaning.name).table
            self._meanings.setdefault(table, []).append(meaning)

    def abi(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Contract name → its ABI."""
        return self._abi

    def events(self, network: Network, tables: Mapping[str, bytes]) -> Sequence[ChainEvent]:
        """What the rows mean, in the chain's order. Raises AdapterError for what no contract of this flavour
        can have emitted, for a table that can't be read, and for a `selector.network` that is no id."""
        ours = _id(network)
        found: list[tuple[At, ChainEvent]] = []
        for table, stream in tables.items():
            for meaning in self._meanings.get(table, ()):
                addresses = {at for name, at in network.contracts.items() if kind(name) == meaning.contract}
                places = _CALL_PLACE if table.startswith("call_") else _EVENT_PLACE
                try:
                    for row in values(stream, (*places, *meaning.columns)):
                        if row["address"] in addresses:
                            at = At(row["block_number"], row["tx_index"], row.get("log_index", -1))
                            found += ((at, event) for event in meaning.events(at, row))
                except (pa.ArrowException, KeyError) as error:
                    raise AdapterError(
                        f"{table}: expected a table as the indexer writes it; got one that can't be read "
                        f"({' '.join(str(error).split())})"
                    ) from error
        found.sort(key=_place)
        # Other Networks are listed in the same registry.
        return [e for _, e in found if not isinstance(e, NetworkListed) or e.network == ours]


def _id(network: Network) -> bytes | None:
    """The Network's id in the registry, where the configuration says it."""
    if (said := network.selector.get("network")) is None:
        return None
    if not re.fullmatch("0x[0-9a-fA-F]{64}", said):
        raise AdapterError(
            f"networks.{network.name}.selector.network: expected 0x and 64 hex digits; got {said!r}"
        )
    return bytes.fromhex(said[2:])


def _place(found: tuple[At, ChainEvent]) -> At:
    return found[0]


_COLLATERAL = "collateral"  # the one token that Operators put up
_BOND_BREACH = keccak(b"bond_breach")  # the condition with a set's hash in the place of a Task's
_EVENT_PLACE = ("address", "block_number", "tx_index", "log_index")
_CALL_PLACE = ("address", "block_number", "tx_index", "tx_hash", "sender", "status")


# --- structs ----------------------------------------------------------------------------------------


def _g1(point: Values) -> G1:
    return G1(word(point["x"]) + word(point["y"]))


def _g2(point: Values) -> G2:
    return G2(b"".join(word(c) for c in (*point["x"], *point["y"])))


_TASK = (
    *("taskType", "input", "parentHash", "setHash", "deadline", "grace"),
    *("responseThreshold", "stakeThreshold", "number"),
)


def _task_preimage(task: Values) -> bytes:
    return encode_task([task[name] for name in _TASK])


# --- events -----------------------------------------------------------------------------------------


def _registered(at: At, row: Values) -> Sequence[ChainEvent]:
    operator, key, twin = Address(row["operator"]), _g1(row["key"]), _g2(row["keyG2"])
    return (OperatorRegistered(at, operator, key, twin, row["region"], row["validators"]),)


def _rotated(at: At, row: Values) -> Sequence[ChainEvent]:
    return (KeyRotated(at, Address(row["operator"]), _g1(row["key"]), _g2(row["keyG2"])),)


def _deregistered(at: At, row: Values) -> Sequence[ChainEvent]:
    return (OperatorDeregistered(at, Address(row["operator"]), row["effectiveBlock"]),)


def _set_committed(at: At, row: Values) -> Sequence[ChainEvent]:
    members = [(each["operator"], _g1(each["key"]), each["stake"]) for each in row["members"]]
    committed = operator_set(encode_members(members), asset=_COLLATERAL)
    if committed.hash != row["setHash"]:
        raise AdapterError(
            f"OperatorSetCommitted in block {at.block}: expected the hash of its members, "
            f"0x{committed.hash.hex()}; got 0x{row['setHash'].hex()}. Is operator_registry of this flavour?"
        )
    return (OperatorSetCommitted(at, committed),)


def _owned(at: At, row: Values) -> Sequence[ChainEvent]:
    """By nobody before: that is said in the contract's making and never again (OpenZeppelin's Ownable)."""
    return () if any(row["previousOwner"]) else (CollateralOpened(at),)


def _delegated(at: At, row: Values) -> Sequence[ChainEvent]:
    return (Delegated(at, Address(row["operator"]), row["amount"]),)


def _withdrawal_requested(at: At, row: Values) -> Sequence[ChainEvent]:
    return (WithdrawalRequested(at, row["withdrawalId"], Address(row["operator"]), row["amount"]),)


def _withdrawn(at: At, row: Values) -> Sequence[ChainEvent]:
    return (Withdrawn(at, row["withdrawalId"], row["amount"]),)


def _slashed(at: At, row: Values) -> Sequence[ChainEvent]:
    return (Slashed(at, Address(row["operator"]), row["amount"]),)


def _task_submitted(at: At, row: Values) -> Sequence[ChainEvent]:
    task, preimage = row["task"], _task_preimage(row["task"])
    if (task_hash := keccak(preimage)) != row["taskHash"]:
        raise AdapterError(
            f"TaskSubmitted in block {at.block}: expected the hash of its task, 0x{task_hash.hex()}; "
            f"got 0x{row['taskHash'].hex()}. Is task_manager of this flavour?"
        )
    submitted = Task(
        hash=Hash32(task_hash),
        number=task["number"],
        type=Hash32(task["taskType"]),
        input=str(task["input"]),
        set_hash=Hash32(task["setHash"]),
        submitted=at,
        deadline=Deadline("block", task["deadline"]),
        grace=task["grace"],
        response_threshold=task["responseThreshold"],
        stake_threshold=task["stakeThreshold"],
        submitter=Address(row["submitter"]),
        preimage=preimage,
    )
    return (TaskSubmitted(at, submitted),)


def _responded(at: At, row: Values) -> Sequence[ChainEvent]:
    answer = row["answer"]
    responded = Responded(
        at=at,
        task_hash=Hash32(row["taskHash"]),
        digest=Hash32(row["responseDigest"]),
        non_signers=tuple(row["nonSigners"]),
        challenge_deadline=row["challengeDeadline"],
        response=encode_answer(answer["p"], answer["q"]),
        signature=_g1(row["signature"]),
        apk_g2=_g2(row["apkG2"]),
    )
    return (responded,)


def _challenged(at: At, row: Values) -> Sequence[ChainEvent]:
    return (ResponseChallenged(at, Hash32(row["taskHash"])),)


def _attested(at: At, row: Values) -> Sequence[ChainEvent]:
    """Beside what it says, the signature: of an Operator that is a contract, no call is seen."""
    task_hash, operator = Hash32(row["taskHash"]), Address(row["operator"])
    digest, answer = Hash32(row["responseDigest"]), row["answer"]
    response = encode_answer(answer["p"], answer["q"])
    return (
        Attested(at, task_hash, operator, digest, row["kept"]),
        Signed(at, task_hash, operator, digest, _g1(row["signature"]), response),
    )


def _cancelled(at: At, row: Values) -> Sequence[ChainEvent]:
    return (TaskCancelled(at, Hash32(row["taskHash"])),)


def _slashing_requested(at: At, row: Values, proved: bool) -> Sequence[ChainEvent]:
    of_bond = row["condition"] == _BOND_BREACH
    requested = SlashingRequested(
        at=at,
        slasher=Address(row["address"]),
        request=Hash32(row["requestId"]),
        operator=Address(row["operator"]),
        penalty=(Position(_COLLATERAL, row["amount"]),),
        veto_deadline=Deadline("block", row["vetoDeadline"]),
        condition="0x" + row["condition"].hex(),
        task_hash=None if of_bond else Hash32(row["taskHash"]),
        execution_deadline=Deadline("block", row["executionDeadline"]),
        proved=proved,
        set_hash=Hash32(row["taskHash"]) if of_bond else None,
    )
    return (requested,)


def _miss_counted(at: At, row: Values) -> Sequence[ChainEvent]:
    slasher, request = Address(row["address"]), Hash32(row["requestId"])
    return (MissCounted(at, slasher, request, Hash32(row["taskHash"]), Address(row["operator"])),)


def _requested_on_trust(at: At, row: Values) -> Sequence[ChainEvent]:
    slasher, request, receiver = Address(row["address"]), Hash32(row["requestId"]), Address(row["receiver"])
    return (SlashingTrusted(at, slasher, request, Address(row["authority"]), receiver, row["evidence"]),)


def _veto_voted(at: At, row: Values) -> Sequence[ChainEvent]:
    slasher, request, member = Address(row["target"]), Hash32(row["requestId"]), Address(row["member"])
    return (VetoVoted(at, slasher, request, member, row["votes"], row["threshold"]),)


def _slashing_vetoed(at: At, row: Values) -> Sequence[ChainEvent]:
    return (SlashingVetoed(at, Address(row["address"]), Hash32(row["requestId"])),)


def _slashing_executed(at: At, row: Values) -> Sequence[ChainEvent]:
    executed = SlashingExecuted(
        at=at,
        slasher=Address(row["address"]),
        request=Hash32(row["requestId"]),
        operator=Address(row["operator"]),
        penalty=(Position(_COLLATERAL, row["amount"]),),
        receiver=Address(row["receiver"]),
    )
    return (executed,)


def _listed(at: At, row: Values) -> Sequence[ChainEvent]:
    return (NetworkListed(at, Hash32(row["network_"]), Address(row["builder"]), Address(row["burner"])),)


def _attest(at: At, row: Values) -> Sequence[ChainEvent]:
    """A call of `attest`, whether it succeeded or not: a signature proves itself, and its sender alone can
    be accused by it."""
    task_hash, answer = Hash32(keccak(_task_preimage(row["task"]))), row["answer"]
    response, signature = encode_answer(answer["p"], answer["q"]), _g1(row["signature"])
    digest, sender = Hash32(keccak(response)), Address(row["sender"])
    signed = Signed(at, task_hash, sender, digest, signature, response)
    if row["status"] is not False:  # of a block without receipts nobody knows
        return (signed,)
    transaction = Hash32(row["tx_hash"])
    return (
        signed,
        Rejected(at, transaction, sender, task_hash, digest, row["index"], response, signature),
    )


def _respond(at: At, row: Values) -> Sequence[ChainEvent]:
    """A call of `respond` that was refused; what others made is an event."""
    if row["status"] is not False:
        return ()
    task_hash, answer = Hash32(keccak(_task_preimage(row["task"]))), row["answer"]
    response = encode_answer(answer["p"], answer["q"])
    transaction, sender = Hash32(row["tx_hash"]), Address(row["sender"])
    return (Rejected(at, transaction, sender, task_hash, Hash32(keccak(response)), response=response),)


_REGISTRY, _TASKS, _COLLATERALS = "operator_registry", "task_manager", "delegation"
_PROVED, _TRUSTED = "slashing_manager", "trusted_slasher"
_REQUESTED = (
    *("requestId", "condition", "operator", "taskHash", "amount"),
    *("vetoDeadline", "executionDeadline"),
)
_EVENTS = (
    Meaning(
        *(_REGISTRY, "OperatorRegistered"), ("operator", "key", "keyG2", "region", "validators"), _registered
    ),
    Meaning(_REGISTRY, "KeyRotated", ("operator", "key", "keyG2"), _rotated),
    Meaning(_REGISTRY, "OperatorDeregistered", ("operator", "effectiveBlock"), _deregistered),
    Meaning(_REGISTRY, "OperatorSetCommitted", ("setHash", "members"), _set_committed),
    Meaning(_COLLATERALS, "OwnershipTransferred", ("previousOwner",), _owned),
    Meaning(_COLLATERALS, "Delegated", ("operator", "amount"), _delegated),
    Meaning(
        *(_COLLATERALS, "WithdrawalRequested"),
        ("withdrawalId", "operator", "amount"),
        _withdrawal_requested,
    ),
    Meaning(_COLLATERALS, "Withdrawn", ("withdrawalId", "amount"), _withdrawn),
    Meaning(_COLLATERALS, "Slashed", ("operator", "amount"), _slashed),
    Meaning(_TASKS, "TaskSubmitted", ("taskHash", "submitter", "task"), _task_submitted),
    Meaning(
        *(_TASKS, "Responded"),
        ("taskHash", "responseDigest", "answer", "nonSigners", "signature", "apkG2", "challengeDeadline"),
        _responded,
    ),
    Meaning(_TASKS, "ResponseChallenged", ("taskHash",), _challenged),
    Meaning(
        *(_TASKS, "Attested"),
        ("taskHash", "operator", "responseDigest", "answer", "signature", "kept"),
        _attested,
    ),
    Meaning(_TASKS, "TaskCancelled", ("taskHash",), _cancelled),
    Meaning(_TASKS, "Paused", (), lambda at, row: (Paused(at),)),
    Meaning(_TASKS, "Unpaused", (), lambda at, row: (Unpaused(at),)),
    Meaning(_PROVED, "SlashingRequested", _REQUESTED, partial(_slashing_requested, proved=True)),
    Meaning(_TRUSTED, "SlashingRequested", _REQUESTED, partial(_slashing_requested, proved=False)),
    Meaning(
        *(_TRUSTED, "RequestedOnTrust"),
        ("requestId", "authority", "receiver", "evidence"),
        _requested_on_trust,
    ),
    Meaning(_PROVED, "MissCounted", ("requestId", "taskHash", "operator"), _miss_counted),
    *(Meaning(each, "SlashingVetoed", ("requestId",), _slashing_vetoed) for each in (_PROVED, _TRUSTED)),
    *(
        Meaning(each, "SlashingExecuted", ("requestId", "operator", "amount", "receiver"), _slashing_executed)
        for each in (_PROVED, _TRUSTED)
    ),
    Meaning(
        *("veto_committee", "VetoVoted"), ("target", "requestId", "member", "votes", "threshold"), _veto_voted
    ),
    Meaning("network_registry", "NetworkListed", ("network_", "builder", "burner"), _listed),
)
_CALLS = (
    Meaning(_TASKS, "attest", ("task", "answer", "index", "signature"), _attest),
    Meaning(_TASKS, "respond", ("task", "answer"), _respond),
)

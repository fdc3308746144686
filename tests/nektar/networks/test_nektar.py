"""What the reference contracts' rows mean."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak

from nektar import plugins
from nektar.chain.abi import load
from nektar.chain.table import write_table
from nektar.config import ConfigError, NetworkConfig
from nektar.model import (
    G1,
    G2,
    Address,
    At,
    Attested,
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
    TaskCancelled,
    TaskSubmitted,
    Unpaused,
    VetoVoted,
    WithdrawalRequested,
    Withdrawn,
)
from nektar.networks.adapter import AdapterError, require_known
from nektar.networks.encoding import BadEncoding, encode_members, operator_set, set_hash_of
from nektar.networks.nektar import NektarNetwork

ADAPTER = NektarNetwork()
REGISTRY, TASKS, OTHER, SLASHER, TRUSTED, COMMITTEE, LISTS, BONDS = (
    Address(bytes([c]) * 20) for c in range(1, 9)
)
CONTRACTS = {
    **{"operator_registry": REGISTRY, "task_manager": TASKS, "slashing_manager": SLASHER},
    **{"trusted_slasher": TRUSTED, "veto_committee": COMMITTEE, "network_registry": LISTS},
    "delegation": BONDS,
}
ID = Hash32(b"n" * 32)
NETWORK = Network("home", 31337, CONTRACTS, selector={"network": "0x" + "6E" * 32})
ALICE, BOB = (Address(bytes([c]) * 20) for c in (0xA1, 0xB0))
# As eth_abi takes a Task: taskType, input, parentHash, setHash, deadline, grace, two thresholds, number.
TASK = (b"t" * 32, 91, b"p" * 32, b"s" * 32, 40, 3, 6700, 5000, 2**40)
TASK_ABI = "(bytes32,uint256,bytes32,bytes32,uint64,uint64,uint16,uint16,uint64)"
TASK_HASH = keccak(encode([TASK_ABI], [TASK]))
ANSWER = {"p": 7, "q": 2**255}
DIGEST = keccak(encode(["(uint256,uint256)"], [(7, 2**255)]))


def named_task() -> dict[str, Any]:
    names = ("taskType", "input", "parentHash", "setHash", "deadline", "grace")
    return dict(zip((*names, "responseThreshold", "stakeThreshold", "number"), TASK, strict=True))


def table(contract: str, name: str, *rows: Mapping[str, Any]) -> dict[str, bytes]:
    """The table of this event, or of this function, with these rows."""
    abi = load(ADAPTER.abi()[contract])
    known = [each for each in (*abi.events, *abi.functions) if each.name == name]
    schema = known[0].schema
    empty = {"block_number": 9, "block_hash": bytes(32), "block_time": 0, "tx_index": 0, "tx_hash": bytes(32)}
    empty |= {"log_index": 0, "address": CONTRACTS[contract]}
    empty |= {"sender": ALICE, "value": 0, "status": False, "revert": None}
    columns = [
        pa.array([_arrow((empty | dict(row)).get(f.name), f) for row in rows], type=f.type) for f in schema
    ]
    return {known[0].table: write_table(pa.record_batch(columns, schema=schema))}


def _arrow(value: Any, field: pa.Field) -> Any:
    if pa.types.is_struct(field.type):
        return {each.name: _arrow((value or {}).get(each.name), each) for each in field.type}
    if pa.types.is_list(field.type):
        return [_arrow(each, field.type.value_field) for each in value or []]
    if value is None and not field.nullable:
        value = False if pa.types.is_boolean(field.type) else 0
    if pa.types.is_fixed_size_binary(field.type) and isinstance(value, int):
        return value.to_bytes(field.type.byte_width, "little")
    return value


def meaning(contract: str, name: str, row: Mapping[str, Any]) -> Any:
    (event,) = ADAPTER.events(NETWORK, table(contract, name, row))
    return event


def test_the_adapter_is_found_by_its_name() -> None:
    assert plugins.load("nektar.networks", "nektar") is NektarNetwork
    assert set(NETWORK.contracts) <= set(ADAPTER.abi())


def test_what_the_registry_says() -> None:
    key = {"x": 1, "y": 2}
    twin = {"x": [3, 4], "y": [5, 6]}
    g1 = G1(encode(["uint256[2]"], [[1, 2]]))
    g2 = G2(encode(["uint256[4]"], [[3, 4, 5, 6]]))
    at = At(9, 0, 4)
    row = {"operator": ALICE, "key": key, "keyG2": twin, "log_index": 4}
    assert meaning(
        "operator_registry", "OperatorRegistered", row | {"region": "eu", "validators": 3}
    ) == OperatorRegistered(at, ALICE, g1, g2, "eu", 3)
    assert meaning("operator_registry", "KeyRotated", row) == KeyRotated(at, ALICE, g1, g2)
    left = meaning("operator_registry", "OperatorDeregistered", {"operator": ALICE, "effectiveBlock": 10})
    assert left == OperatorDeregistered(At(9, 0, 0), ALICE, 10)


def test_what_the_collateral_says() -> None:
    at, amount = At(9, 0, 0), 2**200
    about = {"operator": ALICE, "delegator": BOB, "amount": amount, "withdrawalId": 7}
    assert meaning("delegation", "Delegated", about) == Delegated(at, ALICE, amount)
    asked = about | {"readyBlock": 99}
    assert meaning("delegation", "WithdrawalRequested", asked) == WithdrawalRequested(at, 7, ALICE, amount)
    assert meaning("delegation", "Withdrawn", about) == Withdrawn(at, 7, amount)
    assert meaning("delegation", "Slashed", about | {"burner": OTHER}) == Slashed(at, ALICE, amount)


def test_only_the_contracts_making_begins_what_is_known_of_collateral() -> None:
    def owned(contract: str, before: Address) -> list[Any]:
        row = {"previousOwner": before, "newOwner": BOB}
        return list(ADAPTER.events(NETWORK, table(contract, "OwnershipTransferred", row)))

    nobody = Address(bytes(20))
    assert owned("delegation", nobody) == [CollateralOpened(At(9, 0, 0))]
    assert owned("delegation", ALICE) == []
    assert owned("task_manager", nobody) == []


def test_a_committed_set_keeps_what_its_hash_is_of() -> None:
    members = [(ALICE, (1, 2), 10**21), (BOB, (3, 4), 5)]
    preimage = encode(["(address,(uint256,uint256),uint256)[]"], [members])
    named = [{"operator": o, "key": {"x": x, "y": y}, "stake": s} for o, (x, y), s in members]
    row = {"setHash": keccak(preimage), "setNumber": 1, "members": named}
    event = meaning("operator_registry", "OperatorSetCommitted", row)
    assert isinstance(event, OperatorSetCommitted)
    assert (event.set.hash, event.set.preimage) == (keccak(preimage), preimage)
    assert [(m.operator, m.stake) for m in event.set.members] == [
        (ALICE, (Position("collateral", 10**21),)),
        (BOB, (Position("collateral", 5),)),
    ]
    with pytest.raises(AdapterError, match="expected the hash of its members"):
        meaning("operator_registry", "OperatorSetCommitted", row | {"setHash": bytes(32)})


def test_a_task_keeps_what_its_hash_is_of() -> None:
    row = {"taskHash": TASK_HASH, "number": TASK[8], "submitter": BOB, "task": named_task()}
    event = meaning("task_manager", "TaskSubmitted", row)
    assert isinstance(event, TaskSubmitted)
    task = event.task
    assert (task.hash, task.preimage) == (TASK_HASH, encode([TASK_ABI], [TASK]))
    assert (task.number, task.input, task.set_hash, task.submitter) == (2**40, "91", b"s" * 32, BOB)
    assert (task.deadline, task.grace, task.submitted) == (Deadline("block", 40), 3, At(9, 0, 0))
    assert set_hash_of(task.preimage) == task.set_hash
    with pytest.raises(AdapterError, match="expected the hash of its task"):
        meaning("task_manager", "TaskSubmitted", row | {"taskHash": bytes(32)})


def test_what_the_task_manager_says() -> None:
    about = {"taskHash": TASK_HASH}
    responded = about | {"responseDigest": DIGEST, "nonSigners": [0, 5], "challengeDeadline": 2**63}
    sums = {"answer": ANSWER, "signature": {"x": 8, "y": 9}, "apkG2": {"x": [3, 4], "y": [5, 6]}}
    at = At(9, 0, 0)
    assert meaning("task_manager", "Responded", responded | sums) == Responded(
        *(at, TASK_HASH, DIGEST, (0, 5), 2**63),
        response=encode(["uint256[2]"], [[7, 2**255]]),
        signature=G1(encode(["uint256[2]"], [[8, 9]])),
        apk_g2=G2(encode(["uint256[4]"], [[3, 4, 5, 6]])),
    )
    challenged = about | {"divisor": 7, "challenger": BOB}
    assert meaning("task_manager", "ResponseChallenged", challenged) == ResponseChallenged(at, TASK_HASH)
    assert meaning("task_manager", "TaskCancelled", about) == TaskCancelled(at, TASK_HASH)
    assert meaning("task_manager", "Paused", {"account": BOB}) == Paused(at)
    assert meaning("task_manager", "Unpaused", {"account": BOB}) == Unpaused(at)


def test_an_attestation_shows_its_signature_in_the_event_and_in_the_call() -> None:
    signature = {"x": 8, "y": 9}
    signed = Signed(
        *(At(9, 0, 2), TASK_HASH, ALICE, DIGEST, G1(encode(["uint256[2]"], [[8, 9]]))),
        encode(["uint256[2]"], [[7, 2**255]]),
    )
    row = {"taskHash": TASK_HASH, "operator": ALICE, "responseDigest": DIGEST, "answer": ANSWER}
    events = ADAPTER.events(
        NETWORK,
        table("task_manager", "Attested", row | {"signature": signature, "kept": True, "log_index": 2}),
    )
    assert events == [Attested(At(9, 0, 2), TASK_HASH, ALICE, DIGEST, True), signed]
    call = {"task": named_task(), "answer": ANSWER, "signature": signature, "members": [], "index": 0}
    for status in (True, False, None):
        event, *more = ADAPTER.events(NETWORK, table("task_manager", "attest", call | {"status": status}))
        assert event == msgspec.structs.replace(signed, at=At(9, 0, -1))
        assert len(more) == (status is False)


def test_a_response_that_was_refused_says_who_sent_it_and_what_it_holds() -> None:
    response, signature = encode(["uint256[2]"], [[7, 2**255]]), {"x": 8, "y": 9}
    call = {"task": named_task(), "answer": ANSWER, "signature": signature, "index": 3, "tx_hash": b"x" * 32}
    alone = Rejected(
        *(At(9, 0, -1), Hash32(b"x" * 32), ALICE, TASK_HASH, DIGEST, 3, response),
        signature=G1(encode(["uint256[2]"], [[8, 9]])),
    )
    assert ADAPTER.events(NETWORK, table("task_manager", "attest", call))[1:] == [alone]
    of_quorum = msgspec.structs.replace(alone, index=None, signature=G1(b""))
    assert ADAPTER.events(NETWORK, table("task_manager", "respond", call)) == [of_quorum]
    for status in (True, None):
        assert ADAPTER.events(NETWORK, table("task_manager", "respond", call | {"status": status})) == []


@pytest.mark.parametrize(
    ("contract", "slasher", "proved"),
    [("slashing_manager", SLASHER, True), ("trusted_slasher", TRUSTED, False)],
)
def test_what_slashers_say(contract: str, slasher: Address, proved: bool) -> None:
    at, request, amount = At(9, 0, 0), Hash32(b"r" * 32), (Position("collateral", 2**200),)
    row = {
        **{"requestId": request, "condition": b"c" * 32, "operator": ALICE, "taskHash": TASK_HASH},
        **{"amount": 2**200, "vetoDeadline": 12, "executionDeadline": 15},
    }
    assert meaning(contract, "SlashingRequested", row) == SlashingRequested(
        *(at, slasher, request, ALICE, amount, Deadline("block", 12)),
        *("0x" + "63" * 32, Hash32(TASK_HASH)),
        execution_deadline=Deadline("block", 15),
        proved=proved,
    )
    of_no_task = row | {"condition": keccak(b"bond_breach")}
    breach = meaning(contract, "SlashingRequested", of_no_task)
    assert (breach.task_hash, breach.set_hash) == (None, TASK_HASH)
    if proved:
        counted = meaning(contract, "MissCounted", row)
        assert counted == MissCounted(at, slasher, request, Hash32(TASK_HASH), ALICE)
    vetoed = meaning(contract, "SlashingVetoed", {"requestId": request})
    assert vetoed == SlashingVetoed(at, slasher, request)
    executed = meaning(contract, "SlashingExecuted", row | {"receiver": BOB})
    assert executed == SlashingExecuted(at, slasher, request, ALICE, amount, receiver=BOB)


def test_what_is_said_of_a_request_on_trust_and_of_votes() -> None:
    at, request = At(9, 0, 0), Hash32(b"r" * 32)
    told = {"requestId": request, "authority": BOB, "receiver": OTHER, "evidence": b"look"}
    trusted = meaning("trusted_slasher", "RequestedOnTrust", told)
    assert trusted == SlashingTrusted(at, TRUSTED, request, BOB, OTHER, b"look")
    voted = {"target": TRUSTED, "requestId": request, "member": BOB, "votes": 1, "threshold": 2}
    assert meaning("veto_committee", "VetoVoted", voted) == VetoVoted(at, TRUSTED, request, BOB, 1, 2)


def test_the_burner_is_known_of_the_network_that_the_configuration_names_and_of_no_other() -> None:
    at, listed = At(9, 0, 0), {"network_": ID, "builder": ALICE, "burner": BOB}
    assert meaning("network_registry", "NetworkListed", listed) == NetworkListed(at, ID, ALICE, BOB)
    rows = table("network_registry", "NetworkListed", listed | {"network_": b"m" * 32})
    assert ADAPTER.events(NETWORK, rows) == []
    rows = table("network_registry", "NetworkListed", listed)
    assert ADAPTER.events(Network("home", 31337, CONTRACTS), rows) == []
    for odd in ("", "0x6e", "6e" * 32, "0x" + "6g" * 32):
        with pytest.raises(AdapterError, match=r"networks.home.selector.network: expected 0x and 64 hex"):
            ADAPTER.events(Network("home", 31337, CONTRACTS, selector={"network": odd}), {})


def test_several_contracts_of_one_kind_are_told_apart_after_a_slash() -> None:
    several = Network("home", 31337, {"task_manager/old": OTHER, "task_manager/new": TASKS})
    rows = [{"account": BOB, "address": each, "log_index": i} for i, each in enumerate((OTHER, TASKS, BOB))]
    found = ADAPTER.events(several, table("task_manager", "Paused", *rows))
    assert found == [Paused(At(9, 0, 0)), Paused(At(9, 0, 1))]


def test_names_that_the_adapter_does_not_know_are_refused() -> None:
    def configured(**settings: Any) -> NetworkConfig:
        address = "0x" + "11" * 20
        contracts = {"task_manager": address, "task_manager/old": address}
        settings = {"contracts": contracts, "name": "home", "chain_id": 1, "rpc": ("mine",)} | settings
        return NetworkConfig(**settings)

    require_known(configured(), ADAPTER)
    for settings, says in (
        ({"contracts": {"taskmanager/old": "0x" + "11" * 20}}, "contracts: expected names .* task_manager.*"),
        ({"selector": {"avs": "0x" + "11" * 20}}, r"selector: .* knows \(network\); got 'avs'"),
        ({"terms": {"veto_period": 3}}, r"terms: .* knows \(max_duration, .*\); got 'veto_period'"),
    ):
        with pytest.raises(ConfigError, match=says):
            require_known(configured(**settings), ADAPTER)


def test_a_contract_that_is_not_configured_means_nothing() -> None:
    row = {"account": BOB, "address": OTHER}
    assert ADAPTER.events(NETWORK, table("task_manager", "Paused", row)) == []
    assert ADAPTER.events(Network("bare", 1, {}), table("task_manager", "Paused", {"account": BOB})) == []
    assert ADAPTER.events(NETWORK, {"event_of_another_0badc0de": b"never read"}) == []


def test_events_of_all_tables_come_in_the_chains_order() -> None:
    rng = random.Random(7)
    places = [(b, t, i) for b in (9, 10) for t in (0, 1) for i in range(3)]
    rng.shuffle(places)
    rows = [dict(zip(("block_number", "tx_index", "log_index"), place, strict=True)) for place in places]
    calls = [
        {"block_number": b, "tx_index": t} | {"task": named_task(), "answer": ANSWER, "status": True}
        for b, t in ((9, 1), (10, 0))
    ]
    found = ADAPTER.events(
        NETWORK,
        table("task_manager", "Unpaused", *rows[6:])
        | table("task_manager", "attest", *calls)
        | table("task_manager", "Paused", *rows[:6]),
    )
    at = [event.at for event in found]
    assert at == sorted([*(At(*place) for place in places), At(9, 1, -1), At(10, 0, -1)])


def test_a_table_that_can_not_be_read_stops_with_a_clear_error() -> None:
    (name,) = table("task_manager", "Paused", {"account": BOB})
    with pytest.raises(AdapterError, match="expected a table as the indexer writes it"):
        ADAPTER.events(NETWORK, {name: b"\x00" * 40})
    short = write_table(pa.record_batch({"block_number": [1]}))
    with pytest.raises(AdapterError, match="expected a table as the indexer writes it"):
        ADAPTER.events(NETWORK, {name: short})


def test_members_that_do_not_encode_back_are_refused() -> None:
    preimage = encode_members([(ALICE, bytes(64), 1), (BOB, bytes(64), 2)])
    assert operator_set(preimage).preimage == preimage
    for bad in (
        b"",
        preimage[:-1],
        preimage + b"\0" * 128,
        b"\1" + preimage[1:],
        preimage[:64] + b"\1" + preimage[65:],
        preimage[:32] + b"\xff" * 32 + preimage[64:],
    ):
        with pytest.raises(BadEncoding):
            operator_set(bad)

"""Where contracts keep what evidence shows of their storage, as their compiler says; and what their logs
say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak

from devnet import compile as compiler
from devnet.compile import CONTRACTS, HERE, CompileError
from nektar.chain.receipt import Entry
from nektar.facts import Cancelled, Counted, Executed, Listed, Paused, Requested, Trusted, Vetoed
from nektar.model import Address, BlockRef, Hash32, Moment
from nektar.networks.encoding import BadEncoding, word
from nektar.networks.nektar import NektarNetwork
from nektar.networks.shown import CANCELLED, EVENTS, VARIABLES, fact_of, stands


@pytest.fixture(scope="module")
def layouts() -> dict[str, Any]:
    """Contract's name → its storage layout."""
    with pytest.MonkeyPatch.context() as patch:
        wanted = {"outputSelection": {"*": {"*": ["storageLayout"]}}}
        patch.setattr(compiler, "SETTINGS", compiler.SETTINGS | wanted)
        try:
            found = compiler.solc(HERE / "contracts")
        except CompileError as error:
            pytest.skip(f"needs solc: {error}")
    return {name: found[contract]["storageLayout"] for name, contract in CONTRACTS.items()}


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_stands_where_the_compiler_puts_it(name: str, layouts: dict[str, Any]) -> None:
    known = VARIABLES[name]
    layout = layouts[known.contract]
    label, *members = name.split(".")
    (variable,) = (each for each in layout["storage"] if each["label"] == label)
    type_, mappings = layout["types"][variable["type"]], 0
    while type_["encoding"] == "mapping":
        type_, mappings = layout["types"][type_["value"]], mappings + 1
    if known.array:
        assert type_["encoding"] == "dynamic_array"
        type_ = layout["types"][type_["base"]]
    further, offset = 0, variable["offset"]
    for member in members:
        (part,) = (each for each in type_["members"] if each["label"] == member)
        type_, further, offset = layout["types"][part["type"]], further + int(part["slot"]), part["offset"]
    assert (int(variable["slot"]), mappings, further) == (known.slot, known.mappings, known.further)
    assert (offset, int(type_["numberOfBytes"])) == (known.first, known.size)
    assert not known.array or 32 % known.size == 0


def test_a_slot_is_below_its_keys() -> None:
    key = bytes(range(32))
    assert stands("operator_registry", "setHash", ()).slot == word(2)
    first = int.from_bytes(keccak(key + word(5)))
    assert stands("operator_registry", "_keys.registration", (key,)).slot == word(first + 4)


def test_a_slot_of_two_keys_is_below_the_second_below_the_first() -> None:
    first, second = bytes(range(32)), bytes(range(32, 64))
    below = keccak(first + word(6))
    assert stands("task_manager", "attestedDigest", (first, second)).slot == keccak(second + below)


def test_elements_of_an_array_stand_beside_each_other_from_its_slots_hash_on() -> None:
    begin = int.from_bytes(keccak(word(4)))
    held = sum((100 + i) << 64 * i for i in range(4))
    for index in (0, 1, 3, 4, 7, 1 << 60):
        at = stands("task_manager", "_pauses", (word(index),))
        assert at.slot == word(begin + index // 4)
        assert at.value(held) == 100 + index % 4
    assert stands("task_manager", "_pauses", (word(2**256 - 1),)).slot == word((begin + 2**254 - 1) % 2**256)


def test_what_is_no_variable_or_has_other_keys_is_refused() -> None:
    for contract, name, keys in (
        ("operator_registry", "minimum", ()),
        ("delegation", "setHash", ()),
        ("operator_registry", "setHash", (bytes(32),)),
        ("delegation", "isUnderbonded", (bytes(20),)),
        ("delegation", "isUnderbonded", ()),
        ("task_manager", "_pauses", ()),
        ("task_manager", "_pauses", (bytes(8),)),
    ):
        with pytest.raises(BadEncoding):
            stands(contract, name, keys)


def test_a_value_is_so_many_bytes_of_its_word() -> None:
    key = bytes(32)
    assert stands("delegation", "isUnderbonded", (key,)).value(0xFF01) == 1
    assert stands("operator_registry", "_ends", (key,)).value((7 << 64) + 9) == 9
    assert stands("operator_registry", "setHash", ()).value(1 << 255) == 1 << 255
    held = (3 << 128) + (7 << 64) + 9
    assert stands("task_manager", "_status.submittedBlock", (key,)).value(held) == 9
    assert stands("task_manager", "_status.pauses", (key,)).value(held) == 7


def test_a_cancelled_task_is_in_the_state_that_the_contract_calls_so() -> None:
    source = (HERE / "contracts" / "TaskManager.sol").read_text("utf-8")
    states = re.findall(r"\w+", source.partition("enum State {")[2].partition("}")[0])
    assert states[CANCELLED] == "Cancelled"


# --- events -----------------------------------------------------------------------------------------

ABI = NektarNetwork().abi()
SLASHER, OPERATOR, RECEIVER = (Address(bytes([each]) * 20) for each in (1, 2, 3))
REQUEST, CONDITION, TASK, DIGEST = (Hash32(bytes([each]) * 32) for each in (4, 5, 6, 7))
AT, PLACE, TIME = BlockRef(9, Hash32(b"9" * 32)), (2, 1), 1234


def contracts_of(name: str) -> tuple[str, ...]:
    contract = EVENTS[name].contract
    return (contract,) if isinstance(contract, str) else contract


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_its_contracts_own_and_its_topics_name_what_it_is_about(name: str) -> None:
    kind = EVENTS[name]
    for contract in contracts_of(name):
        (event,) = (each for each in ABI[contract] if (each["type"], each.get("name")) == ("event", name))
        assert f"{name}({','.join(map(type_of, event['inputs']))})" == kind.signature
        topics = ["", *(each["name"] for each in event["inputs"] if each["indexed"])]
        assert (topics[kind.task], topics[kind.operator]) == (
            "taskHash" if kind.task else "",
            "operator" if kind.operator else "",
        )
    everywhere = {each for each, abi in ABI.items() if name in {entry.get("name") for entry in abi}}
    assert {*contracts_of(name)} == everywhere


def type_of(argument: Mapping[str, Any]) -> str:
    said: str = argument["type"]
    if not said.startswith("tuple"):
        return said
    return f"({','.join(map(type_of, argument['components']))})" + said.removeprefix("tuple")


def log(name: str, topics: list[bytes], types: list[str], values: list[Any]) -> Entry:
    padded = tuple(Hash32(each.rjust(32, b"\0")) for each in topics)
    return Entry(SLASHER, (EVENTS[name].topic, *padded), encode(types, values))


def requested(condition: bytes = CONDITION) -> Entry:
    values = [TASK, 5, 40, 46]
    types = ["bytes32", "uint256", "uint64", "uint64"]
    return log("SlashingRequested", [REQUEST, condition, OPERATOR], types, values)


def trusted(evidence: bytes) -> Entry:
    topics = [REQUEST, OPERATOR]
    return log("RequestedOnTrust", topics, ["address", "bytes"], [RECEIVER, evidence])


def test_what_slashers_say() -> None:
    for contract, proved in (
        ("slashing_manager", True),
        ("trusted_slasher", False),
        ("trusted_slasher/b", False),
    ):
        assert fact_of(contract, requested(), AT, PLACE) == Requested(
            slasher=SLASHER,
            request=REQUEST,
            operator=OPERATOR,
            condition="0x" + CONDITION.hex(),
            task_hash=TASK,
            proved=proved,
            veto_deadline=Moment("block", 40),
            execution_deadline=Moment("block", 46),
            at=AT,
            place=PLACE,
        )
        breach = fact_of(contract, requested(keccak(b"bond_breach")), AT)
        assert isinstance(breach, Requested)
        assert (breach.task_hash, breach.set_hash) == (None, TASK)
        overruled = log("SlashingVetoed", [REQUEST], [], [])
        assert fact_of(contract, overruled, AT, PLACE) == Vetoed(SLASHER, REQUEST, AT, PLACE)
        done = log("SlashingExecuted", [REQUEST, OPERATOR], ["uint256", "address"], [5, RECEIVER])
        assert fact_of(contract, done, AT, PLACE, TIME) == Executed(
            SLASHER, REQUEST, RECEIVER, AT, PLACE, TIME
        )
    for contract in ("slashing_manager", "slashing_manager/b"):
        counted = log("MissCounted", [REQUEST, TASK, OPERATOR], [], [])
        assert fact_of(contract, counted, AT, PLACE) == Counted(SLASHER, REQUEST, TASK, OPERATOR, AT, PLACE)
    with pytest.raises(BadEncoding, match="expected an event of"):
        fact_of("trusted_slasher", counted, AT)
    for size in (0, 1, 31, 32, 33, 100):
        evidence = bytes(range(size))
        said = fact_of("trusted_slasher", trusted(evidence), AT)
        assert said == Trusted(SLASHER, REQUEST, RECEIVER, evidence, AT)


def test_what_others_say() -> None:
    listed = log("NetworkListed", [REQUEST, OPERATOR], ["address"], [RECEIVER])
    assert fact_of("network_registry", listed, AT) == Listed(REQUEST, RECEIVER, AT)
    assert fact_of("task_manager", log("TaskCancelled", [TASK], [], []), AT) == Cancelled(TASK, AT)
    for name in ("Paused", "Unpaused"):
        assert fact_of("task_manager", log(name, [], ["address"], [RECEIVER]), AT) == Paused(AT)
        with pytest.raises(BadEncoding):
            fact_of("task_manager", log(name, [TASK], ["address"], [RECEIVER]), AT)
    values = [(7, 13), (1, 2), True, False]
    types = ["(uint256,uint256)", "(uint256,uint256)", "bool", "bool"]
    attested = log("Attested", [TASK, OPERATOR, DIGEST], types, values)
    with pytest.raises(BadEncoding):  # what the contract holds shows it
        fact_of("task_manager", attested, AT)


def test_what_no_contract_logs_is_refused() -> None:
    good = trusted(b"look")
    data = good.data
    for odd in (
        *(data[:-1], data[:-32], data[:64], data + bytes(32), data[:-1] + b"\1"),
        data[:32] + word(96) + data[64:],
        data[:64] + word(33) + data[96:],
        data[:64] + word(2**255) + data[96:],
        b"\1" + data[1:],
    ):
        with pytest.raises(BadEncoding):
            fact_of("trusted_slasher", Entry(SLASHER, good.topics, odd), AT)
    for contract in ("slashing_manager", "task_manager", "trusted_slasher_b", ""):
        with pytest.raises(BadEncoding, match="expected an event of"):
            fact_of(contract, good, AT)
    # Of another TaskManager or registry nobody has asked.
    listed = log("NetworkListed", [REQUEST, OPERATOR], ["address"], [RECEIVER])
    with pytest.raises(BadEncoding, match="expected an event of"):
        fact_of("network_registry/b", listed, AT)
    for entry in (requested(), log("SlashingVetoed", [REQUEST], [], [])):
        for topics in (entry.topics[:-1], (*entry.topics, REQUEST), ()):
            with pytest.raises(BadEncoding):
                fact_of("trusted_slasher", Entry(SLASHER, topics, entry.data), AT)
        with pytest.raises(BadEncoding):
            fact_of("trusted_slasher", Entry(SLASHER, entry.topics, entry.data + bytes(32)), AT)
    dirty = (*requested().topics[:-1], Hash32(b"\1" * 32))
    with pytest.raises(BadEncoding, match="dirty upper bytes"):
        fact_of("trusted_slasher", Entry(SLASHER, dirty, requested().data), AT)

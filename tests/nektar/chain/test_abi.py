from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from eth_hash.auto import keccak
from eth_utils.abi import event_abi_to_log_topic, function_abi_to_4byte_selector

import nektar.networks
from nektar.chain.abi import CALL_COLUMNS, EVENT_COLUMNS, load
from nektar.chain.types import AbiError

REFERENCE = Path(nektar.networks.__file__).parent / "nektar.abi.json"


def parameter(type_: str, name: str = "", indexed: bool = False) -> dict[str, Any]:
    return {"type": type_, "name": name, "indexed": indexed}


def event(name: str, *inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "event", "name": name, "inputs": list(inputs), **more}


def test_topics_and_selectors_of_the_reference_contracts_are_those_of_eth_utils() -> None:
    for abi in json.loads(REFERENCE.read_text()).values():
        loaded = load(abi)
        topics = {event_abi_to_log_topic(each) for each in abi if each["type"] == "event"}
        selectors = {function_abi_to_4byte_selector(each) for each in abi if each["type"] == "function"}
        assert {each.topic0 for each in loaded.events} == topics == loaded.topics
        assert {each.selector for each in loaded.functions} == selectors


def test_a_table_is_named_for_its_event_and_the_hash_of_its_entry() -> None:
    entry = event("BLSKeySet2", parameter("uint8", "a"))
    canonical = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
    assert load([entry]).event("BLSKeySet2").table == f"event_bls_key_set2_{keccak(canonical).hex()[:8]}"
    shuffled = dict(reversed(entry.items()))
    assert load([shuffled]).events == load([entry]).events


def test_a_function_fills_a_call_table() -> None:
    function = load([{"type": "function", "name": "submitTask", "inputs": [parameter("bytes")]}]).functions[0]
    assert function.table.startswith("call_submit_task_")
    assert function.schema.names == [*(each.name for each in CALL_COLUMNS), "arg0"]


def test_arguments_come_after_the_fixed_columns_in_the_abis_order() -> None:
    found = load([event("E", parameter("bytes", "data"), parameter("string", "who", True))]).event("E")
    assert found.schema.names == [*(each.name for each in EVENT_COLUMNS), "data", "who"]
    # Only the hash of an indexed text is on chain.
    assert found.schema.field("who").metadata == {b"abi": b"bytes32"}


def test_no_argument_takes_the_place_of_a_column_of_ours_or_the_stores() -> None:
    found = load([event("E", *(parameter("uint8", name) for name in ("address", "version", "value")))])
    assert found.event("E").schema.names[-3:] == ["address_", "version_", "value"]


def test_overloads_fill_tables_of_their_own() -> None:
    found = load([event("E", parameter("uint8")), event("E", parameter("uint16"))])
    assert len(found.schemas) == 2
    with pytest.raises(AbiError, match=r"event 'E' has 2 layouts: event_e_"):
        found.event("E")


def test_an_unknown_name_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(AbiError, match="expected one of the events A, B; got 'C'"):
        load([event("B"), event("A")]).event("C")


def test_layouts_that_differ_in_the_number_of_topics_live_side_by_side() -> None:
    found = load([event("E", parameter("uint8", "a", True)), event("E", parameter("uint8", "a"))])
    assert {topics for _, topics in found.by_topics} == {1, 2}


def test_layouts_of_as_many_topics_live_side_by_side_where_a_log_may_tell() -> None:
    one = event("E", parameter("uint8", "a", True), parameter("string", "b"))
    other = event("E", parameter("uint8", "a"), parameter("string", "b", True))
    found = load([one, other, one])
    assert [len(layouts) for layouts in found.by_topics.values()] == [2]
    assert len(found.schemas) == 2


def test_layouts_that_no_log_tells_apart_are_refused() -> None:
    one = event("E", parameter("uint8", "a", True), parameter("uint8", "b"))
    other = event("E", parameter("uint8", "a"), parameter("uint8", "b", True))
    with pytest.raises(AbiError, match="no log says which"):
        load([one, other])


def test_the_same_entry_twice_is_one_event() -> None:
    named_otherwise = event("F", parameter("uint8", "b"))
    assert len(load([event("E"), event("E")]).events) == 1
    assert len(load([event("F", parameter("uint8", "a")), named_otherwise]).events) == 1
    assert len(load([event("E", anonymous=True), event("E", anonymous=True)]).events) == 1


def test_a_log_is_what_its_first_topic_names_and_else_an_anonymous_event() -> None:
    named, wide = event("E", parameter("uint8")), [parameter("uint8", indexed=True) for _ in range(4)]
    found = load([named, event("A", anonymous=True), event("B", *wide, anonymous=True)])
    topic0 = found.event("E").topic0
    assert topic0 is not None
    assert found.layouts([topic0]) == (found.event("E"),)
    assert found.layouts([topic0, bytes(32)]) == ()
    assert found.layouts([]) == (found.event("A"),)
    assert found.layouts([bytes(32)] * 4) == (found.event("B"),)
    assert found.layouts([bytes(32)]) == ()
    assert load([named]).layouts([]) is None
    assert load([named]).layouts([bytes(32)]) is None


def test_what_is_called_follows_soliditys_rules() -> None:
    function = {"type": "function", "name": "f"}
    fallback, receive = {"type": "fallback"}, {"type": "receive", "stateMutability": "payable"}
    whole = load([function, fallback, receive])
    selector = whole.function("f").selector
    assert [whole.called(data) for data in (selector + b"x", b"", selector[:3], b"else")] == [
        whole.function("f"),
        whole.function("receive"),
        whole.function("fallback"),
        whole.function("fallback"),
    ]
    assert load([function, fallback]).called(b"") == whole.fallback
    assert load([function]).called(b"") is load([function, receive]).called(b"else") is None
    assert whole.fallback is not None
    assert whole.fallback.schema.names == [*(each.name for each in CALL_COLUMNS), "data"]
    assert {each.table.rpartition("_")[0] for each in whole.functions} == {
        "call_f",
        "call_fallback",
        "call_receive",
    }


def test_constructors_are_left_out_and_errors_fill_no_table() -> None:
    found = load([{"type": "constructor"}, {"type": "error", "name": "X", "inputs": [parameter("uint8")]}])
    assert found.schemas == {}
    assert found.errors[keccak(b"X(uint8)")[:4]].name == "X"


@pytest.mark.parametrize(
    "entry",
    [
        "event",
        {"type": "event"},
        {"type": "function", "name": "f", "inputs": "uint8"},
        {"type": "function", "name": "f", "inputs": ["uint8"]},
        event("E", *(parameter("uint8", indexed=True) for _ in range(4))),
        event("E", *(parameter("uint8", indexed=True) for _ in range(5)), anonymous=True),
        {"type": "error"},
        event("E", parameter("uint7")),
    ],
)
def test_an_abi_that_solc_does_not_write_is_refused(entry: Any) -> None:
    with pytest.raises(AbiError):
        load([entry])

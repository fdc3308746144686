"""Logs as columns: reading the text of a regular answer says what a parse says, or leaves it to that."""

from __future__ import annotations

import json
import random
import re
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nektar.chain import logs as module
from nektar.chain.jsonrpc import Malformed
from nektar.chain.logs import Logs, read
from tests.seeds import seeds

HEX = "0123456789abcdef"


def words(rng: random.Random, size: int) -> str:
    return "0x" + rng.randbytes(size).hex()


def log(rng: random.Random, number: int, index: int) -> dict[str, Any]:
    """A log as nodes write it; block and place vary, and so do topics and data."""
    return {
        "address": words(rng, 20),
        "topics": [words(rng, 32) for _ in range(rng.choice([0, 1, 2, 2, 2, 3, 4]))],
        "data": words(rng, rng.choice([0, 1, 32, 64, 64, 64, 97])),
        "blockHash": words(rng, 32),
        "blockNumber": hex(number),
        "blockTimestamp": hex(1_767_225_600 + number),
        "transactionHash": words(rng, 32),
        "transactionIndex": hex(index // 3),
        "logIndex": hex(index),
        "removed": False,
    }


def answer(logs: list[Any], **written: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 7, "result": logs}, separators=(",", ":"), **written).encode()


def some(seed: int, count: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [log(rng, 0xFFE0 + i // 20, i % 300) for i in range(count)]


def columns(logs: Logs) -> list[Any]:
    flat = [*logs[:-1], logs.data.data, logs.data.size]
    return [each.tolist() if isinstance(each, np.ndarray) else each for each in flat]


def regular(body: bytes) -> Logs | None:
    array = module.jsonrpc.result_array(body)
    return None if array is None else module._regular(body + bytes(module.scan.PADDING), *array)


def parsed(body: bytes) -> Logs:
    return module.one_by_one(json.dumps(json.loads(body)["result"]).encode())


@given(st.integers(0, 2**32), st.integers(0, 60))
@settings(max_examples=50)
def test_the_text_says_what_a_parse_says(seed: int, count: int) -> None:
    body = answer(some(seed, count))
    found = regular(body)
    assert found is not None
    assert columns(found) == columns(parsed(body))


def test_what_the_columns_hold_is_what_the_logs_say() -> None:
    written = some(1, 40)
    found = read(answer(written))
    assert found is not None
    ends = np.cumsum(found.data.size).tolist()
    for row, each in enumerate(written):
        assert found.number[row] == int(each["blockNumber"], 16)
        assert found.time[row] == int(each["blockTimestamp"], 16)
        assert found.log_index[row] == int(each["logIndex"], 16)
        assert found.tx_index[row] == int(each["transactionIndex"], 16)
        assert "0x" + found.address[row].tobytes().hex() == each["address"]
        assert "0x" + found.block_hash[row].tobytes().hex() == each["blockHash"]
        assert "0x" + found.tx_hash[row].tobytes().hex() == each["transactionHash"]
        count = int(found.topic_count[row])
        assert ["0x" + topic.tobytes().hex() for topic in found.topics[row, :count]] == each["topics"]
        assert not found.topics[row, count:].any()
        data = found.data.data[ends[row] - int(found.data.size[row]) : ends[row]]
        assert "0x" + data.hex() == each["data"]


def test_whoever_alters_one_character_of_the_text_is_read_as_a_parse_reads_it() -> None:
    rng = random.Random(5)
    body = answer(some(3, 12))
    read_anyway = 0
    for _ in range(seeds(1_000, 4_000)):
        at = rng.randrange(len(body))
        other = rng.choice(b'0123456789abcdefABCDEFxg"{}[]:,\\ tfn\x00\xff')
        altered = body[:at] + bytes([other]) + body[at + 1 :]
        found = regular(altered)
        if found is None:
            continue
        read_anyway += 1
        assert columns(found) == columns(parsed(altered)), altered[max(0, at - 40) : at + 40]
    assert read_anyway > 250  # digits that became other digits


def test_a_key_that_nobody_reads_hides_nothing() -> None:
    """`note` is as long in both, and in the second ends its text and says `removed` after all."""
    written = some(4, 2)
    for each in written:
        each["topics"], each["data"] = [], "0x"
        each["transactionIndex"] = each["logIndex"] = "0x1"
    written[0]["note"] = "0x" + "a" * 40
    written[1]["note"] = "0x" + "a" * 40
    body = answer(written)
    hidden = b'0x","removed":true,"z":"'
    at = body.rfind(b"0x" + b"a" * 40)
    assert columns(regular(body) or parsed(b"")) == columns(parsed(body))
    altered = body[:at] + hidden + b"a" * (42 - len(hidden)) + body[at + 42 :]
    assert json.loads(altered)["result"][1]["removed"] is True
    assert regular(altered) is None
    with pytest.raises(Malformed, match="removed"):
        read(altered)


@pytest.mark.parametrize(
    "change",
    [
        lambda logs: [dict(reversed(each.items())) for each in logs],
        lambda logs: [{**each, "blockTimestamp": None} for each in logs],
        lambda logs: [{k: v for k, v in each.items() if k != "removed"} for each in logs],
        lambda logs: [{**each, "extra": {"a": [1, 2]}} for each in logs],
        lambda logs: [{**each, "extra": "q\\u0022{"} for each in logs],
        lambda logs: [{**each, "data": each["data"].upper().replace("0X", "0x")} for each in logs],
    ],
)
def test_what_nodes_write_otherwise_is_read_too(change: Any) -> None:
    for written in ({}, {"indent": 1}, {"separators": (", ", ": ")}):
        body = json.dumps({"result": change(some(9, 30)), "id": 1}, **written).encode()  # type: ignore[arg-type]
        found = read(body)
        assert found is not None
        assert columns(found) == columns(parsed(body))


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("key", [b'"error"', b'"\\u0065rror"'])
@pytest.mark.parametrize("spaces", [b"", b" "])
def test_a_result_beside_an_error_is_none(count: int, key: bytes, spaces: bytes) -> None:
    behind = answer(some(3, count))[:-1] + b"," + spaces + key + b':{"code":-32005,"message":"too many"}}'
    before = b"{" + key + b':{"code":-32005,"message":"too many"},' + spaces + answer(some(3, count))[1:]
    for body in (behind, before):
        assert read(body) is None
        assert read(body.replace(b'{"code":-32005,"message":"too many"}', b"null")) is not None


def respaced(body: bytes, rng: random.Random) -> bytes:
    """The same JSON with white space wherever that may stand."""
    spaces = [" ", "\n", "\t", "\r\n", "  ", *[""] * rng.choice([0, 5, 500])]
    tokens = re.findall(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+', body.decode())
    return "".join(rng.choice(spaces) + token for token in tokens).encode() + rng.choice(spaces).encode()


@given(st.integers(0, 2**32), st.integers(0, 12))
@settings(max_examples=100)
def test_however_an_answer_is_written_it_says_what_a_parse_says(seed: int, count: int) -> None:
    """Spaces, the order of members, others beside them, keys in escapes."""
    rng = random.Random(seed)
    members = [("jsonrpc", "2.0"), ("id", 7), ("result", some(seed, count)), ("more", {"a": [1, {"b": []}]})]
    rng.shuffle(members)
    text = json.dumps(dict(members), separators=(",", ":")).encode()
    if rng.random() < 0.2:
        text = text.replace(b'"result"', b'"resul\\u0074"')
    body = respaced(text, rng)
    assert json.loads(body) == dict(members)
    found = read(body)
    assert found is not None
    assert columns(found) == columns(parsed(body))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("address", "0x12", "20 bytes"),
        ("address", None, "str"),
        ("data", "0x123", "bytes"),
        ("data", "0xgg", "bytes"),
        ("blockHash", "0x" + "12" * 31, "32 bytes"),
        ("blockNumber", "0x", "number"),
        ("blockNumber", "12", "number"),
        ("blockNumber", "0x8000000000000000", "63 bits"),
        ("logIndex", "0x100000000", "32 bits"),
        ("topics", ["0x" + "00" * 32] * 5, "at most 4"),
        ("topics", ["0x00"], "32 bytes"),
        ("topics", ["0x" + "00" * 32, 7], "str"),
        ("removed", True, "removed"),
    ],
)
def test_a_log_that_is_none_is_refused_by_name(key: str, value: Any, says: str) -> None:
    written = some(6, 10)
    written[7][key] = value
    with pytest.raises(Malformed, match=says):
        read(answer(written))


@pytest.mark.parametrize("result", ["7", '"0x"', "{}", "[7]", '["0x"]', "[[]]", "true", '[{"address":7}]'])
@pytest.mark.parametrize("spaces", ["", " "])
def test_a_result_that_is_no_logs_is_refused(result: str, spaces: str) -> None:
    with pytest.raises(Malformed, match="logs: expected them as JSON-RPC has them"):
        read(f'{{"jsonrpc":"2.0","id":1,"result":{spaces}{result}}}'.encode())


def test_an_answer_without_a_result_is_no_logs() -> None:
    assert read(b'{"jsonrpc":"2.0","id":1,"error":{"code":-32005,"message":"block range"}}') is None
    assert read(b'{"jsonrpc":"2.0","id":1,"result":null}') is None
    assert read(b"<html>") is None
    found = read(answer([]))
    assert found is not None
    assert not found


def test_what_stands_around_the_logs_is_not_kept_and_may_not_be_deeper_than_a_parse_goes() -> None:
    body = answer([])
    assert read(body[:-1] + b',"more":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}") is None
    wide = body[:-1] + b',"more":{' + b",".join(b'"%x":1' % n for n in range(50_000)) + b"}}"
    tracemalloc.start()
    found = read(wide)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found is not None
    assert not found
    assert most < 4 * len(wide)


def test_an_answer_that_is_mostly_braces_takes_little_more_than_its_size() -> None:
    body = ('{"jsonrpc":"2.0","id":1,"result":[' + ",".join(["{}"] * 100_000) + "]}").encode()
    tracemalloc.start()
    with pytest.raises(Malformed, match="missing required field"):
        read(body)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10 * len(body)


def test_where_only_some_logs_say_their_time_nothing_is_hidden_in_its_place() -> None:
    """Nobody reads the time then, and so nobody would see what else is written there."""
    hidden = '","data":"0x12'
    written = some(8, 3)
    for each in written:
        each["topics"], each["data"], each["blockTimestamp"] = [], "0x", "0x" + "1" * len(hidden)
        each["transactionIndex"] = each["logIndex"] = "0x1"
    del written[2]["blockTimestamp"]
    first, second, third = answer(written).split(b"},{")
    altered = b"},{".join((first, second.replace(b"1" * len(hidden), hidden.encode()), third))
    found = read(altered)
    assert found is not None
    assert columns(found) == columns(parsed(altered))
    assert found.data.data == b"\x12"

"""Receipts as columns: encoded as each is by itself, and to the roots of real blocks."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from nektar.chain import receipts as module
from nektar.chain.jsonrpc import Malformed, Object
from nektar.chain.receipt import read_receipt
from nektar.chain.receipts import Receipts, blooms, read, regular
from nektar.chain.trie import ordered_root
from tests.nektar.chain.blocks import corpora
from tests.nektar.chain.test_logs import log, respaced, words
from tests.seeds import seeds


def answer(*blocks: list[Any]) -> bytes:
    replies = [{"jsonrpc": "2.0", "id": i, "result": block} for i, block in enumerate(blocks)]
    return json.dumps(replies if len(replies) != 1 else replies[0], separators=(",", ":")).encode()


def receipt(rng: random.Random, number: int, place: int, logs: int) -> dict[str, Any]:
    kind = rng.choice(["0x0", "0x1", "0x2", "0x3", "0x4"])
    outcome = {"status": rng.choice(["0x0", "0x1"])} if rng.random() < 0.9 else {"root": words(rng, 32)}
    return {
        "type": kind,
        **outcome,
        "cumulativeGasUsed": hex(21_000 * (place + 1)),
        "logs": [log(rng, number, index) for index in range(logs)],
        "logsBloom": words(rng, 256),
        "transactionHash": words(rng, 32),
        "transactionIndex": hex(place),
        "to": rng.choice([None, words(rng, 20)]),
        "blockTimestamp": 1_767_225_624,
    }


def block(seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [receipt(rng, 0xFFF, place, rng.choice([0, 0, 1, 2, 20])) for place in range(rng.randrange(12))]


def encoded(of: Receipts) -> list[bytes]:
    return module.encoded(of, blooms(of))


def one_by_one(blocks: list[list[Object]]) -> list[bytes]:
    return [read_receipt(each).raw for of_block in blocks for each in of_block]


def outcome(encode: Callable[[], list[bytes]]) -> list[bytes] | str:
    try:
        return encode()
    except Malformed as error:
        return str(error)


@pytest.mark.parametrize("seed", range(30))
def test_as_columns_they_are_encoded_as_each_is(seed: int) -> None:
    blocks = [block(100 * seed + i) for i in range(1 + seed % 3)]
    found = regular(answer(*blocks))
    assert found is not None
    assert encoded(found) == one_by_one(blocks)
    assert [len(each["logs"]) for of_block in blocks for each in of_block] == [
        int(end - start) for start, end in zip([0, *found.ends[:-1]], found.ends, strict=True)
    ]


def test_whoever_alters_one_character_is_read_as_a_parse_reads_it_or_not_at_all() -> None:
    rng = random.Random(11)
    blocks = [block(3), block(4)]
    body = answer(*blocks)
    read_anyway = 0
    for _ in range(seeds(800, 3_000)):
        at = rng.randrange(len(body))
        altered = body[:at] + bytes([rng.choice(b'0123456789abcdefx"{}[]:, \\')]) + body[at + 1 :]
        found = regular(altered)
        if found is None:
            continue
        read_anyway += 1
        parsed = [reply["result"] for reply in json.loads(altered)]
        assert outcome(lambda: encoded(found)) == outcome(lambda: one_by_one(parsed))  # noqa: B023
    assert read_anyway > seeds(100, 500)


def test_braces_in_a_text_of_a_receipt_are_no_receipts() -> None:
    blocks = [block(3), block(4)]
    body = answer(*blocks).replace(b'"result":[{', b'"result":[{"x":"},{",')
    assert b'"},{"' in body
    assert regular(body) is None
    found = read(body)
    assert found is not None
    assert len(found.said) == len(found.ends)
    assert encoded(found) == one_by_one(blocks)


@pytest.mark.parametrize(
    "item", ["{}", "[]", '{"logs":[]}', "[[[[[[]]]]]]", '{"logs":[],"x":[[],[],[],[],[],[],[]]}']
)
def test_an_answer_that_is_mostly_braces_is_refused_before_it_takes_many_times_its_size(item: str) -> None:
    body = ('{"jsonrpc":"2.0","id":1,"result":[' + ",".join([item] * 100_000) + "]}").encode()
    tracemalloc.start()
    with pytest.raises(Malformed, match="mostly braces"):
        read(body)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 * len(body)


def test_what_a_parse_reads_otherwise_is_left_to_it() -> None:
    ours, theirs = json.dumps(block(3), separators=(",", ":"))[1:-1], ',"logs":[]}'
    one = '{"id":1,"result":[]}'
    for body in (
        f"[{one}garbage{one}]",
        f"[{one} {one}]",
        f"[{one},,{one}]",
        f'{{"result":[{ours}],"result":[]}}',
        f'{{"result":[],"result":[{ours}]}}',
        f'{{"result":[{ours}],"resul\\u0074":[]}}',
        f'{{"result":[{ours[:-1]}{theirs}]}}',
        f'{{"result":[{ours[:-1]}{theirs.replace("logs", chr(92) + "u006cogs")}]}}',
    ):
        assert regular(body.encode()) is None, body
    assert regular(f"[{one},\n{one}]".encode()) is not None


def test_the_receipts_of_real_blocks_have_their_roots() -> None:
    tried = 0
    for real in corpora():
        found = read(answer(list(real.receipts)))
        assert found is not None
        raw = encoded(found)
        assert ordered_root(raw).hex() == real.block["receiptsRoot"][2:]
        tried += len(raw)
    assert tried > 500


@pytest.mark.parametrize("seed", range(20))
def test_however_an_answer_is_written_it_says_the_same(seed: int) -> None:
    rng = random.Random(seed)
    blocks = [block(seed), block(seed + 1)]
    found = read(respaced(answer(*blocks), rng))
    assert found is not None
    assert encoded(found) == one_by_one(blocks)


def test_what_is_written_in_another_way_is_parsed() -> None:
    blocks = [block(3), block(4)]
    body = json.dumps([{"id": i, "result": each} for i, each in enumerate(blocks)], indent=1).encode()
    assert regular(body) is None
    found = read(body)
    assert found is not None
    assert encoded(found) == one_by_one(blocks)
    with pytest.raises(Malformed, match="receipts: expected an object"):
        read(b'{"result":[7]}')


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"missing receipts"}}',
        b'{"jsonrpc":"2.0","id":1,"result":null}',
        b'[{"jsonrpc":"2.0","id":1,"result":[]},{"jsonrpc":"2.0","id":2,"error":{"code":1,"message":"no"}}]',
        b'{"jsonrpc":"2.0","id":1,"result":[],"error":{"code":-32000,"message":"missing receipts"}}',
        b"<html>}{</html>",
        b"",
    ],
)
def test_an_answer_that_lacks_receipts_is_none(body: bytes) -> None:
    assert read(body) is None


def test_blocks_without_receipts_are_read() -> None:
    found = module.read(answer([], [], block(5)))
    assert found is not None
    assert encoded(found) == one_by_one([block(5)])
    assert module.read(answer([])) is not None

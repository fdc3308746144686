"""Blocks proved many at once say what `prove` says of each, and catch what it catches."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from indexer import proved
from indexer.prove import Contradiction, Proved, prove
from indexer.proved import Header, check_links, header, logs, may_hold, wanted
from nektar.chain.abi import load
from nektar.chain.jsonrpc import Malformed
from nektar.chain.logs import Logs
from nektar.chain.receipts import read
from nektar.model import Address
from tests.nektar.chain.blocks import Given, corpora
from tests.nektar.chain.covered import changes, covered, cuts

TRANSFER = {
    "type": "event",
    "name": "Transfer",
    "inputs": [
        {"name": "from", "type": "address", "indexed": True},
        {"name": "to", "type": "address", "indexed": True},
        {"name": "value", "type": "uint256", "indexed": False},
    ],
}


def headers(given: Sequence[Given]) -> list[Header]:
    return [header(each.block, int(each.block["number"], 16)) for each in given]


def columns(given: Sequence[Given], order: Sequence[int] | None = None) -> Logs:
    """The logs of blocks, whose answers came in some order."""
    answers = [{"id": at, "result": given[at].receipts} for at in (order or range(len(given)))]
    receipts = read(json.dumps(answers, separators=(",", ":")).encode())
    assert receipts is not None
    return logs(headers(given), receipts)


def rows(found: Logs) -> list[Any]:
    ends = found.data.size.cumsum().tolist()
    return [
        (
            found.number[row],
            found.block_hash[row].tobytes(),
            found.time[row],
            found.tx_index[row],
            found.tx_hash[row].tobytes(),
            found.log_index[row],
            found.address[row].tobytes(),
            [topic.tobytes() for topic in found.topics[row, : found.topic_count[row]]],
            found.data.data[ends[row] - found.data.size[row] : ends[row]],
        )
        for row in range(len(found.number))
    ]


def expected(blocks: Sequence[Proved]) -> list[Any]:
    return [
        (
            block.number,
            block.hash,
            block.time,
            log.tx_index,
            log.tx_hash,
            log.log_index,
            log.address,
            list(log.topics),
            log.data,
        )
        for block in blocks
        for log in block.logs
    ]


def chain() -> list[Given]:
    """Blocks 3 to 54 of one chain."""
    found = [each for each in corpora() if each.name.startswith("hivechain54_blocks")]
    return [each for each in found if int(each.block["number"], 16) > 2]


def test_every_real_block_says_what_it_says_by_itself() -> None:
    for given in corpora():
        assert rows(columns([given])) == expected([prove(given.block, given.receipts)]), given.name


@pytest.mark.parametrize("seed", range(5))
def test_many_blocks_say_what_each_says_in_whatever_order_the_answers_come(seed: int) -> None:
    given = chain()
    order = list(range(len(given)))
    random.Random(seed).shuffle(order)
    assert rows(columns(given, order)) == expected([prove(each.block, each.receipts) for each in given])


def test_one_changed_byte_is_caught_or_changes_nothing() -> None:
    """What is not taken from a block (its withdrawals) is not looked at, either."""
    rng, tried, caught = random.Random(20_261_127), 0, 0
    for given in corpora():
        if "large" in given.name:
            continue
        honest = headers([given]), rows(columns([given]))
        share = min(1.0, 25 / sum(value.size for value in covered(given)))
        for path, told in (*changes(given, share, rng), *rng.sample(list(cuts(given)), 3)):
            tried += 1
            try:
                assert (headers([told]), rows(columns([told]))) == honest, path
            except (Contradiction, Malformed):
                caught += 1
    assert caught > 0.95 * tried > 1_200


def test_what_is_left_out_is_caught() -> None:
    given = next(each for each in corpora() if each.name.endswith(":7000000"))
    with pytest.raises(Contradiction, match="expected 38 receipts; got 37"):
        columns([given._replace(receipts=given.receipts[:-1])])
    fewer = json.loads(json.dumps(given.receipts))
    next(each for each in fewer if each["logs"])["logs"].pop()
    with pytest.raises(Contradiction, match="logsBloom"):
        columns([given._replace(receipts=fewer)])
    with pytest.raises(Contradiction, match="transactionsRoot"):
        headers([given._replace(block=given.block | {"transactions": given.block["transactions"][:-1]})])


def test_receipts_are_counted_before_anything_is_computed_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bloom has 2,048 bits: those of an answer of tiny receipts would fill the memory."""
    given = next(each for each in corpora() if each.name.endswith(":7000000"))
    receipts = read(json.dumps({"id": 1, "result": [*given.receipts, given.receipts[0]]}).encode())
    assert receipts is not None
    monkeypatch.setattr(proved, "blooms", None)
    with pytest.raises(Contradiction, match="expected 38 receipts; got 39"):
        logs(headers([given]), receipts)


def test_logs_that_no_receipt_counts_are_caught() -> None:
    given = next(each for each in corpora() if each.name.endswith(":7000000"))
    receipts = read(json.dumps({"id": 1, "result": given.receipts}).encode())
    assert receipts is not None
    logs(headers([given]), receipts)
    more = receipts.logs.take(np.append(np.arange(len(receipts.logs.number)), 0))
    with pytest.raises(Contradiction, match="receipts have 130 logs; got 131"):
        logs(headers([given]), receipts._replace(logs=more))


def test_a_block_that_was_not_asked_for_is_none() -> None:
    one, two = chain()[20:22]
    with pytest.raises(Contradiction, match="asked for block 7; got block 23"):
        header(one.block, 7)
    receipts = read(json.dumps({"id": 1, "result": two.receipts}).encode())
    assert receipts is not None
    assert receipts.said
    with pytest.raises(Contradiction, match="other blocks"):
        logs(headers([one]), receipts)


def test_blocks_are_linked_or_it_is_said_which_is_not() -> None:
    found = headers(chain())
    check_links(found)
    with pytest.raises(Contradiction, match=f"block {found[30].number}: it is no child"):
        check_links([*found[:10], found[30]])


def test_a_bloom_excludes_only_what_is_not_there() -> None:
    contract = load([TRANSFER])
    excluded = held = 0
    for given in corpora():
        (block,) = headers([given])
        found = columns([given])
        for address in {each.tobytes() for each in found.address} | {bytes(20)}:
            mine = wanted(found, {Address(address): contract})
            assert rows(mine) == [row for row in rows(found) if row[6] == address]
            transfers = [row for row in rows(mine) if row[7] and row[7][0] in contract.topics]
            if may_hold(block, {Address(address): contract}):
                held += bool(transfers)
            else:
                excluded += 1
                assert not transfers
    assert excluded > 100
    assert held > 30

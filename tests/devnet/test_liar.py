"""A lie about one block is the same in whatever tells of its logs, and about no other block."""

from __future__ import annotations

import asyncio
import copy
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from devnet.anvil import free_port
from devnet.liar import ABOUT_ONE_BLOCK, Liar
from nektar.chain.bloom import bloom
from nektar.chain.receipt import read_entry

Object = dict[str, Any]
LIED = 5


def _log(number: int, index: int) -> Object:
    return {
        "blockNumber": hex(number),
        "blockHash": f"0x{number:064x}",
        "logIndex": hex(index),
        "address": "0x" + 20 * "ab",
        "topics": ["0x" + 32 * "cd"],
        "data": f"0x{index:064x}",
    }


def _receipt(number: int) -> Object:
    logs = [_log(number, index) for index in range(3)]
    return {
        "blockNumber": hex(number),
        "logs": logs,
        "logsBloom": "0x" + bloom(map(read_entry, logs)).hex(),
    }


RECEIPTS = {number: _receipt(number) for number in (LIED - 1, LIED, LIED + 1)}


async def _honest(method: str, *params: Any) -> Any:
    match method, params:
        case "eth_getLogs", (numbers,):
            return [copy.deepcopy(log) for number in numbers for log in RECEIPTS[number]["logs"]]
        case "eth_getBlockReceipts", (number,):
            return [copy.deepcopy(RECEIPTS[number])]
        case "eth_getTransactionReceipt", (number,):
            return copy.deepcopy(RECEIPTS[number])
    raise AssertionError(method)


def _told(lie: str) -> Callable[[str, Any], Any]:
    liar = Liar(_honest)
    liar.tell(lie, seed=7, block=LIED)

    def ask(method: str, param: Any) -> Any:
        call = {"id": 1, "method": method, "params": [param]}
        return json.loads(asyncio.run(liar.answer([call], False)).body)["result"]

    return ask


@pytest.mark.parametrize("lie", ABOUT_ONE_BLOCK)
def test_every_method_tells_the_same_of_the_block(lie: str) -> None:
    told = _told(lie)
    logs = told("eth_getLogs", [LIED])
    receipt = told("eth_getTransactionReceipt", LIED)
    assert receipt["logs"] == logs != RECEIPTS[LIED]["logs"]
    assert receipt["logsBloom"] == "0x" + bloom(map(read_entry, logs)).hex()
    assert told("eth_getBlockReceipts", LIED) == ([] if lie == "empty ranges" else [receipt])


@pytest.mark.parametrize("lie", ABOUT_ONE_BLOCK)
def test_no_other_block_is_lied_about(lie: str) -> None:
    told = _told(lie)
    for number in (LIED - 1, LIED + 1):
        assert told("eth_getLogs", [number]) == RECEIPTS[number]["logs"]
        assert told("eth_getBlockReceipts", number) == [RECEIPTS[number]]
        assert told("eth_getTransactionReceipt", number) == RECEIPTS[number]


def test_a_range_that_holds_the_block_is_told_but_for_it() -> None:
    said = _told("omitted log")("eth_getLogs", [LIED - 1, LIED, LIED + 1])
    truth = [log for receipt in RECEIPTS.values() for log in receipt["logs"]]
    assert [log for log in truth if log not in said] == [RECEIPTS[LIED]["logs"][0]]
    assert _told("empty ranges")("eth_getLogs", [LIED - 1, LIED]) == []


def test_a_lie_that_is_about_no_block_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a lie of omitted log"):
        Liar(_honest).tell("stale head", block=LIED)


def test_two_orders_that_come_at_once_are_both_answered() -> None:
    told = [json.dumps({"lie": "omitted log"}), json.dumps({"lie": ""})]
    with subprocess.Popen(
        [sys.executable, "-m", "devnet.proxy", "http://127.0.0.1:9", str(free_port())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as proxy:
        assert proxy.stdin is not None
        assert proxy.stdout is not None
        assert "listening" in proxy.stdout.readline()
        proxy.stdin.write("\n".join([*told, ""]))
        proxy.stdin.flush()
        assert [proxy.stdout.readline().strip() for _ in told] == told
        proxy.terminate()

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from eth_abi import encode
from eth_hash.auto import keccak

from indexer import reverts
from indexer.decode import tables
from indexer.prove import Proved
from indexer.reverts import CALLS_A_BLOCK, CALLS_AT_ONCE, Reverts, failed
from nektar.bus.sqlite import SqliteBus
from nektar.chain.abi import load
from nektar.chain.revert import LONGEST
from nektar.chain.rpc import Call, Refused, Unreachable
from nektar.chain.table import values
from nektar.chain.transaction import gas
from nektar.config import Limits
from nektar.model import Hash32
from tests.indexer import world
from tests.indexer.test_decode import ABI, OTHER, OURS, SIGNER, block, call
from tests.indexer.test_follow import Process
from tests.indexer.world import Chain

STOP = keccak(b"stop()")[:4]
NO = keccak(b"Error(string)")[:4] + encode(["string"], ["no"])
ERRORS = load([{"type": "error", "name": "Paused"}]).errors
CONTRACTS = {OURS: ABI}


def refusal(data: Any = None, message: str = "execution reverted", code: int = 3) -> Refused:
    error = Refused("p", "eth_call", code, message)
    error.data = data  # type: ignore[attr-defined,unused-ignore]
    return error


class Node:
    """A provider that answers each call in turn by what it is given."""

    def __init__(self, answer: Callable[[Call], Any], name: str = "p") -> None:
        self.name = name
        self.answer = answer
        self.asked: list[list[Call]] = []
        self.limits = Limits()

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        self.asked.append(list(calls))
        return [self.answer(each) for each in calls]


def ask(node: Any, *blocks: Proved) -> Any:
    return asyncio.run(Reverts([node], ERRORS).of(blocks, CONTRACTS))


def test_a_failed_call_is_run_again_as_it_was_at_the_block_before() -> None:
    node = Node(lambda _: refusal("0x" + NO.hex()))
    tx = call(STOP, value=5)
    assert ask(node, block(calls=[call(STOP), tx], statuses=(True, False))) == {
        (Hash32(b"\5" * 32), 1): 'Error("no")'
    }
    asked = {
        "from": SIGNER.address.lower(),
        "to": "0x" + OURS.hex(),
        "data": "0x" + STOP.hex(),
        "value": "0x5",
        "gas": hex(90_000),
    }
    assert node.asked == [[Call("eth_call", (asked, "0x4"))]]


def test_the_reason_stands_in_the_calls_row() -> None:
    calls = [call(STOP) for _ in range(4)]
    here = block(calls=calls, statuses=(False, True, False, False))
    why = {(here.hash, 0): 'Error("nö")', (here.hash, 2): ""}
    [stream] = tables(CONTRACTS, [here], reverts=why)[0].values()
    assert [row["revert"] for row in values(stream)] == ['Error("nö")', None, "", None]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("0x", None),  # at the parent block it does not fail
        (refusal("0x" + NO.hex()), 'Error("no")'),
        (refusal("Reverted 0x" + NO.hex(), "VM execution error", -32015), 'Error("no")'),
        (refusal({"data": "0x" + NO.hex()}), 'Error("no")'),
        (refusal("0x" + keccak(b"Paused()")[:4].hex()), "Paused()"),
        (refusal("0x"), ""),
        (refusal(), ""),
        (refusal(7), ""),
        (refusal("0xnonsense"), ""),
        (refusal("0x" + "00" * LONGEST), ""),
        (refusal(None, "out of gas", -32000), "out of gas"),
        (refusal(None, "EVM error OutOfGas", -32003), "out of gas"),
        (refusal(None, "invalid opcode: INVALID", -32000), "invalid opcode"),
        (refusal(None, "missing trie node", -32000), None),
        (refusal(None, "the method eth_call does not exist", -32601), None),
        (None, None),
        ({"nonsense": []}, None),
    ],
)
def test_whatever_a_node_answers_is_a_reason_or_none(answer: Any, text: str | None) -> None:
    found = ask(Node(lambda _: answer), block(calls=[call(STOP)], statuses=(False,)))
    assert list(found.values()) == ([] if text is None else [text])


def test_only_failed_calls_that_are_rows_are_asked_of_and_a_bounded_number() -> None:
    others = [call(STOP, OTHER), call(b"junk"), call(b"", value=1), call(b"\x60", None)]
    assert failed([block(calls=others, statuses=(False,) * 4)], CONTRACTS) == []
    assert failed([block(calls=[call(STOP)], statuses=(None,))], CONTRACTS) == []
    many = [call(STOP)] * (CALLS_A_BLOCK + 3)
    blocks = [block(calls=many, statuses=(False,) * len(many), number=n) for n in range(1, 9)]
    assert len(failed(blocks, CONTRACTS)) == 8 * CALLS_A_BLOCK
    node = Node(lambda _: refusal())
    assert len(ask(node, *blocks)) == CALLS_AT_ONCE
    assert [len(each) for each in node.asked] == [CALLS_AT_ONCE]


def test_a_provider_of_few_requests_a_second_keeps_them_for_the_blocks() -> None:
    many = [call(STOP)] * CALLS_A_BLOCK
    here = block(calls=many, statuses=(False,) * len(many))
    asked = []
    for a_second in (1.0, 20.0, 1000.0):
        node = Node(lambda _: refusal())
        node.limits = Limits(requests_per_second=a_second)
        ask(node, here)
        asked.append(sum(map(len, node.asked)))
    assert asked == [0, 4, CALLS_A_BLOCK]


def test_only_of_unfinal_blocks_it_is_asked(bus: SqliteBus) -> None:
    class Asked:
        def __init__(self) -> None:
            self.numbers: list[int] = []

        async def of(self, blocks: Sequence[Proved], _: Any) -> dict[Any, str]:
            self.numbers += [each.number for each in blocks]
            return {}

    chain = Chain(random.Random(1))
    chain.mine(30)
    with Process(bus, [world.Node("a", chain, random.Random(2))]) as indexer:
        asked = Asked()
        indexer.follower._reverts = asked  # type: ignore[assignment]
        indexer.look()
        assert indexer.reading.blocks[-1].number == chain.head
        assert asked.numbers == list(range(chain.finalized + 1, chain.head + 1))


def test_who_does_not_answer_is_waited_for_a_moment_and_not_asked_again_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reverts, "PATIENCE", 0.01)

    class Hanging(Node):
        async def batch(self, calls: Sequence[Call]) -> list[Any]:
            self.asked.append(list(calls))
            await asyncio.sleep(3600)
            return []

    class Gone(Node):
        async def batch(self, calls: Sequence[Call]) -> list[Any]:
            self.asked.append(list(calls))
            raise Unreachable(self.name, "HTTP 503")

    hanging, gone = Hanging(lambda _: None), Gone(lambda _: None)
    refusing = Node(lambda _: refusal(None, "missing trie node", -32000))
    here = block(calls=[call(STOP)], statuses=(False,))
    nodes: list[Any] = [hanging, gone, refusing, Node(lambda _: refusal())]
    asking = Reverts(nodes, {})

    async def look() -> list[Any]:
        found = []
        for rested in (True, False, True, True, True):
            if rested:
                asking._rests_until = 0.0
            found.append(await asking.of([here], CONTRACTS))
        return found

    assert asyncio.run(look()) == [{}, {}, {}, {}, {(here.hash, 0): ""}]
    assert [len(each.asked) for each in nodes] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "fields",
    [
        {"gasPrice": 7},
        {"gasPrice": 7, "chainId": 1, "type": 1, "accessList": []},
        {"maxFeePerGas": 9, "maxPriorityFeePerGas": 1, "chainId": 1, "type": 2},
    ],
)
def test_the_gas_of_a_transaction_is_read_from_its_envelope(fields: dict[str, Any]) -> None:
    given = {"nonce": 4, "gas": 123_456, "value": 0, "data": b"", "to": "0x" + OURS.hex(), **fields}
    raw = bytes(SIGNER.sign_transaction(given).raw_transaction)
    base = call(STOP)
    kind = fields.get("type", 0)
    assert gas(type(base)(base.hash, kind, base.to, 0, b"", raw)) == 123_456

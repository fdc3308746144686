"""What several providers say together: whether contracts are there, and what none of them has."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from indexer.prove import Contradiction
from indexer.source import Source
from nektar.chain.rpc import Call, RangeLimited, Refused, Unreachable, WrongChain
from tests.indexer.world import CHAIN_ID, CONTRACT, Chain, Node

HERE, NOWHERE = "0x" + CONTRACT.hex(), "0x" + "ab" * 20
HEAD = 19


def node(name: str = "mine", contracts: tuple[str, ...] = (HERE,), fails: float = 0.0) -> Node:
    chain = Chain(random.Random(1))
    chain.mine(20)
    made = Node(name, chain, random.Random(2))
    made.contracts, made.fails = set(contracts), fails
    return made


def missing(*nodes: Node, head: int = HEAD, chain_id: int = CHAIN_ID) -> frozenset[str]:
    source = Source(nodes, chain_id)  # type: ignore[arg-type]
    return asyncio.run(source.without_code((HERE, NOWHERE), head))


def test_what_no_provider_has_is_missing_and_one_that_has_it_is_enough() -> None:
    assert missing(node()) == {NOWHERE}
    assert missing(node("a"), node("b", ())) == {NOWHERE}
    assert missing(node("a", ()), node("b", ())) == {HERE, NOWHERE}
    assert missing(node("a"), node("b", (NOWHERE,))) == frozenset()


def test_once_all_are_found_nobody_else_is_asked() -> None:
    other = node("other")
    assert missing(node("a", (HERE, NOWHERE)), other) == frozenset()
    assert other.asked == 0


def test_a_provider_that_does_not_answer_or_is_behind_leaves_it_to_the_others() -> None:
    behind = node("behind", ())
    behind.fall_behind(5)
    assert missing(node("down", fails=1.0), behind, node("up")) == {NOWHERE}


def test_where_none_can_tell_yet_the_first_ones_reason_is_raised() -> None:
    behind, syncing = node("behind"), node("syncing")
    behind.fall_behind(5)
    syncing.syncing = {"currentBlock": "0x1", "highestBlock": "0xff"}
    for nodes, why in (
        ([node("down", fails=1.0), behind], "provider down: HTTP 503"),
        ([behind, syncing], "provider behind: it is at block 15, and not yet at block 19"),
        ([syncing, behind], "provider syncing: it is at block 20, and still syncs"),
    ):
        with pytest.raises(Unreachable, match=why):
            missing(*nodes)


def test_a_provider_of_another_chain_says_nothing_of_this_one() -> None:
    with pytest.raises(WrongChain):
        missing(node(), chain_id=CHAIN_ID + 1)


class Limited(Node):
    """A provider for which one block's logs are too many to serve at once."""

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        limit = RangeLimited(
            self.name, "eth_getLogs", -32005, "query returned more than 2 results", None, None
        )
        answers = await super().batch(calls)
        return [
            limit if call.method == "eth_getLogs" else answer
            for call, answer in zip(calls, answers, strict=True)
        ]


def with_logs(chain: Chain) -> int:
    """The first block with two logs."""
    return next(made.number for made in chain.blocks if len(made.whats) == 2)


def test_logs_that_are_too_many_to_serve_are_not_taken_for_none() -> None:
    chain = Chain(random.Random(1))
    chain.mine(20)
    limited, other = Limited("limited", chain, random.Random(2)), Node("other", chain, random.Random(3))
    number = with_logs(chain)
    limited.withheld = other.withheld = {number}
    with pytest.raises(RangeLimited):
        asyncio.run(Source([limited], CHAIN_ID).block(number, settled=True))  # type: ignore[list-item]
    served = asyncio.run(Source([limited, other], CHAIN_ID).block(number, settled=True))  # type: ignore[list-item]
    assert served is not None
    assert served.provider == "other"
    assert [log.data for log in served.proved.logs] == chain.blocks[number].whats


class Offering(Node):
    """A provider that has no receipts of any block, and offers of its logs what it is told to."""

    def __init__(self, name: str, chain: Chain, offers: Callable[[list[Any]], Any]) -> None:
        super().__init__(name, chain, random.Random(2))
        self.withheld = set(range(100))
        self._offers = offers

    def _answer(self, call: Call) -> Any:
        answer = super()._answer(call)
        return self._offers(answer) if call.method == "eth_getLogs" else answer


NOTHING_OF_IT: Sequence[Callable[[list[Any]], Any]] = (
    lambda _: Refused("first", "eth_getLogs", -32000, "history is pruned"),
    lambda _: None,
    lambda _: [],
)


@pytest.mark.parametrize("offers", NOTHING_OF_IT)
def test_logs_that_the_server_of_a_block_lacks_are_asked_of_the_others(
    offers: Callable[[list[Any]], Any],
) -> None:
    chain = Chain(random.Random(1))
    chain.mine(20)
    number = with_logs(chain)
    nodes = [
        Offering("first", chain, offers),
        Offering("forger", chain, lambda logs: [{**log, "topics": ["0x" + "ab" * 32]} for log in logs]),
        Offering("all", chain, lambda logs: logs),
    ]
    for names, whose, count in ((3, "all", 2), (2, "first", 0), (1, "first", 0)):
        source = Source(nodes[:names], CHAIN_ID)  # type: ignore[arg-type]
        served = asyncio.run(source.block(number, settled=True))
        assert served is not None
        assert (served.provider, served.header_by) == (whose, "first")
        assert [log.data for log in served.proved.logs] == chain.blocks[number].whats[:count]
        assert {each.provider for each in source.dissents.take()} == ({"forger"} if names > 1 else set())


class Foreign(Node):
    """An honest provider of a chain that has more in it than Ethereum's: a type of transaction, or a field of
    headers."""

    more: Callable[[dict[str, Any]], dict[str, Any]]

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        answers = await super().batch(calls)
        return [
            self.more(copy.deepcopy(answer)) if call.method == "eth_getBlockByNumber" and answer else answer
            for call, answer in zip(calls, answers, strict=True)
        ]


def deposit(block: dict[str, Any]) -> dict[str, Any]:
    """As on an OP-stack chain: without gas price, nonce and signature."""
    for tx in block["transactions"]:
        if isinstance(tx, dict):
            for key in ("chainId", "gasPrice", "nonce", "v", "r", "s"):
                tx.pop(key, None)
            tx.update(type="0x7e", sourceHash="0x" + "11" * 32, mint="0x0")
    return block


def later_fork(block: dict[str, Any]) -> dict[str, Any]:
    return block | {"hash": "0x" + "ab" * 32, "fieldToCome": "0x0"}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (deposit, "expected a transaction of type 0 to 4; got 126"),
        (later_fork, "and fields of a header that are not known here: fieldToCome"),
    ],
)
def test_nobody_is_named_for_what_this_version_can_not_read_and_who_serves_what_it_can_is_believed(
    more: Callable[[dict[str, Any]], dict[str, Any]], why: str
) -> None:
    chain = node().chain
    foreign = Foreign("foreign", chain, random.Random(2))
    foreign.more = more
    number = next(each.number for each in chain.blocks if each.block["transactions"])
    alone = Source([foreign], CHAIN_ID)  # type: ignore[list-item]
    with pytest.raises(Contradiction, match=f"provider foreign: .*{why}"):
        asyncio.run(alone.block(number, settled=True))
    both = Source([foreign, Node("other", chain, random.Random(3))], CHAIN_ID)  # type: ignore[list-item]
    served = asyncio.run(both.block(number, settled=True))
    assert served is not None
    assert served.provider == "other"
    assert alone.dissents.take() == both.dissents.take() == []

"""What several providers say together: whether contracts are there, and what none of them has."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from indexer.source import Source
from nektar.chain.rpc import Call, RangeLimited, Unreachable, WrongChain
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


def test_logs_that_are_too_many_to_serve_are_not_taken_for_none() -> None:
    chain = Chain(random.Random(1))
    chain.mine(20)
    limited, other = Limited("limited", chain, random.Random(2)), Node("other", chain, random.Random(3))
    limited.withheld = other.withheld = {7}
    with pytest.raises(RangeLimited):
        asyncio.run(Source([limited], CHAIN_ID).block(7, settled=True))  # type: ignore[list-item]
    served = asyncio.run(Source([limited, other], CHAIN_ID).block(7, settled=True))  # type: ignore[list-item]
    assert served is not None
    assert served.provider == "other"
    assert [log.data for log in served.proved.logs] == chain.blocks[7].whats

"""A mistyped address ends its Network; a provider that can't know does not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from indexer import contracts
from indexer.contracts import Presence
from indexer.source import Source
from nektar.config import ConfigError, NetworkConfig
from nektar.model import BlockRef, Hash32
from tests.indexer.world import CHAIN_ID, CONTRACT, Chain, Node

HERE, NOWHERE = "0x" + CONTRACT.hex(), "0x" + "ab" * 20


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contracts, "ASK_AGAIN", 0.0)


def node(name: str = "mine", blocks: int = 20) -> Node:
    chain = Chain(random.Random(1))
    chain.mine(blocks)
    return Node(name, chain, random.Random(2))


def presence(*nodes: Node, from_block: int = 0, **at: str) -> Presence:
    rpc = tuple(each.name for each in nodes)
    network = NetworkConfig("net", CHAIN_ID, rpc, at or {"happening": HERE}, from_block=from_block)
    return Presence(network, Source(nodes, CHAIN_ID))  # type: ignore[arg-type]


def asked(presence: Presence, tip: int | None = None) -> None:
    asyncio.run(presence.check(None if tip is None else BlockRef(tip, Hash32(bytes(32)))))


def test_an_address_without_a_contract_is_named_with_its_key_its_chain_and_who_was_asked() -> None:
    with pytest.raises(ConfigError) as wrong:
        asked(presence(node("a"), node("b"), happening=HERE, other=NOWHERE))
    assert str(wrong.value).startswith("networks.net.contracts: ")
    assert f"chain {CHAIN_ID} has none at other {NOWHERE} (asked: a, b)" in str(wrong.value)
    assert wrong.value.exit_code == 2


def test_contracts_that_are_there_are_asked_for_once() -> None:
    provider = node()
    present = presence(provider)
    asked(present)
    once = provider.asked
    provider.contracts.clear()
    asked(present)
    assert provider.asked == once


def unreachable(provider: Node) -> None:
    provider.fails = 1.0


def syncing(provider: Node) -> None:
    provider.syncing = {"currentBlock": "0x1", "highestBlock": "0xff"}


def behind(provider: Node) -> None:
    provider.fall_behind(11)  # its head is 9


def not_begun(provider: Node) -> None:
    provider.fall_behind(20)


@pytest.mark.parametrize(
    ("fault", "from_block", "tip"),
    [(unreachable, 0, None), (syncing, 0, None), (behind, 10, None), (behind, 0, 10), (not_begun, 0, None)],
)
def test_a_provider_that_can_not_know_is_asked_until_it_can(
    fault: Callable[[Node], None], from_block: int, tip: int | None
) -> None:
    provider = node()
    fault(provider)
    present = presence(provider, from_block=from_block, happening=NOWHERE)
    for _ in range(3):
        asked(present, tip)
    provider.fails, provider.syncing = 0.0, False
    provider.catch_up()
    with pytest.raises(ConfigError):
        asked(present, tip)


def test_one_provider_that_has_the_contract_is_enough_and_one_that_can_not_know_says_nothing() -> None:
    without, late = node("without"), node("late")
    without.contracts.clear()
    asked(presence(without, node("with")))
    asked(presence(node("with"), without))
    syncing(late)
    with pytest.raises(ConfigError):
        asked(presence(late, without))

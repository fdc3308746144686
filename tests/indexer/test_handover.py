"""When the log that catches up takes the older one's place: real logs, followed over nodes in memory."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from indexer.carried import Carried
from indexer.follow import Follower
from indexer.logs import Logs, Written
from indexer.network import Chain as NetworksChain
from indexer.network import follow_both
from indexer.source import Source
from nektar.bus.sqlite import SqliteBus
from nektar.config import ConfigError
from nektar.health import Health
from nektar.log import New, Record
from nektar.model import Block, Hash32, Level
from tests.indexer.process import CONTRACTS
from tests.indexer.rules import records
from tests.indexer.test_follow import node
from tests.indexer.test_generations import HERE, THERE, headers, opened
from tests.indexer.world import CHAIN_ID, Chain, Node

NAMED = "net, generation 2"
PATIENCE = 20.0


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SqliteBus]:
    with SqliteBus(tmp_path / "bus") as opened:
        yield opened


@pytest.fixture
def chain() -> Chain:
    chain = Chain(random.Random(7))
    chain.mine(20)
    return chain


class Nodes(NetworksChain):
    """A chain as two nodes show it, one to each of the Network's logs."""

    def __init__(self, chain: Chain) -> None:
        self.name = "net"
        self.health = Health()
        self.older, self.newer = node(chain), node(chain)
        self.asks = Nodes.asks
        self.asked = 0  # how often the newer one was level, and looked whether it may take the place
        self.followed = list[str]()

    async def source(self, network: Any) -> Any:
        return None

    async def follow(
        self,
        written: Written,
        source: Any,
        named: str,
        caught_up: Callable[[Follower], Awaitable[None]] | None = None,
        carried: Carried | None = None,
        writing: asyncio.Lock | None = None,
    ) -> None:
        of: Node = self.newer if caught_up else self.older
        follower = Follower(
            written.log,
            Source([of], CHAIN_ID),  # type: ignore[list-item]
            CONTRACTS,
            0.0,
            self.health,
            named=named,
            carried=carried,
            writing=writing,
        )
        if caught_up is not None:
            follower.caught_up = partial(self._caught_up, partial(caught_up, follower))
        self.followed.append(named)
        try:
            await follower.run()
        finally:
            self.followed.remove(named)

    async def _caught_up(self, caught_up: Callable[[], Awaitable[None]]) -> None:
        await self.asks(caught_up())
        self.asked += 1

    @staticmethod
    async def asks(asking: Any) -> None:
        await asking


async def until(holds: Callable[[], bool], task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # what it waits for is said by another task
            assert not task.done(), task.result()
            await asyncio.sleep(0.001)


def both(bus: SqliteBus, nodes: Nodes, then: Callable[[Logs, asyncio.Task[None]], Awaitable[None]]) -> None:
    """Follow both logs until `then` is done."""

    async def follow() -> None:
        with opened(bus, THERE) as logs:
            source = await nodes.source(None)
            task = asyncio.create_task(follow_both(nodes, logs, source, NAMED))
            try:
                await then(logs, task)
            finally:
                task.cancel()
                await asyncio.wait([task])

    with opened(bus, HERE) as logs:
        made = nodes.older.chain.blocks[0]
        parent = Hash32(bytes.fromhex(made.block["parentHash"][2:]))
        first = Block(0, Hash32(made.hash), parent, 1, Level.PROVED, "a", "single:a")
        logs.goes_on.log.append([New((first,), {})])
    asyncio.run(follow())


def blocks(of: Sequence[Record]) -> int:
    return sum(len(record.blocks) for record in of if isinstance(record, New))


def test_the_older_log_stands_while_the_newer_one_lacks_a_block_of_it(bus: SqliteBus, chain: Chain) -> None:
    nodes = Nodes(chain)
    nodes.newer.fall_behind(1)

    async def then(logs: Logs, task: asyncio.Task[None]) -> None:
        nodes.asks = nothing
        await until(lambda: blocks(records(bus, "net", 1)) == 21, task)
        nodes.asks, seen = Nodes.asks, nodes.asked
        await until(lambda: nodes.asked > seen + 3, task)
        assert logs.catching_up
        nodes.newer.catch_up()
        await until(lambda: not logs.catching_up, task)
        await until(lambda: nodes.followed == [NAMED], task)

    both(bus, nodes, then)
    until_then = records(bus, "net", 2)[: headers(bus, 2).index("stands")]
    assert blocks(until_then) == blocks(records(bus, "net", 1)) == 21


async def nothing(asking: Any) -> None:
    asking.close()


def test_what_the_older_log_is_about_to_say_at_the_handover_is_waited_for(
    bus: SqliteBus, chain: Chain
) -> None:
    """It has no block of the newer one's as they are compared, and is writing one more."""
    nodes = Nodes(chain)
    nodes.older.fall_behind(1)
    nodes.newer.fall_behind(1)
    nodes.asks = nothing
    writes, go_on = threading.Event(), threading.Event()

    async def ask(asking: Any) -> None:
        asked = asyncio.create_task(asking)
        if not go_on.is_set():
            done, _ = await asyncio.wait([asked], timeout=0.2)
            assert not done
            assert nodes.followed == ["net", NAMED]
            go_on.set()
        await asked

    async def then(logs: Logs, task: asyncio.Task[None]) -> None:
        assert logs.older is not None
        append = logs.older.log.append

        def append_late(*args: Any, **more: Any) -> None:
            writes.set()
            go_on.wait(PATIENCE)
            append(*args, **more)

        await until(lambda: nodes.asked > 0 and blocks(records(bus, "net", 1)) == 20, task)
        logs.older.log.append = append_late  # type: ignore[method-assign]
        nodes.older.catch_up()
        await until(writes.is_set, task)
        nodes.asks = ask
        await until(lambda: blocks(records(bus, "net", 1)) == 21, task)
        seen = nodes.asked
        await until(lambda: nodes.asked > seen + 3, task)
        assert logs.catching_up
        nodes.newer.catch_up()
        await until(lambda: not logs.catching_up, task)

    both(bus, nodes, then)


def test_what_is_wrong_with_the_newer_log_alone_leaves_the_older_one_followed(
    bus: SqliteBus, chain: Chain
) -> None:
    """As an address without a contract, where one is added."""
    nodes = Nodes(chain)

    async def ask(asking: Any) -> None:
        await nothing(asking)
        raise ConfigError("there is no contract")

    async def then(logs: Logs, task: asyncio.Task[None]) -> None:
        nodes.asks = ask
        await until(lambda: nodes.followed == ["net"], task)
        chain.mine(1)
        await until(lambda: blocks(records(bus, "net", 1)) == 22, task)
        assert logs.catching_up
        assert f"{NAMED}: ended: there is no contract" in nodes.health.behind()

    both(bus, nodes, then)

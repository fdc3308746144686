"""An indexer of one Network on a real bus, in a test's hands: it looks when it is told to, and may die."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

from indexer.follow import Follower
from indexer.prove import Contradiction
from indexer.source import Source
from indexer.writer import NetworkLog
from nektar.bus.sqlite import SqliteBus
from nektar.chain.abi import load
from nektar.chain.rpc import RpcError
from nektar.config import NetworkConfig
from nektar.generations import filter_of, generation
from nektar.health import Health
from nektar.log import Record
from nektar.model import Address
from tests.indexer.rules import Reading, records
from tests.indexer.world import ABI, CHAIN_ID, CONTRACT, Made, Node

CONTRACTS = {Address(CONTRACT): load(ABI)}
FILTER = b"f" * 32


def network(from_block: int = 0, name: str = "net") -> NetworkConfig:
    return NetworkConfig(name, CHAIN_ID, ("a",), {}, from_block=from_block)


def filter_hash(of: NetworkConfig, abis: Any) -> bytes:
    """What a log of this configuration is begun with."""
    return generation(of.generation, filter_of(of, abis)).hash


class Killed(BaseException):
    """As kill -9: nothing that catches errors sees it."""


class Mortal(NetworkLog):
    """A log whose process may die just before or just after a record is committed."""

    chance = 0.0
    rng = random.Random(0)
    is_dead = False

    def append(self, records: Any, *others: Any, **more: Any) -> None:
        before, after = (self.rng.random() < self.chance / 2 for _ in range(2))
        if before or self.is_dead:
            raise Killed
        super().append(records, *others, **more)
        if after:
            raise Killed


class Process:
    """An indexer of one Network that a test makes look at its chain, and that may die and come back."""

    def __init__(self, bus: SqliteBus, nodes: list[Node], config: NetworkConfig | None = None) -> None:
        self.bus, self.nodes, self.config = bus, nodes, config or network()
        self.deaths = 0
        self.errors: list[Exception] = []
        self.runner = asyncio.Runner()
        self.health = Health()
        self.start()

    def start(self, chance: float = 0.0, rng: random.Random | None = None) -> None:
        self.log = Mortal(self.bus, self.config, FILTER)
        self.log.chance, self.log.rng = chance, rng or random.Random(0)
        self.follower = Follower(self.log, Source(self.nodes, CHAIN_ID), CONTRACTS, 0.0, self.health)  # type: ignore[arg-type]

    def restart(self) -> None:
        self.log.close()
        self.start(self.log.chance, self.log.rng)

    def look(self, times: int = 1, dies_after: int | None = None) -> None:
        """Look so often. With `dies_after` the process is killed after that many turns of its loop, at
        whichever await it has come to."""
        for _ in range(times):
            try:
                self.runner.run(self._look(dies_after))
            except (RpcError, Contradiction) as error:
                self.errors.append(error)
            except Killed:
                self.deaths += 1
                self.restart()

    async def _look(self, dies_after: int | None) -> None:
        if dies_after is None:
            return await self.follower.look()
        looking = asyncio.create_task(self.follower.look())
        for _ in range(dies_after):
            if looking.done():
                break
            await asyncio.sleep(0)
        else:
            self.log.is_dead = True  # who is killed writes nothing on the way out
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            raise Killed
        await looking

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        self.log.close()
        self.runner.close()

    @property
    def written(self) -> list[Record]:
        return records(self.bus, self.config.name)

    @property
    def reading(self) -> Reading:
        return Reading(self.written)


def assert_tells(reading: Reading, blocks: Iterable[Made]) -> None:
    """The log's surviving chain and rows are these blocks' and their logs'."""
    expected = list(blocks)
    assert [b.hash for b in reading.blocks] == [made.hash for made in expected]
    said = Counter((block_hash, what) for _, block_hash, what in reading.rows.elements())
    assert said == Counter((made.hash, what) for made in expected for what in made.whats)

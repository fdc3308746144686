"""One Network, followed: by the log that goes on, and while that catches up by the one that stands, too.

Where one of the two can't go on it ends alone: what the one that stands has said stands until the newer one
takes its place, and is said on where that one can't.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

from indexer.carried import SECONDS_AFTER, Carried
from indexer.follow import Follower
from indexer.logs import Logs, Written, has_caught_up
from indexer.reverts import Reverts
from indexer.source import Source
from nektar.bus.port import Bus, BusError
from nektar.chain import abi
from nektar.chain.abi import Abi
from nektar.chain.anchor import parse as parse_anchor
from nektar.chain.announced import Announced
from nektar.chain.rpc import Provider, first_telling_block, no_contract, open_providers
from nektar.config import Config, ConfigError, NetworkConfig
from nektar.errors import NektarError
from nektar.health import READY_SECONDS, Health, words
from nektar.model import Address
from nektar.networks.adapter import Adapter, kind, require_known

logger = logging.getLogger(__name__)


async def follow(config: Config, network: NetworkConfig, adapter: Adapter, bus: Bus, health: Health) -> None:
    """Follow the Network until cancelled. Raises NektarError where it can't go on."""
    async with AsyncExitStack() as opened:
        providers = await open_providers(config, network.name, opened)
        chain = Chain(config, network.name, adapter, providers, health, opened)
        source = await chain.source(network)
        logs = opened.enter_context(Logs(bus, network, adapter))
        if not logs.catching_up:
            await chain.follow(logs.goes_on, source, network.name, carried=logs.carried)
            return
        number = logs.goes_on.network.generation
        logger.info(
            "%s: generation %d begins, since what decides the log's content has changed, or its number was "
            "raised; generation %d stands until it has caught up",
            network.name,
            number,
            logs.said.standing.number,
        )
        await follow_both(chain, logs, source, f"{network.name}, generation {number}")


async def follow_both(chain: Chain, logs: Logs, source: Source, named: str) -> None:
    """Follow the log that catches up, and the older one beside it until it has."""
    older: asyncio.Task[None] | None = None
    writing = asyncio.Lock()  # what the older one says next

    async def follow_older(written: Written) -> None:
        await chain.follow(written, await chain.source(written.network), chain.name, writing=writing)

    async def hand_over(follower: Follower) -> None:
        nonlocal older
        async with writing:  # so that the older one says nothing after it was compared
            still = logs.older if older is not None and not older.done() else None
            if not has_caught_up(still and still.log.known, logs.goes_on.log.known):
                return
            if older is not None:
                ended, older = older, None
                ended.cancel()
                await asyncio.wait([ended])
        await follower.carry_on()
        await asyncio.to_thread(logs.hand_over)
        follower.caught_up, follower.named = None, chain.name
        follower.carry_until = asyncio.get_running_loop().time() + SECONDS_AFTER
        chain.health.opened(chain.name, READY_SECONDS + logs.goes_on.network.poll)
        chain.health.closed(named)
        logger.info("%s has caught up, and stands from now on", named)

    if logs.older is None:
        chain.health.closed(chain.name)  # nobody follows what stands
    else:
        older = asyncio.create_task(follow_older(logs.older))
    newer = asyncio.create_task(chain.follow(logs.goes_on, source, named, hand_over, logs.carried))
    try:
        while not newer.done():
            ran = {newer} if older is None else {newer, older}
            await asyncio.wait(ran, return_when=asyncio.FIRST_COMPLETED)
            if older is not None and older.done():
                chain.older_ended(older)
                older = None
        if older is not None and (error := _fault_of_its_own(newer)) is not None:
            chain.newer_ended(error, named)
            await older
        await newer
    finally:
        for task in (newer, older):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])


def _fault_of_its_own(ended: asyncio.Task[None]) -> Exception | None:
    """The error by which a log has ended, where that concerns no other log, and no new start mends it."""
    error = None if ended.cancelled() else ended.exception()
    return error if isinstance(error, Exception) and not isinstance(error, BusError) else None


class Chain:
    """A Network's chain as its providers serve it, for each of the Network's logs."""

    def __init__(
        self,
        config: Config,
        name: str,
        adapter: Adapter,
        providers: Sequence[Provider],
        health: Health,
        opened: AsyncExitStack,
    ) -> None:
        """`opened` ends what is begun here."""
        self.name = name
        self.health = health
        self._config = config
        self._adapter = adapter
        self._providers = providers
        self._opened = opened

    async def source(self, network: NetworkConfig) -> Source:
        """Raises WrongChain, NotPinned, ConfigError."""
        contracts_of(network, self._adapter)
        anchor = parse_anchor(network.anchor, len(network.rpc))
        source = Source(self._providers, network.chain_id, anchor, network.name, network.finality_depth)
        self._opened.push_async_callback(source.close)
        await source.check_chain()
        return source

    async def follow(
        self,
        written: Written,
        source: Source,
        named: str,
        caught_up: Callable[[Follower], Awaitable[None]] | None = None,
        carried: Carried | None = None,
        writing: asyncio.Lock | None = None,
    ) -> None:
        """Follow the chain with one log until cancelled. Raises NektarError where it can't go on."""
        network, log = written
        tip = log.known.tip
        logger.info(
            "%s: following from block %d on, by provider %s",
            named,
            network.from_block if tip is None else tip.number + 1,
            source.name,
        )
        errors = {
            selector: error
            for each in self._adapter.abi().values()
            for selector, error in abi.load(each).errors.items()
        }

        async def contracts_stand() -> None:
            """At an address without a contract nothing ever happens, which looks like a quiet Network."""
            head = max(first_telling_block(network), 0 if tip is None else tip.number)
            if missing := await source.without_code(tuple(network.contracts.values()), head):
                raise no_contract(network, missing)

        providers = self._config.providers
        announced = Announced({name: ws for name in network.rpc if (ws := providers[name].ws)})
        follower = Follower(
            log,
            source,
            contracts_of(network, self._adapter),
            network.poll,
            self.health,
            announced,
            Reverts(self._providers, errors),
            only_with_events=network.calls == "with_events",
            named=named,
            carried=carried,
            writing=writing,
        )
        if caught_up is not None:
            follower.caught_up = partial(caught_up, follower)
        else:
            follower.carry_until = asyncio.get_running_loop().time() + SECONDS_AFTER
        beside = [
            asyncio.create_task(each)
            for each in (follower.say_that_it_waits(), source.pool.watch(), announced.listen())
        ]
        try:
            await follower.run(contracts_stand)
        finally:
            for task in beside:
                task.cancel()

    def newer_ended(self, error: Exception, named: str) -> None:
        """Say that the log that catches up is followed no further, and why; what stands is."""
        bug = None if isinstance(error, NektarError) else error
        logger.error("%s: stopped: %s; the one that stands is followed on", named, error, exc_info=bug)
        self.health.ends(named, {"": words(error)})

    def older_ended(self, task: asyncio.Task[None]) -> None:
        """Say that the log that stands is followed no further, and why. Raises BusError."""
        error = None if task.cancelled() else task.exception()
        if isinstance(error, BusError):
            raise error
        if error is not None:
            bug = None if isinstance(error, NektarError) else error
            logger.error(
                "%s: the generation that stands is followed no further: %s", self.name, error, exc_info=bug
            )
        self.health.closed(self.name)


def contracts_of(network: NetworkConfig, adapter: Adapter) -> dict[Address, Abi]:
    """The configured contracts' ABIs by address. Raises ConfigError for a name that the adapter lacks."""
    require_known(network, adapter)
    abis = adapter.abi()
    found: dict[Address, Abi] = {}
    for contract, address in network.contracts.items():
        key = Address(bytes.fromhex(address[2:]))
        if key in found:
            raise ConfigError(
                f"networks.{network.name}.contracts.{contract}: expected one contract an address; "
                f"{address} is named twice"
            )
        found[key] = abi.load(abis[kind(contract)])
    return found

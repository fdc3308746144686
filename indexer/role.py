"""The indexer as a role: one task a Network, each with its own log, until told to stop.

A Network that can't go on (a reorg below finality, a changed filter, a mistyped address) ends alone; the
others are followed on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from contextlib import AsyncExitStack

from indexer.contracts import Presence, contracts_of
from indexer.follow import Follower
from indexer.source import Source
from indexer.writer import NetworkLog, filter_hash
from nektar.bus.port import Bus
from nektar.chain.rpc import Provider
from nektar.config import Config, NetworkConfig
from nektar.errors import NektarError
from nektar.networks.adapter import Adapter

logger = logging.getLogger(__name__)

# Seconds between two looks at `stop`, which another thread or a signal sets.
LOOK_AT_STOP = 0.05


def run(config: Config, adapters: Mapping[str, Adapter], bus: Bus, stop: threading.Event) -> None:
    """Follow every Network until `stop` is set. `adapters` are by the Networks' names.

    Returns once stopped. Raises the first NektarError by which a Network ended, when none is left.
    """
    asyncio.run(_run(config, adapters, bus, stop))


async def _run(config: Config, adapters: Mapping[str, Adapter], bus: Bus, stop: threading.Event) -> None:
    ended: list[NektarError] = []

    async def one(network: NetworkConfig) -> None:
        try:
            await follow(config, network, adapters[network.name], bus)
        except NektarError as error:
            logger.error("%s: stopped: %s", network.name, error)
            ended.append(error)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(network), name=network.name) for network in config.networks]
        pending = set(tasks)
        while pending and not stop.is_set():
            _, pending = await asyncio.wait(pending, timeout=LOOK_AT_STOP)
        for task in tasks:
            task.cancel()
    if ended and not stop.is_set():
        raise ended[0]


async def follow(config: Config, network: NetworkConfig, adapter: Adapter, bus: Bus) -> None:
    """Follow one Network until cancelled. Raises NektarError where it can't go on."""
    abis = adapter.abi()
    contracts = contracts_of(network, adapter)
    async with AsyncExitStack() as opened:
        providers = []
        for name in network.rpc:
            settings = config.providers[name]
            providers.append(await opened.enter_async_context(Provider(name, settings.url, settings.limits)))
        source = Source(providers, network.chain_id)
        await source.check_chain()
        log = opened.enter_context(NetworkLog(bus, network, filter_hash(network, abis)))
        tip = log.known.tip
        logger.info(
            "%s: following from block %d on, by provider %s",
            network.name,
            network.from_block if tip is None else tip.number + 1,
            source.name,
        )
        presence = Presence(network, source)
        await Follower(log, source, contracts, network.poll, presence.check).run()

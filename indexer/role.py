"""The indexer as a role: one task a Network, each with its own log, until told to stop.

A Network that can't go on (a reorg below finality, a changed filter, an address without a contract, a bug)
ends alone; the others are followed on. What the bus can't do ends the role, which a new start may mend.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from contextlib import AsyncExitStack

from indexer.follow import Follower
from indexer.found import found_by
from indexer.reverts import Reverts
from indexer.source import Source
from indexer.writer import NetworkLog, filter_hash
from nektar.bus.port import Bus, BusError, Fenced
from nektar.chain import abi
from nektar.chain.abi import Abi
from nektar.chain.anchor import parse as parse_anchor
from nektar.chain.announced import Announced
from nektar.chain.rpc import Provider, first_telling_block, no_contract
from nektar.config import Config, ConfigError, NetworkConfig
from nektar.errors import NektarError
from nektar.health import READY_SECONDS, Health, words
from nektar.model import Address
from nektar.networks.adapter import Adapter, kind, require_known

logger = logging.getLogger(__name__)

# Seconds between two looks at `stop`, which another thread or a signal sets.
LOOK_AT_STOP = 0.05


def run(
    config: Config, adapters: Mapping[str, Adapter], bus: Bus, stop: threading.Event, health: Health
) -> None:
    """Follow every Network until `stop` is set. `adapters` are by the Networks' names.

    Returns once stopped. Raises BusError; and the first error by which a Network ended, when none is left.
    """
    asyncio.run(_run(config, adapters, bus, stop, health))


async def _run(
    config: Config, adapters: Mapping[str, Adapter], bus: Bus, stop: threading.Event, health: Health
) -> None:
    ended: dict[str, Exception] = {}  # by the Network's name, the first one first
    broken: list[BusError] = []

    async def one(network: NetworkConfig) -> None:
        health.opened(network.name, READY_SECONDS + network.poll)
        try:
            await follow(config, network, adapters[network.name], bus, health)
        except Exception as error:
            if isinstance(error, BusError) and not isinstance(error, Fenced):
                broken.append(error)
                return
            if isinstance(error, NektarError):
                logger.error("%s: stopped: %s", network.name, error)
            else:
                logger.exception("%s: stopped by a bug (%s): %s", network.name, type(error).__name__, error)
            ended[network.name] = error
            health.ends("", {name: words(each) for name, each in ended.items()})

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(network), name=network.name) for network in config.networks]
        pending = set(tasks)
        while pending and not broken and not stop.is_set():
            _, pending = await asyncio.wait(pending, timeout=LOOK_AT_STOP)
        for task in tasks:
            task.cancel()
    if not stop.is_set():
        for error in (*broken, *ended.values()):
            raise error


async def follow(config: Config, network: NetworkConfig, adapter: Adapter, bus: Bus, health: Health) -> None:
    """Follow one Network until cancelled. Raises NektarError where it can't go on."""
    abis = adapter.abi()
    contracts, found = contracts_of(network, adapter), found_by(network, adapter)
    async with AsyncExitStack() as opened:
        providers = []
        for name in network.rpc:
            settings = config.providers[name]
            providers.append(await opened.enter_async_context(Provider(name, settings.url, settings.limits)))
        anchor = parse_anchor(network.anchor, len(network.rpc))
        source = Source(providers, network.chain_id, anchor, network.name)
        opened.push_async_callback(source.close)
        await source.check_chain()
        log = opened.enter_context(NetworkLog(bus, network, filter_hash(network, abis), found))
        tip = log.known.tip
        logger.info(
            "%s: following from block %d on, by provider %s",
            network.name,
            network.from_block if tip is None else tip.number + 1,
            source.name,
        )

        errors = {
            selector: error for each in abis.values() for selector, error in abi.load(each).errors.items()
        }

        async def contracts_stand() -> None:
            """At an address without a contract nothing ever happens, which looks like a quiet Network."""
            head = max(first_telling_block(network), 0 if tip is None else tip.number)
            if missing := await source.without_code(tuple(network.contracts.values()), head):
                raise no_contract(network, missing)

        announced = Announced({name: ws for name in network.rpc if (ws := config.providers[name].ws)})
        follower = Follower(
            log,
            source,
            contracts,
            network.poll,
            health,
            announced,
            Reverts(providers, errors),
            only_with_events=network.calls == "with_events",
        )
        beside = [
            asyncio.create_task(each)
            for each in (follower.say_that_it_waits(), source.pool.watch(), announced.listen())
        ]
        try:
            await follower.run(contracts_stand)
        finally:
            for task in beside:
                task.cancel()


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

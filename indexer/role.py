"""The indexer as a role: one task a Network, each with its own log, until told to stop.

A Network that can't go on (a reorg below finality, a changed filter, an address without a contract, a bug)
ends alone; the others are followed on. What the bus can't do ends the role, which a new start may mend.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping

from indexer.network import follow
from nektar.bus.port import Bus, BusError, Fenced
from nektar.config import Config, NetworkConfig
from nektar.errors import NektarError
from nektar.health import READY_SECONDS, Health, words
from nektar.networks.adapter import Adapter

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

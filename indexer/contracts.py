"""The configured contracts: what their names mean, and whether they are there at all.

At an address without a contract nothing ever happens, which looks like a quiet Network. So the providers are
asked for the code at each address before the first block is fetched, and again until one of them can know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from indexer.source import Source
from nektar.chain import abi
from nektar.chain.abi import Abi
from nektar.config import ConfigError, NetworkConfig
from nektar.model import Address, BlockRef
from nektar.networks.adapter import Adapter

logger = logging.getLogger(__name__)

# Seconds between two questions to providers that can't know yet, since they sync or do not answer.
ASK_AGAIN = 10.0


def contracts_of(network: NetworkConfig, adapter: Adapter) -> dict[Address, Abi]:
    """The configured contracts' ABIs by address. Raises ConfigError for a name that the adapter lacks."""
    abis = adapter.abi()
    found: dict[Address, Abi] = {}
    for contract, address in network.contracts.items():
        where = f"networks.{network.name}.contracts.{contract}"
        if contract not in abis:
            raise ConfigError(
                f"{where}: expected one of {', '.join(sorted(abis))}, which the adapter {network.adapter!r} "
                "knows"
            )
        key = Address(bytes.fromhex(address[2:]))
        if not any(key):
            raise ConfigError(f"{where}: expected the address of your contract; got the zero address")
        if key in found:
            raise ConfigError(f"{where}: expected one contract an address; {address} is named twice")
        found[key] = abi.load(abis[contract])
    return found


def reached(network: NetworkConfig, tip: BlockRef | None) -> int:
    """The block that a provider's head must have come to before it can know: the first that is asked for and
    the last that the log has. A node that has not begun to sync shows the genesis block alone."""
    return max(network.from_block, 1, 0 if tip is None else tip.number)


def no_contract(network: NetworkConfig, missing: Iterable[str]) -> ConfigError:
    """What is wrong where these addresses have no code."""
    named = ", ".join(f"{name} {at}" for name, at in network.contracts.items() if at in missing)
    return ConfigError(
        f"networks.{network.name}.contracts: expected a contract at each address; chain {network.chain_id} "
        f"has none at {named} (asked: {', '.join(network.rpc)}): check the address, and that rpc serves the "
        "chain that it is on"
    )


class Presence:
    """Whether a Network's contracts are there."""

    def __init__(self, network: NetworkConfig, source: Source) -> None:
        self._network = network
        self._source = source
        self._ask_at: float | None = 0.0  # None: they are there

    async def check(self, tip: BlockRef | None) -> None:
        """Ask, unless that is done or has just been tried; `tip` is the last block that the log has. Raises
        ConfigError where the providers know of no contract at an address, WrongChain."""
        now = asyncio.get_running_loop().time()
        if self._ask_at is None or now < self._ask_at:
            return
        addresses = tuple(self._network.contracts.values())
        missing = await self._source.without_code(addresses, reached(self._network, tip))
        if missing is None:
            if not self._ask_at:
                logger.info("%s: no provider can say yet whether its contracts are there", self._network.name)
            self._ask_at = now + ASK_AGAIN
        elif missing:
            raise no_contract(self._network, missing)
        else:
            self._ask_at = None

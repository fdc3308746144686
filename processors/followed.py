"""Which logs are followed: of each Network the one that stands, and one that catches up with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nektar import generations, log
from nektar.bus.port import Bus
from nektar.config import Config, NetworkConfig
from nektar.log import NETWORK
from nektar.model import Address, Network
from nektar.networks.adapter import Adapter


def followed(config: Config, adapters: Mapping[str, Adapter], bus: Bus) -> list[Network]:
    """The logs of the configured Networks that are followed: of each the generation that stands, and the one
    that catches up with it. Raises BusError."""
    found = []
    for each in config.networks:
        said = generations.read(bus, each.name)
        if said is None:  # no indexer has begun yet, or one of an earlier version
            found.append(network_of(each))
            continue
        for generation in (said.standing, said.next):
            then = generation and generations.configured(each, generation, adapters[each.name])
            if then:
                found.append(network_of(then))
    return found


def begun(networks: Sequence[Network], bus: Bus) -> dict[bytes, int]:
    """By the log's key an offset below which nothing of it lies: who follows a log that has just begun need
    not read what others of the partition have said before. Raises BusError."""
    said = {each.name: generations.read(bus, each.name) for each in networks}
    return {
        log.key(each.name, each.generation): generations.begins(said[each.name], each.generation, NETWORK)
        for each in networks
    }


def network_of(config: NetworkConfig) -> Network:
    """What folds know of a configured Network."""
    contracts = {name: Address(bytes.fromhex(value[2:])) for name, value in config.contracts.items()}
    return Network(config.name, config.chain_id, contracts, config.generation, config.selector, config.terms)

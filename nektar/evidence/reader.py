"""What a configured Network's reader believes: evidence is held against that and nothing else."""

from __future__ import annotations

import re

from nektar.config import NetworkConfig
from nektar.evidence.verify import Reader
from nektar.model import Address, Hash32, Network


def reader_of(configured: NetworkConfig, generation: Network | None = None) -> Reader:
    """The reader that nektar.yaml describes; of an older generation, one that goes by its contracts and
    terms."""
    code = {name: Hash32(bytes.fromhex(each[2:])) for name, each in configured.code.items()}
    if generation is not None:
        return Reader(generation.chain_id, generation.contracts, code, terms_of(generation))
    contracts = {name: Address(bytes.fromhex(at[2:])) for name, at in configured.contracts.items()}
    return Reader(configured.chain_id, contracts, code, terms_of(configured))


def terms_of(network: Network | NetworkConfig) -> dict[str, int]:
    """What predicates are told: the Network's terms, and among them `network`, its id in the registry, as a
    number."""
    said = network.selector.get("network", "")
    return network.terms | ({"network": int(said, 16)} if re.fullmatch("0x[0-9a-fA-F]{64}", said) else {})

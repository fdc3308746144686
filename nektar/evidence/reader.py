"""What a configured Network's reader believes: evidence is held against that and nothing else."""

from __future__ import annotations

import re

from nektar.config import NetworkConfig
from nektar.evidence.verify import Reader
from nektar.model import Address, Hash32, Network


def reader_of(network: NetworkConfig) -> Reader:
    """The reader that nektar.yaml describes."""
    return Reader(
        chain_id=network.chain_id,
        contracts={name: Address(bytes.fromhex(at[2:])) for name, at in network.contracts.items()},
        code={name: Hash32(bytes.fromhex(each[2:])) for name, each in network.code.items()},
        terms=terms_of(network),
    )


def terms_of(network: Network | NetworkConfig) -> dict[str, int]:
    """What predicates are told: the Network's terms, and among them `network`, its id in the registry, as a
    number."""
    said = network.selector.get("network", "")
    return network.terms | ({"network": int(said, 16)} if re.fullmatch("0x[0-9a-fA-F]{64}", said) else {})

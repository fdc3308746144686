"""What a configured Network's reader believes: evidence is held against that and nothing else."""

from __future__ import annotations

from nektar.config import NetworkConfig
from nektar.evidence.verify import Reader
from nektar.model import Address, Hash32


def reader_of(network: NetworkConfig) -> Reader:
    """The reader that nektar.yaml describes."""
    return Reader(
        chain_id=network.chain_id,
        contracts={name: Address(bytes.fromhex(at[2:])) for name, at in network.contracts.items()},
        code={name: Hash32(bytes.fromhex(each[2:])) for name, each in network.code.items()},
        terms=network.terms,
    )

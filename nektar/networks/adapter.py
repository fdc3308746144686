"""What a Network adapter is: one file per flavour of contracts, and the only place that knows their meaning.

The indexer knows bytes: it decodes what `abi` names into typed columns. Whoever interprets the log asks
`events`. So changing what something means is a replay of the log, never a re-index of the chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from nektar.config import ConfigError, NetworkConfig
from nektar.errors import NektarError
from nektar.model import ChainEvent, Network


class AdapterError(NektarError):
    """The log holds something that the adapter's contracts can't have emitted."""


class Adapter(Protocol):
    """One flavour of contracts."""

    name: str
    selector: frozenset[str]  # what it is told of which part of shared contracts is a Network's
    terms: frozenset[str]  # what it is told that contracts hold in their code

    def abi(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Contract name, as in `nektar.yaml` → its ABI (the JSON that solc writes)."""

    def events(self, network: Network, tables: Mapping[str, bytes]) -> Sequence[ChainEvent]:
        """What the rows of one `New` record mean, in the chain's order.

        `tables` are `nektar.log.New.tables`; a table that the adapter has no use for is not decoded.
        """


def kind(contract: str) -> str:
    """What a configured contract is for the adapter: of several of one kind, each has a name after a slash,
    as the `slasher/steth` and `slasher/eth` of a Network that has one for each vault."""
    return contract.partition("/")[0]


def require_known(network: NetworkConfig, adapter: Adapter) -> None:
    """Raises ConfigError for a name in `contracts`, `selector` or `terms` that the adapter does not know."""
    known = {
        "contracts": ([*map(kind, network.contracts)], adapter.abi()),
        "selector": (network.selector, adapter.selector),
        "terms": (network.terms, adapter.terms),
    }
    for field, (names, allowed) in known.items():
        for name in names:
            if name not in allowed:
                raise ConfigError(
                    f"networks.{network.name}.{field}: expected names that the adapter {network.adapter!r} "
                    f"knows ({', '.join(sorted(allowed)) or 'none'}); got {name!r}"
                )

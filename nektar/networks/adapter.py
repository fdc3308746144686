"""What a Network adapter is: one file per flavour of contracts, and the only place that knows their meaning.

The indexer knows bytes: it decodes what `abi` names into typed columns. Whoever interprets the log asks
`events`. So changing what something means is a replay of the log, never a re-index of the chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from nektar.errors import NektarError
from nektar.model import ChainEvent, Network


class AdapterError(NektarError):
    """The log holds something that the adapter's contracts can't have emitted."""


class Adapter(Protocol):
    """One flavour of contracts."""

    name: str

    def abi(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Contract name, as in `nektar.yaml` → its ABI (the JSON that solc writes)."""

    def events(self, network: Network, tables: Mapping[str, bytes]) -> Sequence[ChainEvent]:
        """What the rows of one `New` record mean, in the chain's order.

        `tables` are `nektar.log.New.tables`; a table that the adapter has no use for is not decoded.
        """

"""What happened in proved blocks, as Arrow: one table per event type and per function called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from indexer.prove import Proved
from nektar.chain.abi import Abi
from nektar.model import Address, At, BlockRef


class Undecodable(msgspec.Struct, frozen=True):
    """A log or call of our contracts that its ABI can't have made, whole, and why."""

    block: BlockRef
    at: At  # a call has the log index -1
    address: Address
    topics: tuple[bytes, ...]  # none for a call
    data: bytes  # the log's data, or the call's input
    reason: str


def tables(
    contracts: Mapping[Address, Abi], proved: Sequence[Proved]
) -> tuple[dict[str, bytes], list[Undecodable]]:
    """Table name → Arrow IPC stream, for `nektar.log.New.tables`, and what could not be read.

    Rows stand in the chain's order; a table without rows is left out; the same blocks give the same bytes.
    Logs whose first topic no event of the contract has are out of scope and are not taken.
    """
    raise NotImplementedError

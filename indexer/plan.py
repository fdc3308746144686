"""What bulk reading is told to read, and under which name that stands in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from indexer.ranges import Range
from nektar.chain.abi import Abi, EventType
from nektar.model import Address, Level
from nektar.store.schema import literal


class Plan(NamedTuple):
    """What is to be read, and under which name it stands in the store."""

    name: str
    chain_id: int
    contracts: Mapping[Address, Abi]
    blocks: Range
    level: Level
    audit: bool = False  # prove what was reported of the blocks, and read no others

    @property
    def events(self) -> list[EventType]:
        """Every event of the contracts, once."""
        return list({event.table: event for abi in self.contracts.values() for event in abi.events}.values())

    @property
    def filter(self) -> bytes:
        """What decides which rows a block has, hashed."""
        events = {
            address.hex(): sorted(event.table for event in abi.events)
            for address, abi in self.contracts.items()
        }
        content = msgspec.json.encode([str(self.chain_id), events], order="deterministic")
        return hashlib.sha256(content).digest()

    @property
    def mine(self) -> str:
        """Which rows of `coverage`, `undecoded` and `dissent` are of this plan, as a condition in SQL."""
        return f"network = {literal(self.name)} AND filter = unhex('{self.filter.hex()}')"

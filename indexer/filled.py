"""What bulk reading has put into a store, and how it puts more there: rows first, then that they are there.

A row's place (Network, block, log) is its key, so what is written twice stands once. `coverage` is written
last: blocks that it names have all their rows in the store.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from indexer.decode import Undecodable
from indexer.ranges import Range, joined
from indexer.reported import Batch
from nektar.chain.abi import Abi, EventType
from nektar.coverage import CoverageRow, UndecodedRow
from nektar.model import Address, Level
from nektar.store.port import Store
from nektar.store.schema import DELETED, abi_table, create_table, literal, row_table, rows_to_arrow, stored
from nektar.store.views import create_views

# Rows in one insert: ClickHouse takes few large ones best, and they are held until then.
ROWS_AN_INSERT = 100_000
# There is no log with offsets here. A row that was read better checked takes the place of one that was not.
VERSIONS = {Level.REPORTED: 1 << 48, Level.PROVED: (1 << 48) + 1}

LOGS = "logs"  # the kind of coverage


class Plan(NamedTuple):
    """What is to be read, and under which name it stands in the store."""

    name: str
    contracts: Mapping[Address, Abi]
    blocks: Range
    level: Level

    @property
    def events(self) -> list[EventType]:
        """Every event of the contracts, once."""
        return list({event.table: event for abi in self.contracts.values() for event in abi.events}.values())

    @property
    def filter(self) -> bytes:
        """What decides which rows a block has, hashed."""
        content = {
            address.hex(): sorted(event.table for event in abi.events)
            for address, abi in self.contracts.items()
        }
        return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).digest()


class Read(NamedTuple):
    """What the blocks of a range held."""

    blocks: Range
    provider: str
    batches: Sequence[Batch]
    lost: Sequence[Undecodable]
    logs: int


class Filled:
    """The tables that a plan fills."""

    def __init__(self, store: Store, plan: Plan) -> None:
        """Make the tables that are missing, and views of their plain names. Raises StoreError."""
        self._store = store
        self._plan = plan
        self._tables = {event.table: abi_table(event) for event in plan.events}
        for table in self._tables.values():
            store.command(create_table(table))
        for name, view in create_views(self._tables.values()).items():
            if name not in ("events", "calls"):  # those of a Network's own
                store.command(view)

    def there(self) -> list[Range]:
        """The blocks that the store has already, checked as well as the plan asks."""
        levels = [Level.PROVED] if self._plan.level is Level.PROVED else [Level.PROVED, Level.REPORTED]
        rows = self._store.rows(
            f"SELECT first, last FROM {row_table(CoverageRow).name} FINAL"  # noqa: S608  # quoted
            f" WHERE network = {literal(self._plan.name)} AND kind = {literal(LOGS)}"
            f" AND filter = unhex('{self._plan.filter.hex()}')"
            f" AND level IN ({', '.join(literal(str(level)) for level in levels)})"
        )
        return joined(Range(first, last) for first, last in rows)

    def add(self, reads: Sequence[Read]) -> None:
        """Insert what was read, and then that it is there. Raises StoreError."""
        if not reads:
            return
        level, version = str(self._plan.level), VERSIONS[self._plan.level]
        found: dict[str, list[pa.RecordBatch]] = {}
        for read in reads:
            for event, rows in read.batches:
                found.setdefault(event.table, []).append(rows)
        for name, batches in found.items():
            rows = pa.Table.from_batches(batches)
            self._insert(self._tables[name].name, stored(rows, self._plan.name, version, False, level))
        self._say(UndecodedRow, [_undecoded(lost) for read in reads for lost in read.lost], version)
        now = int(time.time())
        coverage = []
        for provider in sorted({read.provider for read in reads}):
            of_provider = [read for read in reads if read.provider == provider]
            for blocks in joined(read.blocks for read in of_provider):
                held = sum(
                    read.logs for read in of_provider if blocks.first <= read.blocks.first <= blocks.last
                )
                coverage.append(
                    CoverageRow(
                        kind=LOGS,
                        first=blocks.first,
                        last=blocks.last,
                        filter=self._plan.filter,
                        level=level,
                        provider=provider,
                        anchor=f"single:{provider}",
                        rows=held,
                        checked=now,
                    )
                )
        self._say(CoverageRow, coverage, version)

    def _say(self, row_type: Any, rows: Sequence[Any], version: int) -> None:
        if rows:
            said = pa.Table.from_batches([rows_to_arrow(row_type, [(row, False) for row in rows])])
            said = stored(said.drop_columns([DELETED]), self._plan.name, version, False)
            self._insert(row_table(row_type).name, said)

    def _insert(self, table: str, rows: Any) -> None:
        # Another read of the same blocks may hold other rows, and none of them may be dropped as one that has
        # been there: no two inserts are the same.
        self._store.insert(table, rows, f"bulk:{os.urandom(16).hex()}")


def _undecoded(lost: Undecodable) -> UndecodedRow:
    return UndecodedRow(
        block_number=lost.block.number,
        block_hash=lost.block.hash,
        tx_index=lost.at.tx,
        log_index=lost.at.log,
        address=lost.address,
        topics=",".join("0x" + topic.hex() for topic in lost.topics),
        data="0x" + lost.data.hex(),
        reason=lost.reason,
    )

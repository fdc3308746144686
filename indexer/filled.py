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

from indexer.decode import Undecodable
from indexer.prove import Contradiction
from indexer.ranges import Range
from indexer.reported import Batch
from nektar.arrow import pa
from nektar.chain.abi import Abi, EventType
from nektar.coverage import CoverageRow, UndecodedRow
from nektar.model import Address, Hash32, Level
from nektar.store.port import Store
from nektar.store.schema import DELETED, abi_table, create_table, literal, row_table, rows_to_arrow, stored
from nektar.store.views import create_views

# Rows in one insert: ClickHouse takes few large ones best, and they are held until then.
ROWS_AN_INSERT = 100_000
# There is no log with offsets here. A row that was read better checked takes the place of one that was not.
VERSIONS = {Level.REPORTED: 1 << 48, Level.PROVED: (1 << 48) + 1}

LOGS = "logs"  # the kind of coverage
_UNKNOWN = Hash32(bytes(32))


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


class Ends(NamedTuple):
    """How a range of proved blocks is linked: to the block before it, and by what hash to the one after."""

    parent: Hash32
    hash: Hash32


class Read(NamedTuple):
    """What the blocks of a range held; `ends` where they are proved."""

    blocks: Range
    provider: str
    batches: Sequence[Batch]
    lost: Sequence[Undecodable]
    logs: int
    ends: Ends | None = None


class Links:
    """The ends of ranges of one chain, which must fit where two of them meet."""

    def __init__(self) -> None:
        self._hashes: dict[int, Hash32] = {}  # of last blocks
        self._parents: dict[int, Hash32] = {}  # that first blocks name

    def add(self, blocks: Range, ends: Ends) -> None:
        """Raises Contradiction where the range does not fit to one that was added before."""
        before, after = self._hashes.get(blocks.first - 1), self._parents.get(blocks.last + 1)
        if before not in (None, ends.parent) or after not in (None, ends.hash):
            at = blocks.first if before not in (None, ends.parent) else blocks.last + 1
            raise Contradiction(
                f"block {at}: it is no child of the block before it: a reorg came between, or a lie; "
                "index final blocks, or ask another provider"
            )
        self._hashes[blocks.last], self._parents[blocks.first] = ends.hash, ends.parent


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

    def there(self) -> list[tuple[Range, Ends | None]]:
        """The blocks that the store has already, checked as well as the plan asks."""
        levels = [Level.PROVED] if self._plan.level is Level.PROVED else [Level.PROVED, Level.REPORTED]
        rows = self._store.rows(
            f"SELECT first, last, hex(parent), hex(hash) FROM {row_table(CoverageRow).name} FINAL"  # noqa: S608
            f" WHERE network = {literal(self._plan.name)} AND kind = {literal(LOGS)}"
            f" AND filter = unhex('{self._plan.filter.hex()}')"
            f" AND level IN ({', '.join(literal(str(level)) for level in levels)})"
        )
        proved = self._plan.level is Level.PROVED
        return [
            (
                Range(first, last),
                Ends(Hash32(bytes.fromhex(parent)), Hash32(bytes.fromhex(hash_))) if proved else None,
            )
            for first, last, parent, hash_ in rows
        ]

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
        self._say(CoverageRow, self._coverage(reads), version)

    def _coverage(self, reads: Sequence[Read]) -> list[CoverageRow]:
        """A row a stretch of consecutive blocks that one provider served."""
        found: list[CoverageRow] = []
        now = int(time.time())
        for read in sorted(reads, key=lambda each: (each.provider, each.blocks)):
            ends = read.ends or Ends(_UNKNOWN, _UNKNOWN)
            last = found[-1] if found else None
            if last is not None and (last.provider, last.last + 1) == (read.provider, read.blocks.first):
                found[-1] = msgspec.structs.replace(
                    last, last=read.blocks.last, hash=ends.hash, rows=last.rows + read.logs
                )
                continue
            found.append(
                CoverageRow(
                    kind=LOGS,
                    first=read.blocks.first,
                    last=read.blocks.last,
                    filter=self._plan.filter,
                    level=str(self._plan.level),
                    provider=read.provider,
                    anchor=f"single:{read.provider}",
                    parent=ends.parent,
                    hash=ends.hash,
                    rows=read.logs,
                    checked=now,
                )
            )
        return found

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

"""What bulk reading has put into a store, and how it puts more there: rows first, then that they are there.

A row's place (Network, block, log) is its key, so what is written twice stands once. `coverage` is written
last: blocks that it names have all their rows in the store, and no others of level `proved` where it says so.
Rows of blocks that it does not name are what a run left that was cut off: they go before the blocks are read.
What was there before is held against the proof first (`correct.py`), so none of level `reported` is left.
That holds since a name is of one set of contracts and events alone: of two that have a contract in common
nobody could tell whose rows stand.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from indexer.links import Covered, Ends
from indexer.plan import Plan
from indexer.ranges import Range, joined, missing, shared
from indexer.reads import Decoded, Read
from nektar.arrow import pa
from nektar.coverage import CoverageRow, UndecodedRow
from nektar.errors import NektarError
from nektar.model import Hash32, Level
from nektar.store.migrate import make_tables
from nektar.store.port import Store, chdb_path
from nektar.store.schema import DELETED, literal, quoted, row_table, rows_to_arrow, stored

# There is no log with offsets here. A row that was read better checked takes the place of one that was not.
VERSIONS = {Level.REPORTED: 1 << 48, Level.PROVED: (1 << 48) + 1}

LOGS = "logs"  # the kind of coverage
# A kind that is struck out from the beginning, so that no view has it: blocks of which all that was reported
# falsely is named.
NAMED = "named"
_UNKNOWN = Hash32(bytes(32))
_COVERAGE = row_table(CoverageRow).name
# Tables that may hold rows of bulk reading, of whatever contracts.
_FILLED = f"""
SELECT name FROM system.tables WHERE database = currentDatabase() AND total_rows > 0 AND (
  name = '{row_table(UndecodedRow).name}'
  OR name IN (SELECT name FROM abi_entries WHERE startsWith(name, 'event_'))
)
"""  # noqa: S608
_ALL = Range(0, (1 << 63) - 1)
_RANGES_A_QUERY = 1_000  # a query has 256 KiB at most
# Inserts whose parts are left unmerged: merges take a tenth of the CPU of an index of a million rows, and so
# few parts are no burden on a query. Of fifty, the merge that comes then takes 270 MB; of these 110.
INSERTS_UNMERGED = 20


class OtherPlan(NektarError):
    """The name of a plan is that of what was read of another chain, or of other contracts or events."""

    exit_code = 2


def covered(store: Store, plan: Plan, *levels: Level) -> list[Covered]:
    """The blocks that were read as the plan asks for them, at these levels."""
    rows = store.rows(
        f"SELECT first, last, provider, hex(parent), hex(hash) FROM {_COVERAGE} FINAL"  # noqa: S608
        f" WHERE {plan.mine} AND kind = {literal(LOGS)}"
        f" AND level IN ({', '.join(literal(str(level)) for level in levels)})"
    )
    return [
        Covered(
            Range(first, last),
            provider,
            Ends(Hash32(bytes.fromhex(parent)), Hash32(bytes.fromhex(hash_))),
        )
        for first, last, provider, parent, hash_ in rows
    ]


class Filled:
    """The tables that a plan fills."""

    def __init__(self, store: Store, plan: Plan) -> None:
        """Make the tables that are missing, and views of their plain names.

        Raises OtherPlan where the name has blocks of one, StoreError.
        """
        self._store = store
        self._plan = plan
        self._unmerged: int | None = None  # inserts whose parts are, while merges are held
        others = store.rows(
            f"SELECT chain_id FROM {_COVERAGE} FINAL WHERE {self._name} AND NOT ({plan.mine}) LIMIT 1"  # noqa: S608
        )
        if others:
            of, asked = f"chain {others[0][0]}", f"chain {plan.chain_id}"
            if of == asked:
                of, asked = "other contracts, or of other events of them", "these"
            raise OtherPlan(
                f"--name: {plan.name} has blocks of {of}, and {asked} are to be read: expected another name"
            )
        make_tables(store, plan.events)

    @property
    def _name(self) -> str:
        """Which rows are of the plan's name, as a condition in SQL."""
        return f"network = {literal(self._plan.name)}"

    def there(self) -> list[Covered]:
        """The blocks that the store has already, checked as well as the plan asks."""
        is_proved = self._plan.level is Level.PROVED
        return self.covered(Level.PROVED, *([] if is_proved else [Level.REPORTED]))

    def left(self, there: Iterable[Range], again: Iterable[Range]) -> list[Range]:
        """What of the plan's blocks is to be read, where these are there, and `again` were."""
        left = missing(self._plan.blocks, there)
        if self._plan.audit:
            return shared(left, [*(each.blocks for each in self.covered(Level.REPORTED)), *again])
        return left

    def covered(self, *levels: Level) -> list[Covered]:
        """The blocks that were read as this plan asks for them, at these levels."""
        return covered(self._store, self._plan, *levels)

    def marked(self, kind: str) -> list[Range]:
        """The blocks of which the plan's runs have kept this."""
        found = self._store.rows(
            f"SELECT first, last FROM {_COVERAGE} WHERE {self._plan.mine} AND kind = {literal(kind)}"  # noqa: S608
        )
        return joined(Range(*each) for each in found)

    def mark(self, kind: str, blocks: Iterable[Range]) -> None:
        """Keep this of the blocks for as long as anything covers them. Raises StoreError."""
        nothing = Ends(_UNKNOWN, _UNKNOWN)
        if rows := [self._row(kind, each, "", nothing, 0) for each in blocks]:
            self.insert(_COVERAGE, table_of(CoverageRow, rows), deleted=True)

    def forget(self, blocks: Range) -> list[Range]:
        """Have nothing any more of whatever coverage touches these blocks, which is returned. Raises
        StoreError."""
        where = f"{self._name} AND first <= {blocks.last} AND last >= {blocks.first}"
        gone = self._store.rows(f"SELECT first, last FROM {_COVERAGE} FINAL WHERE {where}")  # noqa: S608
        self._store.command(f"DELETE FROM {_COVERAGE} WHERE {where}")  # noqa: S608
        self.clear()
        return [Range(*each) for each in gone]

    def clear(self) -> None:
        """Delete the rows of blocks of which there is no coverage: what a run left that was cut off. Raises
        StoreError.

        Not struck out by a version: what is only reported of these blocks later would count less.
        """
        there = self._store.rows(f"SELECT first, last FROM {_COVERAGE} FINAL WHERE {self._name}")  # noqa: S608
        bare = missing(_ALL, joined(Range(*each) for each in there))
        tables = self._store.rows(_FILLED)
        for at in range(0, len(bare), _RANGES_A_QUERY):
            within = " OR ".join(
                f"block_number BETWEEN {first} AND {last}" for first, last in bare[at : at + _RANGES_A_QUERY]
            )
            for (table,) in tables:
                where = f"FROM {quoted(table)} WHERE {self._name} AND ({within})"
                if self._store.rows(f"SELECT 1 {where} LIMIT 1"):
                    self._store.command(f"DELETE {where}")

    def hold_merges(self) -> None:
        """Merge nothing of what is inserted until there are INSERTS_UNMERGED inserts of it, or `merge` is
        called. Not on a server, where others write too. Raises StoreError.

        No row may be deleted meanwhile: that would wait for a merge.
        """
        if chdb_path(self._store.url) is not None:
            self._unmerged = 0
            self._merges("STOP")

    def merge(self) -> None:
        """Merge again, where merges are held. Raises StoreError."""
        if self._unmerged is not None:
            self._unmerged = None
            self._merges("START")

    def _merges(self, word: str) -> None:
        for table in {event.table for event in self._plan.events}:
            self._store.command(f"SYSTEM {word} MERGES {quoted(table)}")

    def put(self, rows: Decoded) -> None:
        """Insert the rows of what was read, of which `cover` is to say that they are there. Raises
        StoreError."""
        for name, of_event in rows.events.items():
            self.insert(name, of_event, str(self._plan.level))
        if rows.events and self._unmerged is not None:
            self._unmerged += 1
            if self._unmerged == INSERTS_UNMERGED:
                self.merge()
        self.say(UndecodedRow, rows.undecoded)

    def cover(self, reads: Sequence[Read], rows: Decoded) -> None:
        """Say that all that was read is there, whose `rows` these are. Raises StoreError."""
        self.say(CoverageRow, self._coverage(reads, rows))

    def _row(self, kind: str, blocks: Range, provider: str, ends: Ends, rows: int) -> CoverageRow:
        return CoverageRow(
            kind=kind,
            first=blocks.first,
            last=blocks.last,
            filter=self._plan.filter,
            chain_id=self._plan.chain_id,
            level=str(self._plan.level),
            provider=provider,
            anchor=f"single:{provider}",
            parent=ends.parent,
            hash=ends.hash,
            rows=rows,
            checked=int(time.time()),
        )

    def _coverage(self, reads: Sequence[Read], rows: Decoded) -> list[CoverageRow]:
        """A row a stretch of consecutive blocks that one provider served."""
        found: list[CoverageRow] = []
        reads = sorted(reads, key=lambda each: (each.provider, each.blocks))
        for read, count in zip(reads, rows.counts([each.blocks for each in reads]), strict=True):
            ends = read.ends or Ends(_UNKNOWN, _UNKNOWN)
            last = found[-1] if found else None
            if last is not None and (last.provider, last.last + 1) == (read.provider, read.blocks.first):
                found[-1] = msgspec.structs.replace(
                    last, last=read.blocks.last, hash=ends.hash, rows=last.rows + count
                )
                continue
            found.append(self._row(LOGS, read.blocks, read.provider, ends, count))
        return found

    def say(self, row_type: Any, rows: Sequence[Any]) -> None:
        """Insert rows of the model's. Raises StoreError."""
        if rows:
            self.insert(row_table(row_type).name, table_of(row_type, rows))

    def insert(self, table: str, rows: Any, level: str | None = None, *, deleted: bool = False) -> None:
        """Insert rows, or strike them out; `level` is for tables that have one. Raises StoreError."""
        said = stored(rows, self._plan.name, VERSIONS[self._plan.level], deleted, level)
        # Another read of the same blocks may hold other rows, and none of them may be dropped as one that has
        # been there: no two inserts are the same.
        self._store.insert(table, said, f"bulk:{os.urandom(16).hex()}")


def table_of(row_type: Any, rows: Sequence[Any]) -> Any:
    """Rows of the model's as a pyarrow Table."""
    said = rows_to_arrow(row_type, [(row, False) for row in rows])
    return pa.Table.from_batches([said]).drop_columns([DELETED])

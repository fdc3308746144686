"""What was reported and is not so: named, and struck out, before what is proved takes its place.

The order of writing makes a death at any moment one that a second run mends, with the same names for the same
lies: all that is wrong of some blocks is named at once (`dissent`), and that they are named is kept: nothing
more is named of this report of them, whatever of its rows was corrected since. Then the proved rows are
written, and then false ones struck out, so that no block that is said to be there is ever without its logs;
`coverage` comes last. What is kept goes with it, so that a later report of the blocks is named anew.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np

from indexer.audit import UNDECODED, Kind, Lie, Rows, Verdict, judge
from indexer.filled import NAMED, VERSIONS, Filled, table_of
from indexer.links import Covered
from indexer.plan import Plan
from indexer.ranges import Range, joined, missing, shared
from indexer.reads import Decoded, Read
from indexer.told import Scope, Told
from nektar.chain.columns import Octets
from nektar.chain.logs import HASH
from nektar.coverage import CoverageRow, DissentRow, UndecodedRow
from nektar.model import Level
from nektar.store.port import Store
from nektar.store.schema import DELETED, literal, row_schema, row_table

_DISSENT = row_table(DissentRow).name
_COVERAGE = row_table(CoverageRow).name
# What was reported and is not so; who contradicted a header while it was proved has brought nothing.
_LIES = f"lie IN ({', '.join(literal(str(kind)) for kind in Kind)})"

T = TypeVar("T", Covered, Read)


class Named(msgspec.Struct, frozen=True):
    """A lie as people are told of it; `log_index` -1: all of the block."""

    lie: str
    block_number: int
    block_hash: str  # 0x…
    log_index: int
    provider: str
    proved_by: str


class Dissent(NamedTuple):
    """How many lies there are, who told them, and the first."""

    lies: int
    providers: list[str]
    first: list[Named]


def dissent(store: Store, plan: Plan, most: int) -> Dissent:
    """The lies that were reported of the plan's blocks, whichever run has found them."""
    first, last = plan.blocks
    from_ = f"FROM {_DISSENT} FINAL WHERE {plan.mine} AND {_LIES} AND block_number BETWEEN {first} AND {last}"
    ((lies, providers),) = store.rows(f"SELECT count(), arraySort(groupUniqArray(provider)) {from_}")
    rows = store.rows(
        f"SELECT lie, block_number, block_hash_hex, log_index, provider, proved_by {from_}"
        f" ORDER BY block_number, log_index LIMIT {most}"
    )
    return Dissent(int(lies), list(providers), [Named(*row) for row in rows])


class Correction:
    """Of the rows of a plan at level `proved`."""

    def __init__(self, store: Store, plan: Plan, filled: Filled, told: Told) -> None:
        """`told` are the rows of the plan's `scopes`."""
        self._store, self._plan, self._filled, self._told = store, plan, filled, told

    def put(self, reads: Sequence[Read], rows: Decoded) -> None:
        """Name what was reported falsely of these blocks, insert their `rows`, and strike out what is false.

        Raises StoreError.
        """
        reads = sorted(reads, key=lambda each: each.blocks)
        reported = sorted(self._filled.covered(Level.REPORTED))
        proved = {**rows.events, UNDECODED: table_of(UndecodedRow, rows.undecoded)}
        false: list[tuple[Range, Octets]] = []  # blocks that hold such rows, and their hashes
        for blocks in joined(read.blocks for read in reads):
            inside = [read.hashes for read in reads if blocks.first <= read.blocks.first <= blocks.last]
            hashes = np.frombuffer(b"".join(inside), np.uint8).reshape(-1, HASH)
            said = shared([blocks], [each.blocks for each in reported])
            for part, told in chain.from_iterable(map(self._told.parts, said)):
                own = hashes[part.first - blocks.first :]
                verdict = judge(told, _of(part, proved, told), part.first, own)
                self._name(part, verdict.lies, reported, reads)
                if verdict.false:
                    false.append((part, own))
        self._filled.put(rows)
        for blocks, hashes in false:  # read anew, since they may be more than are held at once
            for part, told in self._told.parts(blocks):
                own = hashes[part.first - blocks.first :]
                self._strike(told, judge(told, _of(part, proved, told), part.first, own))

    def settle(self) -> None:
        """Say no more that blocks were reported which are proved by now. Raises StoreError."""
        proved = [each.blocks for each in self._filled.covered(Level.PROVED)]
        for reported, *_ in self._filled.covered(Level.REPORTED):
            left = missing(reported, proved)
            if left == [reported]:
                continue
            for part in left:
                count = self._told.count(part)
                self._say_instead(reported, f"{part.first} AS first, {part.last} AS last, {count} AS rows")
            self._say_instead(reported, f"1 AS {DELETED}")

    def _say_instead(self, of: Range, change: str) -> None:
        """Write the coverage of a reported range once more, changed."""
        self._store.command(
            f"INSERT INTO {_COVERAGE} SELECT * REPLACE ({change}, {VERSIONS[Level.PROVED]} AS version)"  # noqa: S608
            f" FROM (SELECT * FROM {_COVERAGE} FINAL WHERE {self._plan.mine}"
            f" AND first = {of.first} AND last = {of.last} AND level = {literal(str(Level.REPORTED))})"
        )

    def _name(
        self, blocks: Range, lies: Sequence[Lie], reported: Sequence[Covered], reads: Sequence[Read]
    ) -> None:
        """Keep who told the lies of these blocks, and that none of them is to be named once more."""
        if not lies:
            return
        named = self._filled.marked(NAMED)
        now = int(time.time())
        said = [
            DissentRow(
                lie=str(lie.kind),
                block_number=lie.number,
                block_hash=lie.hash,
                log_index=lie.log_index,
                filter=self._plan.filter,
                provider=_of_block(reported, lie.number).provider,
                proved_by=_of_block(reads, lie.number).provider,
                found=now,
            )
            for lie in lies
            if not any(each.first <= lie.number <= each.last for each in named)
        ]
        self._filled.say(DissentRow, said)
        self._filled.mark(NAMED, [blocks])

    def _strike(self, told: Rows, verdict: Verdict) -> None:
        for name, rows in verdict.false.items():
            level = None if name == UNDECODED else str(Level.REPORTED)
            self._filled.insert(name, told[name].take(rows), level, deleted=True)


def scopes(plan: Plan) -> dict[str, Scope]:
    """Which rows of each table are of this plan: of an event's, those of the contracts that emit it."""
    found = {}
    for event in plan.events:
        emit = [
            f"unhex('{address.hex()}')"
            for address, abi in plan.contracts.items()
            if any(each.table == event.table for each in abi.events)
        ]
        where = f"network = {literal(plan.name)} AND address IN ({', '.join(emit)})"
        found[event.table] = Scope(event.table, event.schema, where)
    schema = row_schema(UndecodedRow)
    undecoded = schema.remove(schema.get_field_index(DELETED))
    return {**found, UNDECODED: Scope(UNDECODED, undecoded, plan.mine)}


def _of(blocks: Range, proved: Rows, told: Rows) -> Rows:
    """The proved rows of these blocks, of the same tables as the told ones."""
    rows = {}
    for name, like in told.items():
        rows[name] = proved.get(name, like.schema.empty_table())
        numbers = rows[name]["block_number"].to_numpy()
        first, end = np.searchsorted(numbers, [blocks.first, blocks.last + 1])
        rows[name] = rows[name].slice(first, end - first)
    return rows


def _of_block(ranges: Sequence[T], number: int) -> T:
    """Of ranges in order, which may overlap, the last that holds the block."""
    begun = bisect_right(ranges, number, key=lambda each: each.blocks.first)
    return next(ranges[at] for at in reversed(range(begun)) if ranges[at].blocks.last >= number)

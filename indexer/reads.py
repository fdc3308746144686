"""What ranges of blocks held as it was read, and the rows that it makes, within bounds of memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from indexer import reported
from indexer.decode import Undecodable
from indexer.links import Ends
from indexer.plan import Plan
from indexer.ranges import Range
from nektar.arrow import pa
from nektar.chain.logs import Logs
from nektar.coverage import UndecodedRow

# Rows in one insert: ClickHouse takes few large ones best, and they are held until then, some 40 MB of them.
# Twice as many were 1.5 % quicker, and took 80 MB more.
ROWS_AN_INSERT = 50_000
# The same in bytes, as read logs take them: a log's data may be long.
OCTETS_AN_INSERT = 32 * 1024 * 1024
# Logs that are decoded at once: many, since each array costs the same however long it is, and few enough for
# a processor's cache.
ROWS_A_DECODING, OCTETS_A_DECODING = 10_000, OCTETS_AN_INSERT // 4


class Read(NamedTuple):
    """What the blocks of a range held, in answers of about so many bytes; where they are proved, their `ends`
    and all their hashes, joined."""

    blocks: Range
    provider: str
    logs: Logs
    octets: int
    ends: Ends | None = None
    hashes: bytes = b""

    @property
    def rows(self) -> int:
        """How many logs there are."""
        return len(self.logs.number)

    @property
    def held(self) -> int:
        """How many bytes it takes until it is inserted."""
        return self.logs.octets + len(self.hashes)


class Decoded(NamedTuple):
    """The rows that logs make: of each event, by table, and of what can't be decoded."""

    events: Mapping[str, pa.Table]
    undecoded: Sequence[UndecodedRow]
    lost: int  # logs that can't be decoded, those of which no row is kept among them

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.undecoded) + sum(len(table) for table in self.events.values())

    def counts(self, blocks: Sequence[Range]) -> list[int]:
        """How many rows each of the ranges has."""
        found = np.zeros(len(blocks), np.int64)
        firsts, lasts = np.array(blocks, np.uint64).reshape(-1, 2).T
        numbers = [table["block_number"].to_numpy() for table in self.events.values()]
        numbers.append(np.sort(np.array([row.block_number for row in self.undecoded], np.uint64)))
        for each in numbers:
            found += np.searchsorted(each, lasts, "right") - np.searchsorted(each, firsts)
        counts: list[int] = found.tolist()
        return counts


def decoded(reads: Sequence[Read], plan: Plan) -> Decoded:
    """The rows that what was read makes, decoded several answers at once; in the order of the blocks, in
    which the store would have to put them."""
    batches: dict[str, list[pa.RecordBatch]] = {}
    lost: list[Undecodable] = []
    for part in _parts(sorted(reads, key=lambda each: each.blocks)):
        of_part, lost_of_part = reported.batches(Logs.joined(part), plan.contracts)
        for event, rows in of_part:
            batches.setdefault(event.table, []).append(rows)
        lost += lost_of_part
    events = {name: pa.Table.from_batches(parts) for name, parts in batches.items()}
    count = len(lost) + sum(each.more for each in lost)
    return Decoded(events, [_undecoded(each, plan.filter) for each in lost], count)


def _parts(reads: Iterable[Read]) -> Iterator[list[Logs]]:
    """The logs of the reads, about as many at a time as are decoded best."""
    part: list[Logs] = []
    rows = octets = 0
    for read in reads:
        part.append(read.logs)
        rows, octets = rows + read.rows, octets + read.logs.octets
        if rows >= ROWS_A_DECODING or octets >= OCTETS_A_DECODING:
            yield part
            part, rows, octets = [], 0, 0
    if part:
        yield part


def _undecoded(lost: Undecodable, filter_: bytes) -> UndecodedRow:
    return UndecodedRow(
        block_number=lost.block.number,
        block_hash=lost.block.hash,
        tx_index=lost.at.tx,
        log_index=lost.at.log,
        address=lost.address,
        topics=",".join("0x" + topic.hex() for topic in lost.topics),
        data="0x" + lost.data.hex(),
        reason=lost.reason,
        filter=filter_,
    )

"""The chain as the Network's log tells it so far: what the indexer knows, and all that it knows.

`Known` is a fold of the log's own records, and the same one whether they were just written or read back after
a restart. So state never differs from what is committed, and a record that would break the log's rules
(`nektar/log.py`) is refused before it is written.

Above the finalized block it keeps the records that brought each block, as they were encoded: an `Undo` says
the rows of its blocks whole, and they are cut out of those.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import pyarrow.compute as pc

from indexer.found import NOTHING, Found, Made
from nektar.arrow import pa
from nektar.chain.table import read_table, write_table
from nektar.log import BrokenLog, Gap, Mark, New, Record, Undo
from nektar.model import Block, BlockRef, Hash32

# What is held of blocks that may still be undone; then no more are taken before some are final. A chain on
# which that takes days has so many, and one on which no block ever is must not fill the memory.
MOST_BLOCKS = 100_000
MOST_BYTES = 64 * 1024 * 1024


class Kept(msgspec.Struct, frozen=True):
    """A block that may still be undone, and the record that holds its rows."""

    block: Block
    source: New
    made: Made = ()  # contracts in scope from this block on

    @property
    def ref(self) -> BlockRef:
        return self.block.ref


class Skipped(msgspec.Struct, frozen=True):
    """A gap that may still be undone. It is never the newest entry: its child is written with it."""

    gap: Gap

    @property
    def ref(self) -> BlockRef:
        # A gap written before its child was known names no hash; no block has an empty one.
        return BlockRef(self.gap.last, self.gap.last_hash or Hash32(b""))


class Known(msgspec.Struct, frozen=True):
    """`first` is the number of the first block in scope; all above `base` is in `unfinal`, oldest first."""

    first: int
    base: BlockRef | None = None  # newest finalized block; None before the first mark
    unfinal: tuple[Kept | Skipped, ...] = ()
    marked: tuple[BlockRef, BlockRef] | None = None  # safe and finalized, as last written
    settled: Found = NOTHING  # contracts that were found up to `base`

    @property
    def found(self) -> Found:
        """The contracts that were found up to the tip."""
        return self.found_at(self.next)

    def found_at(self, number: int) -> Found:
        """Those that were found up to this block, which is not below `base`."""
        if not self.settled.rules:
            return self.settled
        kept = (e for e in self.unfinal if isinstance(e, Kept) and e.block.number <= number)
        return self.settled.with_(e.made for e in kept)

    @property
    def tip(self) -> BlockRef | None:
        """The newest block of the log, or None where there is none."""
        return self.unfinal[-1].ref if self.unfinal else self.base

    @property
    def next(self) -> int:
        """The number of the block that comes next."""
        return self.first if self.tip is None else self.tip.number + 1

    @property
    def full(self) -> bool:
        """Whether as much is held as may be."""
        if len(self.unfinal) >= MOST_BLOCKS:
            return True
        held, source = 0, None
        for entry in self.unfinal:  # a record's blocks stand together
            if isinstance(entry, Kept) and entry.source is not source:
                source = entry.source
                held += sum(map(len, source.tables.values()))
        return held >= MOST_BYTES

    def hash_at(self, number: int) -> Hash32 | None:
        """The hash of the block at `number`; None where it is not known, or not any more."""
        if self.base is not None and number == self.base.number:
            return self.base.hash
        return next((e.ref.hash for e in reversed(self.unfinal) if e.ref.number == number), None)

    def after(self, record: Record) -> Known:
        """What is known once `record` is in the log. Raises BrokenLog where it may not be."""
        match record:
            case New():
                return self._extended(record)
            case Gap(first=first, last=last):
                if first != self.next or last < first:
                    raise BrokenLog(f"expected a gap from block {self.next} on; got {first} to {last}")
                return self._with(unfinal=(*self.unfinal, Skipped(record)))
            case Undo():
                return self._shortened(record)
            case Mark():
                return self._marked(record)
            case _:
                return self  # what Operators signed is not of the chain

    def fold(self, records: Iterable[Record]) -> Known:
        """What is known once all `records` are in the log. Raises BrokenLog."""
        known = self
        for record in records:
            known = known.after(record)
        return known

    def undo(self, last: int) -> list[Undo]:
        """The records that take back every block above number `last`, newest first.

        A gap whose child is taken back goes with it. There is one record, and one more for each further gap.
        """
        records: list[Undo] = []
        taken: list[Kept] = []
        for entry in reversed(self.unfinal):
            if isinstance(entry, Kept):
                if entry.block.number <= last:
                    break
                taken.append(entry)
            elif taken:
                records.append(_undo(taken, (entry.gap.first, entry.gap.last)))
                taken = []
                if entry.gap.first - 1 <= last:
                    break
        if taken:
            records.append(_undo(taken, None))
        return records

    def _extended(self, record: New) -> Known:
        tip, number = self.tip, self.next
        for block in record.blocks:
            named = tip is None or tip.hash in (block.parent, b"")
            if block.number != number or not named:
                at = f"block {number}" + (f" on 0x{tip.hash.hex()}" if tip else "")
                raise BrokenLog(
                    f"expected {at}; got block {block.number} 0x{block.hash.hex()} on 0x{block.parent.hex()}"
                )
            tip, number = block.ref, number + 1
        made = self.found.made(record.tables, [block.hash for block in record.blocks])
        kept = (Kept(block, record, each) for block, each in zip(record.blocks, made, strict=True))
        return self._with(unfinal=(*self.unfinal, *kept))

    def _shortened(self, record: Undo) -> Known:
        left = list(self.unfinal)
        for block in record.blocks:
            newest = left.pop() if left else None
            if newest is None or newest.ref != block.ref:
                raise BrokenLog(
                    f"expected to undo {_shown(newest)}; got block {block.number} 0x{block.hash.hex()}"
                )
        if record.gap is not None:
            newest = left.pop() if left else None
            if not isinstance(newest, Skipped) or (newest.gap.first, newest.gap.last) != record.gap:
                raise BrokenLog(f"expected to undo {_shown(newest)}; got a gap {record.gap}")
        return self._with(unfinal=tuple(left))

    def _marked(self, mark: Mark) -> Known:
        if self.hash_at(mark.finalized.number) != mark.finalized.hash:
            raise BrokenLog(
                f"expected one of the log's blocks as finalized, none below {self.base}; got {mark.finalized}"
            )
        settled = self.found_at(mark.finalized.number)
        if mark.contracts != settled.written():
            raise BrokenLog(
                f"expected a mark with the {len(settled.kinds)} contracts found up to its finalized block; "
                f"got {len(mark.contracts)}, or others"
            )
        return self._with(
            settled=settled,
            base=mark.finalized,
            unfinal=tuple(e for e in self.unfinal if e.ref.number > mark.finalized.number),
            marked=(mark.safe, mark.finalized),
        )

    def _with(self, **changes: object) -> Known:
        return msgspec.structs.replace(self, **changes)


def _undo(newest_first: Sequence[Kept], gap: tuple[int, int] | None) -> Undo:
    """The record that takes back these blocks, with their rows in the chain's order."""
    sources: dict[int, tuple[New, list[bytes]]] = {}
    for kept in reversed(newest_first):
        sources.setdefault(id(kept.source), (kept.source, []))[1].append(kept.block.hash)
    found: dict[str, list[pa.Table]] = {}
    for source, hashes in sources.values():
        whole = len(hashes) == len(source.blocks)
        for name, stream in source.tables.items():
            rows = read_table(stream)
            if not whole:
                rows = rows.filter(pc.is_in(rows.column("block_hash"), _hashes(hashes)))
            if rows.num_rows:
                found.setdefault(name, []).append(rows)
    return Undo(
        blocks=tuple(kept.block for kept in newest_first),
        tables={name: _one_batch(parts) for name, parts in found.items()},
        gap=gap,
    )


def _one_batch(tables: Sequence[pa.Table]) -> bytes:
    """Equal rows give equal bytes, however they were cut into records before."""
    (batch,) = pa.concat_tables(tables).combine_chunks().to_batches()
    return write_table(batch)


def _hashes(values: Sequence[bytes]) -> pa.Array:
    """`pa.array` would do the same, and load pandas for it: 50 MB, and over a second."""
    return pa.Array.from_buffers(pa.binary(32), len(values), [None, pa.py_buffer(b"".join(values))])


def _shown(entry: Kept | Skipped | None) -> str:
    return "nothing, all is final" if entry is None else f"block {entry.ref.number} 0x{entry.ref.hash.hex()}"

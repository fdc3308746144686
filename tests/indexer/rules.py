"""What a log says, read in the plainest way, and whether it keeps its rules. It shares nothing with the code
that writes the log but the record types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

from nektar.bus.port import Bus, partition_of
from nektar.chain.table import read_table
from nektar.log import NETWORK, ROWS, Gap, Joiner, Mark, New, Record, Undo, decode, key
from nektar.model import Block, BlockRef

Rows = Counter[tuple[str, bytes, bytes]]  # table, block hash, what it says


def records(bus: Bus, network: str, generation: int = 1, stream: str = NETWORK) -> list[Record]:
    """All records of a Network's log, oldest first."""
    found: list[Record] = []
    join, at = Joiner(), 0
    partition = partition_of(network, bus.partitions)
    while messages := bus.read(stream, partition, at):
        for message in messages:
            if message.key != key(network, generation):
                continue
            whole = join(message.value, dict(message.headers))
            if whole is not None:
                found.append(decode(whole))
        at = messages[-1].offset + 1
    return found


def named(bus: Bus, network: str) -> set[tuple[str, str]]:
    """Who is named in `dissent`, and for what."""
    found: set[tuple[str, str]] = set()
    partition, at = partition_of(network, bus.partitions), 0
    while messages := bus.read(ROWS, partition, at):
        for message in messages:
            if message.headers.get("table") == b"dissent" and message.key == network.encode():
                for row in pa.ipc.open_stream(message.value).read_all().to_pylist():
                    found.add((row["provider"], row["lie"]))
        at = messages[-1].offset + 1
    return found


def rows(tables: Mapping[str, bytes]) -> Rows:
    found: Rows = Counter()
    for name, stream in tables.items():
        table = read_table(stream)
        assert table.num_rows, f"{name} is empty"
        columns = [table.column(column).to_pylist() for column in ("block_hash", "what")]
        found.update((name, *row) for row in zip(*columns, strict=True))
    return found


class Reading:
    """The chain that survives, and its rows. Every rule is asserted on the way."""

    def __init__(self, log: list[Record]) -> None:
        self.chain: list[Block | tuple[int, int]] = []  # blocks and gaps, oldest first
        self.rows: Rows = Counter()
        self.finalized: BlockRef | None = None
        self.safe: BlockRef | None = None
        self.undone = self.gaps = 0
        for record in log:
            self.read(record)

    @property
    def blocks(self) -> list[Block]:
        return [entry for entry in self.chain if isinstance(entry, Block)]

    def read(self, record: Record) -> None:
        match record:
            case New(blocks, tables):
                assert blocks
                for block in blocks:
                    self._push(block)
                brought = rows(tables)
                assert {row[1] for row in brought} <= {block.hash for block in blocks}
                assert not set(brought) & set(self.rows), "rows that are there already"
                self.rows += brought
            case Undo(blocks, tables, gap):
                assert blocks
                for block in blocks:
                    assert self.chain.pop() == block
                    assert self.finalized is None or block.number > self.finalized.number
                if gap is not None:
                    assert self.chain.pop() == gap
                    assert self.finalized is None or gap[1] > self.finalized.number
                taken = rows(tables)
                hashes = {block.hash for block in blocks}
                assert taken == Counter({r: n for r, n in self.rows.items() if r[1] in hashes})
                self.rows -= taken
                self.undone += len(blocks)
            case Mark(safe, finalized, unfinal):
                assert {safe, finalized} <= {block.ref for block in self.blocks}
                assert self.finalized is None or finalized.number >= self.finalized.number
                if self.finalized and finalized.number == self.finalized.number:
                    assert finalized == self.finalized
                assert safe.number >= finalized.number
                assert list(unfinal) == [b for b in self.blocks if b.number > finalized.number]
                assert (safe, finalized) != (self.safe, self.finalized), "a mark that says nothing new"
                self.safe, self.finalized = safe, finalized
            case Gap(first, last, last_hash):
                assert last_hash is not None
                assert first == self._next(first)
                self.chain.append((first, last))
                self.gaps += 1
            case _:
                raise AssertionError(f"an indexer writes no {type(record).__name__}")

    def _next(self, otherwise: int) -> int:
        if not self.chain:
            return otherwise
        last = self.chain[-1]
        return (last.number if isinstance(last, Block) else last[1]) + 1

    def _push(self, block: Block) -> None:
        assert block.number == self._next(block.number)
        if self.chain and isinstance(last := self.chain[-1], Block):
            assert block.parent == last.hash
        self.chain.append(block)

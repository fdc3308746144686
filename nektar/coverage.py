"""What bulk reading (`nektar index`) says of itself in the store: the blocks that it has, what it could not
read, and where it was lied to. Where a Network's indexer was lied to is said beside it."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from nektar.rows import AddressColumn, Column, HashColumn


class CoverageRow(msgspec.Struct, frozen=True):
    """Blocks of which everything that was asked for is in the store, and how well that was checked."""

    table: ClassVar[str] = "coverage"
    key: ClassVar[tuple[str, ...]] = ("kind", "first", "last", "filter")

    kind: Annotated[str, Column("LowCardinality(String)", "What of the blocks: logs or calls")]
    first: Annotated[int, Column("UInt64", "First block")]
    last: Annotated[int, Column("UInt64", "Last block")]
    filter: Annotated[bytes, Column(HashColumn, "Hash of chain, contracts and events that were asked for")]
    chain_id: Annotated[int, Column("UInt64", "Chain that they are of")]
    level: Annotated[str, Column("LowCardinality(String)", "How well they were checked: proved or reported")]
    provider: Annotated[str, Column("LowCardinality(String)", "Provider that served them")]
    anchor: Annotated[str, Column("LowCardinality(String)", "What makes them canonical")]
    parent: Annotated[bytes, Column(HashColumn, "Parent's hash of the first block; zero where only reported")]
    hash: Annotated[bytes, Column(HashColumn, "Hash of the last block; zero where only reported")]
    rows: Annotated[int, Column("UInt64", "How many rows they hold, those that could not be read among them")]
    checked: Annotated[int, Column("DateTime('UTC')", "When")]


class UndecodedRow(msgspec.Struct, frozen=True):
    """A log of the contracts that their ABI can't have made, whole."""

    table: ClassVar[str] = "undecoded"
    key: ClassVar[tuple[str, ...]] = ("block_number", "block_hash", "log_index", "filter")

    block_number: Annotated[int, Column("UInt64", "Block that holds it")]
    block_hash: Annotated[bytes, Column(HashColumn, "Hash of that block")]
    tx_index: Annotated[int, Column("UInt32", "Place of the transaction in the block")]
    log_index: Annotated[int, Column("UInt32", "Place of the log in the block")]
    address: Annotated[bytes, Column(AddressColumn, "The contract that emitted it")]
    topics: Annotated[str, Column("String", "Its topics, 0x… each")]
    data: Annotated[str, Column("String", "Its data, 0x…")]
    reason: Annotated[str, Column("String", "Why it can't be read")]
    filter: Annotated[bytes, Column(HashColumn, "Hash of chain, contracts and events that were asked for")]


class DissentRow(msgspec.Struct, frozen=True):
    """What a provider said that can't be: no row of it stands."""

    table: ClassVar[str] = "dissent"
    key: ClassVar[tuple[str, ...]] = ("block_number", "block_hash", "log_index", "filter", "provider", "lie")

    lie: Annotated[
        str,
        Column(
            "LowCardinality(String)",
            "Reported in bulk: omitted, altered, invented, or wrong block; of a Network: other final block; "
            "of both: contradiction",
        ),
    ]
    block_number: Annotated[int, Column("UInt64", "Block that it was told of")]
    block_hash: Annotated[
        bytes,
        Column(HashColumn, "Hash of that block; of a wrong or other one, the hash that was told; zero: none"),
    ]
    log_index: Annotated[int, Column("Int64", "Place of the log in the block; -1: all of the block")]
    filter: Annotated[bytes, Column(HashColumn, "Hash of chain, contracts and events that were asked for")]
    provider: Annotated[str, Column("LowCardinality(String)", "Provider that reported it")]
    proved_by: Annotated[
        str,
        Column("LowCardinality(String)", "Provider that served the proof, or quorum; empty: none had to"),
    ]
    found: Annotated[int, Column("DateTime('UTC')", "When it was found out")]
    why: Annotated[str, Column("String", "What differed, where that is known")] = ""


Row = CoverageRow | UndecodedRow | DissentRow
ROWS: tuple[type[Row], ...] = (CoverageRow, UndecodedRow, DissentRow)

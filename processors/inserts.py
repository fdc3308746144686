"""What a record of the bus puts into the store: inserts, in the order of writing. Pure.

One record makes one insert a table, named by where the record stands: its version and its token follow from
that, so that whoever reads it again writes the same. Several of one table may be `joined`, with these
versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nektar.arrow import pa
from nektar.bus.port import Delivered
from nektar.coverage import DissentRow
from nektar.errors import NektarError
from nektar.log import (
    FINDINGS,
    NETWORK,
    ROWS,
    Gap,
    New,
    Undo,
    decode,
    parse_key,
)
from nektar.model import Block
from nektar.rows import ROWS as ROW_TYPES
from nektar.rows import ChainSpan, Finding
from nektar.store.otel import chain_spans
from nektar.store.schema import (
    DELETED,
    HISTORIES,
    Row,
    Table,
    blocks_table,
    gaps_table,
    history_table,
    row_schema,
    row_table,
    rows_to_arrow,
    stored,
)
from processors.outputs import finding_of

_BLOCKS, _GAPS = blocks_table(), gaps_table()
_ROW_TYPES: Mapping[str, type[Row]] = {t.table: t for t in (*ROW_TYPES, DissentRow) if t is not Finding}


class BrokenRecord(NektarError):
    """A record that can't be stored, and why: it becomes a dead letter."""


class Place(NamedTuple):
    """Where a record stands, which makes its version and its tokens."""

    network: str
    generation: int
    stream: str
    partition: int
    offset: int

    @property
    def version(self) -> int:
        return self.generation << 48 | self.offset

    @property
    def token(self) -> str:
        """What the tokens of its inserts begin with."""
        return f"{self.generation}:{self.stream}:{self.partition}:{self.offset}"

    def insert(self, table: Table, rows: Any, deleted: Any, digest: str, level: Any = None) -> Insert:
        """`rows` as an insert into `table`; `deleted` and `level` as `schema.stored` takes them."""
        rows = stored(rows, self.network, self.version, deleted, level)
        return Insert(table.name, rows, f"{self.token}:{table.name}:{digest}")


class Insert(NamedTuple):
    """One insert: rows with all the columns of a table, and the token that makes it happen once."""

    table: str
    rows: Any  # pa.Table
    token: str


def joined(inserts: Sequence[Insert]) -> Insert:
    """Inserts into one table as one."""
    table, _, token = inserts[0]
    if len(inserts) > 1:
        token = f"joined:{_digest(''.join(each.token for each in inserts).encode())}"
    return Insert(table, pa.concat_tables([each.rows for each in inserts]), token)


def inserts(record: Delivered, value: bytes, known: Mapping[str, Table]) -> list[Insert]:
    """What `record`, whose parts joined are `value`, puts into the store, in the order of writing.

    `known` are the tables of the ABIs by name. Raises BrokenRecord, BrokenLog.
    """
    try:
        if record.stream == NETWORK:
            return _of_log(record, value, known)
        place = place_of(record)
        if record.stream == FINDINGS:
            rows = pa.Table.from_batches([rows_to_arrow(Finding, [(finding_of(value), False)])])
            return _of_rows(place, Finding, rows, _digest(value))
        table = record.headers.get("table", b"").decode("utf-8", "replace")
        if table == ChainSpan.table:
            return _of_traces(place, value)
        if table not in _ROW_TYPES:
            raise BrokenRecord(f"expected rows of {', '.join(_ROW_TYPES)}; got {table[:80]!r}")
        row_type = _ROW_TYPES[table]
        return _of_rows(place, row_type, _arrow(value, row_table(row_type)), _digest(value))
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        OverflowError,
        RecursionError,
    ) as error:
        raise BrokenRecord(f"{type(error).__name__}: {error}") from error


def place_of(record: Delivered) -> Place:
    """Where the record stands. Raises BrokenRecord, BrokenLog."""
    if record.stream == NETWORK:
        network, number = parse_key(record.key)
        generation = str(number)
    else:
        network = record.key.decode()
        generation = record.headers.get("generation", b"").decode("ascii", "replace")
    if not network or not generation.isdecimal() or int(generation) >= 1 << 16 or record.offset >= 1 << 48:
        raise BrokenRecord(
            f"expected a network's name as key and a generation below 65536; got {network[:80]!r}, "
            f"{generation[:20]!r} at offset {record.offset}"
        )
    return Place(network, int(generation), record.stream, record.partition, record.offset)


def _of_log(record: Delivered, value: bytes, known: Mapping[str, Table]) -> list[Insert]:
    place = place_of(record)
    said = decode(value)
    if isinstance(said, Gap):
        return [_gap(place, said.first, said.last, said.why, _digest(value))]
    if not isinstance(said, New | Undo):
        return []  # marks and signed messages move nothing in the store
    undone = isinstance(said, Undo)
    of_tables = []
    for name in sorted(said.tables):
        if name not in known:
            raise BrokenRecord(f"expected a table of a configured adapter's ABI; got {name[:120]!r}")
        rows = _arrow(said.tables[name], known[name])
        levels = _levels(said.blocks, rows)
        of_tables.append(place.insert(known[name], rows, undone, _digest(said.tables[name]), levels))
    if isinstance(said, Undo) and said.gap is not None:
        of_tables.append(_gap(place, *said.gap, "", _digest(value), undone=True))
    if not said.blocks:
        return of_tables
    blocks = place.insert(_BLOCKS, _block_rows(said.blocks, place.generation), undone, _digest(value))
    return [blocks, *of_tables] if undone else [*of_tables, blocks]


def _gap(place: Place, first: int, last: int, why: str, digest: str, *, undone: bool = False) -> Insert:
    row = {"first": first, "last": last, "why": why, "generation": place.generation}
    return place.insert(_GAPS, pa.Table.from_pylist([row], schema=_GAPS.arrow), undone, digest)


def _of_rows(place: Place, row_type: type[Row], rows: Any, digest: str) -> list[Insert]:
    """A row type's table, and before it its history: what is true now has been said."""
    deleted = rows.column(DELETED).combine_chunks()
    own = rows.drop_columns([DELETED])
    now = place.insert(row_table(row_type), own, deleted, digest)
    if row_type not in HISTORIES:
        return [now]
    positions = pa.array(range(own.num_rows), pa.uint32())
    said = place.insert(history_table(row_type), own.append_column("position", positions), deleted, digest)
    return [said, now]


def _of_traces(place: Place, value: bytes) -> list[Insert]:
    """What the chain says of Tasks, among the spans of their traces: nothing there is ever taken back."""
    spans = _rows(value, ChainSpan.table, row_schema(ChainSpan))
    return [
        Insert("otel_traces", rows, f"{place.token}:otel_traces:{i}:{_digest(value)}")
        for i, rows in enumerate(chain_spans(spans, place.network, place.generation))
    ]


def is_of(record: Delivered, row_type: type[Row]) -> bool:
    """Whether a record of `nektar.rows` holds rows of this type."""
    return record.stream == ROWS and record.headers.get("table") == row_type.table.encode()


def _arrow(value: bytes, table: Table) -> Any:
    """The rows in an Arrow IPC stream, checked to be what `table` holds."""
    return _rows(value, table.name, table.arrow)


def _rows(value: bytes, name: str, schema: Any) -> Any:
    rows = pa.ipc.open_stream(value).read_all()
    if not rows.schema.equals(schema):
        raise BrokenRecord(f"{name}: expected the columns {_names(schema)}; got {_names(rows.schema)}")
    rows.validate(full=True)
    return rows


def _names(schema: Any) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)[:400]


def _levels(blocks: Sequence[Block], rows: Any) -> Any:
    """How well the block of each row was checked. Raises BrokenRecord for a row of no block of the record."""
    if len(levels := {block.level for block in blocks}) == 1:
        return str(levels.pop())
    of_block = {block.number: str(block.level) for block in blocks}
    numbers = rows.column("block_number").to_pylist()
    if not of_block.keys() >= set(numbers):
        raise BrokenRecord(f"expected rows of the record's blocks; got one of block {max(numbers)}")
    return pa.array([of_block[number] for number in numbers], pa.utf8())


def _block_rows(blocks: Sequence[Block], generation: int) -> Any:
    rows = [
        {name: getattr(block, name) for name in _BLOCKS.arrow.names if name != "generation"}
        | {"generation": generation, "level": str(block.level)}
        for block in blocks
    ]
    return pa.Table.from_pylist(rows, schema=_BLOCKS.arrow)


def _digest(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()[:16]

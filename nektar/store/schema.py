"""What stands in the store: a table per row type of the model, and per event and call of the ABIs.

Nothing here lists columns. The model's own types say how a row is stored (`Annotated[…, Column(type,
comment)]`), and an ABI's Arrow schema says how an event is: this module turns both into `Table`s, and
those into the SQL that makes them. What is released of the model's tables is frozen in `migrations/`; a
test holds the two together.

Every table begins with `network` and, but for histories, ends with `version` and `is_deleted`
(ReplacingMergeTree: the highest version of a key stands, unless it is a tombstone). `version` is
`generation << 48 | offset`, so that a record that is read twice changes nothing. The generation is part of
the key: what one says of a row stands beside what another does, and views choose (`views.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, get_args, get_type_hints

import msgspec

from nektar import coverage, rows
from nektar.arrow import pa
from nektar.chain.abi import CALL_COLUMNS, EVENT_COLUMNS, EventType, FunctionType
from nektar.rows import Column, DutyRow, Finding, SlashingRow

Row = rows.Row | coverage.Row

DELETED = "is_deleted"
LEVEL = "level"  # of the tables of ABIs: how well the block of the row was checked
# How many inserts back a table remembers their tokens. One insert a block and table: half a day of blocks.
DEDUPLICATION_WINDOW = 10_000
# Seconds for which ClickHouse keeps parts that were merged away (its default is 480): a part an insert
# means thousands of small files a minute.
OLD_PARTS_LIFETIME = 30

_ARROW = {
    "String": pa.utf8(),
    "LowCardinality(String)": pa.utf8(),
    "Bool": pa.bool_(),
    "Int64": pa.int64(),
    "UInt32": pa.uint32(),
    "UInt64": pa.uint64(),
    "UInt256": pa.binary(32),  # little-endian: Arrow has no integer wider than 64 bits
    "DateTime('UTC')": pa.timestamp("s", "UTC"),
}
_FIXED = re.compile(r"FixedString\((\d+)\)")


# --- rows on the bus --------------------------------------------------------------------------------


@cache
def columns(row_type: type[Row]) -> Mapping[str, Column]:
    """Name → column of a row type, in the order of its fields."""
    hints = get_type_hints(row_type, include_extras=True)
    found = {}
    for name in row_type.__struct_fields__:
        (column,) = (x for x in get_args(hints[name])[1:] if isinstance(x, Column))
        found[name] = column
    return found


@cache
def row_schema(row_type: type[Row]) -> pa.Schema:
    """The Arrow schema in which rows of this type travel: its columns, then `is_deleted`."""
    fields = [pa.field(n, _arrow(c.type), nullable=False) for n, c in columns(row_type).items()]
    return pa.schema([*fields, pa.field(DELETED, pa.bool_(), nullable=False)])


def rows_to_arrow(row_type: type[Row], said: Sequence[tuple[Any, bool]]) -> pa.RecordBatch:
    """Rows of one type, each with whether it is deleted, in the type's `row_schema`."""
    arrays = [
        pa.array([_cell(c.type)(getattr(row, n)) for row, _ in said], _arrow(c.type))
        for n, c in columns(row_type).items()
    ]
    arrays.append(pa.array([deleted for _, deleted in said], pa.bool_()))
    return pa.record_batch(arrays, schema=row_schema(row_type))


def rows_to_ipc(row_type: type[Row], said: Sequence[tuple[Any, bool]]) -> bytes:
    """The same as an Arrow IPC stream. Equal rows give equal bytes."""
    batch = rows_to_arrow(row_type, said)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _arrow(type_: str) -> Any:
    if match := _FIXED.fullmatch(type_):
        return pa.binary(int(match[1]))
    return _ARROW[type_]


def _cell(type_: str) -> Callable[[Any], Any]:
    return _wide if type_ == "UInt256" else _same


def _wide(value: int) -> bytes:
    return value.to_bytes(32, "little")


def _same(value: Any) -> Any:
    return value


# --- tables -----------------------------------------------------------------------------------------


class Stored(msgspec.Struct, frozen=True):
    """One column: how it is stored, and how views show it (hashes, addresses and bytes as 0x…)."""

    name: str
    type: str
    comment: str
    shown_type: str
    show: Callable[[str], str]  # SQL of the stored column → SQL of what views show


class Table(msgspec.Struct, frozen=True):
    """One table of the store. `columns` are its own, without what every table has."""

    name: str
    comment: str
    order: tuple[str, ...]  # what identifies a row, after `network`
    columns: tuple[Stored, ...]
    view: str  # the plain name under which people read it
    arrow: Any  # pa.Schema of the rows as they come from the bus
    history: bool = False  # every version stays


BLOCK_COLUMNS: Mapping[str, Column] = {
    "number": Column("UInt64", "Block number"),
    "hash": Column("FixedString(32)", "Hash of the header, recomputed"),
    "parent": Column("FixedString(32)", "Hash of the parent block"),
    "time": Column("DateTime('UTC')", "The block's own time"),
    "level": Column("LowCardinality(String)", "How well it was checked: proved, linked or reported"),
    "provider": Column("LowCardinality(String)", "Provider that served it, by its name in nektar.yaml"),
    "anchor": Column("LowCardinality(String)", "What makes it canonical: single:…, quorum m/n or pinned"),
    "generation": Column("UInt32", "Generation of the log that brought it"),
}


def blocks_table() -> Table:
    """`blocks`: written last of a record, so that a block that is in it has all its rows in the store."""
    comment = "Blocks of the Network's chain; one that is here has all its events and calls in the store"
    return _of_columns("blocks", comment, ("number", "hash"), BLOCK_COLUMNS)


def generations_table() -> Table:
    """`generations`: a Network's logs. Views show what the highest one says that has come to stand."""
    columns = {
        "generation": Column("UInt32", "Generation of the Network's log"),
        "bus": Column("String", "Bus that holds this generation's log"),
        "stands": Column("Bool", "Whether it has caught up: views show the highest one that has"),
        "calls": Column(
            "LowCardinality(String)", "Of which blocks it takes calls: all or with_events; empty: not known"
        ),
    }
    return _of_columns("generations", "Logs of each Network", ("generation",), columns)


def gaps_table() -> Table:
    """`gaps`: written before the block that follows, so that a log's blocks and gaps leave nothing out."""
    columns = {
        "first": Column("UInt64", "First block that is missing"),
        "last": Column("UInt64", "Last block that is missing"),
        "why": Column("String", "Why the log goes on without them"),
        "generation": BLOCK_COLUMNS["generation"],
    }
    comment = "Blocks in the scope of a Network's log that no provider could serve"
    return _of_columns("gaps", comment, ("first", "last"), columns)


def _of_columns(view: str, comment: str, order: tuple[str, ...], columns: Mapping[str, Column]) -> Table:
    own = tuple(_stored(n, c) for n, c in columns.items())
    arrow = pa.schema([pa.field(n, _arrow(c.type), nullable=False) for n, c in columns.items()])
    return Table(f"{view}_rows", comment, order, own, view, arrow)


def row_table(row_type: type[Row]) -> Table:
    """The table of a row type: what is true now."""
    own = tuple(_stored(n, c) for n, c in columns(row_type).items())
    name, view = f"{row_type.table}_rows", row_type.table
    return Table(name, _first_line(row_type), row_type.key, own, view, row_schema(row_type))


def history_table(row_type: type[Row]) -> Table:
    """The table of everything that was ever said of a row: as-of queries read this."""
    now = row_table(row_type)
    position = Column("UInt32", "Place of the row in its record")
    own = (*now.columns, _stored("position", position))
    order = (*now.order, "version", "position")
    name, view = f"{row_type.table}_history_rows", f"{row_type.table}_history"
    comment = f"{now.comment} Every version ever put out, undone ones included."
    return Table(name, comment, order, own, view, now.arrow, history=True)


HISTORIES: tuple[type[Row], ...] = (DutyRow, SlashingRow, Finding)


def model_tables() -> list[Table]:
    """The tables that migrations make."""
    return [
        generations_table(),
        blocks_table(),
        gaps_table(),
        *map(row_table, (*rows.ROWS, *coverage.ROWS)),
        *map(history_table, HISTORIES),
    ]


def abi_table(entry: EventType | FunctionType) -> Table:
    """The table of an event or a call. Wide integers are told from hashes by the fields' metadata `abi`."""
    kind, fixed = ("Event", EVENT_COLUMNS) if isinstance(entry, EventType) else ("Call", CALL_COLUMNS)
    arguments = list(entry.schema)[len(fixed) :]
    comment = f"{kind} {entry.name}({', '.join(f'{_abi(a)} {a.name}' for a in arguments)})"
    own = []
    for field in entry.schema:
        type_, shown_type, show = _kind(field.type, _abi(field), 0)
        if field.nullable:
            type_, shown_type = f"Nullable({type_})", f"Nullable({shown_type})"
        said = (
            f"Argument of {entry.name}: {_abi(field)}" if field in arguments else _FIXED_COLUMNS[field.name]
        )
        own.append(Stored(field.name, type_, said, shown_type, show))
    own.append(_stored(LEVEL, BLOCK_COLUMNS["level"]))
    order = ("block_number", "block_hash", "log_index" if kind == "Event" else "tx_index")
    return Table(entry.table, comment, order, tuple(own), entry.table.rpartition("_")[0], entry.schema)


_FIXED_COLUMNS = {
    "block_number": "Block that holds it",
    "block_hash": "Hash of that block",
    "block_time": "Time of that block",
    "tx_index": "Place of the transaction in the block",
    "tx_hash": "Hash of the transaction",
    "log_index": "Place of the log in the block",
    "address": "The contract that emitted it, or was called",
    "sender": "Who sent the transaction",
    "value": "Wei sent with the call",
    "status": "Whether the call succeeded; null: not known, the block is linked",
    "revert": "Why the call failed, as a node reported it: no root covers it; null: not failed, or not said",
}


# --- SQL --------------------------------------------------------------------------------------------


def create_table(table: Table) -> str:
    """The statement that makes `table` where it is missing."""
    lines = [_column("network", "LowCardinality(String)", "Network that it belongs to")]
    lines += [_column(c.name, c.type, c.comment) for c in table.columns]
    lines.append(_column("version", "UInt64", "Generation of the log << 48 | offset of the record"))
    lines.append(_column(DELETED, "UInt8", "1: taken back by an undo"))
    names = {c.name for c in table.columns}
    for column in table.columns:
        alias = f"{column.name}_hex"
        if _FIXED.fullmatch(column.type) and alias not in names:
            shown = column.show(quoted(column.name))
            lines.append(f"  {quoted(alias)} String ALIAS {shown} COMMENT {literal(f'{column.name} as 0x…')}")
    own = ", ".join(map(quoted, table.order))
    order = f"`network`, {own}" if table.history else f"`network`, bitShiftRight(`version`, 48), {own}"
    engine = "ReplacingMergeTree" + ("" if table.history else f"(version, {DELETED})")
    return (
        f"CREATE TABLE IF NOT EXISTS {quoted(table.name)} (\n" + ",\n".join(lines) + "\n)\n"
        f"ENGINE = {engine} ORDER BY ({order})\n"
        f"SETTINGS non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}, "
        f"old_parts_lifetime = {OLD_PARTS_LIFETIME}\n"
        f"COMMENT {literal(table.comment)}"
    )


def quoted(name: str) -> str:
    """An identifier for SQL."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(text: str) -> str:
    """A string for SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def _column(name: str, type_: str, comment: str) -> str:
    return f"  {quoted(name)} {type_} COMMENT {literal(comment)}"


def stored(rows: Any, network: str, version: int, deleted: Any, level: Any = None) -> Any:
    """A pyarrow Table with what the store puts beside the rows of every table, and of an ABI's table their
    `level`. `deleted` and `level` are one value for all of them, or Arrow arrays."""
    n = rows.num_rows

    def each(value: Any, type_: Any) -> Any:
        if isinstance(value, pa.Array):
            return value.cast(type_)
        if type_ == pa.utf8():  # once, as the store keeps it
            return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), n), [value])
        return pa.repeat(pa.scalar(value, type_), n)

    rows = rows.add_column(0, "network", each(network, pa.utf8()))
    if level is not None:
        rows = rows.append_column(LEVEL, each(level, pa.utf8()))
    rows = rows.append_column("version", each(version, pa.uint64()))
    return rows.append_column(DELETED, each(deleted, pa.bool_()).cast(pa.uint8()))


# --- types ------------------------------------------------------------------------------------------


class _Kind(NamedTuple):
    """A stored type, the type that views show, and the SQL from one to the other."""

    stored: str
    shown: str
    show: Callable[[str], str]


def _stored(name: str, column: Column) -> Stored:
    if _FIXED.fullmatch(column.type):
        return Stored(name, column.type, column.comment, "String", _hex)
    return Stored(name, column.type, column.comment, column.type, _same)


def _kind(type_: Any, abi: str, depth: int) -> _Kind:
    """How an Arrow type of the log is stored and shown. `abi` is the Solidity type where it is known."""
    if pa.types.is_fixed_size_binary(type_):
        if type_.byte_width == 32 and abi.startswith(("uint", "int")):
            wide = "UInt256" if abi.startswith("u") else "Int256"
            return _Kind(wide, wide, _same)
        return _Kind(f"FixedString({type_.byte_width})", "String", _hex)
    if pa.types.is_binary(type_):
        return _Kind("String", "String", _hex)
    if pa.types.is_list(type_):
        inner = _kind(type_.value_type, _abi(type_.value_field) or abi.rpartition("[")[0], depth + 1)
        stored, shown = f"Array({inner.stored})", f"Array({inner.shown})"
        if inner.show is _same:
            return _Kind(stored, shown, _same)
        item = f"x{depth}"
        return _Kind(stored, shown, lambda sql: f"arrayMap({item} -> {inner.show(item)}, {sql})")
    if pa.types.is_struct(type_):
        return _tuple(type_, depth)
    simple = _SIMPLE[str(type_)]
    return _Kind(simple, simple, _same)


def _tuple(type_: Any, depth: int) -> _Kind:
    fields = [type_.field(i) for i in range(type_.num_fields)]
    kinds = [_kind(field.type, _abi(field), depth + 1) for field in fields]
    names = [quoted(field.name) for field in fields]
    stored = ", ".join(f"{n} {k.stored}" for n, k in zip(names, kinds, strict=True))
    shown = ", ".join(f"{n} {k.shown}" for n, k in zip(names, kinds, strict=True))

    def show(sql: str) -> str:
        parts = (k.show(f"tupleElement({sql}, {i})") for i, k in enumerate(kinds, 1))
        return f"CAST(tuple({', '.join(parts)}), {literal(f'Tuple({shown})')})"

    same = all(k.show is _same for k in kinds)
    return _Kind(f"Tuple({stored})", f"Tuple({shown})", _same if same else show)


_SIMPLE = {
    **{
        f"{sign}int{bits}": f"{name}Int{bits}"
        for sign, name in (("u", "U"), ("", ""))
        for bits in (8, 16, 32, 64)
    },
    "bool": "Bool",
    "string": "String",
    "timestamp[s, tz=UTC]": "DateTime('UTC')",
}


def _hex(sql: str) -> str:
    return f"concat('0x', lower(hex({sql})))"


def _abi(field: Any) -> str:
    return ((field.metadata or {}).get(b"abi") or b"").decode()


def _first_line(row_type: type[Row]) -> str:
    return (row_type.__doc__ or "").strip().splitlines()[0]

"""What people read: a view under a plain name for every table, true now, with hashes as 0x….

A view shows the newest version of each row and no undone ones (`FINAL`), of the generation of each Network's
log that stands: not of one that catches up with it, nor of an older one, whose words are in the histories.
Ranges of `block_number` reach the table's own order, so that they are quick. Views hold nothing, so they need
no migrations: they are made anew where they are not as this version has them (`migrate`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from nektar.store.schema import DELETED, Row, Stored, Table, literal, quoted, row_table

_GENERATION = "toUInt32(bitShiftRight(t.version, 48))"
# All generations of a Network's log but for the newest of those that have come to stand.
_HIDDEN = (
    "SELECT network, arrayJoin(arrayFilter(g -> g != shown, begun)) FROM (SELECT network,"
    " maxIf(generation, stands) AS shown, groupUniqArray(generation) AS begun"
    " FROM generations_rows GROUP BY network)"
)
_NETWORK = Stored("network", "", "Network that it belongs to", "LowCardinality(String)", str)
_BLOCK = ("block_number", "block_hash", "block_time", "tx_index", "tx_hash")
# What all event tables, and all call tables, have in common.
_EVENT_PLACE = (*_BLOCK, "log_index", "address", "level")
_CALL_PLACE = (*_BLOCK, "sender", "address", "value", "status", "revert", "level")


def create_views(tables: Iterable[Table]) -> dict[str, str]:
    """Name → statement: a view for each plain name, and `events` and `calls` over all of theirs."""
    named: dict[str, list[Table]] = {}
    for table in tables:
        named.setdefault(table.view, []).append(table)
    views = {
        name: _history(ts[0]) if ts[0].history else _view(name, ts) for name, ts in sorted(named.items())
    }
    for kind, comment, place in (
        ("event", "Where each event of every kind stands", _EVENT_PLACE),
        ("call", "Where each transaction to the Network's contracts stands, failed ones too", _CALL_PLACE),
    ):
        of_kind = [t for ts in named.values() for t in ts if t.name.startswith(f"{kind}_")]
        if of_kind:
            views[f"{kind}s"] = _over_all(kind, comment, place, sorted(of_kind, key=lambda t: t.name))
    return views


def rows_where(row_type: type[Row], condition: str) -> str:
    """A query for those rows of the type's view of whose table, `t`, this holds. There hashes are bytes, in
    whose order it lies, and so are found at once; the view has their text."""
    table = row_table(row_type)
    return f"{_select(table, [_NETWORK, *table.columns])} AND {condition}"


def _view(name: str, tables: Sequence[Table]) -> str:
    """One plain name. Where several tables share it (layouts of one event), it has the columns of all: null,
    or an empty array or tuple, in rows of a layout that has none such. What another layout has under the same
    name in another type bears its table's hash; the table that was there first keeps its names."""
    columns: dict[str, Stored] = {}
    shown: list[dict[str, str]] = []  # of each table, by the view's columns
    for table in tables:
        own = {}
        for column in (_NETWORK, *table.columns):
            as_ = column.name
            if as_ in columns and columns[as_].shown_type != column.shown_type:
                as_ = f"{as_}_{table.name.rpartition('_')[2]}"
            columns.setdefault(as_, msgspec.structs.replace(column, name=as_))
            own[as_] = column.show(f"t.{quoted(column.name)}")
        shown.append(own)
    every = [c if all(c.name in own for own in shown) else _optional(c) for c in columns.values()]
    selects = [
        _select(
            table,
            [msgspec.structs.replace(c, show=_always(own.get(c.name, c.show("")))) for c in every],
        )
        for table, own in zip(tables, shown, strict=True)
    ]
    return create_view(name, tables[0].comment, every, selects)


def _optional(column: Stored) -> Stored:
    """A column that some rows lack: what these show in its place is what it shows of itself."""
    type_ = column.shown_type
    if not type_.startswith(("Nullable(", "Array(", "Tuple(")):
        type_ = f"Nullable({type_})"
    nothing = f"defaultValueOfTypeName({literal(type_)})"
    return msgspec.structs.replace(column, shown_type=type_, show=_always(nothing))


def _history(table: Table) -> str:
    said = [
        Stored(
            "generation",
            "",
            "Generation of the log",
            "UInt32",
            lambda _: _GENERATION,
        ),
        Stored(
            "log_offset",
            "",
            "Offset in its stream of the record that said it",
            "UInt64",
            lambda _: f"bitAnd(t.version, {(1 << 48) - 1})",
        ),
        Stored(DELETED, "", "1: taken back by an undo", "UInt8", str),
    ]
    columns = [_NETWORK, *table.columns, *said]
    return create_view(table.view, table.comment, columns, [_select(table, columns)])


def _over_all(kind: str, comment: str, place: Sequence[str], tables: Sequence[Table]) -> str:
    shared = [c for c in tables[0].columns if c.name in place]
    name = Stored(kind, "", f"Name of the {kind}'s view", "LowCardinality(String)", str)
    selects = [
        _select(t, [_NETWORK, *shared, msgspec.structs.replace(name, show=_always(literal(t.view)))])
        for t in tables
    ]
    return create_view(f"{kind}s", comment, [_NETWORK, *shared, name], selects)


def _always(sql: str) -> Callable[[str], str]:
    return lambda _: sql


def _select(table: Table, columns: Sequence[Stored]) -> str:
    # `t.` keeps an expression from meaning the alias that it is given.
    shown = ", ".join(f"{c.show(f't.{quoted(c.name)}')} AS {quoted(c.name)}" for c in columns)
    all_ = table.history or table.view == "generations"
    standing = "" if all_ else f" WHERE (t.network, {_GENERATION}) NOT IN ({_HIDDEN})"
    return f"SELECT {shown} FROM {quoted(table.name)} AS t FINAL{standing}"  # noqa: S608  # names are quoted


def create_view(name: str, comment: str, columns: Sequence[Stored], selects: Sequence[str]) -> str:
    lines = ", ".join(f"{quoted(c.name)} {c.shown_type} COMMENT {literal(c.comment)}" for c in columns)
    body = "\nUNION ALL\n".join(selects)
    return f"CREATE OR REPLACE VIEW {quoted(name)} ({lines})\nAS {body}\nCOMMENT {literal(comment)}"

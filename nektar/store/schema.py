"""What stands in the store: a table per row type of the model and per event and call of the ABIs.

The model's own types say how a row is stored (`Annotated[…, Column(type, comment)]`), so this module has
no list of tables to keep in step: it derives Arrow schemas, ClickHouse tables and views from them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, get_args, get_type_hints

import pyarrow as pa

from nektar.model import Column, Row

DELETED = "is_deleted"

_ARROW = {
    "String": pa.utf8(),
    "LowCardinality(String)": pa.utf8(),
    "Bool": pa.bool_(),
    "UInt32": pa.uint32(),
    "UInt64": pa.uint64(),
    "UInt256": pa.binary(32),  # little-endian: ClickHouse has no wider Arrow integer than 64 bits
    "DateTime('UTC')": pa.timestamp("s", "UTC"),
}
_FIXED = re.compile(r"FixedString\((\d+)\)")


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


def rows_to_ipc(row_type: type[Row], rows: Sequence[tuple[Row, bool]]) -> bytes:
    """Rows of one type, each with whether it is deleted, as an Arrow IPC stream. Equal rows, equal bytes."""
    arrays = [
        pa.array([_cell(c.type)(getattr(row, n)) for row, _ in rows], _arrow(c.type))
        for n, c in columns(row_type).items()
    ]
    arrays.append(pa.array([deleted for _, deleted in rows], pa.bool_()))
    batch = pa.record_batch(arrays, schema=row_schema(row_type))
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

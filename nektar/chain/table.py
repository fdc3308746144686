"""Rows as they travel: an Arrow IPC stream of one table, and its values as Python says them.

Whoever writes puts each column's ABI type beside it as metadata (`nektar.chain.types.field`); without it
nobody could tell a `uint256`, 32 bytes little-endian, from a `bytes32`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from nektar.arrow import pa

_Convert: TypeAlias = Callable[[Any], Any]


def write_table(batch: pa.RecordBatch) -> bytes:
    """The Arrow IPC stream of `batch`. Equal batches give equal bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def read_table(stream: bytes) -> pa.Table:
    """The table that an Arrow IPC stream holds; its columns lie in `stream` and are not copied."""
    with pa.ipc.open_stream(stream) as reader:
        return reader.read_all()


def values(stream: bytes, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of an Arrow IPC stream: numbers of any width as int, times as int seconds since 1970 UTC,
    addresses and bytes as bytes, tuples as dicts, arrays as lists. Of `names` alone, where they are given."""
    table = read_table(stream)
    if names is not None:
        table = table.select(names)
    columns = [_column(field, table.column(i)) for i, field in enumerate(table.schema)]
    return [dict(zip(table.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _column(field: pa.Field, column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(field.type):
        column = column.cast(pa.timestamp("s", field.type.tz)).cast(pa.int64())
    found: list[Any] = column.to_pylist()
    convert = _converter(field)
    return found if convert is None else [None if each is None else convert(each) for each in found]


def _converter(field: pa.Field) -> _Convert | None:
    """What turns Arrow's Python value of `field` into ours; None where they are the same."""
    if pa.types.is_list(field.type):
        item = _converter(field.type.value_field)
        return None if item is None else lambda found: [item(each) for each in found]
    if pa.types.is_struct(field.type):
        members = {each.name: convert for each in field.type if (convert := _converter(each)) is not None}
        return None if not members else lambda found: found | {k: members[k](found[k]) for k in members}
    if pa.types.is_fixed_size_binary(field.type):
        abi = (field.metadata or {}).get(b"abi", b"")
        if abi.startswith((b"uint", b"int")):
            signed = abi.startswith(b"int")
            return lambda found: int.from_bytes(found, "little", signed=signed)
    return None

"""The bytes of Native against two readers: chDB's own, and clickhouse-connect's. The third, clickhouse-go's,
is in test_clickhouse_go.py: it alone reads revision 54460."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from clickhouse_connect.driver.buffer import ResponseBuffer
from clickhouse_connect.driver.query import QueryContext
from clickhouse_connect.driver.transform import NativeTransform
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nektar.store import native
from nektar.store.native import Values, block, greeting, string, varint
from nektar.store.port import Store


def read_by_connect(data: bytes, block_info: bool = False) -> tuple[tuple[str, ...], Sequence[Any]]:
    """(names, rows) as clickhouse-connect reads them; block_info: as from revision 1 on."""
    source = ResponseBuffer(SimpleNamespace(gen=iter([data]), close=lambda: None))
    context = QueryContext()
    context.block_info = block_info
    found = NativeTransform.parse_response(source, context)
    return tuple(found.column_names), found.result_rows


@settings(max_examples=40)
@given(st.text(min_size=1, max_size=300), st.text(max_size=300))
@example("x" * 127, "y" * 128)
@example("x" * 16384, "")
def test_a_block_reads_as_what_was_written(store: Store, name: str, value: str) -> None:
    name = name.replace("\0", "?")  # chDB's own reader takes a name to end there
    written = block([Values(name, "String", string(value)), Values("n", "UInt32", b"\7\0\0\0")], 1)
    by_chdb = store.rows(f"SELECT * FROM format(Native, unhex('{written.hex()}'))")
    assert by_chdb == [(value, 7)]
    assert read_by_connect(written) == ((name, "n"), [(value, 7)])


@given(st.integers(0, 2**64 - 1))
def test_a_varint_is_seven_bits_a_byte_lowest_first(number: int) -> None:
    written = varint(number)
    assert sum((byte & 0x7F) << 7 * i for i, byte in enumerate(written)) == number
    assert [byte >> 7 for byte in written] == [1] * (len(written) - 1) + [0]
    assert len(written) == max(1, -(-number.bit_length() // 7))


@pytest.mark.parametrize(
    "sql",
    ["SELECT 1 AS a, 'x' AS b", "SELECT toUInt32(0) AS n FROM numbers(3)", "SELECT '' AS `ä b`, 'é' AS c"],
)
def test_a_block_has_the_bytes_that_chdb_writes(store: Store, sql: str) -> None:
    written = store.read(sql, "Native")
    columns = json.loads(store.read(sql, "JSONCompact"))
    data = {
        "UInt8": lambda cells: bytes(cells),
        "UInt32": lambda cells: b"".join(cell.to_bytes(4, "little") for cell in cells),
        "String": lambda cells: b"".join(map(string, cells)),
    }
    values = [
        Values(column["name"], column["type"], data[column["type"]]([row[i] for row in columns["data"]]))
        for i, column in enumerate(columns["meta"])
    ]
    assert block(values, columns["rows"]) == written


def test_a_block_without_rows_names_its_columns() -> None:
    written = block([Values("a", "UInt256"), Values("b", "Map(String, String)")], 0)
    assert written == b"\2\0\1a\7UInt256\1b\x13Map(String, String)"
    assert read_by_connect(written) == (("a", "b"), [])


def test_the_greeting_says_revision_0_at_whatever_revision_it_is_read() -> None:
    names = tuple(f"{name}()" for name in ("displayName", "version", "revision", "timezone"))
    row = [("nektar", "26.9.2.1", 0, "UTC")]
    assert read_by_connect(greeting("nektar", "26.9.2.1", "UTC", 0)) == (names, row)
    assert read_by_connect(greeting("nektar", "26.9.2.1", "UTC", 54405), block_info=True) == (names, row)
    # From 54454 on a byte more stands behind each type.
    before, after = (greeting("nektar", "26.9.2.1", "UTC", revision) for revision in (54453, 54454))
    assert after == before.replace(b"\6String", b"\6String\0").replace(b"\6UInt32", b"\6UInt32\0")
    assert len(after) == len(before) + 4


def test_the_greeting_is_the_query_that_clickhouse_understands(store: Store) -> None:
    ((name, _, revision, _),) = store.rows(native.GREETING)
    assert name
    assert revision > 54454

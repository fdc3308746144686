"""ClickHouse's Native format, as far as chDB leaves it to us: the answer to clickhouse-go's first query, and
the block that names the columns of a query without rows.

A block is the counts of its columns and rows, then each column: name, type, and its values one after the
other; all counts and lengths are LEB128. What stands around that depends on the protocol revision that both
sides agreed on; over HTTP the client names its own (`client_protocol_version`), and without it is 0:

* from revision 1 on, each block begins with a BlockInfo: numbered fields (1: is it overflow rows, one byte;
  2: its bucket, a little-endian Int32, -1 for none), ended by a 0;
* from 54454 on, a byte after each column's type says whether its values are written in some special way.

chDB always writes revision 0. clickhouse-go names 54460 and reads the answer to its first query (`GREETING`)
at that revision, then everything after it at the revision that this answer holds. So that one answer is
written here, and says 0.

Sources: ClickHouse's `src/Formats/NativeWriter.cpp`, `src/Core/BlockInfo.cpp` and `ProtocolDefines.h`;
clickhouse-go's `conn_http.go` (`queryHello`) and `lib/proto/block.go`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

GREETING = "SELECT displayName(), version(), revision(), timezone()"

# DBMS_MIN_REVISION_WITH_CUSTOM_SERIALIZATION
_CUSTOM_SERIALIZATION = 54454
_BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"


class Values(NamedTuple):
    """One column of a block: `data` holds the values of all rows as its type writes them."""

    name: str
    type: str
    data: bytes = b""


def block(columns: Sequence[Values], rows: int, revision: int = 0) -> bytes:
    """One block of `rows` rows, as a reader of this protocol revision expects it."""
    parts = [_BLOCK_INFO] if revision > 0 else []
    parts += [varint(len(columns)), varint(rows)]
    for column in columns:
        parts += [string(column.name), string(column.type)]
        if revision >= _CUSTOM_SERIALIZATION:
            parts.append(b"\x00")
        parts.append(column.data)
    return b"".join(parts)


def greeting(name: str, version: str, timezone: str, revision: int) -> bytes:
    """The answer to `GREETING` for a client that reads it at `revision`: go on at revision 0."""
    zero = (0).to_bytes(4, "little")
    columns = [
        Values("displayName()", "String", string(name)),
        Values("version()", "String", string(version)),
        Values("revision()", "UInt32", zero),
        Values("timezone()", "String", string(timezone)),
    ]
    return block(columns, 1, revision)


def string(text: str) -> bytes:
    """A value of type String: its length in bytes, and they; bytes that are no UTF-8 stand as surrogates."""
    data = text.encode(errors="surrogateescape")
    return varint(len(data)) + data


def varint(number: int) -> bytes:
    """LEB128, unsigned."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])

"""Recursive length prefix (yellow paper, appendix B): how the chain writes what it hashes.

Encoding is what every block costs, so it works on pieces that are already encoded; decoding is strict: only
what `encode` writes is read back, and one item has one encoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from nektar.errors import NektarError

# What stands before a byte string of so many bytes.
_SHORT = [bytes((0x80 + size,)) for size in range(56)]

Item: TypeAlias = "bytes | Sequence[Item]"

# A transaction's access list is two lists deep, and no honest item is deeper than a few.
MAX_DEPTH = 16


class BadRlp(NektarError):
    """Bytes that RLP's encoder does not write."""


def string(value: bytes) -> bytes:
    """The encoding of one byte string."""
    size = len(value)
    if size >= 56:
        return _head(0x80, size) + value
    return value if size == 1 and value[0] < 0x80 else _SHORT[size] + value


def number(value: int) -> bytes:
    """The encoding of a natural number: big-endian without leading zeros, zero as the empty string."""
    if value < 0x80:
        return bytes((value or 0x80,))
    return string(value.to_bytes((value.bit_length() + 7) // 8))


def sequence(encoded: Iterable[bytes]) -> bytes:
    """The encoding of a list whose items are encoded already."""
    payload = b"".join(encoded)
    return list_head(len(payload)) + payload


def string_head(size: int) -> bytes:
    """What stands before a byte string of `size` bytes; a single byte below 0x80 has nothing before it."""
    return _head(0x80, size)


def list_head(size: int) -> bytes:
    """What stands before a list whose encoded items take `size` bytes."""
    return _head(0xC0, size)


def _head(of: int, size: int) -> bytes:
    if size < 56:
        return bytes((of + size,))
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((of + 55 + len(length),)) + length


def encode(item: Item) -> bytes:
    """The encoding of a byte string, or of a list of such items."""
    if isinstance(item, bytes):
        return string(item)
    return sequence(encode(each) for each in item)


def decode(encoded: bytes, depth: int = MAX_DEPTH) -> Item:
    """The item whose encoding is `encoded`, all of it, and whose lists are so deep at most. Raises BadRlp."""
    item, end = _item(encoded, 0, len(encoded), depth)
    if end != len(encoded):
        raise BadRlp(f"expected one RLP item of {end} bytes; got {len(encoded)}")
    return item


def _item(data: bytes, start: int, limit: int, depth: int) -> tuple[Item, int]:
    """The item at `start` and where it ends, which is not past `limit`."""
    if start >= limit:
        raise BadRlp("expected an RLP item; the bytes end before it")
    prefix = data[start]
    if prefix < 0x80:
        return data[start : start + 1], start + 1
    is_list = prefix >= 0xC0
    short = prefix - (0xC0 if is_list else 0x80)
    body = start + 1
    if short < 56:
        size = short
    else:
        body += short - 55
        length = data[start + 1 : body]
        size = int.from_bytes(length)
        if body > limit or size < 56 or length[0] == 0:
            raise BadRlp("an RLP length is longer than it need be, or cut short")
    end = body + size
    if end > limit:
        raise BadRlp("an RLP item reaches past the end of what holds it")
    if not is_list:
        if size == 1 and data[body] < 0x80:
            raise BadRlp("a single byte below 0x80 is its own RLP, and has a prefix here")
        return data[body:end], end
    if depth == 0:
        raise BadRlp("RLP lists are nested deeper than they may be here")
    found: list[Item] = []
    while body < end:
        item, body = _item(data, body, end, depth - 1)
        found.append(item)
    return found, end

from __future__ import annotations

import gzip
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nektar.store.coding import BadGzip, Body, TooLong, gzipped, wants_gzip

LIMIT = 1000


def read(chunks: list[bytes], packed: bool = True, limit: int = LIMIT) -> bytes:
    body = Body(limit, packed)
    for chunk in chunks:
        body.feed(chunk)
    return body.whole()


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@given(st.binary(max_size=LIMIT), st.integers(1, 50), st.booleans())
def test_a_body_is_what_was_sent_however_it_is_cut(data: bytes, size: int, packed: bool) -> None:
    assert read(cut(gzip.compress(data) if packed else data, size), packed, LIMIT + 50) == data
    pieces = list(gzipped(cut(data, size)))
    assert all(pieces)
    assert gzip.decompress(b"".join(pieces)) == data


@given(st.integers(0, 3 * LIMIT), st.integers(1, 50), st.booleans())
def test_a_body_longer_than_the_limit_is_refused(length: int, size: int, packed: bool) -> None:
    data = b"x" * length
    chunks = cut(gzip.compress(data) if packed else data, size)
    if length <= LIMIT:
        assert read(chunks, packed) == data
    else:
        with pytest.raises(TooLong):
            read(chunks, packed)


def test_a_bomb_is_never_unpacked_beyond_the_limit() -> None:
    bomb = gzip.compress(bytes(200 << 20))
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(TooLong):
            read([bomb], limit=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_what_comes_is_limited_too_where_it_unpacks_to_little() -> None:
    nothing = gzip.compress(b"")
    with pytest.raises(TooLong):
        read([nothing] * LIMIT)


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_stream_that_is_cut_or_goes_on_or_is_none_is_refused(data: bytes, draw: st.DataObject) -> None:
    whole = gzip.compress(data)
    for bad in (whole[: draw.draw(st.integers(0, len(whole) - 1))], whole + data, b"SELECT 1"):
        with pytest.raises(BadGzip):
            read([bad])


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("lz4, zstd;q=1, gzip;q=0.5, br", True),
        ("", False),
        ("identity", False),
        ("br, deflate", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("x-gzipped", False),
    ],
)
def test_gzip_is_for_those_who_say_that_they_take_it(header: str, wanted: bool) -> None:
    assert wants_gzip(header) is wanted

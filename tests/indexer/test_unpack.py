"""Bodies that are packed: any way in which a sender may pack them, and no more than is taken of those that
hold more than they seem to."""

from __future__ import annotations

import gzip
import resource
import sys
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from indexer.unpack import ENCODINGS, NotPacked, TooLarge, unpacked

MOST = 1 << 20
PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstandard.compress}

each_encoding = pytest.mark.parametrize("encoding", ENCODINGS)


@each_encoding
@given(pieces=st.lists(st.binary(max_size=2_000), min_size=1, max_size=20))
def test_what_was_packed_in_pieces_is_whole_again(encoding: str, pieces: list[bytes]) -> None:
    packed = b"".join(map(PACK[encoding], pieces))
    assert unpacked(packed, encoding, MOST) == b"".join(pieces)


@each_encoding
@given(body=st.binary(min_size=1, max_size=2_000), data=st.data())
def test_what_ends_too_early_is_not_packed(encoding: str, body: bytes, data: st.DataObject) -> None:
    packed = PACK[encoding](body)
    with pytest.raises(NotPacked, match=encoding):
        unpacked(packed[: data.draw(st.integers(1, len(packed) - 1))], encoding, MOST)


@each_encoding
@pytest.mark.parametrize("behind", [b"", b"more"])
def test_what_is_something_else_is_not_packed(encoding: str, behind: bytes) -> None:
    body = PACK[encoding](b"a body") + behind if behind else b"no such thing"
    with pytest.raises(NotPacked, match=encoding):
        unpacked(body, encoding, MOST)


@each_encoding
def test_as_much_as_is_taken_and_no_byte_more(encoding: str) -> None:
    assert len(unpacked(PACK[encoding](bytes(MOST)), encoding, MOST)) == MOST
    with pytest.raises(TooLarge, match=f"at most {MOST} bytes"):
        unpacked(PACK[encoding](bytes(MOST + 1)), encoding, MOST)


def window(log: int) -> bytes:
    """A zstd frame of a thousand bytes that asks for a window of 2^log."""
    packing = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=log)
    ).compressobj()
    return packing.compress(bytes(1_000)) + packing.flush()


@each_encoding
def test_a_bomb_takes_no_memory(encoding: str) -> None:
    pack = PACK[encoding]
    one = pack(bytes(256 << 20))
    empty = pack(b"")
    before = peak()
    for bomb in (one, one * 20, pack(bytes(100_000)) * 100):
        with pytest.raises(TooLarge):
            unpacked(bomb, encoding, MOST)
    assert unpacked(empty * (4 * MOST // len(empty)), encoding, MOST) == b""
    for _ in range(50):
        assert len(unpacked(window(27), "zstd", MOST)) == 1_000
    with pytest.raises(NotPacked, match="memory"):
        unpacked(window(30), "zstd", MOST)
    assert peak() - before < 16 * MOST


@each_encoding
def test_what_ends_too_early_leaves_nothing_in_memory(encoding: str) -> None:
    cut = PACK[encoding](bytes(MOST))[:-5]
    before = peak()
    for _ in range(100):
        with pytest.raises(NotPacked):
            unpacked(cut, encoding, MOST)
    assert peak() - before < 16 * MOST


def peak() -> int:
    """The most memory that this process ever had, in bytes."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else 1024 * kilobytes

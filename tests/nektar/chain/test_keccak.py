from __future__ import annotations

from eth_hash.auto import keccak as oracle
from hypothesis import given
from hypothesis import strategies as st

from nektar.chain.keccak import keccak

# A block of the sponge is 136 bytes: what is as long, one shorter and one longer is padded differently.
SIZES = (0, 1, 31, 32, 33, 135, 136, 137, 271, 272, 273, 100_000)


@given(st.sampled_from(SIZES).flatmap(lambda size: st.binary(min_size=min(size, 300), max_size=size)))
def test_it_hashes_as_another_implementation_does(data: bytes) -> None:
    assert keccak(data) == oracle(data)


def test_lengths_around_a_block_are_padded_right() -> None:
    for size in SIZES:
        assert keccak(bytes(range(256)) * (size // 256) + bytes(size % 256)) == oracle(
            bytes(range(256)) * (size // 256) + bytes(size % 256)
        )
    assert keccak(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"

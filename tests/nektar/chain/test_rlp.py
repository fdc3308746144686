from __future__ import annotations

from typing import Any

import pytest
import rlp as oracle
from hypothesis import given
from hypothesis import strategies as st

from nektar.chain import rlp

ITEMS = st.recursive(st.binary(max_size=70), lambda inner: st.lists(inner, max_size=5), max_leaves=12)


@given(ITEMS)
def test_it_encodes_and_decodes_as_the_rlp_library_does(item: Any) -> None:
    encoded = rlp.encode(item)
    assert encoded == oracle.encode(item)
    assert rlp.decode(encoded) == item


@given(st.integers(0, 2**256 - 1))
def test_numbers_are_big_endian_without_leading_zeros(number: int) -> None:
    assert rlp.number(number) == oracle.encode(number)


@pytest.mark.parametrize("size", [55, 56, 255, 256, 65_535, 65_536])
def test_lengths_at_the_edges_of_the_prefixes(size: int) -> None:
    assert rlp.string(bytes(size)) == oracle.encode(bytes(size))
    assert rlp.decode(rlp.string(bytes(size))) == bytes(size)
    assert rlp.encode([b""] * size) == oracle.encode([b""] * size)


@given(st.binary(max_size=40))
def test_what_is_decoded_encodes_to_the_same_bytes_and_all_else_is_refused(data: bytes) -> None:
    try:
        item = rlp.decode(data)
    except rlp.BadRlp:
        with pytest.raises(oracle.exceptions.DecodingError):
            oracle.decode(data)
    else:
        assert rlp.encode(item) == data


def test_nesting_has_a_limit() -> None:
    nested = rlp.sequence([])
    for _ in range(30):
        nested = rlp.sequence([nested])
    with pytest.raises(rlp.BadRlp, match="nested deeper"):
        rlp.decode(nested)

"""What is written by position is what an ABI library writes."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from nektar.networks.encoding import (
    BadEncoding,
    deadline_of,
    encode_answer,
    encode_members,
    encode_task,
    is_answer,
    number_of,
    operator_set,
    set_hash_of,
)

TASK = "(bytes32,uint256,bytes32,bytes32,uint64,uint64,uint16,uint16,uint64)"
MEMBERS = "(address,(uint256,uint256),uint256)[]"

word = st.integers(0, 2**256 - 1)
uint64 = st.integers(0, 2**64 - 1)
uint16 = st.integers(0, 2**16 - 1)
octets = st.binary(min_size=32, max_size=32)
task = st.tuples(octets, word, octets, octets, uint64, uint64, uint16, uint16, uint64)
member = st.tuples(st.binary(min_size=20, max_size=20), st.tuples(word, word), word)


def written(members: list[tuple[bytes, tuple[int, int], int]]) -> bytes:
    return encode_members(
        [(o, x.to_bytes(32, "big") + y.to_bytes(32, "big"), stake) for o, (x, y), stake in members]
    )


@given(task)
def test_a_task(fields: tuple[int | bytes, ...]) -> None:
    assert encode_task(fields) == encode([TASK], [fields])
    assert set_hash_of(encode_task(fields)) == fields[3]
    assert (deadline_of(encode_task(fields)), number_of(encode_task(fields))) == (fields[4:6], fields[8])


@given(word, word)
def test_an_answer(p: int, q: int) -> None:
    assert encode_answer(p, q) == encode(["(uint256,uint256)"], [(p, q)])
    assert is_answer(encode_answer(p, q))


@given(st.lists(member, max_size=5))
def test_members_and_back(members: list[tuple[bytes, tuple[int, int], int]]) -> None:
    preimage = written(members)
    assert preimage == encode([MEMBERS], [[("0x" + o.hex(), key, stake) for o, key, stake in members]])
    read = operator_set(preimage, "token")
    assert (read.hash, read.preimage) == (keccak(preimage), preimage)
    again = [(m.operator, bytes(m.key), m.stake[0].amount) for m in read.members]
    assert encode_members(again) == preimage
    assert {m.stake[0].asset for m in read.members} <= {"token"}


@given(st.lists(member, max_size=3), st.data())
def test_whatever_is_read_encodes_back(
    members: list[tuple[bytes, tuple[int, int], int]], data: st.DataObject
) -> None:
    preimage = bytearray(written(members))
    place = data.draw(st.integers(0, len(preimage) - 1))
    preimage[place] = data.draw(st.integers(0, 255))
    try:
        read = operator_set(bytes(preimage))
    except BadEncoding:
        return
    assert encode_members([(m.operator, m.key, m.stake[0].amount) for m in read.members]) == preimage


@pytest.mark.parametrize(
    "fields",
    [[], [0] * 8, [0] * 10, [b""] * 9, [bytes(33)] + [0] * 8],
    ids=["none", "8", "10", "empty", "33"],
)
def test_what_is_no_task_is_refused(fields: list[int | bytes]) -> None:
    with pytest.raises(BadEncoding):
        encode_task(fields)

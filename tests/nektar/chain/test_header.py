from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nektar.chain import rlp
from nektar.chain.header import FRONTIER, LATER, NUMBER, encode_header, header_hash, read_header
from nektar.chain.jsonrpc import Malformed
from tests.nektar.chain.blocks import corpora

GENESIS = {  # Ethereum mainnet's block 0
    "parentHash": "0x" + 64 * "0",
    "sha3Uncles": "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347",
    "miner": "0x" + 40 * "0",
    "stateRoot": "0xd7f8974fb5ac78d9ac099b9ad5018bedc2ce0a72dad1827a1709da30580f0544",
    "transactionsRoot": "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
    "receiptsRoot": "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
    "logsBloom": "0x" + 512 * "0",
    "difficulty": "0x400000000",
    "number": "0x0",
    "gasLimit": "0x1388",
    "gasUsed": "0x0",
    "timestamp": "0x0",
    "extraData": "0x11bbe8db4e347b4e8c937c1c8370e4b5ed33adb3db69cbdb7a38e1e50b1b82fa",
    "mixHash": "0x" + 64 * "0",
    "nonce": "0x0000000000000042",
}


def test_mainnets_genesis_hashes_right() -> None:
    assert header_hash(GENESIS).hex() == "d4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3"


def test_every_forks_headers_hash_right() -> None:
    forks = set()
    for each in corpora():
        assert "0x" + header_hash(each.block).hex() == each.block["hash"], each.name
        forks.add(sum(each.block.get(name) is not None for name, _ in LATER))
    assert forks == {0, 1, 2, 5, 6}  # to Berlin, London, Shanghai, Cancun, Prague


def test_every_field_is_part_of_the_hash() -> None:
    rng = random.Random(5)
    for each in corpora()[-3:]:
        for name, _ in FRONTIER + LATER:
            if (value := each.block.get(name)) is not None and len(value) > 2:
                at = rng.randrange(2, len(value))
                changed = value[:at] + f"{int(value[at], 16) ^ 1:x}" + value[at + 1 :]
                assert "0x" + header_hash(each.block | {name: changed}).hex() != each.block["hash"], name


def test_a_missing_field_is_named() -> None:
    with pytest.raises(Malformed, match=r"^stateRoot: expected 32 bytes"):
        header_hash({name: value for name, value in GENESIS.items() if name != "stateRoot"})


def test_a_later_forks_field_without_those_before_it_is_refused() -> None:
    with pytest.raises(Malformed, match=r"^withdrawalsRoot: expected it in a header that has blobGasUsed"):
        header_hash(GENESIS | {"baseFeePerGas": "0x7", "blobGasUsed": "0x0"})


# --- read again ---------------------------------------------------------------------------------------


def fields_of(block: dict[str, Any]) -> list[bytes]:
    fields = rlp.decode(encode_header(block))
    assert not isinstance(fields, bytes)
    return [field for field in fields if isinstance(field, bytes)]


def is_header(encoded: bytes) -> bool:
    try:
        read_header(encoded)
    except rlp.BadRlp:
        return False
    return True


def test_a_header_that_is_read_says_what_it_was_written_from() -> None:
    for each in corpora():
        block, header = each.block, read_header(encode_header(each.block))
        octets = [header.hash, header.parent, header.state_root, header.transactions_root]
        names = ["hash", "parentHash", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom"]
        said = ["0x" + value.hex() for value in (*octets, header.receipts_root, header.bloom)]
        assert said == [block[name] for name in names], each.name
        assert (header.number, header.time) == (int(block["number"], 16), int(block["timestamp"], 16))


def test_a_header_of_more_or_fewer_fields_or_with_one_of_another_size_is_none() -> None:
    known = (*FRONTIER, *LATER)
    for each in corpora():
        fields = fields_of(each.block)
        assert is_header(rlp.encode(fields))
        assert not is_header(rlp.encode(fields[: len(FRONTIER) - 1]))
        assert not is_header(rlp.encode([*fields, *([b"\1" * 32] * 7)]))
        for i, (name, size) in enumerate(known[: len(fields)]):
            others: list[rlp.Item] = [[], [fields[i]]]
            if size == NUMBER:
                others += [b"\0" + fields[i], b"\1" * 33]
            elif size is not None:
                others += [fields[i] + b"\0", fields[i][1:], b""]
            for other in others:
                assert not is_header(rlp.encode([*fields[:i], other, *fields[i + 1 :]])), name


@given(st.binary(max_size=80) | st.lists(st.binary(max_size=33), min_size=14, max_size=22).map(rlp.encode))
def test_junk_is_no_header_and_raises_nothing_else(junk: bytes) -> None:
    assert not is_header(junk)


@given(st.data())
def test_a_real_header_with_a_byte_changed_is_another_or_none(data: st.DataObject) -> None:
    whole = encode_header(corpora()[-1].block)
    at = data.draw(st.integers(0, len(whole) - 1))
    other = whole[:at] + bytes((whole[at] ^ data.draw(st.integers(1, 255)),)) + whole[at + 1 :]
    assert not is_header(other) or read_header(other).hash != read_header(whole).hash

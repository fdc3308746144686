from __future__ import annotations

import random

import pytest

from nektar.chain.header import FRONTIER, LATER, header_hash
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
    for given in corpora():
        assert "0x" + header_hash(given.block).hex() == given.block["hash"], given.name
        forks.add(sum(given.block.get(name) is not None for name, _ in LATER))
    assert forks == {0, 1, 2, 5, 6}  # to Berlin, London, Shanghai, Cancun, Prague


def test_every_field_is_part_of_the_hash() -> None:
    rng = random.Random(5)
    for given in corpora()[-3:]:
        for name, _ in FRONTIER + LATER:
            if (value := given.block.get(name)) is not None and len(value) > 2:
                at = rng.randrange(2, len(value))
                changed = value[:at] + f"{int(value[at], 16) ^ 1:x}" + value[at + 1 :]
                assert "0x" + header_hash(given.block | {name: changed}).hex() != given.block["hash"], name


def test_a_missing_field_is_named() -> None:
    with pytest.raises(Malformed, match=r"^stateRoot: expected 32 bytes"):
        header_hash({name: value for name, value in GENESIS.items() if name != "stateRoot"})


def test_a_later_forks_field_without_those_before_it_is_refused() -> None:
    with pytest.raises(Malformed, match=r"^withdrawalsRoot: expected it in a header that has blobGasUsed"):
        header_hash(GENESIS | {"baseFeePerGas": "0x7", "blobGasUsed": "0x0"})

"""A Task's trace: ids that any language can make, from what everybody knows of the Task."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from nektar.telemetry import task_ids


@given(st.integers(0, 2**256 - 1), st.binary(min_size=20, max_size=20), st.binary(min_size=32, max_size=32))
def test_ids_are_the_hash_of_what_solidity_encodes(chain_id: int, contract: bytes, task_hash: bytes) -> None:
    digest = keccak(encode(["uint256", "address", "bytes32"], [chain_id, contract, task_hash]))
    assert task_ids(chain_id, contract, task_hash) == (digest[:16], digest[16:24])


def test_a_vector_for_other_languages() -> None:
    trace, root = task_ids(31337, bytes.fromhex("7a" * 20), bytes.fromhex("5e" * 32))
    assert trace.hex() == "d85aaa079eaf306335d47312f4bbc833"
    assert root.hex() == "7dbed6afa99cc0a1"


def test_a_contract_or_hash_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a contract of 20 bytes"):
        task_ids(1, bytes(19), bytes(32))

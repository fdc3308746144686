"""A Task's trace: ids that any language can make, from what everybody knows of the Task."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from nektar import telemetry
from nektar.rows import Cause
from nektar.telemetry import Step, task_ids

DOCS = Path(__file__).parents[3] / "docs"
PAGE, VECTORS = DOCS / "TELEMETRY.md", DOCS / "telemetry-vectors.json"


@given(st.integers(0, 2**256 - 1), st.binary(min_size=20, max_size=20), st.binary(min_size=32, max_size=32))
def test_ids_are_the_hash_of_what_solidity_encodes(chain_id: int, contract: bytes, task_hash: bytes) -> None:
    digest = keccak(encode(["uint256", "address", "bytes32"], [chain_id, contract, task_hash]))
    assert task_ids(chain_id, contract, task_hash) == (digest[:16], digest[16:24])


def test_vectors_for_other_languages_are_what_solidity_encodes() -> None:
    vectors = json.loads(VECTORS.read_text())
    for vector in vectors:
        contract, task_hash = (bytes.fromhex(vector[name][2:]) for name in ("contract", "task_hash"))
        digest = keccak(
            encode(["uint256", "address", "bytes32"], [int(vector["chain_id"]), contract, task_hash])
        )
        assert (vector["trace_id"], vector["root_span_id"]) == (digest[:16].hex(), digest[16:24].hex())
        assert task_ids(int(vector["chain_id"]), contract, task_hash) == (digest[:16], digest[16:24])
    assert len(vectors) == 5


def test_the_page_names_every_attribute_and_step_and_no_others() -> None:
    page = PAGE.read_text()
    ours = {
        value for value in vars(telemetry).values() if isinstance(value, str) and value.startswith("nektar.")
    }
    said = set(re.findall(r"`(nektar\.[a-z_.]+)`", page))
    assert said - {"nektar.yaml"} == ours - {telemetry.__name__}
    assert set(re.findall(r"^\| `([a-z]+)` \| `[a-z]+ [a-z]+` \|", page, re.MULTILINE)) == set(Step)
    causes = page.partition("| cause |")[2]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", causes, re.MULTILINE)) == set(Cause)


def test_a_contract_or_hash_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a contract of 20 bytes"):
        task_ids(1, bytes(19), bytes(32))

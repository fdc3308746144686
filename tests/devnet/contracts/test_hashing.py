"""What is hashed is equal in Python and in Solidity, bit for bit."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devnet.deploy import g1_argument
from nektar.evidence import bls

pytestmark = pytest.mark.real

words = st.binary(min_size=32, max_size=32) | st.sampled_from(
    [bytes(32), b"\xff" * 32, bls.P.to_bytes(32, "big"), (bls.P - 1).to_bytes(32, "big")]
)
quick = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(digest=words)
@quick
def test_hash_to_g1_is_the_contract_s(deployed, digest):
    assert g1_argument(bls.hash_to_g1(digest)) == deployed.ask("task_manager", "hashToG1", digest)


@given(task_hash=words, digest=words)
@quick
def test_the_signing_digest_is_the_contract_s(deployed, task_hash, digest):
    manager = bytes.fromhex(deployed.contracts["task_manager"][2:])
    here = bls.signing_digest(deployed.chain.chain_id, manager, task_hash, digest)
    assert here == deployed.ask("task_manager", "signingDigest", task_hash, digest)


@given(operator=st.binary(min_size=20, max_size=20), secret=st.integers(1, bls.R - 1))
@quick
def test_the_proof_digest_is_the_contract_s(deployed, operator, secret):
    key, _ = bls.public_keys(secret)
    registry = bytes.fromhex(deployed.contracts["operator_registry"][2:])
    here = bls.proof_digest(deployed.chain.chain_id, registry, operator, key)
    there = deployed.ask("operator_registry", "proofDigest", "0x" + operator.hex(), bls.key_hash(key))
    assert here == there

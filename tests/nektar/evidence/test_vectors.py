"""What the contracts hash, sign and accept (docs/bls-vectors.json), this code does too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nektar.evidence import bls
from nektar.model import G1, G2

VECTORS = json.loads((Path(__file__).parents[3] / "docs" / "bls-vectors.json").read_bytes())
CHAIN_ID = VECTORS["chain_id"]


def octets(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def each(kind: str) -> Any:
    return pytest.mark.parametrize("vector", VECTORS[kind], ids=lambda v: v.get("what", ""))


@each("hash_to_g1")
def test_hash_to_g1(vector: dict[str, str]) -> None:
    assert bls.hash_to_g1(octets(vector["digest"])) == octets(vector["point"])


@each("signing_digest")
def test_signing_digest(vector: dict[str, str]) -> None:
    task, response = octets(vector["task_hash"]), octets(vector["response_digest"])
    digest = bls.signing_digest(CHAIN_ID, octets(VECTORS["task_manager"]), task, response)
    assert digest == octets(vector["digest"])


@each("signature")
def test_signature(vector: dict[str, str]) -> None:
    secret, digest = int(vector["secret"]), octets(vector["digest"])
    key, twin = octets(vector["key"]), octets(vector["key_g2"])
    assert bls.public_keys(secret) == (key, twin)
    assert bls.keys_match(G1(key), G2(twin))
    assert bls.sign(secret, digest) == octets(vector["signature"])
    assert bls.verify(G2(twin), digest, G1(octets(vector["signature"])))


@each("possession")
def test_possession(vector: dict[str, Any]) -> None:
    registry, operator = octets(VECTORS["operator_registry"]), octets(vector["operator"])
    key, twin, proof = (octets(vector[name]) for name in ("key", "key_g2", "proof"))
    answer = bls.verify_possession(CHAIN_ID, registry, operator, G1(key), G2(twin), G1(proof))
    assert answer is vector["accepted"]


def test_one_of_the_proofs_is_one() -> None:
    assert [vector["what"] for vector in VECTORS["possession"] if vector["accepted"]] == ["a proof"]

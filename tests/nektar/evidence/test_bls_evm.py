"""The gate and the EVM's precompiles give the same verdict on whatever is sent: differences have names.

* `identity`: for the precompiles it is a point, and a pairing with it is one; here it is no key and no
  signature, as in the contracts (`BN254.IdentityPoint`).
* `length`: EIP-196 reads what is too short as if zeros followed, and what is too long as if it were not
  there; here either is no point. Contracts read whole words, so that nothing of the kind gets so far.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from py_ecc import optimized_bn128 as oracle

from devnet.anvil import anvil, find_anvil
from devnet.chain import Chain, DevnetError
from nektar.evidence import bls
from nektar.model import G1, G2
from tests.nektar.evidence.points import (
    IDENTITY_1,
    IDENTITY_2,
    P,
    bytes2,
    corpus,
    digests,
    fuzz,
    geth_inputs,
    key1,
    key2,
    mutated,
    packed,
    points1,
    points2,
    secrets,
)

pytestmark = pytest.mark.real

GENERATOR_1, MINUS_GENERATOR_2 = G1(packed(1, 2)), bytes2(oracle.neg(oracle.G2))


class Precompiles:
    """ecAdd, ecMul and ecPairing (EIP-196, EIP-197) as a contract calls them; None where they refuse."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def add(self, a: bytes, b: bytes) -> bytes | None:
        return self._call(6, a + b)

    def mul(self, a: bytes, scalar: int) -> bytes | None:
        return self._call(7, a + packed(scalar))

    def pairing_is_one(self, *pairs: tuple[bytes, bytes]) -> bool | None:
        one = self._call(8, b"".join(a + b for a, b in pairs))
        return None if one is None else int.from_bytes(one, "big") == 1

    def _call(self, precompile: int, data: bytes) -> bytes | None:
        try:
            return self._chain.call(f"0x{precompile:040x}", data)
        except DevnetError as error:
            if "PrecompileError" in str(error):
                return None
            raise  # no refusal, but a chain that is gone


@pytest.fixture(scope="module")
def evm() -> Iterator[Precompiles]:
    try:
        find_anvil()
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")
    with anvil(chain_id=1, slots=8) as chain:
        yield Precompiles(chain)


def passes1(point: bytes) -> bool:
    try:
        assert bls.aggregate([G1(point)]) == point
    except bls.InvalidPoint:
        return False
    return True


def passes2(point: bytes) -> bool:
    try:
        assert bls.aggregate_g2([G2(point)]) == point
    except bls.InvalidPoint:
        return False
    return True


def is_point1(evm: Precompiles, point: bytes) -> bool:
    """The EVM's verdict, less the differences that have names."""
    if len(point) != 64 or point == IDENTITY_1:
        return False
    return evm.add(point, IDENTITY_1) is not None


def is_point2(evm: Precompiles, point: bytes) -> bool:
    if len(point) != 128 or point == IDENTITY_2:
        return False
    return evm.pairing_is_one((IDENTITY_1, point)) is not None


# --- one point --------------------------------------------------------------------------------------


@given(point=points1)
@fuzz(150)
def test_a_point_of_g1_passes_where_ec_add_takes_it(evm: Precompiles, point: bytes) -> None:
    assert passes1(point) is is_point1(evm, point)


@given(point=points2)
@fuzz(80)
def test_a_point_of_g2_passes_where_ec_pairing_takes_it(evm: Precompiles, point: bytes) -> None:
    assert passes2(point) is is_point2(evm, point)


def test_the_differences_are_those_named(evm: Precompiles) -> None:
    assert evm.add(IDENTITY_1, IDENTITY_1) == IDENTITY_1
    assert not passes1(IDENTITY_1)
    assert evm.pairing_is_one((IDENTITY_1, IDENTITY_2)) is True
    assert not passes2(IDENTITY_2)
    assert evm.add(GENERATOR_1, b"") == GENERATOR_1 == evm.add(GENERATOR_1, bytes(65))
    assert not passes1(GENERATOR_1 + b"\0")
    assert not passes1(GENERATOR_1[:-1])


def test_what_geth_s_vectors_hold_passes_where_the_evm_takes_it(evm: Precompiles) -> None:
    points: set[bytes] = set()
    twists: set[bytes] = set()
    for pairs in geth_inputs("Pairing"):
        points.update(pairs[i : i + 64] for i in range(0, len(pairs), 192))
        twists.update(pairs[i + 64 : i + 192] for i in range(0, len(pairs), 192))
    for vector in geth_inputs("Add") + geth_inputs("ScalarMul"):
        points.update(vector[i : i + 64] for i in (0, 64))
    assert {passes1(point) for point in points} == {True, False}
    assert {passes2(point) for point in twists} == {True}
    for point in points:
        assert passes1(point) is is_point1(evm, point)
    for point in twists:
        assert passes2(point) is is_point2(evm, point)


@given(data=st.data())
@fuzz(40)
def test_what_is_nearly_one_of_geth_s_vectors_passes_where_the_evm_takes_it(
    evm: Precompiles, data: st.DataObject
) -> None:
    pairs = data.draw(st.sampled_from(geth_inputs("Pairing")).filter(bool))
    at = 192 * data.draw(st.integers(0, len(pairs) // 192 - 1))
    point = data.draw(mutated(st.just(pairs[at : at + 64])))
    twist = data.draw(mutated(st.just(pairs[at + 64 : at + 192])))
    assert passes1(point) is is_point1(evm, point)
    assert passes2(twist) is is_point2(evm, twist)


# --- keys and signatures ----------------------------------------------------------------------------


@given(data=st.data(), secret=secrets, digest=digests)
@fuzz(80)
def test_a_signature_verifies_where_the_pairing_is_one(
    evm: Precompiles, data: st.DataObject, secret: int, digest: bytes
) -> None:
    twin = data.draw(st.just(key2(secret)) | mutated(st.just(key2(secret))) | points2)
    signature = data.draw(st.just(bls.sign(secret, digest)) | mutated(st.just(bls.sign(secret, digest))))
    hashed = bls.hash_to_g1(digest)
    there = (
        is_point1(evm, signature)
        and is_point2(evm, twin)
        and evm.pairing_is_one((signature, MINUS_GENERATOR_2), (hashed, twin)) is True
    )
    assert bls.verify(G2(twin), digest, G1(signature)) is there


@given(data=st.data(), secret=secrets)
@fuzz(40)
def test_keys_match_where_the_pairing_is_one(evm: Precompiles, data: st.DataObject, secret: int) -> None:
    key = data.draw(st.just(key1(secret)) | mutated(st.just(key1(secret))) | points1)
    twin = data.draw(st.just(key2(secret)) | mutated(st.just(key2(secret))) | points2)
    there = (
        is_point1(evm, key)
        and is_point2(evm, twin)
        and evm.pairing_is_one((key, MINUS_GENERATOR_2), (GENERATOR_1, twin)) is True
    )
    assert bls.keys_match(G1(key), G2(twin)) is there


@given(secret=secrets, digest=digests)
@fuzz(15)
def test_keys_and_signatures_are_ec_mul_s(evm: Precompiles, secret: int, digest: bytes) -> None:
    assert evm.mul(GENERATOR_1, secret) == key1(secret)
    assert evm.mul(bls.hash_to_g1(digest), secret) == bls.sign(secret, digest)


@given(several=st.lists(points1, min_size=1, max_size=5))
@fuzz(30)
def test_aggregates_are_ec_add_s(evm: Precompiles, several: list[bytes]) -> None:
    total: bytes | None = IDENTITY_1
    for point in several:
        total = evm.add(total, point) if total is not None and is_point1(evm, point) else None
    try:
        assert bls.aggregate(map(G1, several)) == total
    except bls.InvalidPoint:
        assert total in (None, IDENTITY_1)


@given(several=st.lists(secrets, min_size=1, max_size=5))
@fuzz(10)
def test_aggregates_of_g2_keys_pair_like_their_parts(evm: Precompiles, several: list[int]) -> None:
    try:
        total = bls.aggregate_g2(map(key2, several))
    except bls.InvalidPoint:
        assert sum(several) % bls.R == 0
        return
    minus = packed(1, P - 2)
    assert evm.pairing_is_one((minus, total), *((GENERATOR_1, key2(secret)) for secret in several)) is True


def test_keys_that_symbiotic_s_registry_took_match_and_verify(evm: Precompiles) -> None:
    """Its hash to G1 is the same try-and-increment; the signatures are over a digest of its own."""
    for each in corpus("symbiotic_setkey.json")["keys"]:
        key, signature = (G1(packed(*map(int, each[name]))) for name in ("keyG1", "sig"))
        twin = G2(packed(*(int(part) for pair in each["keyG2_eip197"] for part in pair)))
        digest = bytes.fromhex(each["msgHash"][2:])
        assert bls.keys_match(key, twin) is each["g1g2match"]
        assert bls.verify(twin, digest, signature) is each["sigVerifies"]
        there = evm.pairing_is_one((signature, MINUS_GENERATOR_2), (bls.hash_to_g1(digest), twin))
        assert there is each["sigVerifies"]

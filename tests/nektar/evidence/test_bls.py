"""BLS on BN254: agrees with py_ecc, and lets nothing from outside near zksnake that would stop it."""

from __future__ import annotations

import pytest
from eth_hash.auto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st
from py_ecc import optimized_bn128 as oracle
from py_ecc.optimized_bn128 import FQ

from nektar.evidence import bls
from nektar.evidence.bls import G1, G2, P, R
from tests.nektar.evidence.points import (
    IDENTITY_1,
    IDENTITY_2,
    SMALL_ORDERS,
    bytes1,
    bytes2,
    digests,
    fuzz,
    key1,
    key2,
    of_small_order,
    off_the_subgroup,
    oracle1,
    oracle2,
    packed,
    points1,
    points2,
    secrets,
    words,
)

SECRET, DIGEST = 123456789, b"\x11" * 32


# --- against py_ecc ---------------------------------------------------------------------------------


@given(secret=secrets, digest=digests)
@settings(max_examples=5)
def test_keys_and_signatures_are_py_ecc_s(secret, digest):
    key, twin = bls.public_keys(secret)
    assert key == bytes1(oracle.multiply(oracle.G1, secret))
    assert twin == bytes2(oracle.multiply(oracle.G2, secret))
    assert bls.sign(secret, digest) == bytes1(oracle.multiply(oracle1(bls.hash_to_g1(digest)), secret))


def test_verification_is_py_ecc_s_pairing():
    _, twin = bls.public_keys(SECRET)
    signature = bls.sign(SECRET, DIGEST)
    left = oracle.pairing(oracle.G2, oracle1(signature))
    assert left == oracle.pairing(oracle2(twin), oracle1(bls.hash_to_g1(DIGEST)))
    assert bls.verify(twin, DIGEST, signature)


@given(digest=digests)
def test_a_digest_hashes_to_the_first_point_at_or_after_it(digest):
    x, y = words(bls.hash_to_g1(digest))
    assert oracle.is_on_curve((FQ(x), FQ(y), FQ(1)), oracle.b)
    start = int.from_bytes(digest, "big") % P
    squares = [(start + i) ** 3 + 3 for i in range((x - start) % P)]
    assert all(pow(square % P, (P - 1) // 2, P) == P - 1 for square in squares)


# --- signatures -------------------------------------------------------------------------------------


@given(secret=secrets, other=secrets, digest=digests, flipped=st.integers(0, 64 * 8 - 1))
@settings(max_examples=30)
def test_a_signature_verifies_under_its_key_and_digest_alone(secret, other, digest, flipped):
    _, twin = bls.public_keys(secret)
    signature = bls.sign(secret, digest)
    assert bls.verify(twin, digest, signature)
    assert bls.verify(bls.public_keys(other)[1], digest, signature) is (other == secret)
    assert not bls.verify(twin, bytes([digest[0] ^ 1]) + digest[1:], signature)
    bad = bytearray(signature)
    bad[flipped // 8] ^= 1 << flipped % 8
    assert not bls.verify(twin, digest, G1(bytes(bad)))


@given(several=st.lists(secrets, min_size=1, max_size=6, unique=True), digest=digests)
@settings(max_examples=20)
def test_aggregates_are_those_of_the_summed_secret(several, digest):
    whole = sum(several) % R
    if whole == 0:
        return
    key, twin = bls.public_keys(whole)
    pairs = [bls.public_keys(secret) for secret in several]
    assert bls.aggregate(each for each, _ in pairs) == key
    assert bls.aggregate_g2(each for _, each in pairs) == twin
    assert bls.verify(twin, digest, bls.aggregate(bls.sign(secret, digest) for secret in several))


def test_twins_match_and_others_don_t():
    key, twin = bls.public_keys(SECRET)
    assert bls.keys_match(key, twin)
    assert not bls.keys_match(bls.public_keys(SECRET + 1)[0], twin)
    assert not bls.keys_match(IDENTITY_1, IDENTITY_2)


def test_points_that_cancel_out_have_no_aggregate():
    key, twin = bls.public_keys(SECRET)
    minus, minus_twin = bls.public_keys(R - SECRET)
    with pytest.raises(bls.InvalidPoint, match="cancel"):
        bls.aggregate([key, minus])
    with pytest.raises(bls.InvalidPoint, match="cancel"):
        bls.aggregate_g2([twin, minus_twin])
    for empty in (bls.aggregate, bls.aggregate_g2):
        with pytest.raises(bls.InvalidPoint, match="got none"):
            empty([])


@pytest.mark.parametrize("secret", [0, -1, R, R + 1])
def test_a_secret_is_between_zero_and_the_order(secret):
    with pytest.raises(ValueError, match="secret"):
        bls.sign(secret, DIGEST)
    with pytest.raises(ValueError, match="secret"):
        bls.public_keys(secret)


@given(secret=secrets)
@settings(max_examples=30)
def test_a_point_is_made_whole_again_from_its_half(secret):
    for point in (bls.public_keys(secret)[0], bls.public_keys(R - secret)[0]):
        half = bls.compressed(point)
        assert len(half) == 32
        assert bls.decompressed(half) == point


# --- the gate ---------------------------------------------------------------------------------------


def bad_g1():
    x, y = words(bls.public_keys(SECRET)[0])
    yield "off the curve", packed(x, y ^ 1)
    yield "x not canonical", packed(x + P, y)
    yield "y not canonical", packed(x, y + P)
    yield "identity", bytes(64)
    yield "identity, not canonical", packed(P, P)
    yield "x zero", packed(0, y)
    yield "too short", packed(x, y)[:-1]
    yield "too long", packed(x, y) + b"\0"
    yield "empty", b""
    yield "all ones", b"\xff" * 64


def bad_g2():
    x1, x0, y1, y0 = words(bls.public_keys(SECRET)[1])
    yield "off the curve", packed(x1, x0, y1, y0 ^ 1)
    yield "swapped parts", packed(x0, x1, y0, y1)
    for i in range(4):
        yield f"word {i} not canonical", packed(*(n + P * (i == j) for j, n in enumerate((x1, x0, y1, y0))))
    yield "identity", bytes(128)
    yield "identity, not canonical", packed(P, P, P, P)
    for start in (1, 1000, P // 2):
        yield f"out of the subgroup {start}", off_the_subgroup(start)
    for order in SMALL_ORDERS:
        yield f"of order {order}", of_small_order(order)
        mixed = oracle.add(oracle2(of_small_order(order)), oracle2(key2(SECRET)))
        yield f"a key and a point of order {order}", bytes2(mixed)
    yield "a point of G1", bls.public_keys(SECRET)[0]
    yield "empty", b""
    yield "all ones", b"\xff" * 128


@pytest.mark.parametrize("point", [pytest.param(p, id=name) for name, p in bad_g1()])
def test_what_is_no_point_of_g1_passes_nowhere(point):
    key, twin = bls.public_keys(SECRET)
    assert not bls.verify(twin, DIGEST, G1(point))
    assert not bls.keys_match(G1(point), twin)
    with pytest.raises(bls.InvalidPoint):
        bls.aggregate([key, G1(point)])
    with pytest.raises(bls.InvalidPoint):
        bls.compressed(G1(point))


@pytest.mark.parametrize("point", [pytest.param(p, id=name) for name, p in bad_g2()])
def test_what_is_no_point_of_g2_passes_nowhere(point):
    key, twin = bls.public_keys(SECRET)
    assert not bls.verify(G2(point), DIGEST, bls.sign(SECRET, DIGEST))
    assert not bls.keys_match(key, G2(point))
    with pytest.raises(bls.InvalidPoint):
        bls.aggregate_g2([twin, G2(point)])


def test_cheap_checks_come_first(monkeypatch):
    """What the bytes alone show to be no point costs no multiplication and no pairing, of whatever else."""
    cold = key2(SECRET + 1)

    def dear(*args):
        raise AssertionError("a dear step for what a cheap one refuses")

    for step in ("_in_subgroup", "_pairs", "hash_to_g1"):
        monkeypatch.setattr(bls, step, dear)
    for name, point in bad_g1():
        assert not bls.verify(cold, DIGEST, G1(point)), name
        assert not bls.keys_match(G1(point), cold), name
    for name, point in bad_g2():
        if "order" not in name and "subgroup" not in name:
            assert not passes(bls.aggregate_g2, G2(point)), name


def test_an_answer_takes_one_pairing_of_two_and_no_more(monkeypatch):
    pairings = []
    pairs = bls._pairs
    monkeypatch.setattr(bls, "_pairs", lambda *points: pairings.append(points) or pairs(*points))
    key, twin = bls.public_keys(SECRET)
    for answer, most in (
        (lambda: bls.verify(twin, DIGEST, bls.sign(SECRET, DIGEST)), 1),
        (lambda: bls.verify(twin, DIGEST, bls.sign(SECRET + 1, DIGEST)), 1),
        (lambda: bls.keys_match(key, twin), 1),
        (lambda: bls.aggregate([key] * 50), 0),
        (lambda: bls.aggregate_g2([twin] * 50), 0),
    ):
        pairings.clear()
        answer()
        assert len(pairings) == most


def test_hashing_takes_few_tries():
    """Two on average; each more is half as likely, and costs whoever looks for it twice the hashes."""
    tries = [
        (words(bls.hash_to_g1(digest))[0] - int.from_bytes(digest, "big")) % P + 1
        for digest in (keccak(bytes([i >> 8, i & 255])) for i in range(1000))
    ]
    assert 1.8 < sum(tries) / len(tries) < 2.2
    assert max(tries) < 20


def test_the_identity_verifies_nothing():
    assert not bls.verify(IDENTITY_2, DIGEST, IDENTITY_1)


@given(point=points1)
@fuzz(150)
def test_a_point_of_g1_passes_where_py_ecc_finds_it_on_the_curve(point):
    there = len(point) == 64 and max(words(point)) < P and point != IDENTITY_1
    there = there and oracle.is_on_curve(oracle1(point), oracle.b)
    assert passes(bls.aggregate, G1(point)) is there
    assert bls.keys_match(G1(point), key2(SECRET)) is (point == key1(SECRET))


@given(point=points2)
@fuzz(40)
def test_a_point_of_g2_passes_where_py_ecc_finds_it_of_order_r(point):
    there = len(point) == 128 and max(words(point)) < P and point != IDENTITY_2
    there = there and oracle.is_on_curve(oracle2(point), oracle.b2)
    there = there and oracle.is_inf(oracle.multiply(oracle2(point), R))
    assert passes(bls.aggregate_g2, G2(point)) is there
    assert bls.keys_match(key1(SECRET), G2(point)) is (point == key2(SECRET))


def passes(gate, point):
    try:
        return gate([point]) == point
    except bls.InvalidPoint:
        return False


@given(key=points1, twin=points2, digest=st.binary(max_size=40), signature=points1)
@fuzz(40)
def test_whatever_is_sent_is_answered(key, twin, digest, signature):
    """Nothing raises, whatever stands where; zksnake's panics are no Exception, and would end the test."""
    assert not bls.verify(G2(twin), digest, G1(signature))
    assert not bls.verify_possession(1, bytes(20), digest[:20], G1(key), G2(twin), G1(signature))
    assert bls.keys_match(G1(key), G2(twin)) in (True, False)  # true where both secrets are drawn alike


@given(secret=secrets)
@settings(max_examples=20)
def test_the_subgroup_check_lets_in_every_key(secret):
    x1, x0, y1, y0 = words(bls.public_keys(secret)[1])
    assert bls._in_subgroup((x0, x1), (y0, y1))


@given(start=st.integers(0, P - 1), secret=secrets)
@settings(max_examples=15)
def test_the_subgroup_check_is_multiplication_by_the_order(start, secret):
    """A point with a part in the subgroup and a part beside it is out, as r · Q shows by brute force."""
    stray = oracle2(off_the_subgroup(start))
    mixed = bytes2(oracle.add(stray, oracle2(bls.public_keys(secret)[1])))
    x1, x0, y1, y0 = words(mixed)
    assert not bls._in_subgroup((x0, x1), (y0, y1))
    assert not oracle.is_inf(oracle.multiply(oracle2(mixed), R))


# --- proof of possession ----------------------------------------------------------------------------

CHAIN_ID, REGISTRY, OPERATOR = 31337, b"\x7b" * 20, b"\xe0" * 20


def proof_of(secret, key, operator=OPERATOR, registry=REGISTRY, chain_id=CHAIN_ID):
    return bls.sign(secret, bls.proof_digest(chain_id, registry, operator, key))


def possesses(key, twin, proof, operator=OPERATOR):
    return bls.verify_possession(CHAIN_ID, REGISTRY, operator, key, twin, proof)


def test_a_proof_of_possession_is_one_operator_s_for_one_key_here():
    key, twin = bls.public_keys(SECRET)
    assert possesses(key, twin, proof_of(SECRET, key))
    assert not possesses(key, twin, proof_of(SECRET, key), b"\xe1" * 20)
    assert not possesses(key, twin, proof_of(SECRET, key), b"\xe0" * 19)
    assert not possesses(key, twin, proof_of(SECRET, key, chain_id=1))
    assert not possesses(key, twin, proof_of(SECRET, key, registry=bytes(20)))
    assert not possesses(key, twin, proof_of(SECRET + 1, key))
    assert not possesses(key, twin, bls.sign(SECRET, DIGEST))


def test_no_key_is_possessed_that_cancels_others():
    """A rogue key: made from another's so that their sum is one's own. Nobody has its secret."""
    mine, victim = 77, SECRET
    rogue, rogue_twin = bls.public_keys((mine - victim) % R)
    assert bls.aggregate([rogue, key1(victim)]) == key1(mine)
    assert bls.keys_match(rogue, rogue_twin)
    assert not possesses(rogue, rogue_twin, proof_of(mine, rogue))


def test_a_proof_with_another_key_s_twin_shows_nothing():
    key, other = key1(SECRET), key2(SECRET + 1)
    assert not possesses(key, other, proof_of(SECRET, key))
    assert not possesses(key, other, proof_of(SECRET + 1, key))


def test_a_digest_that_is_not_32_bytes_is_refused():
    _, twin = bls.public_keys(SECRET)
    signature = bls.sign(SECRET, DIGEST)
    assert not bls.verify(twin, DIGEST[:-1], signature)
    with pytest.raises(ValueError, match="expected 32 bytes"):
        bls.hash_to_g1(b"short")


# --- what is signed ---------------------------------------------------------------------------------


@given(
    chain_id=st.integers(1, 2**63), contract=st.binary(min_size=20, max_size=20), task=digests, digest=digests
)
@settings(max_examples=25)
def test_the_signing_digest_is_eip_712(chain_id, contract, task, digest):
    from eth_account.messages import encode_typed_data
    from eth_utils.crypto import keccak

    message = encode_typed_data(
        full_message={
            "types": {
                "EIP712Domain": [
                    {"name": "name", "type": "string"},
                    {"name": "version", "type": "string"},
                    {"name": "chainId", "type": "uint256"},
                    {"name": "verifyingContract", "type": "address"},
                ],
                "Response": [
                    {"name": "taskHash", "type": "bytes32"},
                    {"name": "responseDigest", "type": "bytes32"},
                ],
            },
            "primaryType": "Response",
            "domain": {
                "name": "Nektar",
                "version": "1",
                "chainId": chain_id,
                "verifyingContract": "0x" + contract.hex(),
            },
            "message": {"taskHash": task, "responseDigest": digest},
        }
    )
    expected = keccak(b"\x19" + message.version + message.header + message.body)
    assert bls.signing_digest(chain_id, contract, task, digest) == expected


def test_purposes_chains_and_contracts_are_apart():
    key, _ = bls.public_keys(SECRET)
    a, b = bytes(20), b"\x01" * 20
    digests = {
        bls.signing_digest(1, a, bytes(32), DIGEST),
        bls.signing_digest(2, a, bytes(32), DIGEST),
        bls.signing_digest(1, b, bytes(32), DIGEST),
        bls.signing_digest(1, a, DIGEST, bytes(32)),
        bls.proof_digest(1, a, a, key),
        bls.proof_digest(1, a, b, key),
    }
    assert len(digests) == 6

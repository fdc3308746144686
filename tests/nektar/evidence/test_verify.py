"""A claim establishes what it says, and no other claim does: whatever is altered, at any byte."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from nektar.evidence import bls
from nektar.evidence.bundle import SignatureClaim, Verified
from nektar.evidence.verify import NotProved, verify
from nektar.model import G1, G2, Address, Hash32
from nektar.networks.encoding import BadEncoding, encode_answer, encode_members, encode_task

CHAIN_ID = 31337
MANAGER = Address(b"\x7a" * 20)
SECRETS = (11, 12, 13)
MEMBERS = encode_members(
    [(bytes([0xE0 + i]) * 20, bls.public_keys(secret)[0], 10**18) for i, secret in enumerate(SECRETS)]
)
TASK = encode_task([bytes(32), 91, bytes(32), keccak(MEMBERS), 20, 3, 5000, 5000, 1])
RESPONSE = encode_answer(7, 13)


def claim_by(index: int, secret: int | None = None) -> SignatureClaim:
    """What the member of this index signed, with its own key or with another's."""
    secret = SECRETS[index] if secret is None else secret
    digest = bls.signing_digest(CHAIN_ID, MANAGER, keccak(TASK), keccak(RESPONSE))
    return SignatureClaim(
        chain_id=CHAIN_ID,
        contract=MANAGER,
        task=TASK,
        members=MEMBERS,
        index=index,
        key_g2=bls.public_keys(secret)[1],
        response=RESPONSE,
        signature=bls.sign(secret, digest),
    )


CLAIM = claim_by(1)
OCTETS = ("contract", "task", "members", "key_g2", "response", "signature")


def altered(**fields: Any) -> SignatureClaim:
    return msgspec.structs.replace(CLAIM, **fields)


@pytest.mark.parametrize("index", range(3))
def test_a_claim_establishes_who_signed_what(index: int) -> None:
    task_hash, digest = Hash32(keccak(TASK)), Hash32(keccak(RESPONSE))
    operator = Address(bytes([0xE0 + index]) * 20)
    assert verify(claim_by(index)) == Verified(CHAIN_ID, MANAGER, task_hash, operator, digest)


@pytest.mark.parametrize("name", OCTETS)
def test_no_byte_of_a_claim_can_be_altered(name: str) -> None:
    rng = random.Random(f"altered {name}")
    for place in range(len(getattr(CLAIM, name))):
        value = bytearray(getattr(CLAIM, name))
        value[place] ^= 1 << rng.randrange(8)
        with pytest.raises((NotProved, BadEncoding)):
            verify(altered(**{name: bytes(value)}))


@pytest.mark.parametrize("name", OCTETS)
def test_nothing_can_be_cut_off_or_added(name: str) -> None:
    value = getattr(CLAIM, name)
    for other in (b"", value[:-1], value[:-32], value + b"\0", value + bytes(32), value * 2):
        if other != value:
            with pytest.raises((NotProved, BadEncoding)):
                verify(altered(**{name: other}))


@pytest.mark.parametrize(
    "fields",
    [
        {"index": 0},
        {"index": 2},
        {"index": 3},
        {"index": -2},
        {"index": 1 << 300},
        {"chain_id": CHAIN_ID + 1},
        {"chain_id": 0},
        {"chain_id": -1},
        {"chain_id": 1 << 256},
    ],
    ids=str,
)
def test_no_number_of_a_claim_can_be_altered(fields: dict[str, int]) -> None:
    with pytest.raises(NotProved):
        verify(altered(**fields))


def test_a_key_that_is_no_members_signs_for_nobody() -> None:
    for secret in (SECRETS[0], 99):
        with pytest.raises(NotProved, match="not the member's"):
            verify(claim_by(1, secret))


def test_the_identity_signs_nothing() -> None:
    with pytest.raises(NotProved, match="key"):
        verify(altered(key_g2=G2(bytes(128)), signature=G1(bytes(64))))


@given(
    st.builds(
        SignatureClaim,
        chain_id=st.integers(),
        contract=st.binary(max_size=40),
        task=st.binary(max_size=300) | st.just(TASK),
        members=st.binary(max_size=300) | st.just(MEMBERS),
        index=st.integers(),
        key_g2=st.binary(max_size=130) | st.just(CLAIM.key_g2),
        response=st.binary(max_size=70),
        signature=st.binary(max_size=70) | st.just(CLAIM.signature),
    )
)
def test_junk_is_refused_and_breaks_nothing(claim: SignatureClaim) -> None:
    with pytest.raises((NotProved, BadEncoding)):
        verify(claim)

"""Signatures by places against a dictionary of them, and what they take."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nektar import checkpoint
from nektar.chain.keccak import keccak
from nektar.evidence import bls
from nektar.model import G1
from processors.conditions.signatures import Signatures

POINTS = [bls.hash_to_g1(keccak(bytes([i]))) for i in range(8)]
PACKED = [bls.compressed(point) for point in POINTS]
PLACES = 1_000

changes = st.lists(st.tuples(st.integers(0, 200), st.sampled_from([None, *range(len(POINTS))])), max_size=300)


@given(changes)
def test_what_was_put_last_for_a_place_is_there_and_nothing_else(
    changed: list[tuple[int, int | None]],
) -> None:
    signatures, expected = Signatures(), dict[int, int]()
    for place, which in changed:
        before, had = signatures, dict(expected)
        if which is None:
            signatures = signatures.drop(place)
            expected.pop(place, None)
        else:
            signatures = signatures.put(place, PACKED[which])
            expected[place] = which
        assert {each: before.get(each) for each in before} == {p: POINTS[w] for p, w in had.items()}
    assert sorted(signatures) == sorted(expected)
    assert len(signatures) == len(expected)
    assert bool(signatures.strings) == bool(expected)
    for place in range(201):
        assert (place in signatures) == (place in expected)
        held = [i for i, packed in enumerate(PACKED) if signatures.is_held(place, packed)]
        assert held == ([expected[place]] if place in expected else [])


def test_there_is_none_of_who_has_none() -> None:
    with pytest.raises(KeyError):
        Signatures().put(3, PACKED[0]).get(4)


def all_of(places: int) -> Signatures:
    signatures = Signatures()
    for place in range(places):
        signatures = signatures.put(place, PACKED[place % len(PACKED)])
    return signatures


def test_each_takes_little_more_than_its_32_bytes_in_memory_and_in_a_checkpoint() -> None:
    tracemalloc.start()
    try:
        signatures = all_of(PLACES)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(signatures) == PLACES
    assert kept < 36 * PLACES
    assert len(checkpoint.to_json(signatures)) < 44 * PLACES


def test_one_more_shares_all_but_its_own_string_with_what_was_there() -> None:
    before = all_of(PLACES)
    after = before.put(500, PACKED[7])
    same = [after.strings[number] is string for number, string in before.strings.items()]
    assert same.count(False) == 1


def test_a_signature_of_which_half_is_kept_is_the_same() -> None:
    one = bls.sign(7, keccak(b"seven"))
    other = G1(one[:32] + (bls.P - int.from_bytes(one[32:])).to_bytes(32))
    for signature in (one, other):
        assert Signatures().put(3, bls.compressed(signature)).get(3) == signature

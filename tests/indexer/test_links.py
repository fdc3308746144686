"""Proved ranges that meet must go on from each other, and what is held of them are the ends that are open."""

from __future__ import annotations

import random

import pytest

from indexer.links import Covered, Ends, Links
from indexer.prove import Contradiction
from indexer.ranges import Range
from nektar.model import Hash32


def hash_at(number: int, fork: int = 0) -> Hash32:
    return Hash32(number.to_bytes(31) + bytes([fork]))


def covered(first: int, last: int, fork: int = 0) -> Covered:
    return Covered(Range(first, last), f"fork {fork}", Ends(hash_at(first - 1, fork), hash_at(last, fork)))


def ranges(rng: random.Random, count: int) -> list[tuple[int, int]]:
    """So many ranges that follow each other, in any order."""
    found, first = [], 1
    for _ in range(count):
        last = first + rng.randrange(5)
        found.append((first, last))
        first = last + 1
    rng.shuffle(found)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_in_whatever_order_a_chains_ranges_come_they_fit_and_two_ends_are_held(seed: int) -> None:
    links = Links()
    for each in ranges(random.Random(seed), 50):
        links.add(covered(*each))
    assert len(links) == 2


@pytest.mark.parametrize("seed", range(20))
def test_in_whatever_order_they_come_one_of_another_fork_is_found(seed: int) -> None:
    rng = random.Random(seed)
    parts = ranges(rng, 20)
    other = rng.choice(parts)
    links, faults = Links(), []
    for each in parts:
        try:
            links.add(covered(*each, fork=int(each == other)))
        except Contradiction as error:
            faults.append(str(error))
    assert faults
    assert all("no child of the block before it: fork" in each for each in faults)


def test_nothing_is_held_of_ranges_that_others_stand_on_both_sides_of() -> None:
    links = Links()
    for number in range(1, 1_000):
        links.add(covered(number, number))
        assert len(links) == 2

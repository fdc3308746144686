"""Ranges of blocks, against sets of their numbers."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from indexer.ranges import GROWTH, LOGS_WANTED, OCTETS_WANTED, Range, Sizes, joined, missing, shared

some = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)).map(lambda at: Range(at[0], at[0] + at[1])))


def numbers(ranges: list[Range]) -> set[int]:
    return {number for each in ranges for number in range(each.first, each.last + 1)}


@given(st.integers(0, 30), st.integers(0, 30), some)
def test_what_is_missing_is_what_no_range_has(first: int, more: int, there: list[Range]) -> None:
    left = missing(Range(first, first + more), there)
    assert numbers(left) == numbers([Range(first, first + more)]) - numbers(there)
    assert left == joined(left)


@given(some)
def test_joined_ranges_hold_the_same_blocks_and_do_not_touch(ranges: list[Range]) -> None:
    found = joined(ranges)
    assert numbers(found) == numbers(ranges)
    assert all(a.last + 1 < b.first for a, b in itertools.pairwise(found))


@given(st.integers(0, 100), st.integers(1, 100), st.integers(1, 150))
def test_a_range_is_cut_into_what_was_asked_for_and_what_is_left(first: int, size: int, cut: int) -> None:
    part, rest = Range(first, first + size - 1).cut(cut)
    assert part.blocks == min(size, cut)
    assert numbers([part, *([rest] if rest else [])]) == numbers([Range(first, first + size - 1)])


@given(some, some)
def test_what_is_shared_is_what_both_have(ours: list[Range], theirs: list[Range]) -> None:
    both = numbers(ours) & numbers(theirs)
    found = shared(ours, theirs)
    assert sorted(n for each in found for n in range(each.first, each.last + 1)) == sorted(both)
    assert found == sorted(found)


def test_sizes_come_to_the_wanted_number_of_logs_and_follow_when_it_changes() -> None:
    sizes = Sizes()
    for density in (100, 1, 400):
        for _ in range(20):
            sizes.held(sizes.next, sizes.next * density)
        assert sizes.next == max(1, LOGS_WANTED // density)


def test_sizes_come_to_the_wanted_number_of_bytes_where_no_logs_are_wanted() -> None:
    sizes = Sizes()
    for size in (200_000, 20_000, OCTETS_WANTED):
        for _ in range(20):
            sizes.held(sizes.next, 0, sizes.next * size)
        assert sizes.next == OCTETS_WANTED // size


def test_an_empty_range_grows_no_faster_than_it_may() -> None:
    sizes = Sizes()
    sizes.held(1, 0)
    assert sizes.next == GROWTH


def empty(sizes: Sizes, answers: int) -> Sizes:
    for _ in range(answers):
        sizes.held(sizes.next, 0)
    return sizes


def test_a_range_that_is_refused_is_made_smaller_as_the_provider_says() -> None:
    sizes = empty(Sizes(), 10)
    assert sizes.next > 1_000
    sizes.refused(1_000, served=300)
    assert sizes.next == 300
    sizes.refused(300)
    assert sizes.next == 150
    sizes.refused(150, served=149)
    assert sizes.next == 149
    for _ in range(20):
        sizes.refused(sizes.next)
    assert sizes.next == 1


def test_a_few_blocks_at_the_end_of_what_is_left_make_no_range_smaller() -> None:
    sizes = empty(Sizes(), 10)
    before = sizes.next
    sizes.held(20, 0)
    assert sizes.next == before


def test_ranges_grow_again_after_blocks_that_were_too_full() -> None:
    sizes = empty(Sizes(), 10)
    while sizes.next > 9:
        sizes.refused(sizes.next, served=sizes.next - 1 if sizes.next < 12 else None)
    assert empty(sizes, 100).next > 1_000


def test_a_limit_that_a_provider_states_is_tried_no_more() -> None:
    sizes = empty(Sizes(), 10)
    sizes.refused(sizes.next, limit=500)
    assert sizes.next == 500
    sizes.refused(500)
    assert sizes.next == 250
    assert empty(sizes, 100).next == 500


def test_a_limit_that_nobody_states_is_tried_seldom() -> None:
    sizes, refused = empty(Sizes(), 10), 0
    for _ in range(200):
        if sizes.next > 600:
            refused += 1
            sizes.refused(sizes.next)
        else:
            sizes.held(sizes.next, 0)
    assert refused < 30
    assert sizes.next > 300

"""Coverage as people are told of it: stretches, what is between them, and whether findings rest on that."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nektar.store.coverage import GAP, Stretch, below_findings, with_gaps


def stretch(first: int, last: int, network: str = "n", kind: str = "logs", of: str = "") -> Stretch:
    return Stretch(network, kind, "proved", "p", "single:p", first, last, of)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9), st.sampled_from("ab")), max_size=8))
def test_gaps_are_the_blocks_between_the_first_and_the_last_that_nobody_has(
    drawn: list[tuple[int, int, str]],
) -> None:
    stretches = [stretch(first, first + more, network) for first, more, network in drawn]
    found = with_gaps(stretches)
    assert sorted(s for s in map(repr, found) if GAP not in s) == sorted(map(repr, stretches))
    for network in "ab":
        has = {n for s in stretches if s.network == network for n in range(s.first, s.last + 1)}
        lacks = [
            n for s in found if s.network == network and s.level == GAP for n in range(s.first, s.last + 1)
        ]
        assert lacks == sorted(set(range(min(has, default=0), max(has, default=-1) + 1)) - has)


def test_kinds_are_covered_each_by_itself() -> None:
    found = with_gaps([stretch(0, 9), stretch(0, 3, kind="calls"), stretch(7, 9, kind="calls")])
    assert [(s.kind, s.first, s.last) for s in found if s.level == GAP] == [("calls", 4, 6)]


def test_what_was_read_in_bulk_fills_no_gap_of_a_network_or_of_other_contracts() -> None:
    own = [stretch(0, 3), stretch(7, 9)]
    bulk = [stretch(0, 9, of="a"), stretch(2, 3, of="b"), stretch(6, 6, of="b")]
    found = with_gaps(own + bulk)
    assert [(s.filter, s.first, s.last) for s in found if s.level == GAP] == [("", 4, 6), ("b", 4, 5)]
    assert [s.filter for s in below_findings(found, [{"network": "n", "block": "9"}])] == [""]


def test_a_gap_matters_where_a_finding_of_its_network_rests_on_blocks_after_it() -> None:
    found = with_gaps([stretch(0, 3), stretch(7, 9), stretch(0, 3, "m"), stretch(8, 9, "m")])
    below = below_findings(found, [{"network": "n", "block": "9"}])
    assert [(s.network, s.first, s.last) for s in below] == [("n", 4, 6)]
    assert below_findings(found, [{"network": "n", "block": 3}]) == []
    assert below_findings(found, []) == []

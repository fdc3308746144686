"""Fair shares: what all members compute alike from one table."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from nektar.bus.leases import shares

_members = st.sets(st.sampled_from("abcdefg"), min_size=1)
_holders = st.integers(1, 12).flatmap(
    lambda n: st.fixed_dictionaries({p: st.sampled_from([None, *"abcdefg"]) for p in range(n)})
)


@given(_holders, _members)
def test_shares_are_even_and_whole(holders: dict[int, str | None], members: set[str]) -> None:
    given_ = shares(holders, members)
    assert given_.keys() == holders.keys()
    sizes = [list(given_.values()).count(member) for member in members]
    assert sum(sizes) == len(holders)
    assert max(sizes) - min(sizes) <= 1


@given(_holders, _members)
def test_shares_move_no_more_than_they_must(holders: dict[int, str | None], members: set[str]) -> None:
    given_ = shares(holders, members)
    least, larger = divmod(len(holders), len(members))
    held = sorted((list(holders.values()).count(member) for member in members), reverse=True)
    could_stay = sum(min(size, least + (rank < larger)) for rank, size in enumerate(held))
    assert sum(holders[p] == member for p, member in given_.items()) == could_stay


@given(_holders, _members, st.randoms())
def test_members_who_give_up_and_take_in_any_order_come_to_rest(
    holders: dict[int, str | None], members: set[str], chance: random.Random
) -> None:
    holders = {p: holder if holder in members else None for p, holder in holders.items()}
    moves = 0
    while (target := shares(holders, members)) != holders:
        member = chance.choice(sorted(members))
        for p, holder in holders.items():
            if holder == member != target[p]:
                holders[p], moves = None, moves + 1
            elif holder is None and target[p] == member:
                holders[p], moves = member, moves + 1
        assert moves <= 3 * len(holders)


def test_nobody_holds_anything_in_an_empty_group() -> None:
    assert shares({0: "gone", 1: None}, []) == {}

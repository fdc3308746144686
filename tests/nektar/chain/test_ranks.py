"""Who is asked first, on random lives."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from nektar.chain.ranks import (
    DOUBT_SECONDS,
    DWELL_SECONDS,
    FIRST_REST,
    LONGEST_REST,
    Ranks,
)

NAMES = ("a", "b", "c")


class Clock:
    now = 5000.0

    def __call__(self) -> float:
        return self.now


def made() -> tuple[Clock, Ranks]:
    clock = Clock()
    return clock, Ranks(NAMES, clock)


deeds = st.tuples(
    st.floats(0, 400),
    st.sampled_from(NAMES),
    st.sampled_from(["served", "failed", "doubt", "measured"]),
    st.floats(0.001, 3),
)


@given(st.lists(deeds, max_size=60))
def test_the_doubted_come_last_and_before_them_those_that_rest(
    life: list[tuple[float, str, str, float]],
) -> None:
    clock, ranks = made()
    doubted = dict.fromkeys(NAMES, 0.0)
    resting = dict.fromkeys(NAMES, 0.0)
    for passed, name, deed, seconds in life:
        clock.now += passed
        match deed:
            case "served":
                ranks.served(name)
                resting[name] = 0.0
            case "failed":
                ranks.failed(name, clock.now)
                resting[name] = max(resting[name], clock.now + FIRST_REST)  # at least
            case "doubt":
                ranks.doubt(name)
                doubted[name] = clock.now + DOUBT_SECONDS
            case _:
                ranks.measured(name, seconds)
        order = ranks.order()
        assert sorted(order) == sorted(NAMES), "nobody is forgotten"
        assert order == ranks.order(), "and to look changes nothing"
        doubts = [doubted[each] > clock.now for each in order]
        assert doubts == sorted(doubts)
        if any(max(doubted[each], resting[each] + LONGEST_REST) <= clock.now for each in NAMES):
            assert max(doubted[order[0]], resting[order[0]]) <= clock.now


def test_who_contradicts_itself_is_last_for_a_good_while() -> None:
    clock, ranks = made()
    ranks.doubt("a")
    assert ranks.order() == ["b", "c", "a"]
    clock.now += DOUBT_SECONDS - 1
    assert ranks.order()[-1] == "a"
    clock.now += 2
    assert ranks.order()[0] == "b", "b does its work, so it stays"


def test_where_all_are_doubted_they_take_turns() -> None:
    clock, ranks = made()
    seen = []
    for _ in range(6):
        clock.now += 1
        first = ranks.order()[0]
        seen.append(first)
        ranks.doubt(first)
    assert seen == ["a", "b", "c", "a", "b", "c"]


def test_who_brings_no_answer_rests_longer_each_time_and_no_longer_once_it_does() -> None:
    clock, ranks = made()
    for rest in (FIRST_REST, 2 * FIRST_REST, 4 * FIRST_REST):
        asked_at = clock.now
        clock.now += 0.1
        for _ in range(8):  # eight that were under way together
            ranks.failed("a", asked_at)
        clock.now += rest - 0.01
        assert ranks.order()[-1] == "a"
        clock.now += 0.02
        assert ranks._of["a"].rests_until <= clock.now
    ranks.served("a")
    ranks.failed("a", clock.now)
    assert ranks._of["a"].rests_until == clock.now + FIRST_REST
    for _ in range(100):
        clock.now += 1
        ranks.failed("a", clock.now)
    assert ranks._of["a"].rests_until <= clock.now + LONGEST_REST
    ranks.failed("b", clock.now, rest=50)
    assert ranks._of["b"].rests_until == clock.now + 50, "and for as long as it asks for"


def test_one_that_is_much_quicker_is_preferred_and_one_that_is_not_changes_nothing() -> None:
    _, ranks = made()
    for name, seconds in (("a", 0.100), ("b", 0.060), ("c", 0.500)):
        ranks.measured(name, seconds)
    assert ranks.order() == ["a", "b", "c"]
    for _ in range(20):
        ranks.measured("b", 0.040)
    assert ranks.order() == ["b", "a", "c"]


def test_two_of_about_the_same_speed_do_not_take_turns() -> None:
    clock, ranks = made()
    rng = random.Random(1)
    preferred = []
    for _ in range(2000):
        clock.now += 15
        for name in NAMES:
            ranks.measured(name, 0.05 * rng.lognormvariate(0, 0.4))
        preferred.append(ranks.order()[0])
    assert sum(one != other for one, other in pairwise(preferred)) <= 3


def test_a_provider_that_is_slow_only_while_it_is_used_is_not_turned_from_and_back_all_the_time() -> None:
    clock, ranks = made()
    turns, last = 0, "a"
    began = clock.now
    for _ in range(400):
        clock.now += 15
        for name in NAMES:
            ranks.measured(name, 0.5 if name == last else 0.01)
        first = ranks.order()[0]
        turns, last = turns + (first != last), first
    assert turns <= (clock.now - began) / DWELL_SECONDS + 1

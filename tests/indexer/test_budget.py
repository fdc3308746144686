"""What may be spent in a while, and what is remembered of those who came last."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.budget import Budget, Recent


def test_one_that_was_taken_comes_again() -> None:
    budget = Budget(2, 10.0, 0.0)
    assert [budget.take(0.0) for _ in range(3)] == [True, True, False]
    assert [budget.take(5.0) for _ in range(2)] == [True, False]
    budget.give_back()
    assert budget.take(5.0)
    assert [budget.take(1_000.0) for _ in range(3)] == [True, True, False]


def test_whoever_spends_more_than_is_left_waits_until_it_is_paid() -> None:
    budget = Budget(100, 10.0, 0.0)
    budget.spend(100)
    assert budget.wait(0.0) == 0
    budget.spend(50)
    assert budget.wait(0.0) == 5
    assert budget.wait(3.0) == pytest.approx(2)
    assert budget.wait(5.0) == 0
    budget.spend(10)
    budget.spend(-10)  # given back
    assert budget.wait(5.0) == pytest.approx(0)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 300)), max_size=50))
def test_over_time_no_more_is_spent_than_comes_again(asked: list[tuple[float, int]]) -> None:
    """By whoever spends only while nothing is owed: `most`, what came meanwhile, and the last time's."""
    budget, now, spent, last = Budget(100, 10.0, 0.0), 0.0, 0, 0
    for pause, amount in asked:
        now += pause
        if not budget.wait(now):
            budget.spend(amount)
            spent, last = spent + amount, amount
        assert spent - last <= 100 + now * 10 + 1e-6


def test_those_who_came_last_are_remembered() -> None:
    made: list[object] = []
    recent = Recent[str, object](2, lambda: made.append(object()) or made[-1])
    a, b = recent["a"], recent["b"]
    assert recent["a"] is a
    recent["c"]
    assert (len(recent), len(made)) == (2, 3)
    assert recent["a"] is a
    assert recent["b"] is not b

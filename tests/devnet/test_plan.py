"""A plan is a function of its seed, holds everything a run must hold, and knows its truth."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from devnet.behaviour import Behaviour, least_divisor, right_answer, wrong_answer
from devnet.plan import MIN_OPERATORS, MIN_TASKS, PlanError, SceneKind, plan

SIZES = {"operators": st.integers(MIN_OPERATORS, 12), "tasks": st.integers(MIN_TASKS, 60)}


def addresses(count: int) -> list[str]:
    return [f"0x{i:040x}" for i in range(count)]


@example(seed=17222, operators=7, tasks=20)
@given(seed=st.integers(0, 2**32), **SIZES)
def test_every_run_holds_every_scene_behaviour_and_duty_state(seed: int, operators: int, tasks: int) -> None:
    run = plan(seed, operators, tasks, reorgs=2)
    assert {scene.kind for scene in run.scenes} == set(SceneKind)
    assert {b for s in run.scenes for t in s.tasks for b in t.behaviours} == set(Behaviour)
    truth = run.truth(addresses(operators))
    states = {f.value for f in truth if f.kind == "duty"}
    assert states == {"excused", "signed", "late", "pending", "unknown", "missed"}
    assert {f.value for f in truth if f.kind == "finding"} == {"final", "retracted"}


@given(seed=st.integers(0, 2**32), **SIZES)
def test_a_run_has_as_many_tasks_as_asked_and_no_input_twice(seed: int, operators: int, tasks: int) -> None:
    run = plan(seed, operators, tasks, reorgs=3)
    inputs = [t.input for s in run.scenes for t in s.tasks] + [
        s.replaced.input for s in run.scenes if s.replaced
    ]
    assert len(inputs) == len(set(inputs)) == tasks + 1
    assert run.tasks == tasks
    named = sum(s.reorg is not None and s.kind is not SceneKind.PLAIN for s in run.scenes)
    assert named == 5
    assert run.reorgs == named + 3


@given(seed=st.integers(0, 2**32), **SIZES)
def test_honest_operators_are_accused_of_nothing_in_the_truth(seed: int, operators: int, tasks: int) -> None:
    run = plan(seed, operators, tasks, reorgs=0)
    equivocators = {
        (str(t.input), a)
        for s in run.scenes
        for t in s.tasks
        for a, b in zip(addresses(operators), t.behaviours, strict=True)
        if b.startswith("equivocating")
    }
    accused = [(f.task, f.operator) for f in run.truth(addresses(operators)) if f.kind == "finding"]
    assert Counter(accused) == Counter(equivocators)


def test_the_same_seed_gives_the_same_truth_and_another_seed_another() -> None:
    one, again, other = (plan(seed, 7, 24, 2).truth(addresses(7)) for seed in (1, 1, 2))
    assert one == again != other


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"operators": 6}, "--operators"), ({"tasks": 19}, "--tasks"), ({"reorgs": 99}, "--reorgs")],
)
def test_a_run_too_small_for_what_it_must_hold_is_refused(wrong: dict[str, int], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        plan(1, **wrong)


@given(st.integers(2, 50_000))
def test_the_right_answer_is_the_least_divisor_and_the_wrong_one_is_refutable(n: int) -> None:
    p, q = right_answer(n)
    assert p == next(d for d in range(2, n + 1) if n % d == 0)
    assert p * q == n
    wp, wq = wrong_answer(n)
    assert (wp, wq) != (p, q)
    assert wp * wq != n or least_divisor(n) < wp

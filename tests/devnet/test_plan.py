"""A plan is a function of its seed, holds everything a run must hold, and knows its truth."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from devnet.behaviour import AggregatorBehaviour, Behaviour, least_divisor, right_answer, wrong_answer
from devnet.deploy import Terms
from devnet.plan import CONDITIONS, MIN_OPERATORS, MIN_TASKS, Fact, Plan, PlanError, plan
from devnet.scenario import CLOSING_BLOCKS
from devnet.scenes import ASKED, PlannedTask, Reason, Scene, SceneKind, TaskKind

SIZES = {"operators": st.integers(MIN_OPERATORS, 12), "tasks": st.integers(MIN_TASKS, 60)}


def addresses(operators: int) -> list[str]:
    """The operators' and the aggregator's."""
    return [f"0x{i:040x}" for i in range(operators + 1)]


def wrongs(run: Plan) -> list[Fact]:
    """The slashings that should not be, in the truth."""
    return [f for f in run.truth(addresses(run.operators)) if f.condition == "wrongful_slashing"]


@example(seed=17222, operators=7, tasks=20)
@given(seed=st.integers(0, 2**32), **SIZES)
def test_every_run_holds_every_scene_behaviour_reason_and_duty_state(
    seed: int, operators: int, tasks: int
) -> None:
    run = plan(seed, operators, tasks, reorgs=2)
    assert {scene.kind for scene in run.scenes} == set(SceneKind)
    assert {t.kind for s in run.scenes for t in s.tasks} == set(TaskKind)
    assert {b for s in run.scenes for t in s.tasks for b in t.behaviours} == set(Behaviour)
    assert {t.aggregator for s in run.scenes for t in s.tasks} == set(AggregatorBehaviour)
    assert {f.reason for f in wrongs(run)} == set(Reason)
    truth = run.truth(addresses(operators))
    states = {f.value for f in truth if f.kind == "duty"}
    assert states == {"excused", "signed", "late", "pending", "unknown", "missed"}
    assert {f.value for f in truth if f.kind == "finding"} == {"final", "retracted"}


@given(seed=st.integers(0, 2**32), operators=SIZES["operators"])
def test_a_run_by_default_holds_every_behaviour_and_condition_twice(seed: int, operators: int) -> None:
    run = plan(seed, operators)
    tasks = [t for s in run.scenes for t in s.tasks]
    done = Counter(b for t in tasks for b in t.behaviours)
    assert all(done[each] > 1 for each in Behaviour)
    assert all(sum(t.aggregator is each for t in tasks) > 1 for each in AggregatorBehaviour)
    final = [f for f in run.truth(addresses(operators)) if f.kind == "finding" and f.value == "final"]
    assert all(len({f.operator for f in final if f.condition == each}) > 1 for each in CONDITIONS)


@given(seed=st.integers(0, 2**32), **SIZES)
def test_a_run_has_as_many_tasks_as_asked_and_no_input_twice(seed: int, operators: int, tasks: int) -> None:
    run = plan(seed, operators, tasks, reorgs=3)
    inputs = [t.input for s in run.scenes for t in s.tasks] + [
        s.replaced.input for s in run.scenes if s.replaced
    ]
    assert len(inputs) == len(set(inputs)) == tasks + 1
    assert run.tasks == tasks
    named = sum(s.reorg is not None and s.kind is not SceneKind.PLAIN for s in run.scenes)
    assert named == 6
    assert run.reorgs == named + 3


@given(seed=st.integers(0, 2**32), **SIZES)
def test_honest_operators_are_accused_of_nothing_in_the_truth(seed: int, operators: int, tasks: int) -> None:
    run = plan(seed, operators, tasks, reorgs=2)
    does = {
        (str(t.input), a): b
        for s in run.scenes
        for t in s.tasks
        for a, b in zip(addresses(operators)[:-1], t.behaviours, strict=True)
    }
    accused = {
        condition: Counter(
            (f.task, f.operator) for f in run.truth(addresses(operators)) if f.condition == condition
        )
        for condition in CONDITIONS
    }

    def doing(*behaviours: str) -> Counter[tuple[str, str]]:
        return Counter(duty for duty, b in does.items() if any(each in b for each in behaviours))

    assert accused["equivocation"] == doing("equivocating", "turncoat")
    assert accused["invalid_response"] == doing("wrong", "equivocating", "turncoat", "colluding")
    rejected = doing("misplaced", "too_late")
    assert accused["rejected_response"] == rejected + Counter(
        {
            (str(t.input), addresses(operators)[-1]): 2
            for s in run.scenes
            for t in s.tasks
            if t.kind is TaskKind.FRAMED
        }
    )
    idle = {*doing("offline", "vanishing"), *rejected}
    assert accused["missed_duty"].keys() <= idle
    assert {task for task, _ in accused["bond_breach"]} == {""}


@given(seed=st.integers(0, 2**32), **SIZES)
def test_some_miss_too_much_one_as_much_as_is_allowed_and_one_nothing(
    seed: int, operators: int, tasks: int
) -> None:
    truth = plan(seed, operators, tasks, reorgs=2).truth(addresses(operators))
    missed = Counter(f.operator for f in truth if f.value == "missed")
    found = Counter(f.operator for f in truth if f.condition == "missed_duty")
    count = Terms().miss_allowance + 1
    # No run of this size lasts longer than the window.
    assert found == Counter({who: misses // count for who, misses in missed.items() if misses >= count})
    assert len(found) >= 2
    assert count - 1 in missed.values()
    assert len(missed) < operators


def of_misses(*submitted: int) -> list[int]:
    """Which of an operator's misses, of tasks that were submitted in these blocks, findings are about."""
    behaviours = (Behaviour.OFFLINE,)
    scenes = [Scene(SceneKind.PLAIN, (PlannedTask(i, behaviours),)) for i in range(len(submitted))]

    class Placed(Plan, frozen=True):
        @property
        def starts(self) -> list[int]:
            return list(submitted)

    truth = Placed(0, 1, tuple(scenes)).truth(addresses(1))
    return [int(f.task) for f in truth if f.condition == "missed_duty"]


def test_misses_count_once_and_in_one_window_only() -> None:
    assert Terms().miss_window == 1_000
    assert of_misses(1, 2) == []
    assert of_misses(1, 2, 3) == [2]
    assert of_misses(1, 2, 3, 4, 5) == [2]
    assert of_misses(1, 2, 3, 4, 5, 6) == [2, 5]
    assert of_misses(1, 2, 1_000) == [2]
    assert of_misses(1, 2, 1_001) == []
    assert of_misses(1, 2, 1_001, 1_001) == [3]
    assert of_misses(1, 1_001, 1_002, 1_003, 2_002, 2_003, 2_003) == [3, 6]


@given(seed=st.integers(0, 2**32), **SIZES)
def test_who_is_slashed_by_proof_colluded_and_every_other_request_is_wrong(
    seed: int, operators: int, tasks: int
) -> None:
    run = plan(seed, operators, tasks, reorgs=2)
    (scene,) = (s for s in run.scenes if s.slashings)
    (task,) = scene.tasks
    for each in scene.slashings:
        colluded = task.behaviours[each.operator] in (Behaviour.COLLUDING, Behaviour.TURNCOAT)
        assert colluded if each.proved else each.wrong
    wrong = wrongs(run)
    assert len(wrong) == sum(len(each.wrong) for each in scene.slashings)
    assert {f.task for f in wrong} == {"", str(task.input)}
    ends = {(each.proved, each.vetoed, each.executed or each.early, each.early) for each in scene.slashings}
    assert ends == {
        *((True, False, True, False), (True, False, False, False)),  # executed, expired
        *((False, True, False, False), (False, True, True, False)),  # vetoed, in vain too
        *((False, False, True, True), (False, False, True, False), (False, False, False, False)),
    }
    # Those that nobody executes have expired when the run ends.
    left = run.blocks + CLOSING_BLOCKS - run.starts[run.scenes.index(scene)] - ASKED - 1
    assert left > Terms().veto_window + Terms().execution_window


@given(seed=st.integers(0, 2**32), **SIZES)
def test_what_is_signed_wrong_is_not_taken_away_with_its_task(seed: int, operators: int, tasks: int) -> None:
    run = plan(seed, operators, tasks, reorgs=3)
    for scene in run.scenes:
        if scene.reorg and scene.reorg.removes_submission:
            assert {b for t in scene.tasks for b in t.behaviours} <= {
                Behaviour.HONEST,
                Behaviour.OFFLINE,
                Behaviour.SLOW,
            }
        if scene.kind is SceneKind.PLAIN and scene.reorg:
            assert {t.kind for t in scene.tasks} == {TaskKind.PLAIN}


def test_the_truth_names_no_condition_that_is_not_there() -> None:
    run = plan(1)
    assert {f.condition for f in run.truth(addresses(7), ["equivocation"])} == {None, "equivocation"}
    assert {f.condition for f in run.truth(addresses(7))} == {None, *CONDITIONS}


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

"""A plan is a function of its seed, holds everything a run must hold, and knows its truth."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cli.explained import explained
from devnet.behaviour import AggregatorBehaviour, Behaviour, least_divisor, right_answer, wrong_answer
from devnet.deploy import Terms
from devnet.plan import (
    CONDITIONS,
    DEFAULT_TASKS,
    INJECTED,
    MIN_OPERATORS,
    MIN_TASKS,
    Fact,
    Plan,
    PlanError,
    plan,
)
from devnet.scenario import CLOSING_BLOCKS
from devnet.scenes import ASKED, GRACE, TERMS, WINDOW, PlannedTask, Reason, Scene, SceneKind, TaskKind
from processors.conditions.reasons import REASONS

NOT_DONE = ("late", "missed", "unknown")
SIZES = {"operators": st.integers(MIN_OPERATORS, 12), "tasks": st.integers(MIN_TASKS, 60)}


def addresses(operators: int) -> list[str]:
    """The operators' and the aggregator's."""
    return [f"0x{i:040x}" for i in range(operators + 1)]


def wrongs(run: Plan) -> list[Fact]:
    """The slashings that should not be, in the truth."""
    return [f for f in run.truth(addresses(run.operators)) if f.condition == "wrongful_slashing"]


def test_a_slashing_can_be_wrong_for_every_reason_that_can_be_found() -> None:
    assert {*Reason} == REASONS.keys()


@example(seed=17222, operators=7, tasks=21)
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
def test_a_run_by_default_holds_every_scene_behaviour_condition_and_reason_twice(
    seed: int, operators: int
) -> None:
    run = plan(seed, operators)
    tasks = [t for s in run.scenes for t in s.tasks]
    done = Counter(b for t in tasks for b in t.behaviours)
    assert all(done[each] > 1 for each in Behaviour)
    assert all(sum(t.aggregator is each for t in tasks) > 1 for each in AggregatorBehaviour)
    assert all(sum(s.kind is each for s in run.scenes) > 1 for each in SceneKind)
    assert all(sum(t.kind is each for t in tasks) > 1 for each in TaskKind)
    final = [f for f in run.truth(addresses(operators)) if f.kind == "finding" and f.value == "final"]
    assert all(len({f.operator for f in final if f.condition == each}) > 1 for each in CONDITIONS)
    assert all(sum(f.reason == each for f in final) > 1 for each in Reason)
    told = Counter(each.cause for each in run.injected(addresses(operators)) if not each.muted)
    assert all(told[each] > 1 for each in INJECTED)


@given(seed=st.integers(0, 2**32), **SIZES)
def test_something_is_injected_of_the_muted_operator_that_nobody_can_tell(
    seed: int, operators: int, tasks: int
) -> None:
    run = plan(seed, operators, tasks)
    who = addresses(operators)
    injected = run.injected(who)
    causes = [msgspec.structs.asdict(fact) for fact in run.truth(who) if fact.kind == "cause"]
    counts = explained(injected, causes)
    assert sum(each["none_reported"] for each in counts.values()) >= (2 if tasks >= DEFAULT_TASKS else 1)
    for cause, each in counts.items():
        assert each["injected"] == each["right"] + each["none_reported"]
        assert each["none_reported"] <= sum(x.muted and x.cause == cause for x in injected)


@given(seed=st.integers(0, 2**32), **SIZES)
def test_every_duty_that_is_not_done_in_time_has_a_cause_and_no_other(
    seed: int, operators: int, tasks: int
) -> None:
    run = plan(seed, operators, tasks)
    who = addresses(operators)
    truth = run.truth(who)
    undone = {(f.task, f.operator) for f in truth if f.kind == "duty" and f.value in NOT_DONE}
    causes = {(f.task, f.operator): f.value for f in truth if f.kind == "cause"}
    assert causes.keys() == undone
    of_muted = {f.value for f in truth if f.kind == "cause" and f.operator == who[run.muted]}
    assert of_muted <= {"none_reported", "wrong_result"}  # which its signature shows
    for each in run.injected(who):
        untold = each.muted and each.cause != "wrong_result"
        assert causes[each.task, each.operator] == ("none_reported" if untold else each.cause)


@given(seed=st.integers(0, 2**32), operators=SIZES["operators"])
def test_a_run_by_default_takes_every_random_reorg_up_to_six(seed: int, operators: int) -> None:
    assert plan(seed, operators, reorgs=6).reorgs == plan(seed, operators, reorgs=0).reorgs + 6


@given(seed=st.integers(0, 2**32), **SIZES)
def test_a_run_has_as_many_tasks_as_asked_and_no_input_twice(seed: int, operators: int, tasks: int) -> None:
    run = plan(seed, operators, tasks, reorgs=3)
    inputs = [t.input for s in run.scenes for t in s.tasks] + [
        s.replaced.input for s in run.scenes if s.replaced
    ]
    times = 2 if tasks >= DEFAULT_TASKS else 1
    assert len(inputs) == len(set(inputs)) == tasks + times
    assert run.tasks == tasks
    named = sum(s.reorg is not None and s.kind is not SceneKind.PLAIN for s in run.scenes)
    assert named == 6 * times
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
    assert accused["invalid_response"] == doing(
        *("wrong", "mistaken", "equivocating", "turncoat", "colluding")
    )
    rejected = doing("misplaced", "too_late")
    assert accused["rejected_response"] == rejected + Counter(
        {
            (str(t.input), addresses(operators)[-1]): 2
            for s in run.scenes
            for t in s.tasks
            if t.kind is TaskKind.FRAMED
        }
    )
    idle = {*doing("offline", "vanishing", "mistaken", "unreachable", "quitting"), *rejected}
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
    slashed = [(s, start) for s, start in zip(run.scenes, run.starts, strict=True) if s.slashings]
    for scene, start in slashed:
        (task,) = scene.tasks
        for each in scene.slashings:
            colluded = task.behaviours[each.operator] in (Behaviour.COLLUDING, Behaviour.TURNCOAT)
            assert (colluded and not each.wrong) if each.proved else each.wrong
        ends = {(x.proved, x.vetoed, x.executed or x.early, x.early, x.late) for x in scene.slashings}
        assert ends == {
            *((True, False, True, False, False), (True, False, False, False, False)),  # executed, expired
            *((False, True, False, False, False), (False, True, True, False, False)),  # vetoed, in vain too
            *((False, False, True, True, False), (False, False, True, False, False)),
            *((False, False, False, False, True), (False, False, False, False, False)),
        }
        # Those that nobody executes have expired when the run ends.
        left = run.blocks + CLOSING_BLOCKS - start - ASKED - 1
        assert left > TERMS.veto_window + TERMS.execution_window
    found = wrongs(run)
    assert len(found) == sum(len(each.wrong) for scene, _ in slashed for each in scene.slashings)
    elsewhere = (Reason.UNKNOWN_TASK, Reason.WINDOW_PASSED, Reason.NO_DUTY)
    of_others = {f.task for f in found if f.reason not in elsewhere}
    assert of_others == {str(scene.tasks[0].input) for scene, _ in slashed}
    paused = {str(s.tasks[0].input) for s in run.scenes if s.kind is SceneKind.PAUSED}
    assert {f.task for f in found if f.reason == Reason.NO_DUTY} == paused | of_others
    assert {f.task for f in found if f.reason == Reason.UNKNOWN_TASK} == {""}


@given(seed=st.integers(0, 2**32), **SIZES)
def test_the_slashing_window_has_passed_for_overdue_tasks_and_for_nothing_else_that_is_asked(
    seed: int, operators: int, tasks: int
) -> None:
    run = plan(seed, operators, tasks, reorgs=2)
    starts, window = run.starts, run.terms.slashing_window
    first = next(start for s, start in zip(run.scenes, starts, strict=True) if s.slashings)
    assert starts[0] + WINDOW + GRACE + window > first  # what agents have reported by then is found
    late = []
    for scene, start in zip(run.scenes, starts, strict=True):
        for each in scene.slashings:
            if each.excused is not None:
                continue  # a missed duty, whose window is that of the longest task
            of = start if each.overdue is None else starts[each.overdue]
            late.append((each.overdue, start + ASKED + 1 - (of + WINDOW + GRACE + window)))
    assert all((by > 0) == (overdue is not None) for overdue, by in late)
    assert min(by for overdue, by in late if overdue is not None) == 1
    assert len({overdue for overdue, _ in late if overdue is not None}) == sum(
        bool(s.slashings) for s in run.scenes
    )


def test_a_chain_without_scenes_has_the_terms_of_a_network_that_lasts() -> None:
    assert Plan(1, 7, ()).terms == Terms()


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

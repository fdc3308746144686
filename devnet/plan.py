"""The plan of a run: which task meets which behaviour and which reorg, and what is then true.

A plan is a pure function of (seed, operators, tasks, reorgs). It is fixed, with its ground truth, before
anything runs; operators and the aggregator are given their own part of it and nothing else, and the
pipeline is given none.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import msgspec

from devnet.behaviour import (
    EQUIVOCATES,
    LEAVES_WRONG,
    REJECTED,
    RESPONDS_NOTHING,
    SIGNS_WRONG,
    AggregatorBehaviour,
    Behaviour,
)
from devnet.dealer import CLOSING, SHUFFLED, SPECIAL, Dealer
from devnet.deploy import Terms
from devnet.scenes import (
    ASKED,
    FORGED_RESPONSES,
    GRACE,
    TERMS,
    PlannedTask,
    Scene,
    SceneKind,
    Slashing,
    TaskKind,
)
from nektar.errors import NektarError

MIN_OPERATORS = 7
MIN_TASKS = 21
# From here on a run holds every scene, every behaviour and every reason at least twice.
DEFAULT_TASKS = 42
# What there can be findings of.
CONDITIONS = frozenset(
    (
        *("equivocation", "invalid_response", "missed_duty", "bond_breach"),
        *("rejected_response", "wrongful_slashing"),
    )
)


class PlanError(NektarError):
    """A run of this size can't hold what every run must hold."""

    exit_code = 2


# Condition → what alone makes somebody guilty of it.
_GUILTY = {
    "equivocation": EQUIVOCATES,
    "invalid_response": SIGNS_WRONG,
    "rejected_response": set(REJECTED),
}


class Fact(msgspec.Struct, frozen=True, order=True):
    """One line of the truth, in the words of the demo's account."""

    kind: str  # duty | cause | finding
    condition: str | None
    task: str  # empty: none
    operator: str
    value: str
    reason: str = ""  # where a condition has several


# Behaviour → why its duty is not done in time, where that is so. `offline` is who is away from all that its
# scene has for it: who does one of several tasks is there, and has told nothing of the others.
_CAUSES = {
    Behaviour.OFFLINE: "offline",
    Behaviour.SLOW: "slow_execution",
    Behaviour.TOO_LATE: "slow_execution",
    Behaviour.MISTAKEN: "wrong_result",
    Behaviour.MISPLACED_WRONG: "wrong_result",
    Behaviour.MISPLACED: "unexplained",
    Behaviour.UNREACHABLE: "network",
    Behaviour.VANISHING: "aggregator_dropped",
    Behaviour.QUITTING: "clock",
}
INJECTED = ("offline", "slow_execution", "wrong_result", "network", "aggregator_dropped", "clock")
_UNREPORTED = "none_reported"
# Seconds by which a clock is wrong: minutes, and more than a long run's blocks are dated ahead of their time.
SKEW = 2_400


class Injected(NamedTuple):
    """A cause that a run holds: of whose duty, and whether that operator reports anything."""

    cause: str
    task: str
    operator: str
    muted: bool


class Plan(msgspec.Struct, frozen=True):
    seed: int
    operators: int
    scenes: tuple[Scene, ...]
    muted: int = -1  # the operator that reports nothing; -1: all do
    clocks: dict[int, int] = {}  # operator → seconds by which its clock is ahead

    @property
    def reorgs(self) -> int:
        return sum(scene.reorg is not None for scene in self.scenes)

    @property
    def tasks(self) -> int:
        return sum(len(scene.tasks) for scene in self.scenes)

    @property
    def starts(self) -> list[int]:
        """The block in which each scene's tasks are submitted for good, counted from the first one after the
        deployment."""
        return [start for start, _ in self._places()]

    @property
    def terms(self) -> Terms:
        """The Network's. Its slashing window is the longest that has passed for each overdue task when
        somebody is to be slashed for it."""
        if not self.scenes:
            return Terms()
        starts = self.starts
        windows = [
            start + ASKED - (starts[slashing.overdue] + self.scenes[slashing.overdue].window + GRACE)
            for scene, start in zip(self.scenes, starts, strict=True)
            for slashing in scene.slashings
            if slashing.overdue is not None
        ]
        return msgspec.structs.replace(TERMS, slashing_window=min(windows, default=TERMS.slashing_window))

    @property
    def blocks(self) -> int:
        """How many blocks the scenes take."""
        return max((end for _, end in self._places()), default=0)

    def _places(self) -> Iterator[tuple[int, int]]:
        head = 0
        for scene in self.scenes:
            start = head + scene.before + 1
            if scene.reorg and scene.reorg.removes_submission:
                start += scene.reorg.after + 1
            head = start + scene.length + scene.after
            yield start, head

    def behaviours(self, operator: int) -> dict[str, str]:
        """What this operator is told: task input → behaviour, where it is not honest."""
        return {
            str(task.input): task.behaviours[operator]
            for task in self._all_tasks()
            if task.behaviours[operator] is not Behaviour.HONEST
        }

    def aggregator(self, addresses: Sequence[str]) -> dict[str, dict[str, object]]:
        """What the aggregator is told: task input → behaviour and victims, where it is not honest."""
        return {
            str(task.input): {
                "behaviour": task.aggregator,
                "victims": [addresses[i] for i in task.victims],
            }
            for task in self._all_tasks()
            if task.aggregator is not AggregatorBehaviour.HONEST
        }

    def truth(self, addresses: Sequence[str], conditions: Collection[str] = CONDITIONS) -> list[Fact]:
        """Every duty's last state and every finding's of these conditions, sorted. `addresses` are the
        operators', in order, and then the aggregator's."""
        facts = [
            Fact(kind, condition, task, addresses[who], value, reason)
            for kind, condition, task, who, value, reason in (
                *(*self._duties(), *self._diagnoses()),
                *self._findings(),
            )
            if condition is None or condition in conditions
        ]
        return sorted(facts, key=lambda f: (f.kind, f.condition or "", f.task, f.operator, f.reason, f.value))

    def _duties(self) -> Iterator[_Line]:
        for duty in self._owed():
            yield _Line("duty", None, str(duty.task.input), duty.operator, duty.state)

    def injected(self, addresses: Sequence[str]) -> list[Injected]:
        """Every cause of INJECTED, and whose it is."""
        return [
            Injected(cause, str(duty.task.input), addresses[duty.operator], duty.operator == self.muted)
            for duty in self._owed()
            if (cause := duty.cause) in INJECTED
        ]

    def _diagnoses(self) -> Iterator[_Line]:
        for duty in self._owed():
            if cause := duty.cause:
                told = _UNREPORTED if duty.operator == self.muted and not duty.signed_wrong else cause
                yield _Line("cause", None, str(duty.task.input), duty.operator, told)

    def _findings(self) -> Iterator[_Line]:
        for duty in self._owed():
            behaviour = duty.task.behaviours[duty.operator]
            once = behaviour is Behaviour.EQUIVOCATING_ONCE
            status = "retracted" if once and duty.scene.kind is SceneKind.FINDING_LOST else "final"
            for condition, guilty in _GUILTY.items():
                if behaviour in guilty:
                    yield _Line("finding", condition, str(duty.task.input), duty.operator, status)
        aggregator = self.operators
        for task in self._all_tasks():
            if task.aggregator is AggregatorBehaviour.FRAMING:
                for _ in range(FORGED_RESPONSES):
                    yield _Line("finding", "rejected_response", str(task.input), aggregator, "final")
        for task, operator in self._missed_too_many():
            yield _Line("finding", "missed_duty", str(task.input), operator, "final")
        for scene in self.scenes:
            if made := scene.breaches:
                for operator in (made.lasting, made.mended):
                    yield _Line("finding", "bond_breach", "", operator, "final")
                yield _Line("finding", "bond_breach", "", made.lost, "retracted")
            for slashing in scene.slashings:
                about = str(self.about(scene, slashing)) if slashing.of_task else ""
                for reason in slashing.wrong:
                    yield _Line("finding", "wrongful_slashing", about, slashing.operator, "final", reason)

    def about(self, scene: Scene, slashing: Slashing) -> int:
        """The input of the task that a request is of which is made in this scene, where it is of one."""
        if slashing.overdue is not None:
            return self.scenes[slashing.overdue].tasks[0].input
        return scene.tasks[0].input if slashing.excused is None else slashing.excused

    def _missed_too_many(self) -> Iterator[tuple[PlannedTask, int]]:
        """The last task of each `miss_allowance` + 1 misses of one operator that lie in one window. Each
        counts once; they are taken scene by scene, the earliest first."""
        terms = Terms()
        count = terms.miss_allowance + 1
        held: dict[int, list[int]] = defaultdict(list)  # blocks of submission
        for duty in self._owed():
            if duty.state != "missed":
                continue
            misses = held[duty.operator]
            misses.append(duty.submitted)
            # Tasks come in the order of their blocks, so none lie closer to the newest than those before it.
            if len(misses) >= count and misses[-1] - misses[-count] < terms.miss_window:
                del misses[-count:]
                yield duty.task, duty.operator

    def _owed(self) -> Iterator[_Duty]:
        """Every duty: of those in the set that the task commits to, in the order of tasks' numbers."""
        gone: set[int | None] = set()
        for scene, start in zip(self.scenes, self.starts, strict=True):
            for task in scene.tasks:
                for operator in range(self.operators):
                    if operator not in gone:
                        yield _Duty(scene, start, task, operator)
            if scene.kind is SceneKind.DEREGISTERED:
                gone.add(scene.operator)
            if scene.breaches:
                gone.add(scene.breaches.lasting)

    def _all_tasks(self) -> Iterator[PlannedTask]:
        for scene in self.scenes:
            yield from scene.tasks
            if scene.replaced:
                yield scene.replaced


class _Line(NamedTuple):
    """A Fact, of an address by its place."""

    kind: str
    condition: str | None
    task: str
    operator: int
    value: str
    reason: str = ""


class _Duty(NamedTuple):
    """What an operator owes."""

    scene: Scene
    submitted: int  # block
    task: PlannedTask
    operator: int

    @property
    def state(self) -> str:
        """What the table of duties says at the end of the scene."""
        kind, behaviour = self.scene.kind, self.task.behaviours[self.operator]
        if kind is SceneKind.PAUSED or self.task.kind is TaskKind.CANCELLED:
            return "excused"
        if kind is SceneKind.DEREGISTERED and self.operator == self.scene.operator:
            return "excused"
        if behaviour in RESPONDS_NOTHING:
            return {SceneKind.PENDING: "pending", SceneKind.WITHHELD: "unknown"}.get(kind, "missed")
        if behaviour is Behaviour.VANISHING and kind is SceneKind.RESPONSE_LOST:
            return "missed"
        return "late" if behaviour is Behaviour.SLOW else "signed"

    @property
    def signed_wrong(self) -> bool:
        """Whether a signature explains it, of whoever tells nothing as well."""
        return self.task.behaviours[self.operator] in LEAVES_WRONG

    @property
    def cause(self) -> str:
        """Why it is not done in time, as the operator would tell; empty where it is, or is not owed."""
        if self.state not in ("late", "missed", "unknown"):
            return ""
        behaviour = self.task.behaviours[self.operator]
        there = any(task.behaviours[self.operator] is not Behaviour.OFFLINE for task in self.scene.tasks)
        return _UNREPORTED if behaviour is Behaviour.OFFLINE and there else _CAUSES[behaviour]


def plan(seed: int, operators: int = MIN_OPERATORS, tasks: int = DEFAULT_TASKS, reorgs: int = 2) -> Plan:
    """The run of this seed. `reorgs` are random ones, beside those that every run has.

    Raises PlanError where a run of this size can't hold every behaviour.
    """
    if operators < MIN_OPERATORS:
        raise PlanError(
            f"--operators: expected at least {MIN_OPERATORS}, to hold every behaviour; got {operators}"
        )
    if tasks < MIN_TASKS:
        raise PlanError(f"--tasks: expected at least {MIN_TASKS}, to hold every behaviour; got {tasks}")
    times = 2 if tasks >= DEFAULT_TASKS else 1
    closing = [kind for kind in CLOSING for _ in range(times)]
    deal = Dealer(random.Random(f"nektar-plan-{seed}"), operators)  # noqa: S311  a run must be repeatable
    scenes = [deal.scene(kind) for kind in SHUFFLED * times]
    special = [deal.task(kind) for kind in SPECIAL * times]
    plain = tasks - len(scenes) - len(special) - len(closing)
    if not 0 <= reorgs <= plain:
        raise PlanError(f"--reorgs: expected 0 to {plain} for {tasks} tasks; got {reorgs}")
    for left in reversed(range(reorgs)):
        scenes.append(deal.with_reorg(most=plain - left))
        plain -= len(scenes[-1].tasks)
    scenes += deal.cut([*special, *(deal.plain_task() for _ in range(plain))])
    deal.rng.shuffle(scenes)
    scenes += [deal.scene(kind) for kind in closing]
    return Plan(seed, operators, tuple(scenes), deal.muted, {deal.fast: SKEW, deal.behind: -SKEW})

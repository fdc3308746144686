"""The plan of a run: which task meets which behaviour and which reorg, and what is then true.

A plan is a pure function of (seed, operators, tasks, reorgs). It is fixed, with its ground truth, before
anything runs; operators and the aggregator are given their own part of it and nothing else, and the
pipeline is given none.

A plan is a row of *scenes*, played one after the other. A scene submits its tasks in one block `s` and lasts
until their grace is over, so that what it leads to can be said in advance (W = WINDOW, G = GRACE):

| block | what is in it |
|---|---|
| s | the submission; on seeing it, operators sign and send to the aggregator |
| s + 1 | an equivocator's attestation; on seeing this block, the aggregator submits |
| s + 2 | the response, and a second attestation of an equivocator that does both on chain |
| s + 3 | attestations of operators that the response left out, and of those in it that attest another |
| s + W − 1 | attestations of operators whose task found no response, those in a wrong place, a challenge |
| s + W | the deadline; slow operators sign when they see it |
| s + W + 1 | their late attestations |
| s + W + G | the grace is over |
| s + W + G + 1 | attestations that come too late, where there are any |

Nothing is planned of which the truth would depend on who saw what in time.
"""

from __future__ import annotations

import enum
import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import msgspec

from devnet.behaviour import AggregatorBehaviour, Behaviour, least_divisor
from devnet.deploy import Terms
from nektar.errors import NektarError

WINDOW = 8
GRACE = 3
# Anvil's finalized block is 2 · SLOTS behind the head; reorgs stay well above it.
SLOTS = 8
# Basis points of operators and of stake that must sign: a task may lose a third and still be answered.
THRESHOLD = 5000
# A window that no run reaches the end of: its tasks stay open.
LONG_WINDOW = 100_000
# So many responses a framing aggregator makes up for a task.
FORGED_RESPONSES = 2
# Of a scene SLASHED the heads, in blocks after s, on which somebody proves an offence, which is as soon as
# there is one; on which the authority asks for more, and some of that is vetoed, or executed early; and the
# block with the other executions, when no veto counts any more.
PROVED, ASKED, VETOED, TOO_EARLY = 2, 3, 4, 5
EXECUTED = ASKED + 1 + Terms().veto_window + 1

MIN_OPERATORS = 7
MIN_TASKS = 20
# From here on a run holds every behaviour at least twice.
DEFAULT_TASKS = 28
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


class SceneKind(enum.StrEnum):
    """What happens in a scene beside what its tasks' kinds say."""

    PLAIN = "plain"
    PAUSED = "paused"  # for one block
    WITHHELD = "withheld"  # the receipts of the deadline's block and the next can't be had; then a new set
    RESPONSE_LOST = "response_lost"  # a reorg removes the response for good
    RESPONSE_RETURNS = "response_returns"  # a reorg removes it, and it returns
    FINDING_LOST = "finding_lost"  # a reorg takes away the fact under a finding
    FINDING_RETURNS = "finding_returns"  # the same, and the operator does it again
    NUMBER_RETURNS = "number_returns"  # a task number returns with other content
    ROTATED = "rotated"  # an operator's key changes under an open task; the next set has the new one
    SLASHED = "slashed"  # requests to slash, right and wrong ones; the next set counts what was taken
    UNDERBONDED = "underbonded"  # operators ask back more than they may; the next set is without one of them
    DEREGISTERED = "deregistered"  # an operator leaves before the submission, and then asks its stake back
    PENDING = "pending"  # the run ends before the deadline


class TaskKind(enum.StrEnum):
    """What happens to a task beside its operators' behaviour. Those of one plain scene may be of any kind."""

    PLAIN = "plain"
    CENSORED = "censored"
    FRAMED = "framed"
    NO_QUORUM = "no_quorum"
    COLLUDING = "colluding"  # a wrong answer is accepted
    CHALLENGED = "challenged"  # and refuted by somebody
    CANCELLED = "cancelled"


# The first of these are played in an order that the seed shuffles; the last ones close every run, since they
# make the sets smaller, and requests that nobody executes expire while they last.
_CLOSING = (SceneKind.SLASHED, SceneKind.UNDERBONDED, SceneKind.DEREGISTERED, SceneKind.PENDING)
_SHUFFLED = tuple(k for k in SceneKind if k is not SceneKind.PLAIN and k not in _CLOSING)
# What every run holds once beside its scenes, one of which is of colluders, and what a run of DEFAULT_TASKS
# holds once more.
_ONCE = tuple(kind for kind in TaskKind if kind not in (TaskKind.PLAIN, TaskKind.COLLUDING))
_AGAIN = (TaskKind.FRAMED, TaskKind.NO_QUORUM, TaskKind.COLLUDING, TaskKind.CHALLENGED)
# How many operators misbehave is up to a third; which of these they do is dealt from a shuffled pack, so
# that each comes up as often as the others.
_MISBEHAVIOURS = (
    Behaviour.OFFLINE,
    Behaviour.SLOW,
    Behaviour.WRONG_RESPONSE,
    Behaviour.EQUIVOCATING,
    Behaviour.EQUIVOCATING_IN_QUORUM,
)

_REJECTED = (Behaviour.TOO_LATE, Behaviour.MISPLACED, Behaviour.MISPLACED_WRONG)
_RESPONDS_NOTHING = {Behaviour.OFFLINE, *_REJECTED}
_EQUIVOCATES = {
    Behaviour.EQUIVOCATING,
    Behaviour.EQUIVOCATING_ON_CHAIN,
    Behaviour.EQUIVOCATING_ONCE,
    Behaviour.EQUIVOCATING_IN_QUORUM,
    Behaviour.TURNCOAT,
}
# An equivocator's other answer is wrong as well, since there is but one right one.
_SIGNS_WRONG = {Behaviour.WRONG_RESPONSE, Behaviour.COLLUDING, Behaviour.MISPLACED_WRONG, *_EQUIVOCATES}
# Condition → what alone makes somebody guilty of it.
_GUILTY = {
    "equivocation": _EQUIVOCATES,
    "invalid_response": _SIGNS_WRONG,
    "rejected_response": set(_REJECTED),
}


class PlannedTask(msgspec.Struct, frozen=True):
    input: int
    behaviours: tuple[Behaviour, ...]  # by operator
    kind: TaskKind = TaskKind.PLAIN
    aggregator: AggregatorBehaviour = AggregatorBehaviour.HONEST
    victims: tuple[int, ...] = ()  # operators whose signatures the aggregator drops


class Reorg(msgspec.Struct, frozen=True):
    """`depth` blocks are replaced by as many empty ones when the head is `after` blocks past s."""

    after: int
    depth: int
    witnessed: bool  # whether the driver waits until the pipeline has stored the head that goes away

    @property
    def removes_submission(self) -> bool:
        return self.depth > self.after


class Breaches(msgspec.Struct, frozen=True):
    """Who asks back so much stake that less than the minimum is left. All do in one block, which a reorg
    takes away; then only the first two do it again."""

    lasting: int
    mended: int  # by new stake in the next block
    lost: int


class Slashing(msgspec.Struct, frozen=True):
    """A request to slash an operator, where it is not proved by an authority whom the Network trusts."""

    operator: int
    condition: str
    proved: bool = False
    of_task: bool = True  # of the scene's task; else of one that never was
    forged: bool = False  # it shows signatures that are nobody's
    elsewhere: bool = False  # what is taken goes to the authority
    vetoed: bool = False
    executed: bool = False  # when the window for a veto has passed, whatever became of that
    early: bool = False  # executed before that
    wrong: int = 0  # so many reasons there are to say that it should not be


class Scene(msgspec.Struct, frozen=True):
    kind: SceneKind
    tasks: tuple[PlannedTask, ...]
    reorg: Reorg | None = None
    replaced: PlannedTask | None = None  # NUMBER_RETURNS: the task that had the number before
    operator: int | None = None  # ROTATED, DEREGISTERED: who; WITHHELD: who puts up more
    breaches: Breaches | None = None  # UNDERBONDED
    slashings: tuple[Slashing, ...] = ()  # SLASHED

    @property
    def window(self) -> int:
        return LONG_WINDOW if self.kind is SceneKind.PENDING else WINDOW

    @property
    def before(self) -> int:
        """Blocks before the submission."""
        return int(self.kind is SceneKind.DEREGISTERED)

    @property
    def length(self) -> int:
        """Blocks from s to the end of the last grace, or to that in which somebody is too late for it."""
        if self.kind is SceneKind.PENDING:
            return 4
        if self.kind is SceneKind.SLASHED:
            return EXECUTED
        too_late = any(Behaviour.TOO_LATE in task.behaviours for task in self.tasks)
        return WINDOW + GRACE + too_late

    @property
    def after(self) -> int:
        """Blocks after those: what makes the next set another one, and its commitment."""
        return _COMMITMENT.get(self.kind, 0)


_COMMITMENT = {
    SceneKind.WITHHELD: 2,
    SceneKind.ROTATED: 1,
    SceneKind.SLASHED: 1,
    SceneKind.UNDERBONDED: 1,
    SceneKind.DEREGISTERED: 1,
}


class Fact(msgspec.Struct, frozen=True, order=True):
    """One line of the truth, in the words of the demo's account."""

    kind: str  # duty | finding
    condition: str | None
    task: str  # empty: none
    operator: str
    value: str


class Plan(msgspec.Struct, frozen=True):
    seed: int
    operators: int
    scenes: tuple[Scene, ...]

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
            Fact(kind, condition, task, addresses[who], value)
            for kind, condition, task, who, value in (*self._duties(), *self._findings())
            if condition is None or condition in conditions
        ]
        return sorted(facts, key=lambda f: (f.kind, f.condition or "", f.task, f.operator, f.value))

    def _duties(self) -> Iterator[_Line]:
        for duty in self._owed():
            yield "duty", None, str(duty.task.input), duty.operator, duty.state

    def _findings(self) -> Iterator[_Line]:
        for duty in self._owed():
            behaviour = duty.task.behaviours[duty.operator]
            once = behaviour is Behaviour.EQUIVOCATING_ONCE
            status = "retracted" if once and duty.scene.kind is SceneKind.FINDING_LOST else "final"
            for condition, guilty in _GUILTY.items():
                if behaviour in guilty:
                    yield "finding", condition, str(duty.task.input), duty.operator, status
        aggregator = self.operators
        for task in self._all_tasks():
            if task.aggregator is AggregatorBehaviour.FRAMING:
                for _ in range(FORGED_RESPONSES):
                    yield "finding", "rejected_response", str(task.input), aggregator, "final"
        for task, operator in self._missed_too_many():
            yield "finding", "missed_duty", str(task.input), operator, "final"
        for scene in self.scenes:
            if made := scene.breaches:
                for operator in (made.lasting, made.mended):
                    yield "finding", "bond_breach", "", operator, "final"
                yield "finding", "bond_breach", "", made.lost, "retracted"
            for slashing in scene.slashings:
                about = str(scene.tasks[0].input) if slashing.of_task else ""
                for _ in range(slashing.wrong):
                    yield "finding", "wrongful_slashing", about, slashing.operator, "final"

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


_Line = tuple[str, str | None, str, int, str]  # a Fact, of an address by its place


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
        if behaviour in _RESPONDS_NOTHING:
            return {SceneKind.PENDING: "pending", SceneKind.WITHHELD: "unknown"}.get(kind, "missed")
        if behaviour is Behaviour.VANISHING and kind is SceneKind.RESPONSE_LOST:
            return "missed"
        return "late" if behaviour is Behaviour.SLOW else "signed"


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
    again = tasks >= DEFAULT_TASKS
    deal = _Dealer(random.Random(f"nektar-plan-{seed}"), operators)  # noqa: S311  a run must be repeatable
    scenes = [deal.scene(kind, again) for kind in _SHUFFLED]
    special = [deal.task(kind) for kind in (*_ONCE, *(_AGAIN if again else ()))]
    plain = tasks - sum(len(scene.tasks) for scene in scenes) - len(special) - len(_CLOSING)
    if not 0 <= reorgs <= plain:
        raise PlanError(f"--reorgs: expected 0 to {plain} for {tasks} tasks; got {reorgs}")
    for left in reversed(range(reorgs)):
        scenes.append(deal.with_reorg(most=plain - left))
        plain -= len(scenes[-1].tasks)
    scenes += deal.cut([*special, *(deal.plain_task() for _ in range(plain))])
    deal.rng.shuffle(scenes)
    return Plan(seed, operators, (*scenes, *(deal.scene(kind, again) for kind in _CLOSING)))


class _Dealer:
    """Draws scenes from one seeded source.

    Of the operators two miss more than is allowed in every run, one misses just as much as is, and one
    nothing.
    """

    def __init__(self, rng: random.Random, operators: int) -> None:
        self.rng = rng
        self._operators = operators
        self._inputs: set[int] = set()
        self._pack: list[Behaviour] = []
        order = rng.sample(range(operators), operators)
        self._absentees, (self._allowed, self._punctual) = order[:2], order[2:4]
        self._others = order[4:]
        self._left_to_miss = Terms().miss_allowance  # for the one who is allowed to
        self._gone: set[int] = set()

    def cut(self, tasks: list[PlannedTask]) -> Iterator[Scene]:
        """Plain scenes of a few tasks each."""
        self.rng.shuffle(tasks)
        while tasks:
            size = self.rng.randint(3, 5)
            yield Scene(SceneKind.PLAIN, tuple(tasks[:size]))
            tasks = tasks[size:]

    def with_reorg(self, most: int) -> Scene:
        """A plain scene of 1 to 3 tasks, `most` at most."""
        reorg = self._reorg()
        # A task whose submission a reorg removes returns as another task: what was found about the first
        # would depend on whether anyone saw it.
        avoid = _SIGNS_WRONG if reorg.removes_submission else set[Behaviour]()
        size = min(most, self.rng.randint(1, 3))
        return Scene(SceneKind.PLAIN, tuple(self.plain_task(avoid) for _ in range(size)), reorg)

    def plain_task(self, avoid: Collection[Behaviour] = ()) -> PlannedTask:
        behaviours = self._honest()
        for i in self._some(max(2, (self._operators - 1) // 3)):
            counted = i in (self._allowed, self._punctual)
            behaviours[i] = self._misbehaviour({*avoid, *(_RESPONDS_NOTHING if counted else ())})
        return PlannedTask(self._input(), tuple(behaviours))

    def task(self, kind: TaskKind) -> PlannedTask:
        """One that shows what `kind` says."""
        behaviours = self._honest()
        aggregator = AggregatorBehaviour.HONEST
        victims: tuple[int, ...] = ()
        one, two, three = self._some(3)
        match kind:
            case TaskKind.CENSORED:
                aggregator, victims = AggregatorBehaviour.CENSORING, (one, two)
                behaviours[three] = Behaviour.EQUIVOCATING_IN_QUORUM
            case TaskKind.FRAMED:
                # One has signed the right answer and one nothing; that of the third is a wrong one to steal.
                silent = self.rng.choice([*self._absentees, *self._others])
                one, two, three = self.rng.sample([i for i in range(self._operators) if i != silent], 3)
                aggregator, victims = AggregatorBehaviour.FRAMING, (one, silent)
                behaviours[silent] = Behaviour.OFFLINE
                behaviours[two] = Behaviour.WRONG_RESPONSE
                behaviours[three] = Behaviour.EQUIVOCATING_IN_QUORUM
            case TaskKind.NO_QUORUM:
                absent = self._absent(self._majority)
                does = [*_REJECTED, *[Behaviour.OFFLINE] * (len(absent) - len(_REJECTED))]
                self.rng.shuffle(does)
                for i, behaviour in zip(absent, does, strict=True):
                    behaviours[i] = behaviour
                here = self.rng.choice([i for i in range(self._operators) if i not in absent])
                behaviours[here] = Behaviour.EQUIVOCATING
            case TaskKind.COLLUDING | TaskKind.CHALLENGED:
                aggregator = AggregatorBehaviour.COLLUDING
                turncoat, *others = self._some(self._majority)
                behaviours[turncoat] = Behaviour.TURNCOAT
                for i in others:
                    behaviours[i] = Behaviour.COLLUDING
            case TaskKind.CANCELLED:
                behaviours[one] = Behaviour.OFFLINE
        return PlannedTask(self._input(), tuple(behaviours), kind, aggregator, victims)

    def scene(self, kind: SceneKind, again: bool) -> Scene:
        """A scene that shows what `kind` says, mostly of one task; where the aggregator abandons one, of two
        if every behaviour is to be there twice."""
        behaviours = self._honest()
        aggregator = AggregatorBehaviour.HONEST
        victims: tuple[int, ...] = ()
        reorg, replaced, operator, breaches = None, None, None, None
        here = [i for i in range(self._operators) if i not in self._gone]
        one, two = self.rng.sample(here, 2)
        tasks = 1
        match kind:
            case SceneKind.PAUSED | SceneKind.PENDING:
                behaviours[one] = Behaviour.OFFLINE
            case SceneKind.WITHHELD:
                behaviours[one], behaviours[two] = Behaviour.OFFLINE, Behaviour.SLOW
                operator = one
            case SceneKind.RESPONSE_LOST:
                for i in self._absentees:
                    behaviours[i] = Behaviour.VANISHING
                aggregator, tasks = AggregatorBehaviour.ABANDONING, 1 + again
                reorg = Reorg(after=2, depth=1, witnessed=True)
            case SceneKind.RESPONSE_RETURNS:
                behaviours[one] = behaviours[two] = Behaviour.VANISHING
                reorg = Reorg(after=2, depth=1, witnessed=True)
            case SceneKind.FINDING_LOST | SceneKind.FINDING_RETURNS:
                lost = kind is SceneKind.FINDING_LOST
                behaviours[one] = Behaviour.EQUIVOCATING_ONCE if lost else Behaviour.EQUIVOCATING_ON_CHAIN
                behaviours[two] = behaviours[one]
                reorg = Reorg(after=2, depth=1, witnessed=True)
            case SceneKind.NUMBER_RETURNS:
                for i in self._absent(len(self._absentees)):
                    behaviours[i] = Behaviour.OFFLINE
                replaced = PlannedTask(self._input(), tuple(self._honest()))
                reorg = Reorg(after=1, depth=2, witnessed=True)
            case SceneKind.ROTATED:
                # Left out of the response, it attests after the rotation, with the key of the task's set.
                operator, aggregator, victims = one, AggregatorBehaviour.CENSORING, (one,)
            case SceneKind.SLASHED:
                colluding = self.task(TaskKind.COLLUDING)
                return Scene(kind, (colluding,), slashings=tuple(_slashings(colluding.behaviours)))
            case SceneKind.UNDERBONDED:
                breaches = Breaches(*self.rng.sample(here[:-1], 3))  # the last one leaves by itself
                reorg = Reorg(after=1, depth=1, witnessed=True)
                self._gone.add(breaches.lasting)
            case SceneKind.DEREGISTERED:
                operator = here[-1]
                behaviours[operator] = Behaviour.OFFLINE
                behaviours[self.rng.choice(here[:-1])] = Behaviour.SLOW
                self._gone.add(operator)
        planned = [
            PlannedTask(self._input(), tuple(behaviours), TaskKind.PLAIN, aggregator, victims)
            for _ in range(tasks)
        ]
        return Scene(kind, tuple(planned), reorg, replaced, operator, breaches)

    @property
    def _majority(self) -> int:
        """So many that the others are no quorum."""
        return self._operators - (self._operators - 1) // 2

    def _absent(self, least: int) -> list[int]:
        """At least so many who are to miss: those who miss most, and who may while it may."""
        absent = list(self._absentees)
        if self._left_to_miss:
            self._left_to_miss -= 1
            absent.append(self._allowed)
        return absent + self.rng.sample(self._others, max(0, least - len(absent)))

    def _reorg(self) -> Reorg:
        """One that agents recover from in time: early in the window, or just after a late attestation."""
        witnessed = self.rng.random() < 0.5
        if self.rng.random() < 0.25:
            return Reorg(WINDOW + 1, 1, witnessed)
        after = self.rng.randint(1, 3)
        return Reorg(after, self.rng.randint(1, after + 1), witnessed)

    def _honest(self) -> list[Behaviour]:
        return [Behaviour.HONEST] * self._operators

    def _some(self, count: int) -> list[int]:
        return self.rng.sample(range(self._operators), count)

    def _misbehaviour(self, avoid: Collection[Behaviour]) -> Behaviour:
        """The next of the pack; those to avoid stay on top of it."""
        if not set(self._pack) - set(avoid):
            fresh = list(_MISBEHAVIOURS)
            self.rng.shuffle(fresh)
            self._pack = fresh + self._pack
        i = next(i for i in reversed(range(len(self._pack))) if self._pack[i] not in avoid)
        return self._pack.pop(i)

    def _input(self) -> int:
        """One not used yet: mostly a product of two primes, so that its answer is found in milliseconds and a
        wrong one multiplies to it; else a prime, of which a wrong one refutes itself."""
        while True:
            product = self.rng.random() < 0.75
            n = (
                self._prime(1_000, 20_000) * self._prime(20_000, 1 << 20)
                if product
                else self._prime(1 << 28, 1 << 30)
            )
            if n not in self._inputs:
                self._inputs.add(n)
                return n

    def _prime(self, low: int, high: int) -> int:
        while least_divisor(n := self.rng.randrange(low, high) | 1) != n:
            pass
        return n


def _slashings(behaviours: Sequence[Behaviour]) -> Iterator[Slashing]:
    """Those who collude are slashed by proof, one of them in vain; they and honest ones by an authority as
    well, which asks for what it likes."""
    turncoat = behaviours.index(Behaviour.TURNCOAT)
    one, two, *_ = (i for i, each in enumerate(behaviours) if each is Behaviour.COLLUDING)
    honest, other, third, *_ = (i for i, each in enumerate(behaviours) if each is Behaviour.HONEST)
    for operator, executed in ((one, True), (two, True), (turncoat, False)):
        yield Slashing(operator, "invalid_response", proved=True, executed=executed)
    # They attested.
    yield Slashing(honest, "missed_duty", vetoed=True, wrong=1)
    yield Slashing(other, "missed_duty", vetoed=True, executed=True, wrong=2)
    yield Slashing(third, "equivocation", forged=True, vetoed=True, wrong=1)
    yield Slashing(honest, "invalid_response", of_task=False, vetoed=True, wrong=1)
    yield Slashing(other, "equivocation", early=True, wrong=1)
    yield Slashing(turncoat, "equivocation", elsewhere=True, executed=True, wrong=1)
    # Once more for what is proved: it expires like that.
    yield Slashing(turncoat, "invalid_response", wrong=1)

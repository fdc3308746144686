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
| s + 3 | attestations of operators that the response left out |
| s + W − 1 | attestations of operators whose task found no response |
| s + W | the deadline; slow operators sign when they see it |
| s + W + 1 | their late attestations |
| s + W + G | the grace is over |
"""

from __future__ import annotations

import enum
import random
from collections.abc import Collection, Iterator, Sequence

import msgspec

from devnet.behaviour import AggregatorBehaviour, Behaviour, least_divisor
from nektar.errors import NektarError

WINDOW = 8
GRACE = 3
# Anvil's finalized block is 2 · SLOTS behind the head; reorgs stay well above it.
SLOTS = 8
# Basis points of operators and of stake that must sign: a task may lose a third and still be answered.
THRESHOLD = 5000
# A window that no run reaches the end of: its tasks stay open.
LONG_WINDOW = 100_000

MIN_OPERATORS = 7
MIN_TASKS = 20


class PlanError(NektarError):
    """A run of this size can't hold what every run must hold."""

    exit_code = 2


class SceneKind(enum.StrEnum):
    """What happens to a scene's tasks beside its operators' behaviour."""

    PLAIN = "plain"
    CENSORED = "censored"
    NO_QUORUM = "no_quorum"
    PAUSED = "paused"  # for one block
    CANCELLED = "cancelled"
    WITHHELD = "withheld"  # the receipts of the deadline's block and the next can't be had
    RESPONSE_LOST = "response_lost"  # a reorg removes the response for good
    RESPONSE_RETURNS = "response_returns"  # a reorg removes it, and it returns
    FINDING_LOST = "finding_lost"  # a reorg takes away the fact under a finding
    FINDING_RETURNS = "finding_returns"  # the same, and the operator does it again
    NUMBER_RETURNS = "number_returns"  # a task number returns with other content
    ROTATED = "rotated"  # an operator's key changes under an open task; the next set has the new one
    DEREGISTERED = "deregistered"  # an operator leaves before the submission; the next set is without it
    PENDING = "pending"  # the run ends before the deadline


# The first of these are played in an order that the seed shuffles; the last two close every run.
_SHUFFLED = tuple(
    k for k in SceneKind if k not in (SceneKind.PLAIN, SceneKind.DEREGISTERED, SceneKind.PENDING)
)
_CLOSING = (SceneKind.DEREGISTERED, SceneKind.PENDING)
# How many operators misbehave is up to a third; which of these they do is dealt from a shuffled pack, so
# that each comes up as often as the others.
_MISBEHAVIOURS = (Behaviour.OFFLINE, Behaviour.SLOW, Behaviour.WRONG_RESPONSE, Behaviour.EQUIVOCATING)


class PlannedTask(msgspec.Struct, frozen=True):
    input: int
    behaviours: tuple[Behaviour, ...]  # by operator
    aggregator: AggregatorBehaviour = AggregatorBehaviour.HONEST
    censored: tuple[int, ...] = ()  # operators whose signatures are dropped


class Reorg(msgspec.Struct, frozen=True):
    """`depth` blocks are replaced by as many empty ones when the head is `after` blocks past s."""

    after: int
    depth: int
    witnessed: bool  # whether the driver waits until the pipeline has stored the head that goes away

    @property
    def removes_submission(self) -> bool:
        return self.depth > self.after


class Scene(msgspec.Struct, frozen=True):
    kind: SceneKind
    tasks: tuple[PlannedTask, ...]
    reorg: Reorg | None = None
    replaced: PlannedTask | None = None  # NUMBER_RETURNS: the task that had the number before
    operator: int | None = None  # ROTATED, DEREGISTERED: who

    @property
    def window(self) -> int:
        return LONG_WINDOW if self.kind is SceneKind.PENDING else WINDOW

    @property
    def length(self) -> int:
        """Blocks from s to the scene's last one."""
        return 4 if self.kind is SceneKind.PENDING else WINDOW + GRACE


class Fact(msgspec.Struct, frozen=True, order=True):
    """One line of the truth, in the words of the demo's account."""

    kind: str  # duty | finding
    condition: str | None
    task: str
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
    def blocks(self) -> int:
        """About how many blocks the scenes take."""
        return sum(scene.length + 3 for scene in self.scenes)

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
                "victims": [addresses[i] for i in task.censored],
            }
            for task in self._all_tasks()
            if task.aggregator is not AggregatorBehaviour.HONEST
        }

    def truth(self, addresses: Sequence[str]) -> list[Fact]:
        """Every duty's last state and every finding's, sorted. `addresses` are the operators', in order."""
        facts: list[Fact] = []
        gone: set[int] = set()
        for scene in self.scenes:
            for task in scene.tasks:
                for i, behaviour in enumerate(task.behaviours):
                    if i in gone:
                        continue
                    state = _duty(scene, i, behaviour)
                    facts.append(Fact("duty", None, str(task.input), addresses[i], state))
                    if finding := _equivocation(scene, behaviour):
                        facts.append(Fact("finding", "equivocation", str(task.input), addresses[i], finding))
            if scene.kind is SceneKind.DEREGISTERED and scene.operator is not None:
                gone.add(scene.operator)
        return sorted(facts, key=lambda f: (f.kind, f.condition or "", f.task, f.operator, f.value))

    def _all_tasks(self) -> Iterator[PlannedTask]:
        for scene in self.scenes:
            yield from scene.tasks
            if scene.replaced:
                yield scene.replaced


def _duty(scene: Scene, operator: int, behaviour: Behaviour) -> str:
    """The state that the table of duties gives this operator's duty at the end of the scene."""
    if scene.kind in (SceneKind.PAUSED, SceneKind.CANCELLED):
        return "excused"
    if scene.kind is SceneKind.DEREGISTERED and operator == scene.operator:
        return "excused"
    match behaviour:
        case Behaviour.OFFLINE:
            return {SceneKind.PENDING: "pending", SceneKind.WITHHELD: "unknown"}.get(scene.kind, "missed")
        case Behaviour.VANISHING:
            return "missed" if scene.kind is SceneKind.RESPONSE_LOST else "signed"
        case Behaviour.SLOW:
            return "late"
        case _:
            return "signed"


def _equivocation(scene: Scene, behaviour: Behaviour) -> str | None:
    """The status of the equivocation finding that this behaviour leads to, if it does."""
    if behaviour in (Behaviour.EQUIVOCATING, Behaviour.EQUIVOCATING_ON_CHAIN):
        return "final"
    if behaviour is Behaviour.EQUIVOCATING_ONCE:
        return "retracted" if scene.kind is SceneKind.FINDING_LOST else "final"
    return None


def plan(seed: int, operators: int = MIN_OPERATORS, tasks: int = 24, reorgs: int = 2) -> Plan:
    """The run of this seed. `reorgs` are random ones, beside those that every run has.

    Raises PlanError where a run of this size can't hold every behaviour.
    """
    if operators < MIN_OPERATORS:
        raise PlanError(
            f"--operators: expected at least {MIN_OPERATORS}, to hold every behaviour; got {operators}"
        )
    if tasks < MIN_TASKS:
        raise PlanError(f"--tasks: expected at least {MIN_TASKS}, to hold every behaviour; got {tasks}")
    plain = tasks - len(_SHUFFLED) - len(_CLOSING)
    if not 0 <= reorgs <= plain:
        raise PlanError(f"--reorgs: expected 0 to {plain} for {tasks} tasks; got {reorgs}")
    deal = _Dealer(random.Random(f"nektar-plan-{seed}"), operators)  # noqa: S311  a run must be repeatable
    scenes = [deal.scene(kind) for kind in _SHUFFLED]
    sizes = deal.sizes(plain, reorgs)
    scenes += [deal.plain(size, i < reorgs, i + 1 == len(sizes)) for i, size in enumerate(sizes)]
    deal.rng.shuffle(scenes)
    return Plan(seed, operators, (*scenes, *(deal.scene(kind) for kind in _CLOSING)))


class _Dealer:
    """Draws scenes from one seeded source."""

    def __init__(self, rng: random.Random, operators: int) -> None:
        self.rng = rng
        self._operators = operators
        self._inputs: set[int] = set()
        self._pack: list[Behaviour] = []

    def sizes(self, plain: int, reorgs: int) -> list[int]:
        """How many tasks each plain scene has: at most 4, and one scene at least for every reorg."""
        sizes = [1] * reorgs
        left = plain - reorgs
        for i in range(reorgs):
            more = min(left, self.rng.randint(0, 2))
            sizes[i] += more
            left -= more
        while left:
            sizes.append(min(left, self.rng.randint(1, 4)))
            left -= sizes[-1]
        return sizes

    def plain(self, size: int, with_reorg: bool, last: bool) -> Scene:
        """The last one shows whatever those before it could not."""
        reorg = self._reorg(keeps_submission=last) if with_reorg else None
        # A task whose submission a reorg removes returns as another task: what was found about the first
        # would depend on whether anyone saw it.
        avoid = {Behaviour.EQUIVOCATING} if reorg and reorg.removes_submission else set()
        tasks = []
        for _ in range(size):
            behaviours = self._honest()
            for i in self._some(max(2, (self._operators - 1) // 3)):
                behaviours[i] = self._misbehaviour(avoid)
            tasks.append(PlannedTask(self._input(), tuple(behaviours)))
        return Scene(SceneKind.PLAIN, tuple(tasks), reorg)

    def scene(self, kind: SceneKind) -> Scene:
        """A scene of one task that shows what `kind` says."""
        behaviours = self._honest()
        aggregator = AggregatorBehaviour.HONEST
        censored: tuple[int, ...] = ()
        reorg, replaced, operator = None, None, None
        one, two = self._some(2)
        match kind:
            case SceneKind.CENSORED:
                aggregator, censored = AggregatorBehaviour.CENSORING, (one, two)
            case SceneKind.NO_QUORUM:
                for i in self._some(self._operators - (self._operators - 1) // 2):
                    behaviours[i] = Behaviour.OFFLINE
            case SceneKind.PAUSED | SceneKind.CANCELLED:
                behaviours[one] = Behaviour.OFFLINE
            case SceneKind.PENDING:
                behaviours[one % (self._operators - 1)] = Behaviour.OFFLINE  # not the one that has left
            case SceneKind.WITHHELD:
                behaviours[one], behaviours[two] = Behaviour.OFFLINE, Behaviour.SLOW
            case SceneKind.RESPONSE_LOST | SceneKind.RESPONSE_RETURNS:
                behaviours[one] = behaviours[two] = Behaviour.VANISHING
                reorg = Reorg(after=2, depth=1, witnessed=True)
                if kind is SceneKind.RESPONSE_LOST:
                    aggregator = AggregatorBehaviour.ABANDONING
            case SceneKind.FINDING_LOST | SceneKind.FINDING_RETURNS:
                lost = kind is SceneKind.FINDING_LOST
                behaviours[one] = Behaviour.EQUIVOCATING_ONCE if lost else Behaviour.EQUIVOCATING_ON_CHAIN
                reorg = Reorg(after=2, depth=1, witnessed=True)
            case SceneKind.NUMBER_RETURNS:
                behaviours[one] = Behaviour.OFFLINE
                replaced = PlannedTask(self._input(), tuple(self._honest()))
                reorg = Reorg(after=1, depth=2, witnessed=True)
            case SceneKind.ROTATED:
                # Left out of the response, it attests after the rotation, with the key of the task's set.
                operator, aggregator, censored = one, AggregatorBehaviour.CENSORING, (one,)
            case SceneKind.DEREGISTERED:
                operator = self._operators - 1
                behaviours[operator] = Behaviour.OFFLINE
                behaviours[one % operator] = Behaviour.SLOW
        task = PlannedTask(self._input(), tuple(behaviours), aggregator, censored)
        return Scene(kind, (task,), reorg, replaced, operator)

    def _reorg(self, keeps_submission: bool) -> Reorg:
        """One that agents recover from in time: early in the window, or just after a late attestation."""
        witnessed = self.rng.random() < 0.5
        if self.rng.random() < 0.25:
            return Reorg(WINDOW + 1, 1, witnessed)
        after = self.rng.randint(1, 3)
        return Reorg(after, self.rng.randint(1, after if keeps_submission else after + 1), witnessed)

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
        """One not used yet: a product of two primes, so that its answer is found in milliseconds."""
        while (n := self._prime(1_000, 20_000) * self._prime(20_000, 1 << 20)) in self._inputs:
            pass
        self._inputs.add(n)
        return n

    def _prime(self, low: int, high: int) -> int:
        while least_divisor(n := self.rng.randrange(low, high) | 1) != n:
            pass
        return n

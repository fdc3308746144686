"""Draws the scenes of a run from one seeded source."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence

from devnet.behaviour import (
    REJECTED,
    RESPONDS_NOTHING,
    SIGNS_WRONG,
    AggregatorBehaviour,
    Behaviour,
    least_divisor,
)
from devnet.deploy import Terms
from devnet.scenes import WINDOW, Breaches, PlannedTask, Reason, Reorg, Scene, SceneKind, Slashing, TaskKind

# The first of these are played in an order that the seed shuffles; the last ones close every run: stake must
# be taken from sets that are whole, and who leaves them must not be needed for a quorum any more. Some tasks
# have long been over by then, and requests that nobody executes expire while these scenes last.
CLOSING = (SceneKind.SLASHED, SceneKind.DEREGISTERED, SceneKind.UNDERBONDED, SceneKind.PENDING)
SHUFFLED = tuple(k for k in SceneKind if k is not SceneKind.PLAIN and k not in CLOSING)
# What every run holds beside its scenes, one of which is of colluders.
SPECIAL = tuple(kind for kind in TaskKind if kind not in (TaskKind.PLAIN, TaskKind.COLLUDING))
# How many operators misbehave is up to a third; which of these they do is dealt from a shuffled pack, so
# that each comes up as often as the others.
_MISBEHAVIOURS = (
    Behaviour.OFFLINE,
    Behaviour.SLOW,
    Behaviour.WRONG_RESPONSE,
    Behaviour.EQUIVOCATING,
    Behaviour.EQUIVOCATING_IN_QUORUM,
)


class Dealer:
    """Draws scenes from one seeded source.

    Of the operators two miss more than is allowed in every run, one misses just as much as is, and one
    nothing. One reports nothing ever (`muted`); the clock of one is `fast`, that of another is `behind`.
    """

    def __init__(self, rng: random.Random, operators: int) -> None:
        self.rng = rng
        self._operators = operators
        self._inputs: set[int] = set()
        self._pack: list[Behaviour] = []
        order = rng.sample(range(operators), operators)
        self._absentees, (self._allowed, self._punctual) = order[:2], order[2:4]
        self._others = order[4:]
        self.fast, self.muted = order[4], order[-1]
        self.behind = order[0]
        self._left_to_miss = Terms().miss_allowance  # for the one who is allowed to
        self._gone: set[int] = set()
        self._rotated: set[int] = set()  # who has no other key left
        self._excused: list[tuple[int, int]] = []  # who was offline in a pause, and the input of the task
        self._slashed = 0  # scenes

    def cut(self, tasks: list[PlannedTask]) -> Iterator[Scene]:
        """Plain scenes of a few tasks each."""
        self.rng.shuffle(tasks)
        while tasks:
            size = self.rng.randint(4, 6)
            yield Scene(SceneKind.PLAIN, tuple(tasks[:size]))
            tasks = tasks[size:]

    def with_reorg(self, most: int) -> Scene:
        """A plain scene of 1 to 3 tasks, `most` at most."""
        reorg = self._reorg()
        # A task whose submission a reorg removes returns as another task: what was found about the first
        # would depend on whether anyone saw it.
        avoid = SIGNS_WRONG if reorg.removes_submission else set[Behaviour]()
        size = min(most, self.rng.randint(1, 3))
        return Scene(SceneKind.PLAIN, tuple(self.plain_task(avoid) for _ in range(size)), reorg)

    def plain_task(self, avoid: Collection[Behaviour] = ()) -> PlannedTask:
        behaviours = self._honest()
        for i in self._some(max(2, (self._operators - 1) // 3)):
            counted = i in (self._allowed, self._punctual)
            behaviours[i] = self._misbehaviour({*avoid, *(RESPONDS_NOTHING if counted else ())})
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
                does = [*REJECTED, *[Behaviour.OFFLINE] * (len(absent) - len(REJECTED))]
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
            case TaskKind.EXPLAINED:
                told = [i for i in (*self._absentees, *self._others) if i not in (self.fast, self.muted)]
                one, two = self.rng.sample(told, 2)
                behaviours[self.fast] = Behaviour.QUITTING
                behaviours[one], behaviours[two] = Behaviour.MISTAKEN, Behaviour.UNREACHABLE
        return PlannedTask(self._input(), tuple(behaviours), kind, aggregator, victims)

    def scene(self, kind: SceneKind) -> Scene:
        """A scene of one task that shows what `kind` says."""
        behaviours = self._honest()
        aggregator = AggregatorBehaviour.HONEST
        victims: tuple[int, ...] = ()
        reorg, replaced, operator, breaches = None, None, None, None
        here = [i for i in range(self._operators) if i not in self._gone]
        one, two = self.rng.sample(here, 2)
        telling = [i for i in here if i not in (one, self.muted)]
        match kind:
            case SceneKind.PAUSED | SceneKind.PENDING:
                behaviours[one] = Behaviour.OFFLINE
            case SceneKind.WITHHELD:
                behaviours[self.muted] = Behaviour.UNREACHABLE
                behaviours[one], behaviours[self.rng.choice(telling)] = Behaviour.OFFLINE, Behaviour.SLOW
                operator = one
            case SceneKind.RESPONSE_LOST:
                for i in self._absentees:
                    behaviours[i] = Behaviour.VANISHING
                aggregator = AggregatorBehaviour.ABANDONING
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
                operator = self.rng.choice([i for i in here if i not in self._rotated])
                aggregator, victims = AggregatorBehaviour.CENSORING, (operator,)
                self._rotated.add(operator)
            case SceneKind.SLASHED:
                colluding = self.task(TaskKind.COLLUDING)
                slashings = _slashings(colluding.behaviours, self._slashed, *self._excused[self._slashed])
                self._slashed += 1
                return Scene(kind, (colluding,), slashings=tuple(slashings))
            case SceneKind.UNDERBONDED:
                breaches = Breaches(*self.rng.sample(here, 3))
                reorg = Reorg(after=1, depth=1, witnessed=True)
                self._gone.add(breaches.lasting)
            case SceneKind.DEREGISTERED:
                operator = here[-1]
                behaviours[operator] = Behaviour.OFFLINE
                behaviours[self.rng.choice([i for i in here[:-1] if i != self.muted])] = Behaviour.SLOW
                self._gone.add(operator)
        planned = PlannedTask(self._input(), tuple(behaviours), TaskKind.PLAIN, aggregator, victims)
        if kind is SceneKind.PAUSED:
            self._excused.append((one, planned.input))
        return Scene(kind, (planned,), reorg, replaced, operator, breaches)

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


def _slashings(
    behaviours: Sequence[Behaviour], overdue: int, excused: int, paused: int
) -> Iterator[Slashing]:
    """Those who collude are slashed by proof, one of them in vain; they and honest ones by an authority as
    well, which asks for what it likes. Each such scene has an `overdue` task of its own, and one that was
    `paused` with somebody who is `excused`, or some would be asked for twice."""
    turncoat = behaviours.index(Behaviour.TURNCOAT)
    one, two, *_ = (i for i, each in enumerate(behaviours) if each is Behaviour.COLLUDING)
    honest, other, third, *_ = (i for i, each in enumerate(behaviours) if each is Behaviour.HONEST)
    for operator, executed in ((one, True), (two, True), (turncoat, False)):
        yield Slashing(operator, "invalid_response", proved=True, executed=executed)
    # They attested, and could have done so later.
    missed = (Reason.SIGNED, Reason.NO_DUTY)
    yield Slashing(honest, "missed_duty", vetoed=True, wrong=missed)
    yield Slashing(other, "missed_duty", vetoed=True, executed=True, wrong=(*missed, Reason.AFTER_VETO))
    yield Slashing(excused, "missed_duty", excused=paused, vetoed=True, wrong=(Reason.NO_DUTY,))
    yield Slashing(third, "equivocation", forged=True, vetoed=True, wrong=(Reason.NOT_PROVED,))
    yield Slashing(honest, "invalid_response", of_task=False, vetoed=True, wrong=(Reason.UNKNOWN_TASK,))
    yield Slashing(honest, "equivocation", overdue=overdue, vetoed=True, wrong=(Reason.WINDOW_PASSED,))
    yield Slashing(other, "equivocation", early=True, wrong=(Reason.EARLY,))
    yield Slashing(third, "invalid_response", late=True, wrong=(Reason.AFTER_EXPIRY,))
    yield Slashing(turncoat, "equivocation", elsewhere=True, executed=True, wrong=(Reason.WRONG_RECEIVER,))
    # Once more for what is proved: it expires like that.
    yield Slashing(turncoat, "invalid_response", wrong=(Reason.TWICE,))

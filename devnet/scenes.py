"""What a run is made of: *scenes*, played one after the other.

A scene submits its tasks in one block `s` and lasts
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

import msgspec

from devnet.behaviour import AggregatorBehaviour, Behaviour
from devnet.deploy import Terms

# As short as they can be for all of the above to happen in its order, after a reorg as well: scenes are many.
WINDOW = 6
GRACE = 2
# Anvil's finalized block is 2 · SLOTS behind the head; reorgs stay well above it.
SLOTS = 8
# Basis points of operators and of stake that must sign: a task may lose a third and still be answered.
THRESHOLD = 5000
# A window that no run reaches the end of: its tasks stay open.
LONG_WINDOW = 100_000
# So many responses a framing aggregator makes up for a task.
FORGED_RESPONSES = 2
# What a run has of its Network's terms but for the slashing window, which hangs on its scenes (`Plan.terms`):
# there is just time for a veto and, after it, for an execution.
TERMS = Terms(veto_window=3, execution_window=2)
# Of a scene SLASHED the heads, in blocks after s, on which somebody proves an offence, which is as soon as
# there is one; on which the authority asks for more, and some of that is vetoed, or executed early; and the
# blocks with the other executions: when no veto counts any more, and when they don't count either.
PROVED, ASKED, VETOED, TOO_EARLY = 2, 3, 4, 5
EXECUTED = ASKED + 1 + TERMS.veto_window + 1
EXPIRED = EXECUTED + TERMS.execution_window


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


class Reason(enum.StrEnum):
    """Why a request to slash is wrong, in the words in which it is found."""

    SIGNED = "signed"  # a missed duty, of who attested
    NO_DUTY = "no_duty"  # a missed duty, while it could still be done, or where a pause excused everybody
    UNKNOWN_TASK = "unknown_task"  # for a Task that never was
    WINDOW_PASSED = "window_passed"  # for a Task that is over for too long
    TWICE = "twice"  # for what was asked for already
    NOT_PROVED = "not_proved"  # on signatures that are nobody's
    AFTER_VETO = "after_veto"  # executed in spite of one
    EARLY = "early"  # executed while a veto still counted
    AFTER_EXPIRY = "after_expiry"  # executed when it could not be any more
    WRONG_RECEIVER = "wrong_receiver"  # to the authority's own account


class TaskKind(enum.StrEnum):
    """What happens to a task beside its operators' behaviour. Those of one plain scene may be of any kind."""

    PLAIN = "plain"
    CENSORED = "censored"
    FRAMED = "framed"
    NO_QUORUM = "no_quorum"
    COLLUDING = "colluding"  # a wrong answer is accepted
    CHALLENGED = "challenged"  # and refuted by somebody
    CANCELLED = "cancelled"
    EXPLAINED = "explained"  # missed by three operators, for three reasons of which only they can tell


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
    of_task: bool = True  # of the scene's task, or of one that is over; else of one that never was
    overdue: int | None = None  # the scene, by its place in the run, whose first task it is of
    excused: int | None = None  # the input of the task that was open in a pause, which it is of
    forged: bool = False  # it shows signatures that are nobody's
    elsewhere: bool = False  # what is taken goes to the authority
    vetoed: bool = False
    executed: bool = False  # when the window for a veto has passed, whatever became of that
    early: bool = False  # executed before that
    late: bool = False  # executed when the window for that has passed too
    wrong: tuple[Reason, ...] = ()  # all the reasons that there are to say that it should not be


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
            return EXPIRED
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

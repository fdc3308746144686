"""The driver: plays a plan on the chain, block by block.

No step depends on wall time: after each block the driver waits until every agent has acted on it (the
barrier), and before a reorg that someone must have seen, until the pipeline has stored what goes away. So a
seed gives the same run on any machine, however slow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from devnet.agent import member_tuples
from devnet.behaviour import Behaviour, least_divisor, right_answer, wrong_answer
from devnet.chain import DevnetError
from devnet.deploy import TOKEN, g1_argument
from devnet.home import STAKE, Home
from devnet.plan import Plan
from devnet.scenes import (
    ASKED,
    EXECUTED,
    EXPIRED,
    GRACE,
    PROVED,
    SLOTS,
    TERMS,
    THRESHOLD,
    TOO_EARLY,
    VETOED,
    WINDOW,
    Breaches,
    PlannedTask,
    Scene,
    SceneKind,
    Slashing,
    TaskKind,
)
from devnet.view import OpenTask, View
from nektar.chain.keccak import keccak
from nektar.evidence import bls

# Blocks after the last scene, so that all it led to is final and the marks that say so have passed.
CLOSING_BLOCKS = 2 * SLOTS + 6
NOBODY = "0x" + "00" * 20


class Progress(msgspec.Struct, frozen=True):
    """Where a run stands, for whoever watches it."""

    block: int
    scene: int
    scenes: int
    kind: str
    tasks: int
    reorgs: int


class Scenario:
    """Plays `plan` in a `home`.

    `witness(number, hash)` returns once the pipeline has stored that block; `on_block(Progress)` is called
    after each barrier.
    """

    def __init__(
        self,
        home: Home,
        plan: Plan,
        witness: Callable[[int, str], None],
        on_block: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._home = home
        self._plan = plan
        self._witness = witness
        self._on_block = on_block
        self._view = View(home.chain, home.contracts)
        self._view.advance()
        self._scene = 0
        self._tasks = 0
        self._over: dict[int, bytes] = {}  # tasks' inputs → hashes
        self.reorgs = 0  # that have happened
        self.unsafe: list[int] = []  # blocks that a reorg made so, as often as it did

    @property
    def head(self) -> tuple[int, str]:
        return self._view.head

    def play(self) -> None:
        """All scenes, then as many blocks as it takes until all is final. Raises DevnetError."""
        before = self.head[0]
        for scene, start in zip(self._plan.scenes, self._plan.starts, strict=True):
            self._scene += 1
            self._play(scene, before + start)
        # What agents know is with the collector before the last blocks, so that whoever has folded these has
        # folded it too.
        self._home.flush()
        for _ in range(CLOSING_BLOCKS):
            self._mine()

    def _play(self, scene: Scene, planned: int) -> None:
        """A scene whose tasks the plan has submitted in block `planned`."""
        home = self._home
        if scene.kind is SceneKind.DEREGISTERED:
            home.flush()  # what it reports from its deregistration on is refused
            home.send(home.operators[_who(scene)], "operator_registry", "deregister")
            home.ask_back(_who(scene), left=0)  # in the same block, after that: so it may
            self._mine()
        if scene.kind is SceneKind.WITHHELD:
            deadline = self.head[0] + 1 + WINDOW
            home.withhold(deadline, deadline + 1)
        if any(slashing.overdue is not None for slashing in scene.slashings):
            # What is signed is found while its task's slashing window lasts, and those of the first end soon.
            home.flush()
        tasks = (scene.replaced,) if scene.replaced else scene.tasks
        start = self._submit(scene, tasks)
        reorg = scene.reorg
        while (offset := self.head[0] - start) < scene.length:
            if reorg and offset == reorg.after:
                before = [self._open(task) for task in tasks]
                self._reorg(reorg.depth, reorg.witnessed)
                if reorg.removes_submission:
                    start = self._submit(scene, scene.tasks)
                for then, task in zip(before, scene.tasks, strict=False):
                    self._check_reorg(scene, then, self._open(task))
                reorg = None
                continue
            self._intervene(scene, offset)
            self._mine()
        _require(start == planned, scene, f"submits its tasks in block {planned}")
        for task in scene.tasks:
            self._check_end(scene, task)
            self._over[task.input] = self._open(task).hash
        self._tasks += len(scene.tasks)
        if scene.kind is SceneKind.WITHHELD:
            # Of those blocks nobody knows what did not happen in them, until a set is committed anew.
            home.put_up(_who(scene), TOKEN)
            self._mine()
        if scene.after:
            home.send(home.admin, "operator_registry", "commitSet")
            self._mine()

    def _check_reorg(self, scene: Scene, then: OpenTask, now: OpenTask) -> None:
        """That the reorg took away what the scene is about. Raises DevnetError."""
        match scene.kind:
            case SceneKind.RESPONSE_LOST | SceneKind.RESPONSE_RETURNS:
                _require(
                    then.non_signers is not None and now.non_signers is None, scene, "removes the response"
                )
            case SceneKind.FINDING_LOST | SceneKind.FINDING_RETURNS:
                removed = _most_digests(then) == 2 and _most_digests(now) == 1
                _require(removed, scene, "removes the second of two responses")
            case SceneKind.NUMBER_RETURNS:
                same = then.number == now.number and then.hash != now.hash and then.input != now.input
                _require(same, scene, "brings the task number back with other content")

    def _check_end(self, scene: Scene, planned: PlannedTask) -> None:
        """That what the scene and the task say is there, or is not, at its end. Raises DevnetError."""
        task = self._open(planned)
        match scene.kind:
            case SceneKind.RESPONSE_LOST:
                _require(task.non_signers is None, scene, "ends without a response")
            case SceneKind.RESPONSE_RETURNS:
                _require(task.non_signers is not None, scene, "ends with the response")
            case SceneKind.FINDING_LOST:
                _require(_most_digests(task) == 1, scene, "ends with one response of each operator")
            case SceneKind.FINDING_RETURNS:
                _require(_most_digests(task) == 2, scene, "ends with two responses of one operator")
        for operator, behaviour in zip(self._home.operators, planned.behaviours, strict=True):
            if behaviour in (Behaviour.COLLUDING, Behaviour.TURNCOAT, Behaviour.EQUIVOCATING_IN_QUORUM):
                _require(task.in_quorum(operator.address), scene, f"ends with {behaviour} ones in the quorum")
        for victim in planned.victims:
            address = self._home.operators[victim].address
            _require(
                not task.in_quorum(address), scene, "ends with the aggregator's victims out of the quorum"
            )
        challenged = planned.kind is TaskKind.CHALLENGED
        _require(task.challenged == challenged, scene, f"ends with {planned.kind} tasks challenged or not")

    def _intervene(self, scene: Scene, offset: int) -> None:
        """What the scene's own actors send when the head is `offset` blocks past the submission."""
        home = self._home
        for planned in scene.tasks:
            match planned.kind, offset:
                case TaskKind.CANCELLED, 0:
                    home.send(home.submitter, "task_manager", "cancelTask", self._open(planned).fields)
                case TaskKind.CHALLENGED, at if at == WINDOW - 2:
                    n, fields = planned.input, self._open(planned).fields
                    home.send(
                        *(home.watcher, "task_manager", "challenge"),
                        *(fields, wrong_answer(n), least_divisor(n)),
                    )
        match scene.kind, offset:
            case SceneKind.PAUSED, 0:
                home.send(home.admin, "task_manager", "pause")
            case SceneKind.PAUSED, 1:
                home.send(home.admin, "task_manager", "unpause")
            case SceneKind.ROTATED, 0:
                home.rotate(_who(scene))
            case SceneKind.UNDERBONDED, _ if scene.breaches:
                self._breach(scene.breaches, offset)
        for slashing in scene.slashings:
            about = self._over.get(self._plan.about(scene, slashing))
            self._slash(slashing, self._open(scene.tasks[0]), about, offset)

    def _breach(self, breaches: Breaches, offset: int) -> None:
        """All ask their stake back, and two of them once more, when a reorg has taken that away."""
        again = (breaches.lasting, breaches.mended)
        for operator in ((*again, breaches.lost), again)[offset] if offset < 2 else ():
            self._home.ask_back(operator, left=TERMS.minimum - 1)
        if offset == 2:
            self._home.put_up(breaches.mended, STAKE)

    def _slash(self, slashing: Slashing, task: OpenTask, over: bytes | None, offset: int) -> None:
        """What is sent about a request to slash, which is of the scene's `task`, of one that is `over` or of
        none, when the head is `offset` blocks past the submission."""
        home = self._home
        operator = home.operators[slashing.operator].address
        about = (over or task.hash) if slashing.of_task else keccak(task.hash)
        condition = keccak(slashing.condition.encode())
        offence = (condition, about, operator)
        contract = "slashing_manager" if slashing.proved else "trusted_slasher"
        match offset:
            case at if at == PROVED and slashing.proved:
                wrong = wrong_answer(task.input)
                home.send(
                    *(home.watcher, contract, "proveInvalidResponseInQuorum"),
                    *(task.fields, member_tuples(task), task.index(operator), wrong),
                    *(sorted(task.non_signers or ()), least_divisor(task.input)),
                )
            case at if at == ASKED and not slashing.proved:
                receiver = home.authority.address if slashing.elsewhere else NOBODY
                evidence = self._forged(task, operator) if slashing.forged else b""
                home.send(home.authority, contract, "request", *offence, TOKEN, receiver, evidence)
            case at if at == VETOED and slashing.vetoed:
                request = home.call(contract, "requestIdOf", *offence, 0)
                for member in home.committee[: TERMS.veto_threshold]:
                    home.send(member, "veto_committee", "vote", home.contracts[contract], request)
            case at if at == EXECUTED - 1 and slashing.proved and slashing.executed:
                request = home.call(contract, "requestIdOf", *offence)
                home.send(home.watcher, contract, "execute", request)
            case at if not slashing.proved and (
                (at == TOO_EARLY and slashing.early)
                or (at == EXECUTED - 1 and slashing.executed)
                or (at == EXPIRED - 1 and slashing.late)
            ):
                request = home.call(contract, "requestIdOf", *offence, 0)
                home.send(home.authority, contract, "executeRegardless", request)

    def _forged(self, task: OpenTask, operator: str) -> bytes:
        """A proof of equivocation with signatures of a made-up key."""
        signed: list[object] = []
        for answer in (right_answer(task.input), wrong_answer(task.input)):
            signed += [answer, g1_argument(bls.sign(1, bls.response_digest(*answer)))]
        members, index = member_tuples(task), task.index(operator)
        return self._home.calldata(
            "slashing_manager", "proveEquivocation", task.fields, members, index, *signed
        )

    def _submit(self, scene: Scene, tasks: Sequence[PlannedTask]) -> int:
        """Put the tasks into one block; its number."""
        for task in tasks:
            self._home.send(
                self._home.submitter,
                "task_manager",
                "submitTask",
                self._home.task_type,
                task.input,
                scene.window,
                GRACE,
                THRESHOLD,
                THRESHOLD,
            )
        self._mine()
        for task in tasks:
            self._open(task)
        return self.head[0]

    def _open(self, planned: PlannedTask) -> OpenTask:
        """The task as it stands on chain. Raises DevnetError where it is not there."""
        for task in self._view.known:
            if task.input == planned.input:
                return task
        raise DevnetError(f"task {planned.input} should be open at block {self.head[0]}, and is not")

    def _mine(self) -> None:
        self._home.chain.mine()
        self._settle()
        self._home.check_sent()

    def _reorg(self, depth: int, witnessed: bool) -> None:
        """Replace the last `depth` blocks by empty ones; what waits in the pool goes with them."""
        if witnessed:
            self._witness(*self.head)
        before = self.head
        with self._home.held():
            self._home.chain.rpc("anvil_dropAllTransactions")
            self._home.chain.reorg(depth)
        self.reorgs += 1
        self.unsafe += (number - SLOTS for number in range(before[0] - depth + 1, before[0] + 1))
        self._settle()
        if self.head[1] == before[1]:
            raise DevnetError(f"a reorg of depth {depth} left block {before[0]} as it was")

    def _settle(self) -> None:
        """The barrier: every agent has acted on the newest head."""
        self._view.advance()
        for agent in self._home.agents:
            agent.wait_for("head", self.head[1])
        self._on_block(
            Progress(
                block=self.head[0],
                scene=self._scene,
                scenes=len(self._plan.scenes),
                kind=self._plan.scenes[self._scene - 1].kind if self._scene else "",
                tasks=self._tasks,
                reorgs=self.reorgs,
            )
        )


def _who(scene: Scene) -> int:
    if scene.operator is None:
        raise DevnetError(f"a scene {scene.kind} needs an operator")
    return scene.operator


def _most_digests(task: OpenTask) -> int:
    """The most different responses that one operator has attested."""
    return max((len(digests) for digests in task.attested.values()), default=0)


def _require(holds: bool, scene: Scene, what: str) -> None:
    if not holds:
        raise DevnetError(f"scene {scene.kind}: expected that it {what}; it does not")

"""An Operator: watches the chain, computes, signs, sends to the aggregator, and attests by itself when the
aggregate leaves it out. `python -m devnet.operator FILE`.

What it does is decided from the newest head alone (`duties`), so that whatever a reorg removed is done
again, except by those whose behaviour says otherwise.
"""

from __future__ import annotations

import enum
import json
import urllib.error
import urllib.request
from collections.abc import Callable

import msgspec

from devnet.agent import Agent, AgentConfig, main, member_tuples
from devnet.behaviour import Behaviour, right_answer, wrong_answer
from devnet.deploy import g1_argument
from devnet.view import OpenTask
from nektar.evidence import bls
from nektar.networks.encoding import encode_answer
from nektar.telemetry import Step
from nektar.telemetry.tasks import Part

# So many blocks before the deadline an honest operator stops waiting for an aggregate.
IMPATIENCE = 2
HTTP_TIMEOUT = 10.0
# Where nothing listens.
NOBODY = "http://127.0.0.1:1"
# As far apart as anvil dates blocks that are mined quicker.
BLOCK_SECONDS = 1
# Nobody reports its own offence, where it has the choice.
_SAYS_NOTHING = (Behaviour.EQUIVOCATING, Behaviour.COLLUDING, Behaviour.TURNCOAT)


class Action(enum.Enum):
    """What to do about a task now."""

    SIGN_RIGHT = enum.auto()  # sign and send to the aggregator
    SIGN_WRONG = enum.auto()
    ATTEST_RIGHT = enum.auto()  # sign and put it on chain
    ATTEST_WRONG = enum.auto()
    MISPLACE_RIGHT = enum.auto()  # the same, with another's place in the set, so that the chain rejects it
    MISPLACE_WRONG = enum.auto()


def due(task: OpenTask, head: int, operator: str, behaviour: Behaviour) -> list[Action]:
    """What this operator does about the task when it sees block `head`. A transaction sent now is in
    block head + 1 at the earliest."""
    if task.cancelled or task.index(operator) is None or behaviour is Behaviour.OFFLINE:
        return []
    in_time, in_grace = head < task.deadline, head < task.end

    def attested(answer: Callable[[int], tuple[int, int]]) -> bool:
        return bls.response_digest(*answer(task.input)) in task.attested.get(operator, frozenset())

    match behaviour:
        case Behaviour.SLOW:
            wait_over = head >= task.deadline and in_grace
            return [Action.ATTEST_RIGHT] if wait_over and not task.includes(operator) else []
        case Behaviour.TOO_LATE:
            return [Action.ATTEST_RIGHT] if head == task.end else []
        case Behaviour.MISPLACED | Behaviour.MISPLACED_WRONG:
            # The chain shows nothing of it afterwards: so it is done at one head.
            wrong = behaviour is Behaviour.MISPLACED_WRONG
            place = Action.MISPLACE_WRONG if wrong else Action.MISPLACE_RIGHT
            return [place] if head == task.deadline - IMPATIENCE else []
        case Behaviour.EQUIVOCATING | Behaviour.EQUIVOCATING_ON_CHAIN | Behaviour.EQUIVOCATING_ONCE:
            if not attested(right_answer):
                return [Action.ATTEST_RIGHT] if in_time else []
            if behaviour is Behaviour.EQUIVOCATING:
                return [Action.SIGN_WRONG]
            return [Action.ATTEST_WRONG] if in_time and not attested(wrong_answer) else []
        case Behaviour.EQUIVOCATING_IN_QUORUM if task.in_quorum(operator):
            return [Action.ATTEST_WRONG] if in_time and not attested(wrong_answer) else []
        case Behaviour.TURNCOAT if task.in_quorum(operator):
            return [Action.ATTEST_RIGHT] if in_time and not attested(right_answer) else []
        case Behaviour.TURNCOAT | Behaviour.COLLUDING:
            return [Action.SIGN_WRONG] if in_time else []
        case Behaviour.VANISHING:
            return [Action.SIGN_RIGHT]
        case Behaviour.UNREACHABLE | Behaviour.QUITTING:
            return [Action.SIGN_RIGHT] if in_time else []
        case Behaviour.MISTAKEN:
            return [Action.SIGN_WRONG] if in_time else []
    wrong = behaviour is Behaviour.WRONG_RESPONSE
    actions = [Action.SIGN_WRONG if wrong else Action.SIGN_RIGHT] if in_time else []
    left_out = task.non_signers is not None or head >= task.deadline - IMPATIENCE
    if left_out and in_grace and not task.includes(operator):
        actions.append(Action.ATTEST_WRONG if wrong else Action.ATTEST_RIGHT)
    return actions


class Operator(Agent):
    """An agent that holds an Operator's keys."""

    def __init__(self, config: AgentConfig) -> None:
        super().__init__(config)
        self._secrets = {}
        for secret in config.bls_secrets:
            key, _ = bls.public_keys(int(secret))
            self._secrets[key] = int(secret)
        self._behaviours = {
            task: Behaviour(msgspec.json.decode(raw, type=str)) for task, raw in config.behaviours.items()
        }
        self._sent: set[bytes] = set()  # tasks whose signature the aggregator has
        self._done_once: set[bytes] = set()
        self._received: set[bytes] = set()
        self._executing: dict[bytes, Part] = {}  # what takes its time
        self._away = False

    def act(self) -> None:
        """Do what is due at the head."""
        head, _ = self.view.head
        self._follow(head)
        if self.view.paused:
            return
        for task in self.view.tasks:
            behaviour = self._behaviour(task)
            self._receive(task, behaviour)
            for action in due(task, head, self.address, behaviour):
                self._do(action, task, behaviour)

    def _behaviour(self, task: OpenTask) -> Behaviour:
        return self._behaviours.get(str(task.input), Behaviour.HONEST)

    def _follow(self, head: int) -> None:
        """Be there, unless all that is to be done now is none of its business."""
        owed = [task for task in self.view.tasks if task.index(self.address) is not None]
        owed = [task for task in owed if task.submitted <= head <= task.deadline]
        away = bool(owed) and all(self._behaviour(task) is Behaviour.OFFLINE for task in owed)
        if not away:
            self.tasks.head(head, after_break=self._away)
        self._away = away

    def _receive(self, task: OpenTask, behaviour: Behaviour) -> None:
        head, _ = self.view.head
        if task.hash in self._received or task.index(self.address) is None or head > task.end:
            return
        if behaviour is Behaviour.OFFLINE:
            return
        self._received.add(task.hash)
        with self.tasks.step(Step.RECEIVE, task.hash):
            pass
        if behaviour in (Behaviour.SLOW, Behaviour.TOO_LATE):
            self._executing[task.hash] = self.tasks.begin(Step.EXECUTE, task.hash)

    def _do(self, action: Action, task: OpenTask, behaviour: Behaviour) -> None:
        wrong = action in (Action.SIGN_WRONG, Action.ATTEST_WRONG, Action.MISPLACE_WRONG)
        says_so = behaviour not in _SAYS_NOTHING
        if action in (Action.SIGN_RIGHT, Action.SIGN_WRONG):
            if task.hash in self._sent or (behaviour is Behaviour.QUITTING and self._gives_up(task)):
                return
            url = NOBODY if behaviour is Behaviour.UNREACHABLE else self.config.aggregator
            self._send_to_aggregator(task, self._answer(task, wrong, says_so), says_so, url)
            return
        if wrong and behaviour is Behaviour.EQUIVOCATING_ONCE:
            if task.hash in self._done_once:
                return
            self._done_once.add(task.hash)
        answer = self._answer(task, wrong, says_so)
        signature = g1_argument(self._sign(task, answer))
        index = task.index(self.address)
        assert index is not None  # noqa: S101  `due` asks nothing of an operator outside the set
        if action in (Action.MISPLACE_RIGHT, Action.MISPLACE_WRONG):
            index = (index + 1) % len(task.members)
        with self.tasks.step(Step.ATTEST, task.hash) as part:
            if says_so:
                part.responds(encode_answer(*answer))
            self.send("attest", task.fields, answer, member_tuples(task), index, signature)

    def _gives_up(self, task: OpenTask) -> bool:
        """Whether the time for a task is over, by a clock that knows of blocks but how long they take."""
        block = self.chain.rpc("eth_getBlockByNumber", hex(task.submitted), False)
        left = int(block["timestamp"], 16) + BLOCK_SECONDS * (task.deadline - task.submitted)
        if self.reporter.now() <= left * 10**9:
            return False
        if task.hash not in self._done_once:
            self._done_once.add(task.hash)
            with self.tasks.step(Step.EXECUTE, task.hash) as part:
                part.give_up()
        return True

    def _answer(self, task: OpenTask, wrong: bool, says_so: bool) -> tuple[int, int]:
        part = self._executing.pop(task.hash, None) or self.tasks.begin(Step.EXECUTE, task.hash)
        answer = wrong_answer(task.input) if wrong else right_answer(task.input)
        if says_so:
            part.responds(encode_answer(*answer))
        part.end()
        return answer

    def _sign(self, task: OpenTask, answer: tuple[int, int]) -> bls.G1:
        """With the key that the task's set holds, which a rotation since does not change."""
        index = task.index(self.address)
        assert index is not None  # noqa: S101  `due` asks nothing of an operator outside the set
        with self.tasks.step(Step.SIGN, task.hash):
            return bls.sign(self._secrets[task.members[index].g1], self.digest(task, answer))

    def _send_to_aggregator(
        self, task: OpenTask, answer: tuple[int, int], says_so: bool, aggregator: str
    ) -> None:
        signature = self._sign(task, answer)
        body = {
            "task_hash": "0x" + task.hash.hex(),
            "operator": self.address,
            "p": str(answer[0]),
            "q": str(answer[1]),
            "signature": "0x" + signature.hex(),
        }
        try:
            with self.tasks.step(Step.SEND, task.hash) as part:
                if says_so:
                    part.responds(encode_answer(*answer), signature)
                request = urllib.request.Request(  # noqa: S310  the URL is this agent's own configuration
                    f"{aggregator}/responses",
                    json.dumps(body).encode(),
                    {"content-type": "application/json", "traceparent": part.traceparent},
                )
                with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT) as answered:  # noqa: S310
                    part.log(f"the aggregator answered {answered.status}")
                self._sent.add(task.hash)
        except (urllib.error.URLError, TimeoutError):
            return  # the next head is another chance, and so is attesting


def run(config: AgentConfig) -> None:
    """Be this operator until SIGTERM."""
    operator = Operator(config)
    operator.run(operator.act)


if __name__ == "__main__":
    main(run)

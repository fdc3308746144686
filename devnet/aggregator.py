"""The Aggregator: collects signatures over HTTP and puts the aggregate on chain once thresholds are reached.
`python -m devnet.aggregator FILE`.

It waits one block after a submission, so that every operator that has seen the task can sign it. It believes
nobody: each signature is verified before it is added, since one bad one would spoil the sum.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import msgspec

from devnet.agent import Agent, AgentConfig, main, member_tuples
from devnet.behaviour import AggregatorBehaviour, right_answer, wrong_answer
from devnet.chain import registered_keys
from devnet.deploy import g1_argument, g2_argument
from devnet.view import OpenTask
from nektar import telemetry
from nektar.evidence import bls
from nektar.model import G1
from nektar.networks.encoding import encode_answer
from nektar.telemetry import Step

MAX_BODY = 4096
MAX_PARENT = 64  # of a traceparent, which has 55 characters
# Signatures kept; beyond this the oldest task's go. Far above what a devnet has open at a time.
MAX_TASKS = 1000
MAX_PER_TASK = 10_000
TEN_THOUSAND = 10_000


class SignedResponse(msgspec.Struct, frozen=True):
    """The body of a request: one operator's signature over one answer."""

    task_hash: str
    operator: str
    p: str
    q: str
    signature: str
    traceparent: str = ""  # of the request that brought it


class Orders(msgspec.Struct, frozen=True):
    """How this aggregator misbehaves with one task."""

    behaviour: AggregatorBehaviour = AggregatorBehaviour.HONEST
    victims: tuple[str, ...] = ()


class Inbox:
    """What operators have sent, by task, bounded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_task: dict[str, dict[str, SignedResponse]] = {}

    def put(self, response: SignedResponse) -> None:
        with self._lock:
            if response.task_hash not in self._by_task and len(self._by_task) >= MAX_TASKS:
                del self._by_task[next(iter(self._by_task))]
            of_task = self._by_task.setdefault(response.task_hash, {})
            if len(of_task) < MAX_PER_TASK:
                of_task.setdefault(response.operator.lower(), response)

    def of(self, task: OpenTask) -> dict[str, SignedResponse]:
        with self._lock:
            return dict(self._by_task.get("0x" + task.hash.hex(), {}))


class Aggregator(Agent):
    """An agent that aggregates."""

    def __init__(self, config: AgentConfig, inbox: Inbox) -> None:
        super().__init__(config)
        self._inbox = inbox
        self._orders = {
            task: msgspec.json.decode(raw, type=Orders) for task, raw in config.behaviours.items()
        }
        self._submitted: set[bytes] = set()
        # taskHash → place in its set → answer, signature, key
        self._verified: dict[bytes, dict[int, tuple[tuple[int, int], G1, bls.G2]]] = {}
        self._keys = KeyBook(self)
        self._stolen: dict[str, dict[bytes, G1]] = {}  # operator → taskHash → signature, of open tasks

    def act(self) -> None:
        """Submit each task that has its thresholds and no response yet."""
        head, _ = self.view.head
        self.tasks.head(head)
        tasks = self.view.tasks
        self._verified = {task.hash: self._verified.get(task.hash, {}) for task in tasks}
        for by_task in self._stolen.values():  # of each operator's those of open tasks and its last
            for closed in [*by_task][:-1]:
                if closed not in self._verified:
                    del by_task[closed]
        for task in tasks:
            orders = self._orders.get(str(task.input), Orders())
            self._collect(task, says_so=orders.behaviour is not AggregatorBehaviour.COLLUDING)
            if self.view.paused or task.cancelled or task.non_signers is not None:
                continue
            if not task.submitted < head < task.deadline:
                continue
            if orders.behaviour is AggregatorBehaviour.ABANDONING and task.hash in self._submitted:
                continue
            if orders.behaviour is AggregatorBehaviour.FRAMING:
                self._frame(task, orders.victims)
            if self._submit(task, orders):
                self._submitted.add(task.hash)

    def _collect(self, task: OpenTask, says_so: bool) -> None:
        """Verify what has come for the task since, and report it: also what can't be submitted any more."""
        verified = self._verified[task.hash]
        for operator, response in sorted(self._inbox.of(task).items()):
            index = task.index(operator)
            if index is None or index in verified:
                continue
            answer = (int(response.p), int(response.q))
            signature = G1(bytes.fromhex(response.signature[2:]))
            key = self._keys.g2(task.members[index].g1)
            if key is None or not bls.verify(key, self.digest(task, answer), signature):
                continue
            verified[index] = (answer, signature, key)
            if says_so:
                with self.tasks.step(Step.COLLECT, task.hash, operator, response.traceparent) as part:
                    part.responds(encode_answer(*answer), signature)
                    part.log(f"response of {operator}")
            self._stolen.setdefault(operator, {})[task.hash] = signature

    def _submit(self, task: OpenTask, orders: Orders) -> bool:
        """Send the first answer whose signers reach both thresholds; whether there was one."""
        signers: dict[tuple[int, int], dict[int, tuple[G1, bls.G2]]] = defaultdict(dict)
        for index, (answer, signature, key) in sorted(self._verified[task.hash].items()):
            if task.members[index].operator not in orders.victims:
                signers[answer][index] = (signature, key)
        for answer, by_index in signers.items():
            stake = sum(task.members[i].stake for i in by_index)
            total = sum(m.stake for m in task.members)
            responses, of_stake = task.thresholds
            if len(by_index) * TEN_THOUSAND < responses * len(task.members) or (
                stake * TEN_THOUSAND < of_stake * total
            ):
                continue
            signatures, keys = zip(*by_index.values(), strict=True)
            self._respond(task, answer, by_index, signatures, keys)
            return True
        return False

    def _respond(
        self,
        task: OpenTask,
        answer: tuple[int, int],
        signers: Collection[int],
        signatures: Sequence[G1],
        keys: Sequence[bls.G2],
    ) -> None:
        non_signers = [i for i in range(len(task.members)) if i not in signers]
        with self.tasks.step(Step.AGGREGATE, task.hash):
            sum_of = g1_argument(bls.aggregate(signatures)), g2_argument(bls.aggregate_g2(keys))
        with self.tasks.step(Step.SUBMIT, task.hash) as part:
            part.responds(encode_answer(*answer))
            self.send("respond", task.fields, answer, member_tuples(task), non_signers, *sum_of)

    def _frame(self, task: OpenTask, victims: Sequence[str]) -> None:
        """Say of the victims that they signed a wrong answer, with whatever signature is at hand; and on the
        chain that all members signed that, or the right one. None of it proves anything."""
        right, wrong = right_answer(task.input), wrong_answer(task.input)
        verified = self._verified[task.hash]
        for victim in victims:
            for signature in forgeries(self._stolen, task.hash, victim, self.digest(task, wrong)):
                with self.tasks.step(Step.COLLECT, task.hash, victim) as part:
                    part.responds(encode_answer(*wrong), signature)
                # Of a response that is not what the digest is of.
                with self.tasks.step(Step.COLLECT, task.hash, victim) as part:
                    part.responds(encode_answer(*right), signature)
                    digest = "0x" + bls.response_digest(*wrong).hex()
                    part.span.set_attribute(telemetry.RESPONSE_DIGEST, digest)
        everybody = range(len(task.members))
        twins = [self._keys.g2(member.g1) for member in task.members]
        signatures = [signature for _, signature, _ in verified.values()]
        for answer in (wrong, right):
            self._respond(task, answer, everybody, signatures, [twin for twin in twins if twin])


def forgeries(
    stolen: Mapping[str, Mapping[bytes, G1]], task_hash: bytes, victim: str, digest: bytes
) -> Iterator[bytes]:
    """Signatures to say that the victim signed `digest`: its own of another response, and of another task;
    others' of this task, of whom one may have signed just this; one of a made-up key; no point at all."""
    for operator, by_task in sorted(stolen.items()):
        if task_hash in by_task:
            yield by_task[task_hash]
        if operator == victim:
            yield from (signature for about, signature in by_task.items() if about != task_hash)
    yield bls.sign(int.from_bytes(digest) % bls.R, digest)
    yield b"\xff" * 64


class KeyBook:
    """G2 keys by G1 key, as the operator registry's events have them."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._known: dict[G1, bls.G2] = {}

    def g2(self, key: G1) -> bls.G2 | None:
        if key not in self._known:
            self._read()
        return self._known.get(key)

    def _read(self) -> None:
        registry = self._agent.config.contracts["operator_registry"]
        self._known = registered_keys(self._agent.chain, registry)


def _handler(inbox: Inbox) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            if self.path != "/responses" or not 0 < length <= MAX_BODY:
                return self._answer(404 if self.path != "/responses" else 413)
            try:
                response = msgspec.json.decode(self.rfile.read(length), type=SignedResponse)
                bls.response_digest(int(response.p), int(response.q))
                bytes.fromhex(response.signature[2:])
            except (msgspec.MsgspecError, ValueError):
                return self._answer(400)
            parent = (self.headers.get("traceparent") or "")[:MAX_PARENT]
            inbox.put(msgspec.structs.replace(response, traceparent=parent))
            return self._answer(200)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: what matters is on chain."""

    return Handler


def run(config: AgentConfig) -> None:
    """Be the aggregator until SIGTERM."""
    inbox = Inbox()
    url = urlsplit(config.aggregator)
    server = ThreadingHTTPServer((url.hostname or "127.0.0.1", url.port or 0), _handler(inbox))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    aggregator = Aggregator(config, inbox)
    try:
        aggregator.run(aggregator.act)
    finally:
        server.shutdown()


if __name__ == "__main__":
    main(run)

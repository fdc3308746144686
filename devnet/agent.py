"""What operators and the aggregator have in common: a process of its own that knows its file and its URLs.

An agent looks at the chain's head, acts on it, and says on standard output which head it has acted on.
The scenario's driver waits for these lines before it mines: no step depends on how fast a machine is. Told
`{"flush": N}` on standard input, it sends what it has still to report, and says how much that was; told
`{"held": true}`, it looks at nothing until told the contrary, so that it acts on nothing that a reorg only
passes through.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from devnet.chain import Account, Chain, Contract, load_abi
from devnet.reporter import Reporter
from devnet.view import OpenTask, View
from nektar.bearer import Bearer
from nektar.evidence import bls
from nektar.role import stop_on_signals
from nektar.tokens import Role

# Eight agents at 50 looks a second cost about a tenth of one core.
POLL_SECONDS = 0.02


class Reports(msgspec.Struct, frozen=True):
    """A collector, and the name that a Network has there."""

    url: str  # without a path
    network: str
    audience: str


class AgentConfig(msgspec.Struct, frozen=True):
    """The file that an agent is started with. It holds the agent's keys: readable by its owner alone."""

    name: str
    rpc: str
    chain_id: int
    contracts: dict[str, str]
    private_key: str
    aggregator: str  # URL; for the aggregator itself where it listens
    bls_secrets: tuple[str, ...] = ()  # decimal; newest last; of the aggregator the one that tokens are of
    behaviours: dict[str, msgspec.Raw] = {}
    reports: Reports | None = None  # where it reports its work; None: it does not
    ahead: int = 0  # seconds by which its clock is fast


def bearer(config: AgentConfig, reports: Reports) -> Bearer:
    """How the agent says there who it is: an Operator by whichever of its keys the chain has now."""
    is_operator = config.name != "aggregator"
    role = Role.OPERATOR if is_operator else Role.AGGREGATOR
    sender = Account.from_key(config.private_key).address.lower() if is_operator else config.name
    secrets = [int(secret) for secret in config.bls_secrets]
    return Bearer(reports.network, config.chain_id, reports.audience, role, sender, secrets)


class Agent:
    """A client of the Network: its account, its view of the chain, its signatures."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        self.chain = Chain(config.rpc)
        self.account = Account.from_key(config.private_key)
        self.address = self.account.address
        self.view = View(self.chain, config.contracts)
        self._task_manager = Contract(load_abi("task_manager"))
        manager = config.contracts["task_manager"]
        self._turn = threading.Lock()
        self._held = False
        known_by = bearer(config, config.reports) if config.reports else None
        url = config.reports.url if config.reports else ""
        operator = self.address if config.name != "aggregator" else ""
        self.reporter = Reporter(config.name, url, known_by, config.chain_id, manager, operator, config.ahead)
        self.tasks = self.reporter.tasks

    def run(self, act: Callable[[], None]) -> None:
        """Act on each new head until SIGTERM; say so on standard output."""
        stop = stop_on_signals()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the driver, which ends its agents
        threading.Thread(target=self._obey, daemon=True).start()
        while not stop.is_set():
            if not self._look(act):
                stop.wait(POLL_SECONDS)
        self.reporter.close()

    def _look(self, act: Callable[[], None]) -> bool:
        """Act on the head, if it is a new one; whether it was."""
        with self._turn:
            if self._held or not self.view.advance():
                return False
            act()
            _say({"head": self.view.head[1]})  # the barrier
            return True

    def _obey(self) -> None:
        for line in sys.stdin:
            order = json.loads(line)
            if "held" in order:
                with self._turn:
                    self._held = order["held"]
                _say(order)
            else:
                _say({**order, "spans": self.reporter.flush()})

    def digest(self, task: OpenTask, answer: tuple[int, int]) -> bytes:
        """What is signed: the EIP-712 digest of this answer to this task."""
        manager = bytes.fromhex(self.config.contracts["task_manager"][2:])
        response = bls.response_digest(*answer)
        return bls.signing_digest(self.config.chain_id, manager, task.hash, response)

    def send(self, function: str, *args: object) -> None:
        """Send a transaction to the TaskManager. It may revert: the next head shows."""
        data = self._task_manager.encode(function, *args)
        self.chain.send(self.account, self.config.contracts["task_manager"], data)


def _say(report: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(report) + "\n")  # in one write: two threads report
    sys.stdout.flush()


def member_tuples(task: OpenTask) -> list[tuple[str, tuple[int, int], int]]:
    """The set's members as the contract takes them."""
    return [(m.operator, m.key, m.stake) for m in task.members]


def main(agent: Callable[[AgentConfig], None]) -> None:
    """Entry point of an agent's process: its one argument is its file."""
    agent(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=AgentConfig))

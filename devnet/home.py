"""A Network at home: the chain, the deployed contracts, the agents and the proxy, as one context.

Every key is made from the seed, so that addresses, and with them the truth, are known before anything starts.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from devnet.agent import AgentConfig, Reports, bearer
from devnet.anvil import anvil, free_port
from devnet.chain import Account, Chain, Contract, DevnetError, load_abi
from devnet.deploy import NETWORK, TASK_TYPE, TOKEN, OperatorKeys, deploy, key_arguments
from devnet.plan import Plan
from devnet.processes import Child, write_private
from devnet.scenes import SLOTS
from nektar.bearer import Bearer
from nektar.chain.keccak import keccak
from nektar.evidence import bls
from nektar.model import G1

CHAIN_ID = 31337
REGIONS = ("eu-west", "us-east", "ap-south")
COMMITTEE = 3
# Stakes differ, so that a threshold of stake and one of responses are not the same thing, and stay close
# enough for any two thirds of the operators to hold half of it.
STAKE, STAKE_STEP = 1_000 * TOKEN, 25 * TOKEN
# What an operator may put up later; more than once, also in place of all that it has asked back.
SPARE = 3 * STAKE
# Seconds between looks at the head: a chain of one's own may be asked without end.
POLL = 0.05
# anvil answers nobody while it mines, and the more at once, the longer each takes.
MINED_AT_ONCE = 100


class Home:
    """What a scenario is played in. `start` deploys and brings the agents up; leaving the context ends all.

    Addresses are there before `start`.
    """

    def __init__(self, plan: Plan, directory: Path, reports: Reports | None = None) -> None:
        """`reports` is where agents report to; None: they don't."""
        self._plan = plan
        self._directory = directory
        self._reports = reports
        self._stack = ExitStack()
        self._contracts: dict[str, str] = {}
        self._abi: dict[str, Contract] = {}
        self._sent: list[tuple[str, str]] = []
        self._proxy: Child | None = None
        self._flushes = 0
        self.chain_id = CHAIN_ID
        self.task_type = TASK_TYPE
        self.admin = self._account("admin")
        self.submitter = self._account("submitter")
        self.authority = self._account("authority")  # who may have people slashed on its word, and does
        self.watcher = self._account("watcher")  # somebody who looks on, and acts on what it sees
        self.committee = [self._account(f"committee-{i}") for i in range(COMMITTEE)]
        self.aggregator = self._account("aggregator")
        self.operators = [self._account(f"operator-{i}") for i in range(plan.operators)]
        self.agents: list[Child] = []
        self._configs: dict[str, AgentConfig] = {}
        self.receiver: Child
        self.withheld: list[tuple[int, int]] = []  # block ranges whose receipts the proxy does not serve
        self.proxy_url = ""

    def __enter__(self) -> Self:
        self.chain: Chain = self._stack.enter_context(anvil(chain_id=CHAIN_ID, slots=SLOTS))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def aggregator_key(self) -> G1:
        """By which the aggregator is known to a collector; nothing on the chain is."""
        return bls.public_keys(self._secret("aggregator", 0))[0]

    def bearer(self, agent: str, number: int) -> Bearer:
        """What names an agent to the collector by its first key alone, or by its second."""
        if self._reports is None:
            raise DevnetError("nobody reports to a collector")
        config = self._configs[agent]
        secrets = config.bls_secrets[number : number + 1]
        return bearer(msgspec.structs.replace(config, bls_secrets=secrets), self._reports)

    @property
    def code(self) -> dict[str, str]:
        """Name in nektar.yaml → hash of that contract's code."""
        codes = {name: self.chain.rpc("eth_getCode", at, "latest") for name, at in self._contracts.items()}
        return {name: "0x" + keccak(bytes.fromhex(code[2:])).hex() for name, code in codes.items()}

    @property
    def contracts(self) -> dict[str, str]:
        """Name in nektar.yaml → address."""
        return self._contracts

    @property
    def selector(self) -> dict[str, str]:
        """What nektar.yaml says of which Network this is."""
        return {"network": "0x" + NETWORK.hex()}

    @property
    def terms(self) -> dict[str, int]:
        """What nektar.yaml says that no event does."""
        names = ("miss_allowance", "miss_window", "minimum", "slashing_window", "max_duration")
        return {name: getattr(self._plan.terms, name) for name in names}

    @property
    def abi(self) -> dict[str, Any]:
        """Name → ABI, for whoever reads the chain without us."""
        return {name: load_abi(name) for name in self._contracts}

    def start(self, history: int = 0) -> None:
        """Deploy, then start the proxy, the aggregator and one process for each operator; after `history`
        blocks, which no agent could follow as fast as they are made."""
        keys = [
            OperatorKeys(
                account=account,
                secret=self._secret(i, 0),
                stake=STAKE + STAKE_STEP * i,
                region=REGIONS[i % len(REGIONS)],
                validators=10 + i,
                spare=SPARE,
            )
            for i, account in enumerate(self.operators)
        ]
        deployment = deploy(
            *(self.chain, self.admin, self.submitter, keys, self.committee),
            others=[self.aggregator, self.watcher],
            terms=self._plan.terms,
            authority=self.authority,
        )
        self._contracts = dict(deployment.contracts)
        self._abi = {name: Contract(load_abi(name)) for name in self._contracts}
        for mined in range(0, history, MINED_AT_ONCE):
            self.chain.mine(min(MINED_AT_ONCE, history - mined))
        self._start_proxy()
        url = f"http://127.0.0.1:{free_port()}"
        addresses = [account.address for account in self.operators]
        known_by = (str(self._secret("aggregator", 0)),)
        behaviours = self._plan.aggregator(addresses)
        self._start_agent("aggregator", self.aggregator, url, known_by, behaviours, self._reports)
        for i, account in enumerate(self.operators):
            # Both of an operator's keys: which one counts is what the task's set says.
            secrets = (str(self._secret(i, 0)), str(self._secret(i, 1)))
            name, ahead = f"operator-{i}", self._plan.clocks.get(i, 0)
            reports = None if i == self._plan.muted else self._reports
            self._start_agent(name, account, url, secrets, self._plan.behaviours(i), reports, ahead)

    def send(self, account: Account, contract: str, function: str, *arguments: object) -> None:
        """Put a transaction into the pool; `check_sent` finds out what became of it."""
        data = self.calldata(contract, function, *arguments)
        sent = self.chain.send(account, self._contracts[contract], data)
        self._sent.append((f"{contract}.{function}", sent))

    def check_sent(self) -> None:
        """Raises DevnetError where a transaction sent since the last check is not mined or reverted."""
        for what, sent in self._sent:
            if int(self.chain.receipt(sent)["status"], 16) != 1:
                raise DevnetError(f"{what} reverted ({sent})")
        self._sent.clear()

    def rotate(self, operator: int) -> None:
        """Give an operator its second key."""
        account = self.operators[operator]
        registry = self._contracts["operator_registry"]
        key = key_arguments(self._secret(operator, 1), CHAIN_ID, registry, account.address)
        self.send(account, "operator_registry", "rotateKey", *key)

    def put_up(self, operator: int, amount: int) -> None:
        """Have an operator put up more stake, out of its SPARE."""
        account = self.operators[operator]
        self.send(account, "delegation", "delegate", account.address, amount)

    def ask_back(self, operator: int, left: int) -> None:
        """Have an operator ask its stake back, but for `left`."""
        address = self.operators[operator].address
        has = self.call("delegation", "delegatedBy", address, address)
        self.send(self.operators[operator], "delegation", "requestWithdrawal", address, has - left)

    def call(self, contract: str, function: str, *arguments: object) -> Any:
        """What a function returns at the head."""
        data = self.calldata(contract, function, *arguments)
        return self._abi[contract].result(function, self.chain.call(self._contracts[contract], data))

    def calldata(self, contract: str, function: str, *arguments: object) -> bytes:
        return self._abi[contract].encode(function, *arguments)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Agents see nothing of what the chain does meanwhile but its end."""
        for agent in self.agents:
            agent.tell({"held": True})
        yield
        for agent in self.agents:
            agent.tell({"held": False})

    def flush(self) -> dict[str, dict[str, int]]:
        """Have all agents send what they have to report: by agent, how many spans the collector took so far
        (`sent`), and how many it did not (`refused`)."""
        self._flushes += 1
        return {agent.name: agent.tell({"flush": self._flushes})["spans"] for agent in self.agents}

    def withhold(self, first: int, last: int) -> None:
        """From now on the proxy serves no receipts of these blocks."""
        if self._proxy is None:
            raise DevnetError("the proxy is not started")
        self._proxy.tell({"withhold": [first, last]})
        self.withheld.append((first, last))

    def start_receiver(self) -> tuple[str, str]:
        """Start a receiver of webhooks, `receiver`; its URL, and the file of its secret in the directory."""
        secret = "whsec_" + base64.b64encode(self._bytes("webhook")).decode()
        file = write_private(self._directory / "webhook.secret", secret.encode())
        port = free_port()
        self.receiver = self._child("receiver", "devnet.receiver", str(port), str(file))
        self.receiver.wait_for("listening", port)
        return f"http://127.0.0.1:{port}/findings", file.name

    def _start_proxy(self) -> None:
        port = free_port()
        self._proxy = self._child("proxy", "devnet.proxy", self.chain.url, str(port))
        self._proxy.wait_for("listening", port)
        self.proxy_url = f"http://127.0.0.1:{port}"

    def _start_agent(
        self,
        name: str,
        account: Account,
        aggregator: str,
        secrets: tuple[str, ...],
        behaviours: Mapping[str, object],
        reports: Reports | None,
        ahead: int = 0,
    ) -> None:
        config = AgentConfig(
            name=name,
            rpc=self.chain.url,
            chain_id=CHAIN_ID,
            contracts=self._contracts,
            private_key=account.key.hex(),
            aggregator=aggregator,
            bls_secrets=secrets,
            behaviours={task: msgspec.Raw(msgspec.json.encode(b)) for task, b in behaviours.items()},
            reports=reports,
            ahead=ahead,
        )
        self._configs[name] = config
        folder = self._directory / "agents"
        folder.mkdir(parents=True, exist_ok=True)
        path = write_private(folder / f"{name}.json", msgspec.json.encode(config))
        module = "devnet.aggregator" if name == "aggregator" else "devnet.operator"
        self.agents.append(self._child(name, module, str(path)))

    def _child(self, name: str, module: str, *arguments: str) -> Child:
        child = Child(name, module, *arguments)
        self._stack.callback(child.stop)
        return child

    def _account(self, name: str) -> Account:
        return Account(self._bytes(name))

    def _secret(self, agent: int | str, number: int) -> int:
        """A BLS secret of an operator, by its place, or of the aggregator: below 2^253, so below the group's
        order."""
        return int.from_bytes(self._bytes(f"bls-{agent}-{number}"), "big") >> 3

    def _bytes(self, name: str) -> bytes:
        return hashlib.sha256(f"nektar-devnet-{self._plan.seed}-{name}".encode()).digest()

"""The reference contracts on a real chain: deployed once a worker, wound back after every test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from devnet.anvil import anvil, find_anvil
from devnet.chain import Account, Chain, Contract, DevnetError, Reverted, load_abi
from devnet.compile import CONTRACTS
from devnet.deploy import TASK_TYPE, TOKEN, OperatorKeys, Terms, deploy, g1_argument, g2_argument, keccak
from nektar.evidence import bls

CHAIN_ID = 31999
TERMS = Terms(
    max_set_age=100,
    max_duration=60,
    slashing_window=50,
    bonding_period=211,  # the shortest that these allow
    challenge_window=4,
    veto_window=3,
    execution_window=6,
    miss_window=12,
)


def account(name: str) -> Account:
    return Account(keccak(name.encode()))


class Refused(Exception):
    """The transaction was mined and reverted; the custom error as people read it."""


# The operator whom tests accuse.
LIAR = 1


class Task(NamedTuple):
    hash: bytes
    fields: tuple[Any, ...]
    members: list[Any]

    @property
    def deadline(self) -> int:
        return int(self.fields[4])

    @property
    def end(self) -> int:
        return self.deadline + int(self.fields[5])


class Site:
    """A deployed Network and those who use it. Every transaction is a block of its own. Another admin's is a
    look-alike on the same chain."""

    def __init__(self, chain: Chain, terms: Terms = TERMS, operators: int = 4, admin: str = "admin") -> None:
        self.chain = chain
        self.terms = terms
        self.admin, self.submitter, self.stranger = (
            account(admin),
            account("submitter"),
            account("stranger"),
        )
        self.voters = [account(f"voter {i}") for i in range(3)]
        self.authority = account("authority")
        stakes = (1000, 1000, 1000, 3000, *[1000] * (operators - 4))
        self.operators = [
            OperatorKeys(account(f"operator {i}"), 1000 + i, stake * 10**18) for i, stake in enumerate(stakes)
        ]
        self.contracts = deploy(
            *(chain, self.admin, self.submitter, self.operators, self.voters, [self.stranger], terms),
            self.authority,
        ).contracts
        self.abis = {name: Contract(load_abi(name)) for name in CONTRACTS}

    @property
    def head(self) -> int:
        return self.chain.head()[0]

    def mine_to(self, block: int) -> None:
        """Make `block` the head, so that the next transaction is in the one after it."""
        if block > self.head:
            self.chain.mine(block - self.head)
        assert self.head == block

    def do(self, sender: Account, contract: str, function: str, *args: object) -> dict[str, dict[str, Any]]:
        """Mine this transaction alone; what it emitted, by event name. Raises Refused."""
        data = self.abis[contract].encode(function, *args)
        transaction = self.chain.send(sender, self.contracts[contract], data)
        self.chain.mine()
        receipt = self.chain.receipt(transaction)
        if int(receipt["status"], 16) == 0:
            trace = self.chain.rpc("debug_traceTransaction", transaction, {"tracer": "callTracer"})
            raise Refused(self.error(bytes.fromhex(trace.get("output", "0x")[2:])))
        return {name: values for log in receipt["logs"] for name, values in [self.read(log)]}

    def refusal(self, sender: Account, contract: str, function: str, *args: object) -> str:
        """The error that this transaction is refused with."""
        with pytest.raises(Refused) as refused:
            self.do(sender, contract, function, *args)
        return str(refused.value)

    def read(self, log: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        name = next(name for name, address in self.contracts.items() if address == log["address"])
        event = self.abis[name].event(log)
        assert event is not None
        return event

    def error(self, data: bytes) -> str:
        shown = [abi.error(data) for abi in self.abis.values()]
        return next((text for text in shown if not text.startswith("0x")), shown[0])

    def ask(self, contract: str, function: str, *args: object) -> Any:
        """What a view returns."""
        abi = self.abis[contract]
        try:
            data = self.chain.call(self.contracts[contract], abi.encode(function, *args))
        except Reverted as error:
            raise Refused(self.error(error.data)) from error
        return abi.result(function, data)

    def submit(
        self, n: int = 91, window: int = 6, grace: int = 3, responses: int = 5000, stake: int = 5000
    ) -> Task:
        members = list(self.ask("operator_registry", "eligible"))
        event = self.do(
            self.submitter, "task_manager", "submitTask", TASK_TYPE, n, window, grace, responses, stake
        )["TaskSubmitted"]
        return Task(event["taskHash"], event["task"], members)

    def digest(self, task: Task, answer: tuple[int, int]) -> bytes:
        manager = bytes.fromhex(self.contracts["task_manager"][2:])
        return bls.signing_digest(CHAIN_ID, manager, task.hash, bls.response_digest(*answer))

    def sign(self, operator: int, task: Task, answer: tuple[int, int]) -> tuple[int, int]:
        return g1_argument(bls.sign(self.operators[operator].secret, self.digest(task, answer)))

    def response(self, task: Task, answer: tuple[int, int], signers: list[int]) -> tuple[Any, ...]:
        """The arguments of `respond`."""
        secrets = [self.operators[i].secret for i in signers]
        signature = bls.aggregate(bls.sign(secret, self.digest(task, answer)) for secret in secrets)
        apk = bls.aggregate_g2(bls.public_keys(secret)[1] for secret in secrets)
        missing = [i for i in range(len(task.members)) if i not in signers]
        return (task.fields, answer, task.members, missing, g1_argument(signature), g2_argument(apk))

    def attest(self, operator: int, task: Task, answer: tuple[int, int]) -> dict[str, dict[str, Any]]:
        signature = self.sign(operator, task, answer)
        return self.do(
            self.operators[operator].account,
            *("task_manager", "attest", task.fields, answer, task.members, operator, signature),
        )


def slash(site: Site, operator: int, amount: int) -> None:
    """As the slasher itself; a penalty is never all of the stake, many of them may be."""
    slasher, delegation = site.contracts["slashing_manager"], site.contracts["delegation"]
    site.chain.rpc("anvil_impersonateAccount", slasher)
    site.chain.rpc("anvil_setBalance", slasher, hex(10**24))
    data = site.abis["delegation"].encode("slash", site.operators[operator].account.address, amount)
    call = {"from": slasher, "to": delegation, "data": "0x" + data.hex(), "gas": hex(10**6)}
    sent = site.chain.rpc("eth_sendTransaction", call)
    site.chain.mine()
    assert site.chain.receipt(sent)["status"] == "0x1"


def on_anvil(terms: Terms = TERMS, operators: int = 4) -> Iterator[Site]:
    """A chain of its own with the Network on it, for a fixture of any scope."""
    try:
        find_anvil()
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")
    with anvil(chain_id=CHAIN_ID, slots=8) as chain:
        yield Site(chain, terms, operators)


deployed = pytest.fixture(scope="session", name="deployed")(on_anvil)


@pytest.fixture
def site(deployed: Site) -> Iterator[Site]:
    """The Network as it was deployed; four Operators, one of them with half of the stake."""
    snapshot = deployed.chain.rpc("evm_snapshot")
    yield deployed
    assert deployed.chain.rpc("evm_revert", snapshot)


def accuse(site, function, *arguments):
    """The request that this proof makes."""
    return site.do(site.stranger, "slashing_manager", function, *arguments)["SlashingRequested"]


def refused(site, function, *arguments):
    """Why this proof is none."""
    return site.refusal(site.stranger, "slashing_manager", function, *arguments)


def request(site, condition, subject, operator=LIAR, amount=100 * TOKEN):
    """The request that an offence makes in the block that is the head."""
    offender = site.operators[operator].account.address
    return {
        "requestId": site.ask("slashing_manager", "requestIdOf", condition, subject, offender),
        "condition": condition,
        "operator": offender,
        "taskHash": subject,
        "amount": amount,
        "vetoDeadline": site.head + TERMS.veto_window,
        "executionDeadline": site.head + TERMS.veto_window + TERMS.execution_window,
    }


def in_one_block(site, *calls):
    """What calls (sender, contract, function, arguments…) emitted, mined in this order into one block."""
    for sender, contract, function, *arguments in calls:
        data = site.abis[contract].encode(function, *arguments)
        site.chain.send(sender, site.contracts[contract], data)
    number, _ = site.chain.mine()
    receipts = site.chain.rpc("eth_getBlockReceipts", hex(number))
    assert [receipt["status"] for receipt in receipts] == ["0x1"] * len(calls)
    return [site.read(log) for receipt in receipts for log in receipt["logs"]]


def add(site, delegator, amount, operator=LIAR):
    site.do(site.admin, "collateral_token", "mint", delegator.address, amount)
    site.do(delegator, "collateral_token", "approve", site.contracts["delegation"], amount)
    site.do(delegator, "delegation", "delegate", site.operators[operator].account.address, amount)

"""Puts the reference contracts on a chain and brings them to the point where Tasks can be submitted.

All that is chosen comes from the caller or from `Terms`, and addresses follow from the admin's nonces, so
the same keys give the same Network.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import msgspec

from devnet.chain import Account, Chain, Contract, DevnetError, load_abi
from devnet.compile import ARTIFACTS_FILE
from nektar.chain import rlp
from nektar.chain.keccak import keccak
from nektar.evidence import bls
from nektar.model import G1, G2

TOKEN = 10**18
NETWORK = keccak(b"nektar-devnet")
TASK_TYPE = keccak(b"least-divisor")
EQUIVOCATION = keccak(b"equivocation")
INVALID_RESPONSE = keccak(b"invalid_response")
MISSED_DUTY = keccak(b"missed_duty")
BOND_BREACH = keccak(b"bond_breach")
CONDITIONS = (EQUIVOCATION, INVALID_RESPONSE, MISSED_DUTY, BOND_BREACH)
_ETHER = 1_000_000 * 10**18

# In an order in which each needs only those before it.
ORDER = (
    "collateral_token",
    "burner",
    "network_registry",
    "delegation",
    "operator_registry",
    "task_manager",
    "veto_committee",
    "slashing_manager",
    "trusted_slasher",
)


class Terms(msgspec.Struct, frozen=True):
    """What the Network's builder chose. Windows and periods in blocks, amounts in the collateral's wei."""

    minimum: int = 100 * TOKEN
    maximum: int = 1_000_000 * TOKEN
    # Longer than a set's age, a task and the slashing window together, or the slashing manager refuses it.
    bonding_period: int = 300_000
    max_set_age: int = 50_000
    max_duration: int = 110_000
    slashing_window: int = 100_000
    challenge_window: int = 20
    veto_window: int = 10
    execution_window: int = 20
    penalty: int = 1_000  # basis points of the stake
    miss_allowance: int = 2  # one more among the Tasks that are submitted in a window is an offence
    miss_window: int = 1_000
    veto_threshold: int = 2


class OperatorKeys(NamedTuple):
    """What makes an Operator: its account, its BLS secret, and what it puts up and says of itself."""

    account: Account
    secret: int
    stake: int = 1_000 * TOKEN
    region: str = "local"
    validators: int = 1
    spare: int = 0  # what it has and may put up later, beyond its stake


class Deployment(msgspec.Struct, frozen=True):
    """Where the Network stands: name in nektar.yaml → address (0x…, lower case), and the block from which
    on there is anything to see of it."""

    contracts: dict[str, str]
    from_block: int


def deploy(
    chain: Chain,
    admin: Account,
    submitter: Account,
    operators: Sequence[OperatorKeys],
    committee: Sequence[Account],
    others: Iterable[Account] = (),
    terms: Terms = Terms(),  # noqa: B008  immutable
    authority: Account | None = None,
) -> Deployment:
    """Deploy, wire, stake, register all operators and commit the first OperatorSet, on a chain of anvil's
    on which `admin` has sent nothing yet.

    `admin` owns everything and builds the Network; `others` get ether, so that they can send too. `authority`
    may have people slashed on its word, without proof; without one nobody may, though its contract stands.
    Raises DevnetError naming the step that the chain refused.
    """
    accounts = [admin, submitter, *committee, *others, *(each.account for each in operators)]
    accounts += [authority] if authority else []
    for account in accounts:
        chain.rpc("anvil_setBalance", account.address, hex(_ETHER))
    from_block = chain.head()[0] + 1
    contracts = {name: created_address(admin.address, nonce) for nonce, name in enumerate(ORDER)}
    site = _Site(chain, contracts)

    arguments = _constructor_arguments(contracts, admin, committee, terms)
    for name in ORDER:
        site.create(admin, name, arguments[name])
    site.mine()

    site.send(admin, "network_registry", "listNetwork", NETWORK, admin.address, contracts["burner"])
    site.mine()
    site.send(admin, "network_registry", "allowTaskType", NETWORK, TASK_TYPE, True)
    for condition in CONDITIONS:
        site.send(admin, "network_registry", "allowCondition", NETWORK, condition, True)
    site.send(admin, "network_registry", "allowSubmitter", NETWORK, submitter.address, True)
    site.send(admin, "delegation", "setSlasher", contracts["slashing_manager"])
    if authority:
        site.send(admin, "delegation", "setTrustedSlasher", contracts["trusted_slasher"])
        site.send(admin, "trusted_slasher", "appoint", authority.address)
    for operator in operators:
        has = operator.stake + operator.spare
        site.send(admin, "collateral_token", "mint", operator.account.address, has)
    site.mine()

    for operator in operators:
        address = operator.account.address
        has = operator.stake + operator.spare
        site.send(operator.account, "collateral_token", "approve", contracts["delegation"], has)
        site.send(operator.account, "delegation", "delegate", address, operator.stake)
        key = key_arguments(operator.secret, chain.chain_id, contracts["operator_registry"], address)
        site.send(
            operator.account, "operator_registry", "register", *key, operator.region, operator.validators
        )
    site.mine()
    site.send(admin, "operator_registry", "commitSet")
    site.mine()
    return Deployment(contracts, from_block)


def key_arguments(
    secret: int, chain_id: int, registry: str, operator: str
) -> tuple[tuple[int, int], tuple[tuple[int, int], tuple[int, int]], tuple[int, int]]:
    """The arguments of `rotateKey`, and the first of `register`: key, twin in G2, proof of possession."""
    key, twin = bls.public_keys(secret)
    digest = bls.proof_digest(chain_id, bytes.fromhex(registry[2:]), bytes.fromhex(operator[2:]), key)
    return g1_argument(key), g2_argument(twin), g1_argument(bls.sign(secret, digest))


def g1_argument(point: G1) -> tuple[int, int]:
    """A point of G1 as the contracts take it."""
    return int.from_bytes(point[:32], "big"), int.from_bytes(point[32:], "big")


def g2_argument(point: G2) -> tuple[tuple[int, int], tuple[int, int]]:
    """A point of G2 as the contracts take it: imaginary part first, as in its bytes."""
    x1, x0, y1, y0 = (int.from_bytes(point[i : i + 32], "big") for i in range(0, 128, 32))
    return (x1, x0), (y1, y0)


def created_address(creator: str, nonce: int) -> str:
    """Where the creator's contract of this nonce comes to stand (yellow paper, section 7)."""
    encoded = rlp.sequence([rlp.string(bytes.fromhex(creator[2:])), rlp.number(nonce)])
    return "0x" + keccak(encoded)[-20:].hex()


@cache
def _bytecode() -> Mapping[str, Mapping[str, str]]:
    artifacts: dict[str, dict[str, str]] = json.loads(ARTIFACTS_FILE.read_text())
    return artifacts


def _constructor_arguments(
    contracts: Mapping[str, str], admin: Account, committee: Sequence[Account], terms: Terms
) -> dict[str, tuple[object, ...]]:
    token, registry = contracts["collateral_token"], contracts["network_registry"]
    delegation, operators = contracts["delegation"], contracts["operator_registry"]
    return {
        "collateral_token": (admin.address,),
        "burner": (token,),
        "network_registry": (admin.address,),
        "delegation": (
            *(admin.address, token, registry, NETWORK),
            *(terms.minimum, terms.maximum, terms.bonding_period),
        ),
        "operator_registry": (delegation,),
        "task_manager": (
            *(admin.address, operators),
            *(terms.max_duration, terms.max_set_age, terms.challenge_window),
        ),
        "veto_committee": ([each.address for each in committee], terms.veto_threshold),
        "slashing_manager": (
            *(contracts["task_manager"], contracts["veto_committee"]),
            *(terms.veto_window, terms.execution_window, terms.slashing_window, terms.penalty),
            *(terms.miss_allowance, terms.miss_window),
        ),
        "trusted_slasher": (contracts["slashing_manager"],),
    }


class _Site:
    """Sends to the contracts in the making and checks, block by block, that the chain took all of it."""

    def __init__(self, chain: Chain, contracts: Mapping[str, str]) -> None:
        self._chain = chain
        self._contracts = contracts
        self._abis = {name: Contract(load_abi(name)) for name in contracts}
        self._sent: list[tuple[str, str]] = []

    def create(self, account: Account, name: str, arguments: Sequence[object]) -> None:
        code = bytes.fromhex(_bytecode()[name]["bytecode"][2:])
        data = code + self._abis[name].constructor(*arguments)
        self._sent.append((f"creation of {name}", self._chain.send(account, None, data)))

    def send(self, account: Account, contract: str, function: str, *arguments: object) -> None:
        data = self._abis[contract].encode(function, *arguments)
        self._sent.append(
            (f"{contract}.{function}", self._chain.send(account, self._contracts[contract], data))
        )

    def mine(self) -> None:
        """One block with all that was sent. Raises DevnetError where something reverted."""
        self._chain.mine()
        for what, transaction in self._sent:
            if int(self._chain.receipt(transaction)["status"], 16) != 1:
                raise DevnetError(f"deployment: {what} reverted ({transaction})")
        self._sent.clear()

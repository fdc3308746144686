"""Whatever a provider says, of the evidence for a finding it makes the chain's own, or none."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest

from devnet.liar import BLOCKS, CHANGES, VIEWS, Refusal
from nektar.chain.header import header_hash
from nektar.chain.rpc import Call, Provider, Refused, RpcError
from nektar.evidence.bundle import Bundle, StateClaim, write
from nektar.evidence.canonical import Octets
from nektar.evidence.gather import Forgotten, gather, require_pinned
from nektar.evidence.verify import NotProved, verify
from nektar.rows import Finding
from processors.conditions.condition import Condition
from processors.conditions.equivocation import Equivocation
from processors.conditions.missed_duty import MissedDuty
from tests.devnet.contracts.conftest import Site, in_one_block, on_anvil
from tests.nektar.evidence.silent import Silent
from tests.nektar.evidence.test_forger import attest
from tests.processors.real_chain import found, gathered, network, reader
from tests.seeds import seeds

pytestmark = pytest.mark.real

site = pytest.fixture(scope="module", name="site")(on_anvil)
RIGHT, WRONG = (7, 13), (13, 7)


class Shown(NamedTuple):
    condition: Condition
    finding: Finding
    bundle: Bundle  # of an honest provider


@pytest.fixture(scope="module")
def shown(site: Site) -> list[Shown]:
    """What rests on absences in a range of blocks, on what is stored, and on events of several blocks."""
    tasks = [site.submit() for _ in range(3)]
    in_one_block(site, *(attest(site, operator, task) for task in tasks for operator in (1, 2)))
    site.mine_to(tasks[-1].end)
    task = site.submit()
    site.attest(2, task, RIGHT)
    site.attest(2, task, WRONG)
    site.mine_to(task.end + 3)
    firsts = [(each, found(site, each)[0]) for each in (Silent(), MissedDuty(), Equivocation())]
    return [Shown(each, finding, gathered(site, each, finding)) for each, finding in firsts]


def altered(block: Any, rng: random.Random, rehashed: bool) -> Any:
    """The header of one block, of which the receipts and all else are what they are."""
    if not block:
        return block
    told = block | {"extraData": "0x" + rng.randbytes(8).hex()}
    return told | {"hash": "0x" + header_hash(told).hex()} if rehashed else told


def _other_proof(proof: Any, rng: random.Random) -> Any:
    """A byte of a node."""
    nodes = rng.choice([proof["accountProof"], proof["storageProof"][0]["proof"]])
    if nodes:
        at, place = rng.randrange(len(nodes)), rng.randrange(2, 60)
        nodes[at] = nodes[at][:place] + f"{int(nodes[at][place], 16) ^ 1:x}" + nodes[at][place + 1 :]
    return proof


LIES = {
    **CHANGES,
    "altered header": (BLOCKS, lambda method, block, rng: altered(block, rng, rehashed=False)),
    "block of a fork": (BLOCKS, lambda method, block, rng: altered(block, rng, rehashed=True)),
    "altered proof": (("eth_getProof",), lambda method, proof, rng: _other_proof(proof, rng)),
}


class Lying(Provider):
    """Tells one lie, now and then or always."""

    def __init__(self, url: str, lie: str, seed: int) -> None:
        super().__init__("liar", url)
        self._random, self._lie, self._chance = random.Random(seed), lie, 0.5 if seed else 1.0
        self._view = VIEWS[lie](self._honest, seed) if lie in VIEWS else None

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        """What `call` comes to as well."""
        return [await self._told(each.method, *each.params) for each in calls]

    async def _honest(self, method: str, *params: Any) -> Any:
        (answer,) = await super().batch([Call(method, params)])
        return answer

    async def _told(self, method: str, *params: Any) -> Any:
        if self._view:
            return await self._view.result(method, list(params))
        answer = await self._honest(method, *params)
        methods, change = LIES[self._lie]
        if method not in methods or self._random.random() >= self._chance:
            return answer
        try:
            return change(method, answer, self._random)
        except Refusal as refusal:
            raise Refused(self.name, method, refusal.error["code"], refusal.error["message"]) from refusal


def made(site: Site, of: Shown, provider: Provider) -> Bundle:
    async def ask() -> Bundle:
        async with provider:
            return await gather(provider, network(site), of.finding, of.condition.claims(of.finding))

    return asyncio.run(ask())


@pytest.mark.parametrize("lie", [*LIES, *VIEWS])
def test_of_what_a_liar_says_the_chains_own_evidence_is_made_or_none(
    site: Site, shown: list[Shown], lie: str
) -> None:
    for seed in range(seeds(4, 20)):
        for each in shown:
            try:
                bundle = made(site, each, Lying(site.chain.url, lie, seed))
            except (NotProved, RpcError) as error:
                said = str(error)
            else:
                assert write(bundle) == write(each.bundle)
                continue
            assert "liar" in said  # who it was is told


@pytest.mark.parametrize(("rehashed", "error"), [(False, NotProved), (True, RpcError)])
def test_each_block_of_a_range_may_be_the_one_that_is_told_otherwise(
    site: Site, shown: list[Shown], rehashed: bool, error: type[Exception]
) -> None:
    """The last of it, too, which no later block that is shown has for a parent."""
    silent = shown[0]
    first = silent.finding.block_number + 1 - len(silent.bundle.blocks)
    assert len(silent.bundle.blocks) > 5
    for told in range(first, silent.finding.block_number + 1):

        class One(Provider):
            async def batch(self, calls: Sequence[Call]) -> list[Any]:
                answers = zip(calls, await super().batch(calls), strict=True)
                return [
                    altered(answer, random.Random(1), rehashed)
                    if each.params[0] == hex(told)  # noqa: B023
                    else answer
                    for each, answer in answers
                ]

        with pytest.raises(error, match="one") as caught:
            made(site, silent, One("one", site.chain.url))
        assert f"block {told} " in str(caught.value) or f"block {told + 1} " in str(caught.value)


def test_a_verdict_on_blocks_that_the_finding_does_not_name_is_none_of_its(
    site: Site, shown: list[Shown]
) -> None:
    """However the bundle came to rest on them."""
    for i, (condition, finding, bundle) in enumerate(shown):
        sought = condition.claims(finding)
        verdict = verify(bundle, reader(site), lambda name: condition.holds)  # noqa: B023
        require_pinned(verdict, finding, sought)
        other = shown[i - 1]
        with pytest.raises(NotProved, match="expected one that the finding names"):
            require_pinned(verdict, other.finding, other.condition.claims(other.finding))


class Forgetful(Provider):
    """Serves no state any more."""

    async def call(self, method: str, *params: Any) -> Any:
        if method == "eth_getProof":
            raise Refused(self.name, method, -32000, "missing trie node")
        return await super().call(method, *params)


def _of_another_task(claim: StateClaim) -> StateClaim:
    first, *rest = claim.variables
    other = msgspec.structs.replace(first, keys=(Octets(b"\x07" * 32),))
    return msgspec.structs.replace(claim, variables=(other, *rest))


KEPT: dict[str, Callable[[StateClaim], StateClaim]] = {
    "it is what is sought": lambda claim: claim,
    "it is of another task": _of_another_task,
    "it lacks a variable": lambda claim: msgspec.structs.replace(claim, variables=claim.variables[:-1]),
    "it is of another block": lambda claim: msgspec.structs.replace(claim, block=claim.block - 1),
    "it is of another chain": lambda claim: msgspec.structs.replace(claim, account=claim.account[1:]),
}


@pytest.mark.parametrize("what", KEPT)
def test_state_that_is_forgotten_is_taken_from_a_bundle_that_was_kept_where_it_is_what_is_sought(
    site: Site, shown: list[Shown], what: str
) -> None:
    """What is not is no lie of the provider, which has told none."""
    _, of, _ = shown
    claims = [KEPT[what](each) if isinstance(each, StateClaim) else each for each in of.bundle.claims]
    kept = msgspec.structs.replace(of.bundle, claims=tuple(claims))

    async def ask() -> Bundle:
        async with Forgetful("p", site.chain.url) as provider:
            return await gather(provider, network(site), of.finding, of.condition.claims(of.finding), kept)

    if what == "it is what is sought":
        assert write(asyncio.run(ask())) == write(of.bundle)
    else:
        with pytest.raises(Forgotten):
            asyncio.run(ask())

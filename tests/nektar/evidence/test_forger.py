"""Thousands of forgeries of true evidence: each is refused, or says nothing that is not true; or it rests on
blocks that are not the chain's, and says which.

A condition joins with a line in CONDITIONS, and with one in STORIES where nothing there breaks its rule. Of
absences, which none of ours needs, `silent.py` has one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from eth_hash.auto import keccak

from cli.evidence import OtherChain
from cli.evidence import verify as check
from nektar.chain.header import encode_header
from nektar.chain.receipt import read_receipt
from nektar.evidence import bls
from nektar.evidence import verify as verifier
from nektar.evidence.bundle import Bundle, Part, StateClaim, Variable, read, write
from nektar.evidence.canonical import NotCanonical, Octets
from nektar.evidence.verify import NotProved, Predicate, Reader, Verdict, verify
from nektar.model import Address
from nektar.networks.encoding import word
from nektar.networks.shown import stands
from nektar.rows import Finding
from processors.conditions.bond_breach import BondBreach
from processors.conditions.condition import Condition
from processors.conditions.equivocation import Equivocation
from processors.conditions.invalid_response import InvalidResponse
from processors.conditions.missed_duty import MissedDuty
from processors.conditions.rejected_response import RejectedResponse
from processors.conditions.wrongful_slashing import WrongfulSlashing
from tests.devnet.contracts.conftest import Refused, Site, Task, in_one_block, on_anvil
from tests.devnet.contracts.test_slashing import proof as proof_of
from tests.devnet.contracts.test_trusted import BURNER, THIEF, call
from tests.nektar.evidence.forger import KINDS, Known, Unfit
from tests.nektar.evidence.silent import Silent
from tests.processors.conditions.test_dispute_of_bond_breaches import ask_back
from tests.processors.real_chain import found, gathered, reader
from tests.seeds import seeds

pytestmark = pytest.mark.real
replace = msgspec.structs.replace
RIGHT, WRONG = (7, 13), (13, 7)
# Each of so many seeds is one forgery of every kind.
SEEDS = seeds(40, 250)
# Of these one at least fools a verifier that does not look.
ENOUGH = 400
# The Operator whose key the forger has: it can prove of itself whatever it likes.
FORGER = 3


# --- what happened ------------------------------------------------------------------------------------


def two_responses(site: Site, twin: Site) -> None:
    """0 signs two responses to one Task, 2 and 3 one beside their quorum's. 1 signs two to two Tasks; and on
    the look-alike two to one, as 2 does there."""
    task = site.submit()
    for operator, answer in ((0, RIGHT), (0, WRONG), (1, RIGHT), (2, RIGHT)):
        site.attest(operator, task, answer)
    task = site.submit()
    for operator, answer in ((0, RIGHT), (1, WRONG)):
        site.attest(operator, task, answer)
    site.mine_to(task.end)
    task = site.submit()
    site.attest(2, task, WRONG)
    site.do(site.stranger, "task_manager", "respond", *site.response(task, RIGHT, [0, 2, 3]))
    site.attest(3, task, WRONG)
    task = twin.submit()
    for operator, answer in ((1, RIGHT), (1, WRONG), (2, WRONG), (2, RIGHT)):
        twin.attest(operator, task, answer)
    twin.mine_to(task.end)


def on_a_fork(site: Site) -> int:
    """1 signs two responses, and asks back what stands behind it, in blocks that will be none of the chain's;
    how many."""
    before, task = site.head, site.submit()
    for answer in (RIGHT, WRONG):
        site.attest(1, task, answer)
    site.do(*ask_back(site, 1))
    site.mine_to(task.end)
    return site.head - before


def after_the_fork(site: Site) -> None:
    """1 does what it owes, and 0 asks back what stood behind it, which changes who is in sets."""
    task = site.submit()
    for operator in (0, 1, 2):
        site.attest(operator, task, WRONG)
    site.mine_to(task.end)
    site.do(*ask_back(site, 0))


def three_misses(site: Site, twin: Site) -> None:
    """2 and 3 put none of three responses on chain; on the look-alike 1 neither, which asks back there what
    stood behind it."""
    for where, dutiful in ((site, (0, 1)), (twin, (0,))):
        tasks = [where.submit() for _ in range(3)]
        calls = [attest(where, operator, task) for operator in dutiful for task in tasks]
        in_one_block(where, *calls)
        where.mine_to(tasks[-1].end + 1)
    twin.do(*ask_back(twin, 1))


def too_late(site: Site, twin: Site) -> None:
    """1 and 2 bring a right response when the grace is over."""
    for where, operator in ((site, 2), (twin, 1)):
        task = where.submit()
        where.mine_to(task.end)
        with pytest.raises(Refused, match="GracePassed"):
            where.attest(operator, task, RIGHT)


def on_a_word(site: Site, twin: Site) -> None:
    """1 is to be slashed for what it did, for a Task that is none, for a signature that is not its own, and
    once more for somebody else's good; on the look-alike 2 is."""
    missed, equivocated = keccak(b"missed_duty"), keccak(b"equivocation")
    for where, victim in ((site, 1), (twin, 2)):
        task = where.submit()
        in_one_block(where, *(attest(where, operator, task) for operator in range(4)))
        arguments = proof_of(where, task, victim)
        mine = where.sign(FORGER, task, WRONG)
        false = where.abis["slashing_manager"].encode("proveEquivocation", *arguments[:-1], mine)
        honest = where.operators[victim].account.address
        asked = (
            (missed, task.hash, honest, 1, BURNER, b""),
            (missed, keccak(b"no task"), honest, 1, BURNER, b""),
            (equivocated, task.hash, honest, 1, BURNER, false),
            (missed, task.hash, honest, 1, THIEF, b""),
        )
        in_one_block(where, *((where.authority, *call(*each)) for each in asked))


def attest(site: Site, operator: int, task: Task) -> tuple[Any, ...]:
    signature = site.sign(operator, task, RIGHT)
    arguments = (task.fields, RIGHT, task.members, operator, signature)
    return (site.operators[operator].account, "task_manager", "attest", *arguments)


CONDITIONS: dict[str, Condition] = {
    each.name: each
    for each in (
        *(Equivocation(), InvalidResponse(), MissedDuty(), BondBreach(), RejectedResponse()),
        *(WrongfulSlashing(), Silent()),
    )
}
# Of a condition that most of a story meets, so many are enough.
FEW = {Silent.name: 2}
STORIES: list[Callable[[Site, Site], None]] = [two_responses, too_late, on_a_word, three_misses]
FORKS: list[Callable[[Site], int]] = [on_a_fork]


class World(NamedTuple):
    site: Site
    reader: Reader
    chain: dict[int, Part]
    blocks: frozenset[bytes]  # the hashes of all of them
    true: tuple[Bundle, ...]  # of the reader's Network and chain
    elsewhere: tuple[Bundle, ...]  # of its forks and look-alikes
    findings: tuple[Finding, ...]


def place(world: World, operator: bytes) -> int:
    addresses = [each.account.address for each in world.site.operators]
    return addresses.index("0x" + operator.hex())


def holds(name: str) -> Predicate:
    if name not in CONDITIONS:
        raise NotProved(f"condition {name}: expected one of {', '.join(CONDITIONS)}")
    return CONDITIONS[name].holds


def judge(bundle: Bundle | bytes, of: Reader) -> Verdict | None:
    try:
        return verify(read(bundle if isinstance(bundle, bytes) else write(bundle)), of, holds)
    except (NotProved, NotCanonical):
        return None


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    yield from _world()


def _world() -> Iterator[World]:
    for site in on_anvil():
        twin = Site(site.chain, admin="another admin")
        for story in STORIES:
            story(site, twin)
        elsewhere = [bundle for _, bundle in bundles(twin)]
        for fork in FORKS:
            before = {finding.id for finding, _ in bundles(site)}
            depth = fork(site)
            elsewhere += [bundle for finding, bundle in bundles(site) if finding.id not in before]
            site.chain.reorg(depth)
        after_the_fork(site)
        shown = list(bundles(site))
        chain = {number: part(site, number) for number in range(site.head + 1)}
        yield World(
            site,
            reader(site),
            chain,
            frozenset(keccak(each.header) for each in chain.values()),
            tuple(bundle for _, bundle in shown),
            tuple(elsewhere),
            tuple(finding for finding, _ in shown),
        )


def part(site: Site, number: int) -> Part:
    header = encode_header(site.chain.rpc("eth_getBlockByNumber", hex(number), False))
    receipts = site.chain.rpc("eth_getBlockReceipts", hex(number))
    return Part(Octets(header), tuple(Octets(read_receipt(each).raw) for each in receipts))


def bundles(site: Site) -> Iterator[tuple[Finding, Bundle]]:
    for condition in CONDITIONS.values():
        for finding in found(site, condition)[: FEW.get(condition.name)]:
            yield finding, gathered(site, condition, finding)


def known(world: World) -> Known:
    operators = tuple(bytes.fromhex(each.account.address[2:]) for each in world.site.operators)
    return Known(
        world.reader,
        world.true + world.elsewhere,
        operators,
        (666, 667, world.site.operators[FORGER].secret),
        world.chain,
        lambda claim, names: proved_state(world.site, claim, names),
    )


def proved_state(site: Site, claim: StateClaim, names: dict[bytes, bytes]) -> StateClaim:
    """What the chain's node proves of these variables; one that is the key to another is so
    under its new value."""
    account, variables = claim.account, []
    for each in claim.variables:
        keys = tuple(Octets(names.get(key, key)) for key in each.keys)
        _, _, before = proof(site, claim, each.name, each.keys)
        account, nodes, value = proof(site, claim, each.name, keys)
        names = {word(before): word(value), **names}
        variables.append(Variable(each.name, keys, nodes))
    return replace(claim, account=account, variables=tuple(variables))


def proof(
    site: Site, claim: StateClaim, name: str, keys: Sequence[bytes]
) -> tuple[tuple[Octets, ...], tuple[Octets, ...], int]:
    """The way to the account, the way to the variable, and its value."""
    where = stands(claim.contract, name, keys)
    said = site.chain.rpc(
        *("eth_getProof", site.contracts[claim.contract], ["0x" + where.slot.hex()], hex(claim.block))
    )
    [storage] = said["storageProof"]
    account, nodes = (
        tuple(Octets.fromhex(node[2:]) for node in answer)
        for answer in (said["accountProof"], storage["proof"])
    )
    return account, () if nodes == (b"\x80",) else nodes, where.value(int(storage["value"], 16))


# --- what is true -------------------------------------------------------------------------------------


def test_true_bundles_say_what_was_found_on_blocks_of_the_chain(world: World) -> None:
    guilty = Counter((finding.condition, place(world, finding.operator)) for finding in world.findings)
    assert guilty == {
        **{("equivocation", operator): 1 for operator in (0, 2, 3)},
        **{("invalid_response", operator): times for operator, times in enumerate((2, 2, 2, 1))},
        **{("missed_duty", operator): 1 for operator in (2, 3)},
        ("bond_breach", 0): 1,
        ("rejected_response", 2): 1,
        **{("silent", operator): 1 for operator in (2, 3)},
        ("wrongful_slashing", 1): 8,
    }
    for finding, bundle in zip(world.findings, world.true, strict=True):
        verdict = judge(bundle, world.reader)
        assert verdict is not None
        assert (verdict.id, verdict.condition) == (finding.id, finding.condition)
        assert {block.hash for block in verdict.canonical} <= world.blocks


def test_what_was_shown_on_a_fork_rests_on_blocks_that_are_not_the_chains(world: World) -> None:
    """It verifies, offline: what shows that it is of no use is the hash that it names."""
    verdicts = [verdict for bundle in world.elsewhere if (verdict := judge(bundle, world.reader))]
    assert {(v.condition, place(world, v.accused.operator)) for v in verdicts} == {
        (condition, 1) for condition in ("bond_breach", "equivocation", "invalid_response")
    }
    for verdict in verdicts:
        assert not {block.hash for block in verdict.canonical} <= world.blocks


def test_who_reads_of_a_look_alike_is_told_of_it_alone(world: World) -> None:
    addresses = Counter(bundle.contracts["task_manager"] for bundle in world.elsewhere)
    twin = next(at for at in addresses if at != world.reader.contracts["task_manager"])
    of_twin = [bundle for bundle in world.elsewhere if bundle.contracts["task_manager"] == twin]
    contracts = {name: Address(at) for bundle in of_twin for name, at in bundle.contracts.items()}
    reader = Reader(world.reader.chain_id, contracts, terms=world.reader.terms)
    assert {bundle.condition for bundle in of_twin} == CONDITIONS.keys()
    assert all(judge(bundle, reader) for bundle in of_twin)
    assert not any(judge(bundle, reader) for bundle in world.true)


# --- what is forged -----------------------------------------------------------------------------------

COUNTED: Counter[tuple[str, str]] = Counter()


@pytest.mark.parametrize("name", KINDS)
def test_no_forgery_says_what_is_not_true(world: World, name: str) -> None:
    makes, has = KINDS[name], known(world)
    true = {_said(judge(bundle, world.reader)) for bundle in world.true}
    forger = has.operators[FORGER]
    for seed in range(SEEDS):
        rng = random.Random(f"{name} {seed}")
        try:
            forgery = makes(rng, has)
        except Unfit:
            COUNTED[name, "unfit"] += 1
            continue
        verdict = judge(forgery, world.reader)
        if verdict is None:
            COUNTED[name, "refused"] += 1
        elif not {block.hash for block in verdict.canonical} <= world.blocks:
            COUNTED[name, "on blocks that are not the chain's"] += 1
        elif _said(verdict) in true:
            COUNTED[name, "the same verdict"] += 1
        else:
            assert verdict.accused.operator == forger, f"{name}, seed {seed}: {verdict}"
            COUNTED[name, "the forger of itself"] += 1


def _said(verdict: Verdict | None) -> Any:
    assert verdict is not None
    return verdict.id, verdict.condition, verdict.accused


def any_set(shown: Any, task: bytes) -> Any:
    shown._unused.clear()
    if not shown._sets:
        raise NotProved("no set")
    return next(iter(shown._sets.values()))


value_in = verifier.value_in


def none_attested(root: Any, contract: str, variable: Variable) -> int:
    return 0 if variable.name == "attestedDigest" else value_in(root, contract, variable)


WEAK: dict[str, tuple[str, Any, str, Callable[..., Any]]] = {
    "whose key it is": ("all_of_it_accuses_another", bls, "keys_match", lambda *_: True),
    "whose signature it is": ("all_of_it_accuses_another", bls, "verify", lambda *_: True),
    "what is stored": ("all_of_it_accuses_another", verifier, "value_in", none_attested),
    "what was logged": ("all_of_it_accuses_another", verifier, "_is_such", lambda *_: False),
    "what blooms exclude": ("all_of_it_accuses_another", verifier, "mask", lambda _: 1 << 3000),
    "which set a Task commits to": ("a_set_of_its_own_making", verifier._Shown, "_set", any_set),
}


@pytest.mark.parametrize("check", WEAK)
def test_a_verifier_that_did_not_look_would_be_fooled(
    world: World, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    """What the forgeries are worth: were a check left out, one of them would accuse somebody honest."""
    name, where, what, weak = WEAK[check]
    true = {_said(judge(bundle, world.reader)) for bundle in world.true}
    monkeypatch.setattr(where, what, weak)
    for seed in range(ENOUGH):
        with suppress(Unfit):
            verdict = judge(KINDS[name](random.Random(f"{name} {seed}"), known(world)), world.reader)
            if (
                verdict is not None
                and {block.hash for block in verdict.canonical} <= world.blocks
                and _said(verdict) not in true
                and verdict.accused.operator != known(world).operators[FORGER]
            ):
                return
    pytest.fail(f"no forgery of {ENOUGH} needed the check")


def test_an_invented_set_on_invented_blocks_is_told_by_what_the_chain_says_of_them(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An honest Operator under a key of the forger's, in a set, a Task and blocks that it made: all of it is
    as it should be, but for the hash that must be the chain's."""
    monkeypatch.setattr("cli.evidence._predicate", holds)  # those of this test, whatever is installed
    true, caught = {_said(judge(bundle, world.reader)) for bundle in world.true}, 0
    contracts = [f"{name}=0x{at.hex()}" for name, at in world.reader.contracts.items()]
    for seed in range(400):
        try:
            forgery = KINDS["a_set_of_its_own_making"](random.Random(seed), known(world))
        except Unfit:
            continue
        verdict = judge(forgery, world.reader)
        if (
            verdict is None
            or verdict.accused.operator == known(world).operators[FORGER]
            or _said(verdict) in true
        ):
            continue
        caught += 1
        assert not {block.hash for block in verdict.canonical} <= world.blocks
        file = tmp_path / f"{seed}.json"
        file.write_bytes(forgery if isinstance(forgery, bytes) else write(forgery))
        for rpc, hashes in (
            (world.site.chain.url, []),
            (None, ["0x" + each.hex() for each in world.blocks]),
        ):
            with pytest.raises(OtherChain, match="rests on"):
                check(
                    file=file,
                    config_path=None,
                    directory=None,
                    network=None,
                    chain_id=world.reader.chain_id,
                    contracts=contracts,
                    code=[],
                    terms=[f"{name}={value}" for name, value in world.reader.terms.items()],
                    rpc=rpc,
                    block_hashes=hashes,
                    as_json=False,
                )
    assert caught


def main() -> None:
    """How many forgeries of each kind came to what."""
    for world in _world():
        for name in KINDS:
            test_no_forgery_says_what_is_not_true(world, name)
    for (name, came), count in sorted(COUNTED.items()):
        print(f"{count:6} {name}: {came}")


if __name__ == "__main__":
    main()

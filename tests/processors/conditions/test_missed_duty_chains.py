"""Missed duties of real chains that live at random, each held against what the real contract says to it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import msgspec
import pytest

from devnet.deploy import TASK_TYPE, key_arguments
from nektar import fold as calculus
from nektar.chain.keccak import keccak
from nektar.evidence import bls
from nektar.evidence.bundle import MemberClaim
from nektar.evidence.canonical import Octets
from nektar.evidence.sought import SetSought, Sought, StateSought, VariableSought
from nektar.evidence.verify import NotProved, verify
from nektar.log import Undo
from nektar.model import (
    Address,
    Block,
    Hash32,
    Level,
    OperatorSetCommitted,
    Responded,
    TaskSubmitted,
)
from nektar.networks.encoding import (
    MEMBERS,
    TASK,
    Dynamic,
    array,
    call,
    deadline_of,
    encode_members,
    encode_task,
    members,
    numbers,
    operator_set,
    tuple_of,
    word,
)
from nektar.rows import Finding
from processors.conditions import missed_duty
from processors.conditions.missed_duty import MissedDuty
from processors.folds.misses import Owed, Response
from tests.devnet.contracts.conftest import Site
from tests.processors.conditions.test_missed_duty_dispute import (
    CONDITION,
    LONG,
    RIGHT,
    WRONG,
    accused,
    disputed,
    said,
    site_of,
)
from tests.processors.real_chain import ADAPTER, gathered, log, network, reader
from tests.processors.world import Rows, put
from tests.seeds import seeds

pytestmark = pytest.mark.real


class Known(NamedTuple):
    """A Task on the chain as it stands, and what everybody knows of it."""

    hash: Hash32
    preimage: bytes
    set: bytes  # preimage
    members: list[Address]
    non_signers: tuple[int, ...]


class Chain:
    """A Network that lives at random on a real chain, with several transactions a block, and is undone and
    goes another way. Some of them revert, as on any chain."""

    def __init__(self, site: Site, rng: random.Random, slashers: bool = False) -> None:
        self.site, self.rng = site, rng
        self.net = network(site)
        self.folded = calculus.begin(CONDITION.detect, self.net)
        self.rows = Rows()
        self.blocks: list[Block] = []
        self.secrets = 5000
        self.slashers = slashers
        self.undone = 0  # findings
        self.operators = [Address(accused(site, i)) for i in range(len(site.operators))]
        self.submitted: list[Any] = []
        self.sets: dict[bytes, Any] = {}
        self.learn()
        self.follow()

    def follow(self) -> None:
        """Fold what is new on the chain, and undo what is there no more."""
        number = len(self.blocks)
        while number and self._hash(number - 1) != self.blocks[number - 1].hash:
            number -= 1
        gone, self.blocks = self.blocks[number:], self.blocks[:number]
        if gone:
            undo = Undo(tuple(reversed(gone)), {})
            self.folded, changes = calculus.apply(CONDITION.detect, self.folded, undo)
            self._put(changes)
        if self.site.head >= number:
            record = log(self.site, number)
            assert {each.level for each in record.blocks} == {Level.PROVED}
            events = ADAPTER.events(self.net, record.tables)
            self.folded, changes = calculus.apply(CONDITION.detect, self.folded, record, events)
            self._put(changes)
            self.blocks += record.blocks

    def _hash(self, number: int) -> bytes:
        found_ = self.site.chain.rpc("eth_getBlockByNumber", hex(number), False)
        return bytes.fromhex(found_["hash"][2:]) if found_ else b""

    def _put(self, changes: Any) -> None:
        put(self.rows, changes)
        for key in [k for k, row in self.rows.items() if getattr(row, "status", "") == "retracted"]:
            del self.rows[key]
            self.undone += 1

    @property
    def findings(self) -> list[Finding]:
        found_ = [row for row in self.rows.values() if isinstance(row, Finding)]
        return sorted(found_, key=lambda each: (each.block_number, each.task_number, each.operator))

    def live(self, blocks: int) -> None:
        for _ in range(blocks):
            for _ in range(self.rng.choice((0, 1, 2, 3))):
                self.act()
            self.site.chain.mine()
            self.learn()
            if self.rng.random() < 0.12 and self.site.head > 20:
                self.follow()
                self.site.chain.reorg(self.rng.randint(1, 6))
                self.learn()
            if self.rng.random() < 0.2:
                self.follow()

    def learn(self) -> None:
        """The Tasks and sets on the chain as it stands, as everybody knows them."""
        self.submitted = self.events("task_manager", "TaskSubmitted")
        sets = self.events("operator_registry", "OperatorSetCommitted")
        self.sets = {each["setHash"]: each["members"] for each in sets}

    def events(self, contract: str, name: str) -> list[Any]:
        topic = self.site.abis[contract].topic(name)
        within = {"address": self.site.contracts[contract], "topics": [topic], "fromBlock": "0x0"}
        return [self.site.read(each)[1] for each in self.site.chain.rpc("eth_getLogs", within)]

    def act(self) -> None:
        """Something that may happen on a chain, in the block to come."""
        rng, admin = self.rng, self.site.admin
        kinds = [
            (6, self.submit),
            (5, self.attest),
            (2, self.respond),
            (1, self.cancel),
            (1, self.rotate),
            (1, self.leave_or_come),
            (1, lambda: self.send(self.site.stranger, "operator_registry", "commitSet")),
            (1, self.pause),
            (4 * self.slashers, self.slash),
        ]
        weights, makers = zip(*kinds, strict=True)
        rng.choices(makers, weights)[0]()
        if rng.random() < 0.5:
            self.send(admin, "task_manager", "unpause")  # reverts where it is not paused

    def send(self, sender: Any, contract: str, function: str, *args: object) -> None:
        data = self.site.abis[contract].encode(function, *args)
        self.site.chain.send(sender, self.site.contracts[contract], data)

    def slash(self) -> None:
        """Prove misses of somebody else's choice, or try to."""
        operator, known = self.rng.choice(self.operators), self.known()
        over = [each for each in known[-12:] if sum(deadline_of(each.preimage)) <= self.site.head]
        pairs = list(combinations(over, 2))
        for two in self.rng.sample(pairs, len(pairs)):
            if (calldata := proof(operator, two)) and said(self.site, calldata) == "":
                self.site.chain.send(self.site.stranger, self.site.contracts["slashing_manager"], calldata)
                break

    def submit(self) -> None:
        window, grace = self.rng.choice((1, 2, 3, 6, 12)), self.rng.choice((0, 1, 3))
        terms = (TASK_TYPE, 91, window, grace, 2500, 2500)
        self.send(self.site.submitter, "task_manager", "submitTask", *terms)

    def pause(self) -> None:
        """For a while, or for a moment: around a submission, before it or after it."""
        admin, moment = self.site.admin, self.rng.random() < 0.7
        self.send(admin, "task_manager", "pause")
        if moment:
            self.send(admin, "task_manager", "unpause")
        if self.rng.random() < 0.5:
            self.submit()
        if self.rng.random() < 0.3:
            self.send(admin, "task_manager", "pause")
            self.send(admin, "task_manager", "unpause")

    def some_task(self) -> Any:
        """One that can be attested for in the next block more often than not, some for the last time."""
        near = [e for e in self.submitted if self.site.head < e["task"][4] + e["task"][5]]
        last = [e for e in near if self.site.head + 1 == e["task"][4] + e["task"][5]]
        return self.rng.choice(last or near or self.submitted or [None])

    def attest(self) -> None:
        if (event := self.some_task()) is None:
            return
        members_ = list(self.sets[event["task"][3]])
        index = self.rng.randrange(len(members_))
        accounts = {each.account.address.lower(): each.account for each in self.site.operators}
        secret = self.secret_of(members_[index][1])
        answer = self.rng.choice((RIGHT, WRONG))
        signature = self.signed(secret, event["taskHash"], answer)
        args = (event["task"], answer, members_, index, g1(signature))
        self.send(accounts[members_[index][0].lower()], "task_manager", "attest", *args)

    def respond(self) -> None:
        if (event := self.some_task()) is None:
            return
        members_, answer = list(self.sets[event["task"][3]]), self.rng.choice((RIGHT, WRONG))
        signers = sorted(self.rng.sample(range(len(members_)), self.rng.randint(1, len(members_))))
        secrets = [self.secret_of(members_[i][1]) for i in signers]
        signature = bls.aggregate(self.signed(secret, event["taskHash"], answer) for secret in secrets)
        apk = bls.aggregate_g2(bls.public_keys(secret)[1] for secret in secrets)
        out = [i for i in range(len(members_)) if i not in signers]
        args = (event["task"], answer, members_, out, g1(signature), g2(apk))
        self.send(self.site.stranger, "task_manager", "respond", *args)
        if answer == WRONG and self.rng.random() < 0.6:
            self.send(self.site.stranger, "task_manager", "challenge", event["task"], WRONG, 7)

    def cancel(self) -> None:
        if (event := self.some_task()) is not None:
            self.send(self.site.submitter, "task_manager", "cancelTask", event["task"])

    def rotate(self) -> None:
        self.bring("rotateKey")
        if self.rng.random() < 0.7:
            self.send(self.site.stranger, "operator_registry", "commitSet")

    def leave_or_come(self) -> None:
        operator = self.rng.choice(self.site.operators).account
        if self.site.ask("operator_registry", "isRegistered", operator.address):
            self.send(operator, "operator_registry", "deregister")
            if self.rng.random() < 0.5:
                self.submit()
        else:
            self.bring("register", operator)
        if self.rng.random() < 0.5:
            self.send(self.site.stranger, "operator_registry", "commitSet")

    def bring(self, function: str, operator: Any = None) -> None:
        """A new key."""
        operator = operator or self.rng.choice(self.site.operators).account
        registry, self.secrets = self.site.contracts["operator_registry"], self.secrets + 1
        key = key_arguments(self.secrets, self.site.chain.chain_id, registry, operator.address)
        more = ("eu", 1) if function == "register" else ()
        self.send(operator, "operator_registry", function, *key, *more)

    def secret_of(self, key: Any) -> int:
        every = [*(each.secret for each in self.site.operators), *range(5001, self.secrets + 1)]
        return next(secret for secret in every if g1(bls.public_keys(secret)[0]) == tuple(key))

    def signed(self, secret: int, task_hash: bytes, answer: tuple[int, int]) -> bls.G1:
        manager = self.net.contract("task_manager")
        digest = bls.signing_digest(self.net.chain_id, manager, task_hash, bls.response_digest(*answer))
        return bls.sign(secret, digest)

    def known(self) -> list[Known]:
        """The Tasks by rising number."""
        accepted = {each["taskHash"]: each["nonSigners"] for each in self.events("task_manager", "Responded")}
        found = []
        for each in self.submitted:
            members_ = [
                (bytes.fromhex(operator[2:]), word(key[0]) + word(key[1]), stake)
                for operator, key, stake in self.sets[each["task"][3]]
            ]
            found.append(
                Known(
                    hash=Hash32(each["taskHash"]),
                    preimage=encode_task(each["task"]),
                    set=encode_members(members_),
                    members=[Address(operator) for operator, _, _ in members_],
                    non_signers=tuple(accepted.get(each["taskHash"], ())),
                )
            )
        return found

    def finish(self) -> None:
        """Let all graces pass."""
        self.site.chain.mine(20)
        self.follow()


def g1(point: bytes) -> tuple[int, int]:
    return int.from_bytes(point[:32]), int.from_bytes(point[32:])


def g2(point: bytes) -> tuple[tuple[int, int], tuple[int, int]]:
    return g1(point[:64]), g1(point[64:])


def proof(operator: Address, tasks: Sequence[Known]) -> bytes | None:
    """What somebody would send who has seen the chain; None where the Operator is not in all of the sets."""
    if not all(operator in each.members for each in tasks):
        return None
    sets = sorted({each.set for each in tasks})
    misses = []
    for each in tasks:
        places = word(sets.index(each.set)) + word(each.members.index(operator))
        misses.append(Dynamic(tuple_of(each.preimage, places, numbers(each.non_signers))))
    signature = f"proveMissedDuty({MEMBERS}[],({TASK},uint256,uint256,uint256[])[])"
    return call(signature, array([members(preimage) for preimage in sets]), array(misses))


@pytest.mark.parametrize("seed", range(seeds(1, 3)))
def test_each_duty_that_is_found_missed_is_for_the_contract_and_no_other_one(seed: int) -> None:
    with site_of(msgspec.structs.replace(LONG, miss_allowance=0)) as site:
        chain = Chain(site, random.Random(f"duties {seed}"))
        chain.live(70)
        chain.finish()
        missed = {(finding.task_hash, finding.operator) for finding in chain.findings}
        says: Counter[str] = Counter()
        happened = owed(chain)
        for task in chain.known():
            for operator in chain.operators:
                if calldata := proof(operator, [task]):
                    why = said(site, calldata)
                    assert (why == "") == ((task.hash, operator) in missed), (why, task, operator)
                    shown = is_proved(chain, task, operator, happened[task.hash])
                    assert shown == (why == ""), (why, task, operator)
                    says[why.split("(")[0]] += 1
        assert {*says} == {"", "DutyDone", "DutyExcused"}
        assert says[""] == len(missed) > 10
        assert chain.undone
        for finding in chain.findings[::5]:
            bundle = gathered(site, CONDITION, finding)
            verify(bundle, reader(site), lambda name: CONDITION.holds)
            assert said(site, disputed(site, bundle)) == ""


def owed(chain: Chain) -> dict[bytes, tuple[Owed, int]]:
    """Each Task on the chain as a fold has it, and the block in which its set was committed."""
    record = log(chain.site)
    refs = [each.ref for each in record.blocks]
    found: dict[bytes, tuple[Owed, int]] = {}
    sets: dict[bytes, int] = {}
    for event in ADAPTER.events(chain.net, record.tables):
        match event:
            case OperatorSetCommitted(at, committed):
                sets[committed.hash] = at.block
            case TaskSubmitted(at, task):
                found[task.hash] = Owed(task, refs[at.block]), sets[task.set_hash]
            case Responded(at, task_hash, digest, out):
                response = Response(at, refs[at.block], digest, out)  # type: ignore[arg-type]
                it, since = found[task_hash]
                found[task_hash] = msgspec.structs.replace(it, response=response), since
    return found


def is_proved(chain: Chain, about: Known, operator: Address, happened: tuple[Owed, int]) -> bool:
    """Whether what the chain's node serves of this duty, missed or not, proves that it was: it is asked for
    what a fold would seek that took it for missed."""
    head, place = chain.blocks[-1], about.members.index(operator)
    it, since = happened
    key_hash = bls.key_hash(operator_set(about.set).members[place].key)
    registration = VariableSought("_keys.registration", (Octets(key_hash),))
    wanted = Sought(
        Octets(about.hash),
        fetch=(
            *missed_duty._events(it),
            StateSought("task_manager", tuple(missed_duty._held(it, operator))),
            StateSought("operator_registry", (registration, VariableSought("_ends", (Octets(b""),)))),
        ),
        whole=(MemberClaim(Octets(about.preimage), place),),
        sets=(SetSought(Octets(keccak(about.set)), since),),
    )

    class Believing(MissedDuty):
        def claims(self, finding: Finding) -> Sought:
            return wanted

    finding = msgspec.structs.replace(
        chain.findings[0], block_number=head.number, block_hash=head.hash, operator=operator
    )
    bundle = gathered(chain.site, Believing(), finding)
    try:
        verify(bundle, reader(chain.site), lambda name: CONDITION.holds)
    except NotProved:
        return False
    return True


@pytest.mark.parametrize("seed", range(seeds(1, 2)))
def test_findings_are_accepted_one_after_the_other_and_nothing_is_left_that_would_be(seed: int) -> None:
    """While somebody else proves misses of its own choice."""
    terms = msgspec.structs.replace(LONG, miss_allowance=1)
    with site_of(terms) as site:
        chain = Chain(site, random.Random(f"windows {seed}"), slashers=True)
        chain.live(70)
        chain.finish()
        slashed = accepted = 0
        for finding in chain.findings:
            bundle = gathered(site, CONDITION, finding)
            verify(bundle, reader(site), lambda name: CONDITION.holds)
            why = said(site, disputed(site, bundle))
            counted = [
                site.ask("slashing_manager", "missCounted", each, "0x" + finding.operator.hex())
                for each in tasks_of(finding)
            ]
            assert why.split("(")[0] == ("MissAlreadyCounted" if any(counted) else "")
            if not why:
                site.chain.send(site.stranger, site.contracts["slashing_manager"], disputed(site, bundle))
                site.chain.mine()
                accepted += 1
            slashed += any(counted)
        taken = {(task, finding.operator) for finding in chain.findings for task in tasks_of(finding)}
        before = chain.findings
        chain.follow()
        assert chain.findings == before
        pairs = 0
        for operator in chain.operators:
            left = [each for each in chain.known() if (each.hash, operator) not in taken]
            for two in combinations(left, 2):
                if calldata := proof(operator, two):
                    assert said(site, calldata) != ""
                    pairs += 1
        assert min(slashed, accepted, pairs) > 0


def tasks_of(finding: Finding) -> list[bytes]:
    return [keccak(claim.task) for claim in CONDITION.claims(finding).whole]

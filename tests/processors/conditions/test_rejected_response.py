"""Responses that contracts refused: who is named, on streams and on a real chain."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from nektar.chain.keccak import keccak
from nektar.evidence import sought
from nektar.evidence.bundle import SignatureClaim
from nektar.evidence.verify import Accused, NotProved, verify
from nektar.facts import Called, Submitted
from nektar.facts import Signed as SignedFact
from nektar.model import (
    At,
    BlockClosed,
    BlockRef,
    ChainEvent,
    Event,
    GapPassed,
    Hash32,
    Level,
    OperatorSet,
    OperatorSetCommitted,
    Rejected,
    TaskSubmitted,
)
from nektar.networks.encoding import encode_answer
from nektar.rows import Change, Finding
from processors.conditions.equivocation import Equivocation
from processors.conditions.invalid_response import InvalidResponse
from processors.conditions.rejected_response import LATE, MOST, Desk, RejectedResponse
from tests.devnet.contracts.conftest import Refused, Site, Task, on_anvil
from tests.processors.real_chain import found, gathered, reader
from tests.processors.test_reorgs import life, retracted_in_lives
from tests.processors.world import (
    ANSWERS,
    NETWORK,
    OPERATORS,
    STRANGER,
    Rows,
    World,
    block,
    key_of,
    registered,
    set_of,
    signature,
    signed,
    task,
)

CONDITION = RejectedResponse()
FOLD = CONDITION.detect
ALICE, BOB = OPERATORS[:2]
MEMBERS = set_of([(ALICE, 1), (BOB, 2)])
TASK = task(At(2, 0, 0), MEMBERS.hash, 1, deadline=6, grace=2)
BEGIN: list[Event] = [
    registered(At(1, 0, 0), ALICE, 1),
    registered(At(1, 1, 0), BOB, 2),
    OperatorSetCommitted(At(1, 2, 0), MEMBERS),
    BlockClosed(block(1)),
    TaskSubmitted(TASK.submitted, TASK),
    BlockClosed(block(2)),
]


def play(*events: Event, begin: Sequence[Event] = BEGIN) -> tuple[Desk, list[Finding]]:
    state, said = FOLD.initial(NETWORK), list[Change]()
    for event in (*begin, *events):
        state, changes = FOLD.step(state, event)
        said += changes
    return state, [change.after for change in said if isinstance(change.after, Finding)]


def rejected(sender: bytes, place: int | None, secret: int = 1, at: At = At(3, 0, -1)) -> Rejected:  # noqa: B008
    """A call by `sender` that says that the member in this place signed, and is signed with this key."""
    of = signed(at, TASK.hash, ALICE, secret, ANSWERS[0])
    hash_ = Hash32(at.block.to_bytes(16, "big") + at.tx.to_bytes(16, "big"))
    signature = {} if place is None else {"signature": of.signature}
    return Rejected(at, hash_, sender, TASK.hash, of.digest, place, of.response, **signature)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (rejected(ALICE, 0), ALICE),
        (rejected(STRANGER, 0), ALICE),  # a stranger brought what Alice has signed
        (rejected(STRANGER, 0, secret=2), STRANGER),  # … what Bob has, in Alice's name
        (rejected(STRANGER, 1), STRANGER),
        (rejected(BOB, 7), BOB),
        (rejected(STRANGER, None), STRANGER),
    ],
    ids=["own", "brought", "forged", "misplaced", "no member", "aggregate"],
)
def test_the_sender_is_named_and_a_member_only_for_what_it_signed(call: Rejected, named: bytes) -> None:
    _, (finding,) = play(call, BlockClosed(block(3)))
    assert (finding.operator, finding.task_hash, finding.block_number) == (named, TASK.hash, 3)
    sought = CONDITION.claims(finding)
    assert sought.subject == call.transaction
    assert any(isinstance(each, SignatureClaim) for each in sought.whole) == (
        named == ALICE and call.index == 0
    )


def test_nobody_signed_by_a_twin_that_is_another_keys() -> None:
    lied = msgspec.structs.replace(registered(At(1, 0, 0), ALICE, 1), key_g2=key_of(2)[1])
    for secret in (1, 2):
        call = rejected(STRANGER, 0, secret)
        _, (finding,) = play(call, BlockClosed(block(3)), begin=[lied, *BEGIN[1:]])
        assert finding.operator == STRANGER


def test_a_response_to_a_task_that_nobody_submitted_names_its_sender_alone() -> None:
    call = msgspec.structs.replace(rejected(STRANGER, 0), task_hash=Hash32(b"\7" * 32))
    _, (finding,) = play(call, BlockClosed(block(3)))
    assert (finding.operator, finding.task_hash, finding.task_input) == (STRANGER, bytes(32), "")


def test_of_a_block_so_many_are_named_and_the_next_one_begins_anew() -> None:
    many = [rejected(STRANGER, None, at=At(3, i, -1)) for i in range(MOST + 5)]
    _, findings = play(
        *many, BlockClosed(block(3)), rejected(ALICE, 0, at=At(4, 0, -1)), BlockClosed(block(4))
    )
    assert [each.block_number for each in findings] == [3] * MOST + [4]
    assert len({each.id for each in findings}) == MOST + 1


def test_tasks_are_forgotten_when_the_latest_response_is_late() -> None:
    end = TASK.deadline.value + TASK.grace + LATE
    for passed in (BlockClosed(block(end)), GapPassed(3, end + 7)):
        state, _ = play(passed)
        assert (len(state.tasks), len(state.due)) == (0, 0)
        assert [each.holds for each in state.registry.sets.values()] == [0]
    state, _ = play(BlockClosed(block(end - 1)))
    assert len(state.tasks) == 1


def test_a_linked_block_under_it_lowers_its_level() -> None:
    _, (finding,) = play(rejected(ALICE, 0), BlockClosed(block(3, level=Level.LINKED)))
    assert finding.level == "linked"


# --- what it rests on -------------------------------------------------------------------------------


def calldata(answer: tuple[int, int] = ANSWERS[0]) -> bytes:
    static = TASK.preimage + encode_answer(*answer) + bytes(32) + bytes(32) + bytes(64)
    return module_selector() + static


def module_selector() -> bytes:
    from nektar.networks import shown

    return shown._ATTEST


def test_it_holds_for_what_the_call_itself_shows() -> None:
    at, replace = BlockRef(3, Hash32(b"\3" * 32)), msgspec.structs.replace
    name = Hash32(b"\4" * 32)
    call = Called("task_manager", name, STRANGER, calldata(), False, at)
    of = signed(At(3, 0, -1), TASK.hash, ALICE, 1, ANSWERS[0])
    by = SignedFact(TASK.hash, ALICE, of.digest, alone=True)
    submitted = Submitted(TASK.preimage, BlockRef(2, Hash32(b"\2" * 32)))
    sender, signer = Accused(STRANGER, name), Accused(ALICE, name)
    CONDITION.holds(sender, [call], {})
    CONDITION.holds(signer, [submitted, call, by], {})
    for accused, facts in (
        (signer, [call]),
        (sender, []),
        (sender, [replace(call, succeeded=True)]),
        (sender, [replace(call, succeeded=None)]),
        (sender, [replace(call, contract="slashing_manager")]),
        (sender, [replace(call, input=b"\1\2\3\4")]),
        (Accused(STRANGER, Hash32(bytes(32))), [call]),
        (signer, [call, by]),
        (signer, [submitted, call, replace(by, digest=Hash32(bytes(32)))]),
        (signer, [submitted, call, replace(by, task_hash=Hash32(bytes(32)))]),
        (signer, [submitted, replace(call, input=calldata(ANSWERS[1])), by]),
        (Accused(BOB, name), [submitted, call, by]),
    ):
        with pytest.raises(NotProved):
            CONDITION.holds(accused, facts, {})


# --- on a real chain --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    yield from on_anvil()


@pytest.fixture(scope="module")
def late(site: Site) -> Task:
    """One for which Operator 1 is too late, a stranger brings what Operator 0 has signed, and another claims
    to be an aggregator."""
    task_ = site.submit(n=91)
    signature = site.sign(0, task_, (7, 13))
    arguments = (task_.fields, (7, 13), task_.members, 0, signature)
    with pytest.raises(Refused, match="NotMember"):
        site.do(site.stranger, "task_manager", "attest", *arguments)
    with pytest.raises(Refused, match="ThresholdMissed"):
        site.do(site.stranger, "task_manager", "respond", *site.response(task_, (7, 13), [0]))
    site.mine_to(task_.end)
    with pytest.raises(Refused, match="GracePassed"):
        site.attest(1, task_, (7, 13))
    return task_


@pytest.mark.real
def test_on_a_real_chain_each_refused_response_is_proved_by_its_transaction(site: Site, late: Task) -> None:
    findings = found(site, CONDITION)
    accounts = [bytes.fromhex(each.account.address[2:]) for each in site.operators]
    stranger = bytes.fromhex(site.stranger.address[2:])
    assert [each.operator for each in findings] == [accounts[0], stranger, accounts[1]]
    assert {each.task_hash for each in findings} == {late.hash}
    for finding in findings:
        bundle = gathered(site, CONDITION, finding)
        verdict = verify(bundle, reader(site), lambda name: CONDITION.holds)
        assert (verdict.id, verdict.accused.operator) == (finding.id, finding.operator)
        assert finding.block in verdict.canonical


@pytest.mark.real
def test_what_a_quorum_signed_that_no_contract_took_names_its_sender_alone(site: Site, late: Task) -> None:
    """Its sum shows that each member signed another response than the accepted one: the contracts take no
    proof by it, so nobody is found for what they would not slash."""
    snapshot, head = site.chain.rpc("evm_snapshot"), site.head
    task_ = site.submit(n=91)
    site.do(site.stranger, "task_manager", "respond", *site.response(task_, (7, 13), [0, 2, 3]))
    with pytest.raises(Refused, match="WrongState"):
        site.do(site.submitter, "task_manager", "respond", *site.response(task_, (13, 7), [0, 2, 3]))
    other = (13, 7), [1], (7, 13), site.sign(0, task_, (7, 13))
    proof = (task_.fields, task_.members, 0, *other)
    refused = site.refusal(site.stranger, "slashing_manager", "proveEquivocationInQuorum", *proof)
    assert refused.startswith("WrongRecord(")
    named = [each.operator for each in found(site, CONDITION) if each.block_number > head]
    assert named == [bytes.fromhex(site.submitter.address[2:])]
    assert found(site, Equivocation()) == found(site, InvalidResponse()) == []
    site.chain.rpc("evm_revert", snapshot)


def test_seeds_of_random_calls_name_nobody_who_neither_sent_nor_signed() -> None:
    """A brute-force oracle: named is the member in the place that is said, if its key made the signature,
    else who sent the call."""
    keys = {ALICE: 1, BOB: 2}
    for seed in range(40):
        rng = random.Random(f"rejected {seed}")
        calls = []
        for i in range(rng.randrange(1, 12)):
            place, secret = rng.choice([None, 0, 1, 2]), rng.choice([1, 2, 3])
            calls.append((rejected(rng.choice([ALICE, BOB, STRANGER]), place, secret, At(3, i, -1)), secret))
        _, findings = play(*(call for call, _ in calls), BlockClosed(block(3)))
        expected = []
        for call, secret in calls:
            member = None if call.index is None or call.index > 1 else (ALICE, BOB)[call.index]
            expected.append(member if member and keys[member] == secret else call.sender)
        assert [each.operator for each in findings] == expected, f"seed {seed}"


class Refusing(World):
    """Contracts that refuse responses, of whoever sends them and with whoever's signature."""

    def _any(self, at: At) -> ChainEvent | None:
        if self.rng.random() > 0.3 or (made := self._signed(at)) is None:
            return super()._any(at)
        transaction = Hash32(self.rng.randbytes(32))
        sender, place = self.rng.choice([*OPERATORS, STRANGER]), self.rng.choice([None, 0, 1, 2, 9])
        task_hash = made.task_hash if self.rng.random() < 0.9 else transaction
        said = (made.digest, place, made.response, made.signature)
        return Rejected(msgspec.structs.replace(at, log=-1), transaction, sender, task_hash, *said)


def oracle(events: Sequence[Event]) -> dict[bytes, tuple[bytes, bytes]]:
    """Transaction → (whom it names, Task), from all that happened, by brute force: of the keys of the Network
    one must make the signature that is shown."""
    sets = {e.set.hash: e.set for e in events if isinstance(e, OperatorSetCommitted)}
    known, calls, named = dict[bytes, OperatorSet](), list[Rejected](), dict[bytes, tuple[bytes, bytes]]()
    for event in events:
        match event:
            case TaskSubmitted(task=of) if of.set_hash in sets:
                known.setdefault(of.hash, sets[of.set_hash])
            case Rejected():
                calls.append(event)
            case BlockClosed():
                for call in calls:
                    members = known[call.task_hash].members if call.task_hash in known else ()
                    who = call.sender
                    if call.index is not None and call.index < len(members):
                        member = members[call.index]
                        secret = next(i for i in range(1, 200) if key_of(i)[0] == member.key)
                        if call.signature == signature(secret, call.task_hash, keccak(call.response)):
                            who = member.operator
                    named[call.transaction] = who, call.task_hash if members else bytes(32)
                calls = []
    return named


def told(rows: Rows) -> dict[bytes, tuple[bytes, bytes]]:
    """As the oracle says it."""
    findings = [row for row in rows.values() if isinstance(row, Finding)]
    return {sought.read(each.facts).subject: (each.operator, each.task_hash) for each in findings}


def test_after_any_reorgs_it_is_what_the_surviving_chain_shows() -> None:
    lives = [life(random.Random(f"refused {seed}"), 25, Refusing) for seed in range(25)]
    assert retracted_in_lives(FOLD, NETWORK, lives, told, oracle) > 5
    senders = {
        e.transaction: e.sender for each in lives for e in each[-1].standing if isinstance(e, Rejected)
    }
    named = {call: who for each in lives for call, (who, _) in oracle(each[-1].standing).items()}
    assert sum(who != senders[call] for call, who in named.items()) > 5  # members, by their signatures

"""Wrong responses that Operators signed, against a version that verifies everything and forgets nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak
from immutables import Map

from nektar import checkpoint
from nektar.evidence import bls, sought
from nektar.evidence.bundle import (
    FORMAT,
    AggregateClaim,
    Bundle,
    RefutationClaim,
    SignatureClaim,
    finding_id,
)
from nektar.evidence.canonical import Octets
from nektar.evidence.verify import Accused, NotProved
from nektar.facts import Accepted, Refuted, Submitted
from nektar.facts import Signed as SignedFact
from nektar.fold import Step
from nektar.model import (
    G1,
    At,
    BlockClosed,
    BlockRef,
    ChainEvent,
    Event,
    GapPassed,
    Hash32,
    KeyRotated,
    Level,
    OperatorSet,
    OperatorSetCommitted,
    Responded,
    ResponseChallenged,
    Signed,
    TaskSubmitted,
    Unpaused,
)
from nektar.networks.encoding import encode_answer
from nektar.rows import Change, Finding
from processors import early
from processors.conditions import watch
from processors.conditions.invalid_response import InvalidResponse, Watch
from processors.conditions.watch import SLASHING_WINDOW
from tests.processors.conditions.test_equivocation import ONE_EARLY, forgotten, is_true
from tests.processors.test_reorgs import life, retracted_in_lives
from tests.processors.world import (
    CHAIN_ID,
    MANAGER,
    NETWORK,
    OPERATORS,
    STRANGER,
    Rows,
    World,
    block,
    falsely_told,
    history,
    key_of,
    put,
    registered,
    set_of,
    signed,
    task,
    with_false_twins,
)
from tests.processors.world import signature as signature_of
from tests.seeds import seeds

CONDITION = InvalidResponse()
FOLD = CONDITION.detect
SEEDS = seeds(24, 60)
RIGHT = (2, 5)
WRONG = [(5, 2), (10, 1), (3, 7), (1, 10), (0, 0)]


class Answering(World):
    """Its responses are of quorums that signed them, but for those that are not."""

    answers = (RIGHT, *WRONG[:3])

    def _respond(self, at: At) -> ChainEvent | None:
        about, rng = self._some_task(), self.rng
        members = sorted(self._sets.get(about.set_hash, {}).items()) if about else []
        if about is None or not members or at.block > about.deadline.value:
            return None
        missing = tuple(i for i in range(len(members)) if rng.random() < 0.4)
        made = quorum(at, about.hash, [secret for _, secret in members], missing, rng.choice(self.answers))
        match rng.randrange(8):
            case 0:  # some of those who are said to have signed did not
                return msgspec.structs.replace(made, non_signers=missing[1:])
            case 1:
                return msgspec.structs.replace(made, signature=signature_of(1, about.hash, made.digest))
            case 2:
                return msgspec.structs.replace(made, non_signers=None)
        return made


def quorum(
    at: At, task_hash: Hash32, secrets: Sequence[int], missing: tuple[int, ...], answer: tuple[int, int]
) -> Responded:
    response = encode_answer(*answer)
    digest = Hash32(keccak(response))
    signers = [secret for i, secret in enumerate(secrets) if i not in missing]
    if signers:
        signature = bls.aggregate(signature_of(secret, task_hash, digest) for secret in signers)
        apk = bls.aggregate_g2(key_of(secret)[1] for secret in signers)
    else:
        signature, apk = G1(bytes(64)), key_of(1)[1]
    return Responded(at, task_hash, digest, missing, 99, response, signature, apk)


# --- the oracle -------------------------------------------------------------------------------------

Told = dict[bytes, tuple[bytes, bool, int, str]]


def oracle(events: Sequence[Event]) -> Told:
    """Finding id → (digest, alone, block, level), for all that ever happened."""
    found: Told = {}
    blocks = {e.block.number: e.block for e in events if isinstance(e, BlockClosed)}
    sets = {e.set.hash: e.set for e in events if isinstance(e, OperatorSetCommitted)}
    false = falsely_told(events)
    lost = forgotten([Unpaused(At(0, 0, 0)) if is_of_no_set(e, sets) else e for e in events])
    for i, event in enumerate(events):
        if not isinstance(event, TaskSubmitted) or event.task.set_hash not in sets:
            continue
        members = sets[event.task.set_hash].members
        for place, member in enumerate(members):
            for j, each in enumerate(events):
                if isinstance(each, Signed) and (j > i or each.at is None) and j not in lost:
                    signs = each.operator == member.operator and is_true(each, event, member.key)
                    signs = signs and member.key not in false
                elif isinstance(each, Responded) and j > i:
                    signs = each.non_signers is not None and place not in each.non_signers
                    signs = signs and is_sum(each, event, [m.key for m in members])
                else:
                    continue
                if not signs or each.response == encode_answer(*RIGHT):
                    continue
                at = [event.at.block, *([each.at.block] if each.at else [])]
                linked = any(blocks[n].level is not Level.PROVED for n in at)
                name = finding_id("invalid_response", CHAIN_ID, MANAGER, event.task.hash, member.operator)
                level = Level.LINKED if linked else Level.PROVED
                found[name] = (each.digest, isinstance(each, Signed), max(at), level)
                break
    return found


def is_of_no_set(event: Event, sets: Mapping[Hash32, OperatorSet]) -> bool:
    """Whether this Task is not watched: what is brought for it waits in vain."""
    return isinstance(event, TaskSubmitted) and event.task.set_hash not in sets


def is_sum(responded: Responded, about: TaskSubmitted, keys: Sequence[G1]) -> bool:
    """Whether just those who are said to have signed did."""
    assert responded.non_signers is not None
    secrets = [SECRETS[key] for key in keys]
    missing = tuple(place for place in responded.non_signers if isinstance(place, int))
    p, q = (int.from_bytes(responded.response[at : at + 32]) for at in (0, 32))
    expected = quorum(responded.at, about.task.hash, secrets, missing, (p, q))
    return (
        responded.task_hash == about.task.hash
        and len(missing) < len(keys)
        and (responded.signature, responded.apk_g2) == (expected.signature, expected.apk_g2)
    )


SECRETS = {key_of(secret)[0]: secret for secret in range(1, 60)}


def told(rows: Rows) -> Told:
    findings = [row for row in rows.values() if isinstance(row, Finding)]
    assert len(findings) == len(rows)
    shown = {}
    for finding in findings:
        signed_, refutation = CONDITION.claims(finding).whole
        assert isinstance(signed_, SignatureClaim | AggregateClaim)
        assert isinstance(refutation, RefutationClaim)
        assert refutation.response == signed_.response
        shown[finding.id] = (
            keccak(signed_.response),
            isinstance(signed_, SignatureClaim),
            finding.block_number,
            finding.level,
        )
    return shown


@pytest.mark.parametrize(("most", "blocks"), [(1024, early.BLOCKS), (1, early.BLOCKS), (1024, 3)])
@pytest.mark.parametrize("part", range(3))
def test_what_is_found_is_what_was_signed(
    part: int, most: int, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "MOST", most * ONE_EARLY)
    monkeypatch.setattr(early, "BLOCKS", blocks)
    alone, together = 0, 0
    for seed in range(part, SEEDS, 3):
        rng = random.Random(f"invalid response {seed}")
        events = history(rng, 24, pauses=False, of=Answering)
        if seed % 4 == 3:
            events = with_false_twins(rng, events)
        state, rows = FOLD.initial(NETWORK), Rows()
        for i, event in enumerate(events):
            state, changes = FOLD.step(state, event)
            put(rows, changes)
            if isinstance(event, BlockClosed | GapPassed) and (changes or i == len(events) - 1):
                assert told(rows) == oracle(events[: i + 1]), f"seed {seed}, after {event}"
        alone += sum(each[1] for each in told(rows).values())
        together += sum(not each[1] for each in told(rows).values())
    assert min(alone, together) > SEEDS // 4


def test_after_any_reorgs_it_is_what_the_surviving_chain_shows() -> None:
    lives = (life(random.Random(f"wrong lives {seed}"), 20, Answering) for seed in range(seeds(4, 12)))
    assert retracted_in_lives(FOLD, NETWORK, lives, told, oracle) > 5


# --- what it must not fall for ----------------------------------------------------------------------

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


def play(*events: Event, begin: Sequence[Event] = BEGIN) -> tuple[Watch, list[Finding]]:
    state, said = FOLD.initial(NETWORK), list[Change]()
    for event in (*begin, *events):
        state, changes = FOLD.step(state, event)
        said += changes
    assert all(change.before is None for change in said)
    return state, [change.after for change in said if isinstance(change.after, Finding)]


def by_alice(answer: tuple[int, int] = WRONG[0], at: At | None = None, secret: int = 1) -> Signed:
    return signed(at, TASK.hash, ALICE, secret, answer)


def accepted(at: At, answer: tuple[int, int], missing: tuple[int, ...] = ()) -> Responded:
    return quorum(at, TASK.hash, [1, 2], missing, answer)


@pytest.mark.parametrize("answer", WRONG)
def test_one_wrong_response_is_a_finding_of_its_block(answer: tuple[int, int]) -> None:
    call = by_alice(answer, At(3, 1, -1))
    event = msgspec.structs.replace(call, at=At(3, 1, 4))
    _, (finding,) = play(call, event, BlockClosed(block(3)))
    assert (finding.block_number, finding.level, finding.status) == (3, "proved", "seen")
    assert (finding.operator, finding.task_hash, finding.task_input) == (ALICE, TASK.hash, "10")


def test_the_right_response_is_no_offence_alone_or_in_a_quorum() -> None:
    right = [by_alice(RIGHT), by_alice(RIGHT, At(3, 0, -1)), accepted(At(3, 1, 0), RIGHT)]
    state, found = play(*right, BlockClosed(block(3)))
    assert found == []
    assert state.tasks[TASK.hash].kept == 2


def test_all_signers_of_a_wrong_quorum_are_found_and_nobody_else() -> None:
    _, found = play(accepted(At(3, 1, 0), WRONG[0]), BlockClosed(block(3)))
    assert [finding.operator for finding in found] == [ALICE, BOB]
    _, found = play(accepted(At(3, 1, 0), WRONG[0], missing=(0,)), BlockClosed(block(3)))
    assert [finding.operator for finding in found] == [BOB]


def test_what_was_signed_first_is_the_evidence_and_the_rest_says_nothing_more() -> None:
    in_block_3 = [by_alice(WRONG[1], At(3, 0, -1)), accepted(At(3, 1, 0), WRONG[0])]
    _, found = play(*in_block_3, BlockClosed(block(3)), by_alice(WRONG[2]), by_alice(WRONG[0]))
    assert [finding.operator for finding in found] == [ALICE, BOB]
    assert [type(CONDITION.claims(each).whole[0]) for each in found] == [SignatureClaim, AggregateClaim]


def test_a_challenge_takes_nothing_back() -> None:
    wrong = [accepted(At(3, 1, 0), WRONG[0]), BlockClosed(block(3))]
    state, _ = play(*wrong)
    for event in (ResponseChallenged(At(4, 0, 0), TASK.hash), BlockClosed(block(4))):
        state, changes = FOLD.step(state, event)
        assert changes == []


def test_what_telemetry_brings_rests_on_the_tasks_block() -> None:
    _, (finding,) = play(BlockClosed(block(3, level=Level.LINKED)), by_alice())
    assert (finding.block_number, finding.level) == (2, "proved")


def test_a_linked_block_under_a_finding_lowers_its_level() -> None:
    linked = BlockClosed(block(3, level=Level.LINKED))
    _, (finding,) = play(by_alice(at=At(3, 0, -1)), linked)
    assert (finding.block_number, finding.level) == (3, "linked")


def junk(count: int) -> Iterator[Signed]:
    return (msgspec.structs.replace(by_alice(), signature=G1(bytes([i]) * 64)) for i in range(count))


def test_no_number_of_false_signatures_hides_a_true_one_or_makes_the_state_grow() -> None:
    before, _ = play(by_alice(RIGHT))
    state, found = play(by_alice(RIGHT), *junk(200))
    assert (state, found) == (before, [])
    _, (finding,) = play(*junk(40), by_alice(secret=2), by_alice(), *junk(40))
    assert finding.operator == ALICE


def test_a_flood_costs_no_verification_of_right_answers_or_once_its_operator_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verified: list[bytes] = []
    true = bls.verify
    monkeypatch.setattr(bls, "verify", lambda *args: verified.append(args[1]) or true(*args))
    right = [msgspec.structs.replace(each, **vars_of(RIGHT)) for each in junk(20)]
    _, found = play(*right, *junk(7), by_alice(), *junk(50), by_alice(WRONG[1]))
    assert (len(found), len(verified)) == (1, 8)


def test_a_tasks_number_is_factored_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from processors.conditions import invalid_response

    asked: list[int] = []
    true = invalid_response.least_divisor
    monkeypatch.setattr(
        invalid_response, "least_divisor", lambda n, known: asked.append(n) or true(n, known=known)
    )
    play(*(by_alice(answer, secret=9) for answer in (WRONG[2], RIGHT, WRONG[0], WRONG[1], RIGHT)))
    assert asked == [10]


def vars_of(answer: tuple[int, int]) -> dict[str, bytes]:
    response = encode_answer(*answer)
    return {"response": response, "digest": keccak(response)}


def test_false_signatures_accuse_nobody() -> None:
    mallory = signed(None, TASK.hash, STRANGER, 9, WRONG[0])
    moved = msgspec.structs.replace(by_alice(), signature=by_alice(RIGHT).signature)
    unlike = msgspec.structs.replace(by_alice(RIGHT), response=encode_answer(*WRONG[0]))
    unknown = msgspec.structs.replace(by_alice(), task_hash=Hash32(b"u" * 32))
    identity = msgspec.structs.replace(by_alice(), signature=G1(bytes(64)))
    assert play(mallory, by_alice(secret=2), moved, unlike, unknown, identity)[1] == []


def test_a_quorum_that_is_none_frames_nobody() -> None:
    """As a block whose receipts nobody had may tell it."""
    wrong = accepted(At(3, 1, 0), WRONG[0], missing=(0,))  # Bob alone
    replace = msgspec.structs.replace
    both = bls.aggregate_g2([key_of(1)[1], key_of(2)[1]])
    for false in (
        replace(wrong, non_signers=()),
        replace(wrong, non_signers=(), apk_g2=both),
        replace(wrong, non_signers=(1,)),
        replace(wrong, non_signers=(0, 1)),
        replace(wrong, non_signers=None),
        replace(wrong, signature=by_alice().signature),
        replace(wrong, **vars_of(WRONG[1])),
        replace(wrong, digest=Hash32(bytes(32))),
        replace(wrong, signature=G1(b""), apk_g2=type(both)(b"")),
    ):
        assert play(false, BlockClosed(block(3)))[1] == []


def test_a_key_that_came_after_the_tasks_set_says_nothing_and_that_of_the_set_does() -> None:
    rotated = [KeyRotated(At(3, 0, 0), ALICE, *key_of(7)), BlockClosed(block(3))]
    assert play(*rotated, by_alice(secret=7))[1] == []
    assert len(play(*rotated, by_alice())[1]) == 1


def test_a_signature_for_another_task_manager_or_chain_does_not_count() -> None:
    wrong = by_alice()
    for chain_id, contract in ((CHAIN_ID + 1, MANAGER), (CHAIN_ID, STRANGER)):
        digest = bls.signing_digest(chain_id, contract, TASK.hash, wrong.digest)
        assert play(msgspec.structs.replace(wrong, signature=bls.sign(1, digest)))[1] == []


def test_a_task_that_is_none_of_the_contracts_accuses_nobody() -> None:
    odd = b"of some other Network's shape"
    shapes = [b"", odd, TASK.preimage[:32] + bytes(32) + TASK.preimage[64:]]  # the last asks about zero
    for preimage in shapes:
        about = msgspec.structs.replace(TASK, preimage=preimage, hash=Hash32(keccak(preimage)))
        begin = [TaskSubmitted(about.submitted, about) if e is BEGIN[4] else e for e in BEGIN]
        for answer in (WRONG[0], WRONG[3]):
            assert play(signed(None, about.hash, ALICE, 1, answer), begin=begin)[1] == []


def test_what_comes_before_its_task_is_found_with_its_block() -> None:
    _, (finding,) = play(by_alice(), by_alice(WRONG[1]), *BEGIN[4:], begin=BEGIN[:4])
    assert (finding.block_number, finding.operator) == (2, ALICE)
    assert response_of(finding) == encode_answer(*WRONG[0])


def test_what_came_before_the_task_is_the_evidence_and_not_what_its_block_holds() -> None:
    call = by_alice(WRONG[1], At(2, 1, -1))
    _, (finding,) = play(by_alice(), BEGIN[4], call, BEGIN[5], begin=BEGIN[:4])
    assert response_of(finding) == encode_answer(*WRONG[0])


def response_of(finding: Finding) -> bytes:
    claim, _ = CONDITION.claims(finding).whole
    assert isinstance(claim, SignatureClaim | AggregateClaim)
    return claim.response


# --- what is kept -----------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [(), (by_alice(RIGHT),)], ids=["nobody signed in time", "signed in time"])
def test_a_task_is_watched_for_the_slashing_window(before: tuple[Event, ...]) -> None:
    end = 8 + SLASHING_WINDOW
    begun = (*before, *(BlockClosed(block(n)) for n in (8, end - 1)))
    assert len(play(*begun, by_alice())[1]) == 1
    for last in (BlockClosed(block(end)), GapPassed(end, end + 5)):
        state, found = play(*begun, last, by_alice())
        assert (found, len(state.tasks), len(state.due)) == ([], 0, 0)
        assert [each.holds for each in state.registry.sets.values()] == [0]


def test_whoever_is_in_a_quorum_is_watched_after_the_grace_and_of_all_these_tasks_the_latest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "LATEST", 2)
    begun = (accepted(At(3, 0, 0), RIGHT), BlockClosed(block(3)))
    assert len(play(*begun, BlockClosed(block(8)), by_alice())[1]) == 1
    others = [task(At(n, 0, 0), MEMBERS.hash, n, deadline=6, grace=n) for n in (4, 5)]
    for many in (others[:1], others):
        asked: list[Event] = [*begun]
        for each in many:
            at = each.submitted.block
            asked += [TaskSubmitted(each.submitted, each), BlockClosed(block(at))]
            asked += [signed(None, each.hash, BOB, 2, RIGHT)]
        state, found = play(*asked, *(BlockClosed(block(n)) for n in (8, 10, 11)), by_alice())
        assert len(found) == (len(many) < 2)
        assert len(state.tasks) == 2
        assert len(state.late) == len(state.due) == 2
    state, _ = play(*asked, GapPassed(6, 20))
    assert set(state.tasks) == {each.hash for each in others}
    state, _ = play(*asked, GapPassed(6, 11 + SLASHING_WINDOW))
    assert (len(state.tasks), len(state.due)) == (0, 0)
    assert [each.holds for each in state.registry.sets.values()] == [0]


def test_a_checkpoint_loses_nothing() -> None:
    state, _ = play(by_alice(WRONG[1]), by_alice(RIGHT), accepted(At(3, 0, 0), WRONG[0]))
    stored = checkpoint.encode(Step(0, None, state, Map(), -1, None))
    again = checkpoint.decode(stored, FOLD).state
    assert again == state
    closed = BlockClosed(block(3))
    assert FOLD.step(again, closed) == FOLD.step(state, closed)
    assert [change.after.operator for change in FOLD.step(again, closed)[1]] == [BOB]  # type: ignore[union-attr]


# --- claims, and what they add up to ----------------------------------------------------------------


def test_the_event_of_the_accepted_response_is_shown_where_a_quorum_signed_it() -> None:
    _, (alone,) = play(by_alice(at=At(3, 2, -1)), BlockClosed(block(3)))
    _, (together, _) = play(accepted(At(3, 2, 9), WRONG[0]), BlockClosed(block(3)))
    submission = sought.event("task_manager", block(2).ref, TASK.submitted)
    assert CONDITION.claims(alone).fetch == (submission,)
    response = sought.event("task_manager", block(3).ref, At(3, 2, 9))
    assert CONDITION.claims(together).fetch == (submission, response)


def test_it_holds_for_one_wrong_digest_that_was_signed_and_for_nothing_else() -> None:
    accused, at = Accused(ALICE, TASK.hash), BlockRef(2, Hash32(bytes(32)))
    digest, other = Hash32(b"d" * 32), Hash32(b"e" * 32)
    submitted, refuted = Submitted(TASK.preimage, at), Refuted(TASK.hash, digest)
    alone = SignedFact(TASK.hash, ALICE, digest, alone=True)
    together = msgspec.structs.replace(alone, alone=False)
    response = Accepted(TASK.hash, digest, (), at)
    others = msgspec.structs.replace(together, operator=BOB)
    replace = msgspec.structs.replace
    CONDITION.holds(accused, [submitted, alone, refuted], {})
    CONDITION.holds(accused, [submitted, response, others, together, refuted], {})
    for facts in (
        [alone, refuted],
        [submitted, refuted],
        [submitted, alone],
        [Submitted(b"another", at), alone, refuted],
        [submitted, replace(alone, operator=BOB), refuted],
        [submitted, replace(alone, task_hash=other), refuted],
        [submitted, alone, Refuted(TASK.hash, other)],
        [submitted, alone, Refuted(other, digest)],
        [submitted, alone, replace(alone, digest=other), refuted],
        [submitted, others, together, refuted],
        [submitted, others, together, refuted, replace(response, digest=other)],
        [submitted, others, together, refuted, replace(response, task_hash=other)],
    ):
        with pytest.raises(NotProved, match="invalid_response: expected"):
            CONDITION.holds(accused, facts, {})


PAIR = "(uint256,uint256)"
TASK_TYPE = "(bytes32,uint256,bytes32,bytes32,uint64,uint64,uint16,uint16,uint64)"
MEMBERS_TYPE = f"(address,{PAIR},uint256)[]"
FIELDS = (bytes(32), 10, bytes(32), MEMBERS.hash, 6, 2, 5000, 5000, 1)


def bundle_of(finding: Finding) -> Bundle:
    """As far as calldata is made of it."""
    said = CONDITION.claims(finding)
    return Bundle(
        *(FORMAT, "invalid_response", CHAIN_ID, {}, Octets(finding.operator), said.subject, ()),
        sets=(Octets(MEMBERS.preimage),),
        claims=said.whole,
    )


def pair(point: bytes) -> tuple[int, int]:
    return int.from_bytes(point[:32], "big"), int.from_bytes(point[32:], "big")


def encoded(function: str, types: list[str], values: list[object]) -> bytes:
    return keccak(f"{function}({','.join(types)})".encode())[:4] + encode(types, values)


def test_calldata_is_what_an_abi_library_would_write() -> None:
    members = [("0x" + m.operator.hex(), pair(m.key), m.stake[0].amount) for m in MEMBERS.members]
    _, (alone,) = play(by_alice(WRONG[0]))
    signature = pair(by_alice(WRONG[0]).signature)
    made = CONDITION.dispute(bundle_of(alone))
    types = [TASK_TYPE, MEMBERS_TYPE, "uint256", PAIR, PAIR, "uint256"]
    values: list[object] = [FIELDS, members, 0, WRONG[0], signature, 2]
    assert made == ("slashing_manager", encoded("proveInvalidResponse", types, values))

    _, (together,) = play(accepted(At(3, 0, 0), WRONG[2], missing=(0,)), BlockClosed(block(3)))
    made = CONDITION.dispute(bundle_of(together))
    types = [TASK_TYPE, MEMBERS_TYPE, "uint256", PAIR, "uint256[]", "uint256"]
    values = [FIELDS, members, 1, WRONG[2], [0], 0]
    assert made == ("slashing_manager", encoded("proveInvalidResponseInQuorum", types, values))

    for finding, answer, divisor in ((alone, WRONG[0], 2), (together, WRONG[2], 0)):
        made = CONDITION.challenge(bundle_of(finding))
        types, values = [TASK_TYPE, PAIR, "uint256"], [FIELDS, answer, divisor]
        assert made == ("task_manager", encoded("challenge", types, values))

"""Equivocation against a version of itself that verifies everything and forgets nothing."""

from __future__ import annotations

import random
import tracemalloc
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import msgspec
import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak
from immutables import Map

from nektar import checkpoint, plugins
from nektar import facts as fact
from nektar.evidence import bls
from nektar.evidence.bundle import AggregateClaim, Bundle, MemberClaim, SignatureClaim, finding_id
from nektar.evidence.canonical import Octets
from nektar.evidence.sought import SetSought
from nektar.evidence.verify import Accused, NotProved
from nektar.facts import Accepted, Submitted
from nektar.fold import Step
from nektar.model import (
    G1,
    Address,
    At,
    BlockClosed,
    Event,
    GapPassed,
    Hash32,
    KeyRotated,
    Level,
    Network,
    OperatorSetCommitted,
    Signed,
    TaskSubmitted,
    UnknownContract,
)
from nektar.networks.encoding import encode_answer, encode_members, operator_set
from nektar.rows import Change, Finding
from processors import early
from processors.conditions import watch
from processors.conditions.equivocation import RESPONSE_BYTES, Equivocation, Watch
from processors.conditions.signatures import SIGNATURE_BYTES
from processors.conditions.watch import SLASHING_WINDOW
from tests.processors.world import (
    ANSWERS,
    CHAIN_ID,
    MANAGER,
    NETWORK,
    OPERATORS,
    STRANGER,
    Rows,
    block,
    falsely_told,
    history,
    key_of,
    put,
    registered,
    set_of,
    signature,
    signed,
    task,
    with_false_twins,
)
from tests.seeds import seeds

CONDITION = Equivocation()
FOLD = CONDITION.detect
SEEDS = seeds(24, 60)
# Bytes of a signature that waits for its Task.
ONE_EARLY = early.ENTRY_BYTES + early.SIGNED_BYTES + 64


# --- the oracle -------------------------------------------------------------------------------------


def oracle(events: Sequence[Event]) -> dict[bytes, tuple[bytes, bytes, int, str]]:
    """Finding id → (first digest, second digest, block, level), for all that ever happened."""
    found: dict[bytes, tuple[bytes, bytes, int, str]] = {}
    lost = forgotten(events)
    blocks = {e.block.number: e.block for e in events if isinstance(e, BlockClosed)}
    sets = {e.set.hash: e.set for e in events if isinstance(e, OperatorSetCommitted)}
    false = falsely_told(events)
    for i, event in enumerate(events):
        if not isinstance(event, TaskSubmitted) or event.task.set_hash not in sets:
            continue
        for member in sets[event.task.set_hash].members:
            if member.key in false:
                continue
            true = [
                e
                for j, e in enumerate(events)
                if isinstance(e, Signed) and is_true(e, event, member.key) and j not in lost
                if j > i or e.at is None
            ]
            mine = [e for e in true if e.operator == member.operator]
            others = [e for e in mine if e.digest != mine[0].digest]
            if not others:
                continue
            at = [event.at.block, *(e.at.block for e in (mine[0], others[0]) if e.at)]
            linked = any(blocks[n].level is not Level.PROVED for n in at)
            name = finding_id("equivocation", CHAIN_ID, MANAGER, event.task.hash, member.operator)
            level = Level.LINKED if linked else Level.PROVED
            found[name] = (mine[0].digest, others[0].digest, max(at), level)
    return found


def forgotten(events: Sequence[Event]) -> set[int]:
    """The places of early messages that did not wait until their Task came."""
    submitted = {e.task.hash: i for i, e in enumerate(events) if isinstance(e, TaskSubmitted)}
    waited: dict[str, list[int]] = defaultdict(list)
    lost: set[int] = set()
    for i, event in enumerate(events):
        match event:
            case Signed(at=None) if submitted.get(event.task_hash, i) >= i and is_sound(event):
                waited[event.brought_by].append(i)
            case BlockClosed() | GapPassed():
                for queue in waited.values():
                    queue[:] = [
                        j
                        for j in queue
                        if submitted.get(events[j].task_hash, i) >= i  # type: ignore[union-attr]
                        and blocks_in(events[j : i + 1]) <= early.BLOCKS
                    ]
            case _:
                continue
        for queue in waited.values():
            del queue[: -(early.MOST // ONE_EARLY)]
        waiting = {j for queue in waited.values() for j in queue}
        lost |= {
            j
            for j, e in enumerate(events[: i + 1])
            if isinstance(e, Signed) and e.at is None and submitted.get(e.task_hash, -1) > i
        } - waiting
    return lost


def blocks_in(events: Sequence[Event]) -> int:
    """How many blocks passed in these."""
    return sum(
        1 if isinstance(e, BlockClosed) else e.last - e.first + 1 if isinstance(e, GapPassed) else 0
        for e in events
    )


def is_sound(signed_: Signed) -> bool:
    return keccak(signed_.response) == signed_.digest


def is_true(signed_: Signed, about: TaskSubmitted, key: G1) -> bool:
    secret = SECRETS[key]
    return (
        signed_.task_hash == about.task.hash
        and is_sound(signed_)
        and signed_.signature == signature(secret, about.task.hash, signed_.digest)
    )


# More keys than any history uses.
SECRETS = {key_of(secret)[0]: secret for secret in range(1, 60)}


@pytest.mark.parametrize(("most", "blocks"), [(1024, early.BLOCKS), (1, early.BLOCKS), (1024, 3)])
@pytest.mark.parametrize("part", range(3))
def test_what_is_found_is_what_was_signed(
    part: int, most: int, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "MOST", most * ONE_EARLY)
    monkeypatch.setattr(early, "BLOCKS", blocks)
    count = 0
    for seed in range(part, SEEDS, 3):
        rng = random.Random(f"equivocation {seed}")
        events = history(rng, 24, pauses=False)
        if seed % 4 == 3:
            events = with_false_twins(rng, events)
        state, rows = FOLD.initial(NETWORK), Rows()
        for i, event in enumerate(events):
            state, changes = FOLD.step(state, event)
            put(rows, changes)
            if isinstance(event, BlockClosed | GapPassed) and (changes or i == len(events) - 1):
                assert told(rows) == oracle(events[: i + 1]), f"seed {seed}, after {event}"
            check_sizes(state)
        count += len(rows)
    assert count > SEEDS // 3


def check_sizes(state: Watch) -> None:
    """What is counted as it comes and goes is what is there."""
    for watched in state.tasks.values():
        places = [place for signatures in watched.kept.held.values() for place in signatures]
        assert len(places) == len(set(places))
        assert watched.size == RESPONSE_BYTES * len(watched.kept.held) + SIGNATURE_BYTES * len(places)
    late = [state.tasks[each] for each in state.late.values() if each in state.tasks]
    assert state.late_size == sum(watched.size for watched in late)
    assert {watched.task.hash for watched in late} == {w.task.hash for w in state.tasks.values() if w.is_late}


def told(rows: Rows) -> dict[bytes, tuple[bytes, bytes, int, str]]:
    findings = [row for row in rows.values() if isinstance(row, Finding)]
    assert len(findings) == len(rows)
    shown = {}
    for finding in findings:
        first, second = signed_in(finding)
        shown[finding.id] = (first, second, finding.block_number, finding.level)
    return shown


def signed_in(finding: Finding) -> list[bytes]:
    """The digests that its claims are about, in their order."""
    whole = CONDITION.claims(finding).whole
    assert all(isinstance(each, SignatureClaim | AggregateClaim) for each in whole)
    return [keccak(each.response) for each in whole if not isinstance(each, MemberClaim)]


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
NO_POINT = G1(b"\1" * 64)


def play(*events: Event, network: Network = NETWORK) -> tuple[Watch, list[Finding]]:
    state, said = FOLD.initial(network), list[Change]()
    for event in (*BEGIN, *events):
        state, changes = FOLD.step(state, event)
        said += changes
    assert all(change.before is None for change in said)
    return state, [change.after for change in said if isinstance(change.after, Finding)]


def by_alice(answer: int, at: At | None = None, secret: int = 1) -> Signed:
    return signed(at, TASK.hash, ALICE, secret, ANSWERS[answer])


def test_the_condition_is_found_by_its_name() -> None:
    assert plugins.load("nektar.conditions", "equivocation") is Equivocation


def test_two_responses_in_one_block_are_one_finding_of_that_block() -> None:
    calls = [by_alice(i, At(3, i, -1)) for i in (0, 1, 2)]
    _, (finding,) = play(*calls, BlockClosed(block(3)))
    assert (finding.block_number, finding.level, finding.status) == (3, "proved", "seen")
    assert (finding.operator, finding.task_input) == (ALICE, "10")
    assert signed_in(finding) == [call.digest for call in calls[:2]]


def test_what_telemetry_brings_rests_on_the_tasks_block() -> None:
    _, (finding,) = play(BlockClosed(block(3, level=Level.LINKED)), by_alice(0), by_alice(1))
    assert (finding.block_number, finding.level) == (2, "proved")


def test_a_linked_block_under_a_finding_lowers_its_level() -> None:
    linked = BlockClosed(block(3, level=Level.LINKED))
    _, (finding,) = play(by_alice(0, At(3, 0, -1)), linked, by_alice(1, At(4, 0, -1)), BlockClosed(block(4)))
    assert (finding.block_number, finding.level) == (4, "linked")


def test_signing_the_same_response_twice_is_no_offence() -> None:
    assert play(by_alice(0), by_alice(0), by_alice(0, At(3, 0, -1)), BlockClosed(block(3)))[1] == []


def test_no_number_of_false_signatures_hides_two_true_ones() -> None:
    junk = [msgspec.structs.replace(by_alice(0), signature=G1(bytes([i]) * 64)) for i in range(40)] + [
        by_alice(1, secret=2)
    ]
    state, (finding,) = play(*junk, by_alice(0), *junk, by_alice(1), *junk)
    assert finding.operator == ALICE
    assert len(state.tasks[TASK.hash].kept.held) == 0


def test_false_signatures_accuse_nobody() -> None:
    mallory = [signed(None, TASK.hash, STRANGER, 9, ANSWERS[i]) for i in (0, 1)]
    with_bobs_key = [by_alice(i, secret=2) for i in (0, 1)]
    true = by_alice(0)
    other = by_alice(1)
    moved = msgspec.structs.replace(other, signature=true.signature)
    unlike = msgspec.structs.replace(other, response=encode_answer(9, 9))
    unknown = [msgspec.structs.replace(by_alice(i), task_hash=Hash32(b"u" * 32)) for i in (0, 1)]
    identity = msgspec.structs.replace(other, signature=G1(bytes(64)))
    junk = msgspec.structs.replace(other, signature=NO_POINT)
    assert play(*mallory, *with_bobs_key, true, moved, unlike, *unknown, identity, junk)[1] == []


def test_the_key_is_that_of_the_tasks_set_whatever_it_was_changed_to() -> None:
    rotated = KeyRotated(At(3, 0, 0), ALICE, *key_of(7))
    _, found = play(rotated, BlockClosed(block(3)), *(by_alice(i, secret=7) for i in (0, 1)))
    assert found == []
    _, found = play(rotated, BlockClosed(block(3)), *(by_alice(i) for i in (0, 1)))
    assert len(found) == 1


def test_a_key_whose_registration_was_not_seen_accuses_nobody() -> None:
    unseen = set_of([(ALICE, 5), (BOB, 2)])  # the block that changed Alice's key could not be had
    new = task(At(3, 1, 0), unseen.hash, 2, deadline=6, grace=2)
    begun = [OperatorSetCommitted(At(3, 0, 0), unseen), TaskSubmitted(new.submitted, new)]
    for secret in (1, 5):
        two = [signed(None, new.hash, ALICE, secret, answer) for answer in ANSWERS[:2]]
        assert play(*begun, BlockClosed(block(3)), *two)[1] == []


def test_a_signature_for_another_task_manager_or_chain_does_not_count() -> None:
    for chain_id, contract in ((CHAIN_ID + 1, MANAGER), (CHAIN_ID, STRANGER)):
        elsewhere = [
            msgspec.structs.replace(
                s, signature=bls.sign(1, bls.signing_digest(chain_id, contract, TASK.hash, s.digest))
            )
            for s in (by_alice(0), by_alice(1))
        ]
        assert play(*elsewhere)[1] == []


def test_a_task_known_by_its_number_alone_accuses_nobody() -> None:
    """Another fork can reuse its hash, so that honest Operators sign two responses under it."""
    numbered = msgspec.structs.replace(TASK, preimage=b"")
    begun = [TaskSubmitted(numbered.submitted, numbered) if e is BEGIN[4] else e for e in BEGIN]
    state = FOLD.initial(NETWORK)
    for event in (*begun, by_alice(0), by_alice(1)):
        state, changes = FOLD.step(state, event)
        assert changes == []
    assert not state.tasks


def test_a_network_without_a_task_manager_is_refused() -> None:
    with pytest.raises(UnknownContract, match="expected task_manager"):
        FOLD.initial(Network("home", 1, {"operator_registry": STRANGER}))


def test_a_set_is_named_by_the_commitment_from_which_on_it_was_held_whatever_is_undone_later() -> None:
    """It is committed again, after another, in a block that may not stand: no finding rests on it."""
    other = set_of([(ALICE, 1)])
    again = [OperatorSetCommitted(At(3, 0, 0), other), OperatorSetCommitted(At(3, 1, 0), MEMBERS)]
    for events in ([], again):
        _, (finding,) = play(*events, BlockClosed(block(3)), by_alice(0), by_alice(1))
        assert CONDITION.claims(finding).sets == (SetSought(Octets(MEMBERS.hash), 1),)


# --- what comes before its Task ---------------------------------------------------------------------

BEFORE = BEGIN[:4]  # all but the Task and the block that holds it


def after(*brought: Event) -> list[Finding]:
    """What is found once the Task has come, when this came first."""
    state, said = FOLD.initial(NETWORK), list[Change]()
    for event in (*BEFORE, *brought, *BEGIN[4:]):
        state, changes = FOLD.step(state, event)
        said += changes
    return [change.after for change in said if isinstance(change.after, Finding)]


def junk(bringer: str, count: int) -> list[Signed]:
    return [
        msgspec.structs.replace(by_alice(0), task_hash=Hash32(keccak(b"%d" % i)), brought_by=bringer)
        for i in range(count)
    ]


def test_two_signatures_that_come_before_their_task_are_found_with_its_block() -> None:
    (finding,) = after(by_alice(0), by_alice(1))
    assert (finding.block_number, finding.level, finding.operator) == (2, "proved", ALICE)


@pytest.mark.parametrize(
    ("bringer", "kind"), [("peer", "MOST"), (f"operator/0x{ALICE.hex()}", "MOST_OF_OPERATOR")]
)
def test_a_flood_by_one_bringer_pushes_out_no_other_ones_and_of_its_own_the_oldest(
    bringer: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, kind, 50 * ONE_EARLY)
    mine = [msgspec.structs.replace(by_alice(i), brought_by=bringer) for i in (0, 1)]
    assert len(after(*mine, *junk("mallory", 150), *junk("operator/0x" + "22" * 20, 150))) == 1
    assert len(after(*mine, *junk(bringer, 48))) == 1
    assert len(after(*mine, *junk(bringer, 49))) == 0


def test_many_tasks_of_a_large_set_wait_for_an_indexer_that_is_behind() -> None:
    assert early.MOST // ONE_EARLY > 75 * 200
    assert early.MOST_OF_OPERATOR // ONE_EARLY > 75


def test_what_can_never_matter_does_not_wait() -> None:
    odd = msgspec.structs.replace(by_alice(0), response=b"no answer", digest=Hash32(keccak(b"no answer")))
    unlike = msgspec.structs.replace(by_alice(0), response=encode_answer(9, 9))
    state = FOLD.initial(NETWORK)
    for signed_ in (odd, unlike):
        state, _ = FOLD.step(state, signed_)
    assert state.early == early.Waiting()


def test_nothing_waits_for_ever() -> None:
    state, _ = FOLD.step(FOLD.initial(NETWORK), by_alice(0))
    state, _ = FOLD.step(state, GapPassed(10**7, 10**7 + early.BLOCKS - 1))
    assert state.early.queues
    state, _ = FOLD.step(state, BlockClosed(block(10**7 + early.BLOCKS)))
    assert not state.early.queues


# --- what is kept -----------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [(), (by_alice(0),)], ids=["nobody signed in time", "signed in time"])
def test_a_task_is_watched_for_the_slashing_window(before: tuple[Event, ...]) -> None:
    end = 8 + SLASHING_WINDOW
    watched = (*before, *(BlockClosed(block(n)) for n in (8, end - 1)))
    state, found = play(*watched, by_alice(0), by_alice(1))
    assert len(found) == 1
    for last in (BlockClosed(block(end)), GapPassed(end, end + 5)):
        state, found = play(*watched, last, by_alice(1))
        assert found == []
        assert (len(state.tasks), len(state.due)) == (0, 0)
        assert [each.holds for each in state.registry.sets.values()] == [0]


def test_how_long_a_task_is_watched_is_the_networks_term() -> None:
    short = msgspec.structs.replace(NETWORK, terms={"slashing_window": 5})
    for last, count in ((12, 1), (13, 0)):
        told = (by_alice(0), BlockClosed(block(8)), BlockClosed(block(last)), by_alice(1))
        assert len(play(*told, network=short)[1]) == count


def test_a_task_whose_window_ends_where_another_is_kept_in_its_place_leaves_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A Task a block, as many as are kept in a window: each leaves for its window's end, and for the next."""
    monkeypatch.setattr(watch, "LATEST", 8)
    short = msgspec.structs.replace(NETWORK, terms={"slashing_window": 8})
    told: list[Event] = []
    for n in range(4, 80):
        each = task(At(n, 0, 0), MEMBERS.hash, n, deadline=n + 2, grace=1)
        told += [TaskSubmitted(each.submitted, each), BlockClosed(block(n))]
    state, _ = play(*told, network=short)
    assert len(state.late) <= 8
    state, _ = play(*told, GapPassed(80, 100), network=short)
    assert (len(state.tasks), len(state.due)) == (0, 0)
    assert [each.holds for each in state.registry.sets.values()] == [0]


def silent(n: int) -> list[Event]:
    """A Task that nobody responds to, of which telemetry brings what both signed."""
    about = task(At(n, 0, 0), MEMBERS.hash, n, deadline=n + 1, grace=1)
    told = [signed(None, about.hash, each, secret, ANSWERS[0]) for each, secret in ((ALICE, 1), (BOB, 2))]
    return [TaskSubmitted(about.submitted, about), BlockClosed(block(n)), *told]


def test_of_tasks_that_nobody_responds_to_the_oldest_are_let_go_whose_grace_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    each = RESPONSE_BYTES + 2 * SIGNATURE_BYTES
    monkeypatch.setattr(watch, "MOST_LATE", 5 * each)
    state, _ = play(*(event for n in range(3, 40) for event in silent(n)))
    check_sizes(state)
    numbers = sorted(watched.task.number for watched in state.tasks.values())
    late = sorted(watched.task.number for watched in state.tasks.values() if watched.is_late)
    assert numbers == list(range(33, 40))
    assert (late, state.late_size) == (list(range(33, 38)), 5 * each)
    oldest, newest = (silent(n)[2] for n in (32, 33))
    for event, count in ((oldest, 0), (newest, 1)):
        assert isinstance(event, Signed)
        other = signed(None, event.task_hash, ALICE, 1, ANSWERS[1])
        assert len(FOLD.step(state, other)[1]) == count


def test_what_is_let_go_for_its_size_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MOST_LATE", 0)
    state, _ = play(*(event for n in range(3, 40) for event in silent(n)), GapPassed(40, 60))
    assert (len(state.tasks), len(state.late), len(state.due), state.late_size) == (0, 0, 0, 0)
    assert [each.holds for each in state.registry.sets.values()] == [0]


def test_a_signature_that_is_held_is_36_bytes_however_many_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four Tasks of a thousand Operators, each of whose signatures has bytes of its own."""
    monkeypatch.setattr(bls, "verify", None)  # no two stand beside each other
    members = [(Address((i + 1).to_bytes(20)), point(i)) for i in range(1_000)]
    committed = operator_set(encode_members([(operator, key, 1) for operator, key in members]))
    state, _ = FOLD.step(FOLD.initial(NETWORK), OperatorSetCommitted(At(1, 0, 0), committed))
    asked = [task(At(2, n, 0), committed.hash, n, deadline=99, grace=1) for n in range(4)]
    for event in (*(TaskSubmitted(each.submitted, each) for each in asked), BlockClosed(block(2))):
        state, _ = FOLD.step(state, event)
    empty = len(checkpoint.to_json(state))
    response = encode_answer(2, 5)
    tracemalloc.start()
    try:
        for about in asked:
            for operator, key in members:
                own = bytes(bytearray(response)), Hash32(keccak(response)), G1(bytes(bytearray(key)))
                message = Signed(None, about.hash, operator, own[1], own[2], own[0])
                state, _ = FOLD.step(state, message)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 36 * 4_000 + 4 * 2_000
    assert len(checkpoint.to_json(state)) - empty < 44 * 4_000 + 4 * 1_000


@lru_cache(None)
def point(i: int) -> G1:
    return bls.hash_to_g1(keccak(b"%d" % i))


def test_a_checkpoint_between_two_signatures_loses_neither() -> None:
    state, _ = play(by_alice(0, At(3, 0, -1)), BlockClosed(block(3)), by_alice(0, secret=2))
    stored = checkpoint.encode(Step(0, None, state, Map(), -1, None))
    again = checkpoint.decode(stored, FOLD).state
    assert again == state
    assert FOLD.step(again, by_alice(1)) == FOLD.step(state, by_alice(1))
    assert FOLD.step(again, by_alice(1))[1]


# --- claims -----------------------------------------------------------------------------------------


def a_finding() -> Finding:
    return play(by_alice(0), by_alice(1))[1][0]


def bundle_of(finding: Finding) -> Bundle:
    """As much of it as a dispute needs."""
    sought = CONDITION.claims(finding)
    return Bundle(
        "nektar-evidence/1",
        finding.condition,
        CHAIN_ID,
        {},
        Octets(finding.operator),
        sought.subject,
        (),
        (Octets(MEMBERS.preimage),),
        sought.whole,
    )


def test_it_holds_for_a_submission_and_two_digests_of_one_operator() -> None:
    accused = Accused(ALICE, TASK.hash)
    submitted = Submitted(TASK.preimage, block(2).ref)
    one, other = (fact.Signed(TASK.hash, ALICE, Hash32(bytes([i]) * 32), alone=True) for i in (1, 2))
    replace = msgspec.structs.replace
    CONDITION.holds(accused, [other, submitted, one], {})
    quorum = replace(other, alone=False)
    accepted = Accepted(TASK.hash, other.digest, (), block(3).ref)
    CONDITION.holds(accused, [submitted, accepted, one, quorum], {})
    for facts in (
        [],
        [one, other],
        [submitted, one],
        [submitted, one, one],
        [submitted, one, other, replace(other, digest=Hash32(bytes(32)))],
        [submitted, one, replace(other, operator=BOB)],
        [submitted, one, replace(other, task_hash=Hash32(bytes(32)))],
        [Submitted(bytes(288), block(2).ref), one, other],
        [submitted, one, quorum],
        [submitted, replace(accepted, task_hash=Hash32(bytes(32))), one, quorum],
        [submitted, replace(accepted, digest=one.digest), one, quorum],
    ):
        with pytest.raises(NotProved):
            CONDITION.holds(accused, facts, {})


def test_the_dispute_is_what_an_abi_library_would_write() -> None:
    bundle = bundle_of(a_finding())
    pair = "(uint256,uint256)"
    types = [
        "(bytes32,uint256,bytes32,bytes32,uint64,uint64,uint16,uint16,uint64)",
        f"(address,{pair},uint256)[]",
        "uint256",
        *[pair] * 4,
    ]
    members = [("0x" + m.operator.hex(), numbers(m.key), m.stake[0].amount) for m in MEMBERS.members]
    fields = (bytes(32), 10, bytes(32), MEMBERS.hash, 6, 2, 5000, 5000, 1)
    signatures = [each.signature for each in bundle.claims if isinstance(each, SignatureClaim)]
    parts = [ANSWERS[0], numbers(signatures[0]), ANSWERS[1], numbers(signatures[1])]
    selector = keccak(f"proveEquivocation({','.join(types)})".encode())[:4]
    assert CONDITION.dispute(bundle) == (
        "slashing_manager",
        selector + encode(types, [fields, members, 0, *parts]),
    )


def test_a_response_of_another_shape_has_no_dispute() -> None:
    bundle = bundle_of(a_finding())
    one, other = bundle.claims
    odd = msgspec.structs.replace(
        bundle, claims=(one, msgspec.structs.replace(other, response=Octets(b"42")))
    )
    assert CONDITION.dispute(odd) is None


def test_two_quorums_have_no_dispute() -> None:
    """The contracts accept another response once one is overturned, and have no proof of the two."""
    bundle = bundle_of(a_finding())
    quorum = AggregateClaim(Octets(TASK.preimage), (), Octets(b""), Octets(encode_answer(1, 2)), Octets(b""))
    assert CONDITION.dispute(msgspec.structs.replace(bundle, claims=(quorum, quorum))) is None


def test_a_response_that_could_not_be_disputed_does_not_stand_in_for_one_that_could() -> None:
    odd = b"no answer of the contracts"
    digest = Hash32(keccak(odd))
    true = signature(1, TASK.hash, digest)
    _, (finding,) = play(Signed(None, TASK.hash, ALICE, digest, true, odd), by_alice(0), by_alice(1))
    assert signed_in(finding) == [keccak(encode_answer(*a)) for a in ANSWERS[:2]]
    assert CONDITION.dispute(bundle_of(finding)) is not None


def numbers(point: bytes) -> tuple[int, int]:
    return int.from_bytes(point[:32], "big"), int.from_bytes(point[32:], "big")

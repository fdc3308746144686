"""What is wrong with proofs that are shown: read as contracts read them, held against what the chain says."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import msgspec
import pytest
from eth_hash.auto import keccak

from devnet.chain import Reverted
from nektar.evidence.bundle import Claim
from nektar.evidence.sought import AbsenceSought, EventSought, StateSought
from nektar.evidence.verify import Accused, NotProved
from nektar.facts import Absent, Accepted, Counted, Fact, Forged, Requested, Stored, Trusted
from nektar.model import (
    Address,
    At,
    Attested,
    BlockClosed,
    BlockRef,
    CollateralOpened,
    Delegated,
    Event,
    GapPassed,
    Hash32,
    Level,
    MissCounted,
    Network,
    OperatorDeregistered,
    OperatorSetCommitted,
    Responded,
    Slashed,
    Task,
    WithdrawalRequested,
)
from nektar.networks.calldata import Calldata, Unreadable
from nektar.networks.encoding import (
    PROVE_BOND_BREACH,
    PROVE_EQUIVOCATION,
    PROVE_EQUIVOCATION_IN_QUORUM,
    PROVE_INVALID_RESPONSE_IN_QUORUM,
    PROVE_MISSED_DUTY,
    Dynamic,
    array,
    call,
    encode_answer,
    members,
    numbers,
    padded,
    selector,
    tuple_of,
    word,
)
from processors.conditions.flaws import Signature, flaw
from processors.conditions.reasons import subject_of
from tests.devnet.contracts.conftest import TERMS as CONTRACTS_TERMS
from tests.devnet.contracts.conftest import Site, on_anvil
from tests.devnet.contracts.test_slashing import proof as two_responses
from tests.nektar.evidence import second
from tests.processors.conditions.test_reasons import requested
from tests.processors.conditions.test_wrongful_slashing import (
    ALICE,
    BEGIN,
    BOB,
    CONDITION,
    MEMBERS,
    NAME,
    OTHER,
    RIGHT,
    TASK,
    WRONG,
    asks,
    closed,
    play,
    shows,
    signed,
)
from tests.processors.slashed import (
    BOND_BREACH,
    EQUIVOCATION,
    INVALID_RESPONSE,
    MISSED_DUTY,
    NETWORK,
    PROVED,
    TERMS,
    TRUSTED,
)
from tests.processors.world import STRANGER, block, set_of

SET = members(MEMBERS.preimage)
ALONE = members(set_of([(ALICE, 1)]).preimage)
replace = msgspec.structs.replace
GOOD, BAD = encode_answer(*RIGHT), encode_answer(*WRONG)
ACCEPTED = Responded(At(5, 0, 0), TASK.hash, Hash32(keccak(GOOD)), (1,))


def equivocated(of: Task = TASK, index: int = 0, secret: int = 1, other: tuple[int, int] = WRONG) -> bytes:
    (_, first), (_, second_) = signed(ALICE, RIGHT, of), signed(ALICE, other, of, secret)
    parts = (of.preimage, SET, word(index), GOOD, first, encode_answer(*other), second_)
    return call(PROVE_EQUIVOCATION, *parts)


def in_quorum(
    of: Task = TASK,
    set_: Dynamic = SET,
    index: int = 0,
    answer: bytes = GOOD,
    out: Sequence[int] = (1,),
    other: tuple[int, int] = WRONG,
    secret: int = 1,
) -> bytes:
    _, signature = signed(ALICE, other, of, secret)
    parts = (of.preimage, set_, word(index), answer, numbers(out), encode_answer(*other), signature)
    return call(PROVE_EQUIVOCATION_IN_QUORUM, *parts)


def wrong_in_quorum(
    answer: bytes = BAD, divisor: int = 2, index: int = 0, out: Sequence[int] = (1,)
) -> bytes:
    parts = (TASK.preimage, SET, word(index), answer, numbers(out), word(divisor))
    return call(PROVE_INVALID_RESPONSE_IN_QUORUM, *parts)


def miss(of: Task = TASK, place: int = 0, index: int = 0, out: Sequence[int] = ()) -> Dynamic:
    return Dynamic(tuple_of(of.preimage, word(place), word(index), numbers(out)))


def missed(*misses: Dynamic, sets: Sequence[Dynamic] = (SET,)) -> bytes:
    return call(PROVE_MISSED_DUTY, array(sets), array(misses))


def why(
    condition: str,
    evidence: bytes,
    *events: Event,
    task_hash: Hash32 | None = TASK.hash,
    set_hash: Hash32 | None = None,
    at: int = 9,
    begin: Sequence[Event] = BEGIN,
    terms: dict[str, int] = TERMS,
) -> str | None:
    """What is found to be wrong with this; None: nothing."""
    network = msgspec.structs.replace(NETWORK, terms=terms)
    before = [*events, *closed(*range(6, at))]
    asking = asks(at, condition, task_hash=task_hash, set_hash=set_hash)
    found = play(*closed(4), *before, asking, shows(at, evidence), *closed(at), begin=begin, network=network)
    claims = [CONDITION.claims(each) for each in found]
    notes = [each.notes["why"] for each in claims if each.reason == "not_proved"]
    assert len(notes) <= 1
    return notes[0] if notes else None


def test_a_proof_is_read_by_its_offsets_whatever_stands_between_and_beyond() -> None:
    for true, head, places, events in (
        (equivocated(), 19, [9], [*closed(5)]),
        (in_quorum(), 18, [9, 13], [ACCEPTED, *closed(5)]),
    ):
        false = true.replace(signed(ALICE, WRONG)[1], signed(ALICE, WRONG, secret=2)[1])
        for proof, expected in ((true, None), (false, "a signature is not the operator's")):
            for same in (
                *(proof, proof + b"\0", proof + bytes(32)),
                *(shifted(proof, head, places, gap) for gap in (b"\xff" * 32, b"odd")),
            ):
                assert why(EQUIVOCATION, same, *events) == expected


def shifted(proof: bytes, head: int, places: Sequence[int], gap: bytes) -> bytes:
    """With something between the head and the rest, and offsets that lead over it."""
    made = bytearray(proof[: 4 + 32 * head] + gap + proof[4 + 32 * head :])
    for place in places:
        at = 4 + 32 * place
        made[at : at + 32] = word(int.from_bytes(proof[at : at + 32]) + len(gap))
    return bytes(made)


def with_word(proof: bytes, place: int, value: int) -> bytes:
    at = 4 + 32 * place
    return proof[:at] + word(value) + proof[at + 32 :]


def test_what_no_contract_can_read_is_no_proof() -> None:
    true, quorum, duty = equivocated(), in_quorum(), missed(miss(OTHER), miss())
    odd = [
        (EQUIVOCATION, true[:4]),
        (EQUIVOCATION, true[:7]),
        (EQUIVOCATION, true[:4] + b"\xff" * 7),
        (EQUIVOCATION, true[:400]),
        (EQUIVOCATION, true[:-1]),
        (EQUIVOCATION, with_word(true, 9, len(true) - 4)),
        (EQUIVOCATION, with_word(true, 9, 1 << 64)),
        (EQUIVOCATION, with_word(true, 9, (1 << 256) - 32)),
        (EQUIVOCATION, with_word(true, 19, 3)),  # members
        (EQUIVOCATION, with_word(true, 19, 1 << 64)),
        (EQUIVOCATION, with_word(true, 20, 1 << 160)),  # who is no address
        (EQUIVOCATION, with_word(quorum, 13, len(quorum))),
        (EQUIVOCATION, selector(PROVE_EQUIVOCATION_IN_QUORUM) + word(1)),
        (INVALID_RESPONSE, wrong_in_quorum()[:-1]),
        (MISSED_DUTY, duty[:4]),
        (MISSED_DUTY, with_word(duty, 0, 1 << 20)),
        (MISSED_DUTY, with_word(duty, 3, 1 << 20)),  # where its one set is
        (BOND_BREACH, call(PROVE_BOND_BREACH, SET, word(0))[:-1]),
        (BOND_BREACH, selector(PROVE_BOND_BREACH)),
    ]
    for condition, evidence in odd:
        assert why(condition, evidence, *closed(5)) == "no contract can read it", evidence.hex()


def test_what_is_shown_of_a_quorum_is_held_against_the_response_that_was_accepted() -> None:
    accepted = [ACCEPTED, *closed(5)]
    other = msgspec.structs.replace(ACCEPTED, digest=Hash32(keccak(BAD)))
    assert why(EQUIVOCATION, in_quorum(), *accepted) is None
    assert why(INVALID_RESPONSE, wrong_in_quorum(), other, *closed(5)) is None
    for evidence, expected in (
        (in_quorum(OTHER), "it is about another task"),
        (in_quorum(set_=ALONE), "its members are not those that the task committed to"),
        (in_quorum(index=1), "it is about another operator"),
        (in_quorum(index=2), "it is about another operator"),
        (in_quorum(other=RIGHT), "its two responses are the same"),
        (in_quorum(out=(0, 1)), "the operator is not among those who signed its response"),
        (in_quorum(out=()), "its response is not the one that was accepted"),
        (in_quorum(answer=BAD, other=RIGHT), "its response is not the one that was accepted"),
        (in_quorum(secret=2), "a signature is not the operator's"),
    ):
        assert why(EQUIVOCATION, evidence, *accepted) == expected
    for evidence, expected in (
        (wrong_in_quorum(GOOD, 2), "nothing shows that its response is wrong"),
        (wrong_in_quorum(index=1), "it is about another operator"),
        (wrong_in_quorum(out=(0,)), "the operator is not among those who signed its response"),
        (wrong_in_quorum(), "its response is not the one that was accepted"),
    ):
        assert why(INVALID_RESPONSE, evidence, *accepted) == expected


def test_that_no_response_was_accepted_is_said_where_the_log_can_lack_none() -> None:
    none = "no response was accepted"
    assert why(EQUIVOCATION, in_quorum(), *closed(5)) == none
    assert why(INVALID_RESPONSE, wrong_in_quorum(), *closed(5)) == none
    assert why(EQUIVOCATION, in_quorum(), BlockClosed(block(5, level=Level.LINKED))) is None
    assert why(EQUIVOCATION, in_quorum(), GapPassed(5, 5)) is None
    # One in the block in which it is shown counts, be it later; and one to members that are not known.
    late = msgspec.structs.replace(ACCEPTED, at=At(9, 9, 9))
    life = [*closed(*range(4, 9)), asks(9, EQUIVOCATION), shows(9, in_quorum())]
    assert [CONDITION.claims(each).reason for each in play(*life, late, *closed(9))] == []
    base = [e for e in BEGIN if not isinstance(e, OperatorSetCommitted)]
    assert why(EQUIVOCATION, in_quorum(), ACCEPTED, *closed(5), begin=base) is None


def test_a_missed_duty_is_of_its_operator_and_ends_with_the_requests_task_and_none_of_it_was_done() -> None:
    first, last = miss(TASK), miss(OTHER)

    def shown(evidence: bytes, *events: Event, at: int = 9) -> str | None:
        return why(MISSED_DUTY, evidence, *(events or closed(5)), task_hash=OTHER.hash, at=at)

    assert shown(missed(first, last)) is None
    attested = [Attested(At(5, 0, 0), TASK.hash, ALICE, Hash32(bytes(32)), True), *closed(5)]
    assert shown(missed(first, last), *attested) == "the operator attested a task"
    assert shown(missed(first, last), ACCEPTED, *closed(5)) == "the operator signed the response to a task"
    without = msgspec.structs.replace(ACCEPTED, non_signers=(0,))
    assert shown(missed(miss(out=(0,)), last), without, *closed(5)) is None
    others = "others did not sign the response to a task"
    assert shown(missed(miss(out=(0, 1)), last), without, *closed(5)) == others
    counted = MissCounted(At(5, 0, 0), PROVED, NAME, TASK.hash, ALICE)
    again = "the miss of a task has counted already"
    assert shown(missed(first, last), counted, *closed(5)) == again
    assert shown(missed(first, last), replace(counted, operator=BOB), *closed(5)) is None
    asking = asks(9, MISSED_DUTY, task_hash=OTHER.hash), shows(9, missed(first, last)), *closed(9)
    for at, expected in ((At(9, 5, 4), [again]), (At(9, 5, 6), [])):  # in the block of the request
        found = play(*closed(*range(4, 9)), replace(counted, at=at), *asking)
        assert [CONDITION.claims(each).notes["why"] for each in found] == expected
    unreadable = Dynamic(tuple_of(TASK.preimage, word(0), word(0), word(1 << 200)))
    assert shown(missed(unreadable, last)) is None  # where there is no response nobody reads it
    assert shown(missed(unreadable, last), without, *closed(5)) == others
    for evidence, expected in (
        (missed(last, first), "it is about another task"),
        (missed(last, last), "its tasks do not rise"),
        (missed(last), "it has another number of misses than is needed"),
        (missed(), "it has another number of misses than is needed"),
        (missed(miss(index=1), last), "it is about another operator"),
        (missed(first, miss(OTHER, index=7)), "it is about another operator"),
        (missed(miss(place=1), last), "its members are not those that the task committed to"),
        (missed(first, last, sets=[ALONE]), "its members are not those that the task committed to"),
    ):
        assert shown(evidence) == expected
    dirty = members(MEMBERS.preimage[:64] + b"\1" + MEMBERS.preimage[65:])
    for sets in ([SET, dirty], [dirty, SET]):  # read before anything is held against the chain
        evidence = missed(miss(place=0), miss(OTHER, place=1), sets=sets)
        assert shown(evidence, *attested) == "no contract can read it"
    assert shown(missed(first, last, sets=[SET, ALONE])) is None
    assert shown(missed(miss(place=1), last, sets=[SET, SET])) is None
    assert shown(missed(first, last), at=8) == "the grace of a task is not over"
    # How many are needed nobody says: then it is looked at the last one alone.
    terms = {name: value for name, value in TERMS.items() if name != "miss_allowance"}
    for evidence, found in (
        (missed(miss(index=1), last), None),
        (missed(), "it has another number of misses than is needed"),
    ):
        said = why(MISSED_DUTY, evidence, *closed(5), task_hash=OTHER.hash, terms=terms)
        assert said == found


def test_a_breach_of_a_bond_is_of_the_member_that_is_to_be_slashed() -> None:
    for index, expected in (
        (0, None),
        (1, "it is about another operator"),
        (9, "it is about another operator"),
    ):
        evidence = call(PROVE_BOND_BREACH, SET, word(index))
        for set_hash in (None, MEMBERS.hash):
            assert why(BOND_BREACH, evidence, *closed(5), task_hash=None, set_hash=set_hash) == expected
        other = "its members are not the set that it is about"
        assert why(BOND_BREACH, evidence, *closed(5), task_hash=None, set_hash=TASK.hash) == other


REGISTRY, DELEGATION = Address(b"\x0a" * 20), Address(b"\x0b" * 20)
BONDED = msgspec.structs.replace(
    NETWORK,
    contracts={**NETWORK.contracts, "operator_registry": REGISTRY, "delegation": DELEGATION},
    terms={**TERMS, "minimum": 1},
)
NEWER = set_of([(ALICE, 1), (BOB, 2), (STRANGER, 3)])
BREACH = WithdrawalRequested(At(5, 0, 0), 1, ALICE, 1)  # of the one that she has


def bond_flaw(*events: Event, network: Network = BONDED, at: int = 9, begin: Sequence[Event] = BEGIN) -> Any:
    """What is wrong with a proof of Alice's breach, in the set of the beginning, and what is sought to show
    it; (None, []): nothing."""
    asking = asks(at, BOND_BREACH, task_hash=None, set_hash=MEMBERS.hash)
    evidence = call(PROVE_BOND_BREACH, SET, word(0))
    life = sorted([*events, asking, shows(at, evidence)], key=lambda e: (e.at.block, e.at.tx, e.at.log))  # type: ignore[union-attr]
    told: list[Event] = []
    for number in range(4, at + 1):
        told += [e for e in life if e.at.block == number]  # type: ignore[union-attr]
        told += closed(number)
    found = [CONDITION.claims(each) for each in play(*told, begin=begin, network=network)]
    found = [each for each in found if each.reason == "not_proved"]
    if not found:
        return None, []
    (said,) = found
    sought = [
        (each.contract, [v.name for v in each.variables])
        if isinstance(each, StateSought)
        else (each.contract, each.event)
        for each in said.fetch
        if isinstance(each, StateSought | AbsenceSought)
    ]
    return said.notes["why"], sought


KEPT_BOND = (
    "the operator was in no breach",
    [("delegation", ["isUnderbonded"]), ("delegation", "Delegated")],
)
NOT_NEWEST = (
    "its members are not the newest set",
    [("operator_registry", ["setHash"]), ("operator_registry", "OperatorSetCommitted")],
)
LEFT = "the operator had left", [("operator_registry", ["_keys.registration", "_ends"])]


def test_a_proof_of_a_breach_that_there_is_not_is_none() -> None:
    assert bond_flaw() == KEPT_BOND
    assert bond_flaw(BREACH) == (None, [])
    assert bond_flaw(msgspec.structs.replace(BREACH, operator=BOB)) == KEPT_BOND
    # In the block itself: it may have been so when it was shown.
    assert bond_flaw(msgspec.structs.replace(BREACH, at=At(9, 0, 0))) == (None, [])
    for block_, expected in ((8, KEPT_BOND), (9, (None, []))):
        for tx in (1, 8):
            assert bond_flaw(BREACH, Delegated(At(block_, tx, 1), ALICE, 1)) == expected
            gone = OperatorDeregistered(At(block_, tx, 1), ALICE, block_ + 1)
            assert bond_flaw(BREACH, gone) == (LEFT if block_ == 8 else (None, []))
            newer = OperatorSetCommitted(At(block_, tx, 1), NEWER)
            assert bond_flaw(BREACH, newer) == (NOT_NEWEST if block_ == 8 else (None, []))
    # A slashing alone makes no breach.
    assert bond_flaw(Slashed(At(5, 0, 0), ALICE, 1)) == (None, [])  # what waits is not known
    opened = [CollateralOpened(At(1, 0, 0)), Delegated(At(1, 0, 1), ALICE, 1), *BEGIN]
    assert bond_flaw(Slashed(At(5, 0, 0), ALICE, 1), begin=opened) == KEPT_BOND


def test_of_a_bond_of_which_the_log_may_lack_something_no_proof_has_a_flaw() -> None:
    def after(*lost: Event) -> Any:
        asking = asks(9, BOND_BREACH, task_hash=None, set_hash=MEMBERS.hash)
        shown = shows(9, call(PROVE_BOND_BREACH, SET, word(0)))
        life = [*closed(4, 5), *lost, *closed(7, 8), asking, shown, *closed(9)]
        return [CONDITION.claims(each).reason for each in play(*life, network=BONDED)]

    assert after(*closed(6)) == ["not_proved"]
    again, newer, gone = (
        OperatorSetCommitted(At(7, 0, 0), MEMBERS),
        OperatorSetCommitted(At(7, 0, 0), NEWER),
        OperatorDeregistered(At(6, 0, 0), ALICE, 7),
    )
    linked = BlockClosed(block(6, level=Level.LINKED))
    assert after(OperatorSetCommitted(At(6, 0, 0), NEWER), linked) == []
    assert after(gone, linked) == []
    for doubt in (linked, GapPassed(6, 6)):
        assert after(doubt) == []
        assert after(doubt, again) == ["not_proved"]
        assert after(doubt, newer) == ["not_proved"]
    # Nor where nobody says which contracts hold it, or what the minimum is.
    for lacking in (
        {"contracts": NETWORK.contracts},
        {"contracts": {**NETWORK.contracts, "delegation": DELEGATION}},
        {"terms": TERMS},
    ):
        assert bond_flaw(network=msgspec.structs.replace(BONDED, **lacking)) == (None, [])


def test_what_contradicts_it_is_shown_and_nothing_else() -> None:
    def shown(condition: str, evidence: bytes, *events: Event, **more: Any) -> tuple[list[str], list[Claim]]:
        life = [*closed(4), *events, *closed(*range(6, 9)), asks(9, condition, **more), shows(9, evidence)]
        (found,) = [each for each in play(*life, *closed(9)) if CONDITION.claims(each).reason == "not_proved"]
        sought = CONDITION.claims(found)
        fetched = [
            each.variables[0].name
            if isinstance(each, StateSought)
            else f"{each.contract} {each.place.number}"
            for each in sought.fetch
            if isinstance(each, StateSought | EventSought)
        ]
        return fetched, list(sought.whole)

    asked = ["trusted_slasher 9", "trusted_slasher 9"]
    assert shown(EQUIVOCATION, in_quorum(), *closed(5)) == ([*asked, "_status.recordHash"], [])
    fetched, whole = shown(EQUIVOCATION, in_quorum(out=()), ACCEPTED, *closed(5))
    assert (fetched, whole) == ([*asked, "task_manager 5"], [])
    attested = Attested(At(5, 0, 0), TASK.hash, ALICE, Hash32(bytes(32)), True)
    of = {"task_hash": OTHER.hash}
    duty = missed(miss(), miss(OTHER))
    assert shown(MISSED_DUTY, duty, attested, *closed(5), **of) == ([*asked, "attestedDigest"], [])
    counted = MissCounted(At(5, 0, 0), PROVED, NAME, TASK.hash, ALICE)
    assert shown(MISSED_DUTY, duty, counted, *closed(5), **of) == ([*asked, "slashing_manager 5"], [])
    assert shown(MISSED_DUTY, duty[:-1000], attested, *closed(5), **of) == (asked, [])


# --- calldata ---------------------------------------------------------------------------------------


def test_an_offset_within_an_array_has_a_sign_and_zeros_stand_where_nothing_is() -> None:
    """As in calldata of 4 + 96 octets: an array at 36, whose one element leads back to what is before it."""
    back = (1 << 256) - 32
    shown = Calldata(b"call" + word(32) + word(1) + word(back), 1)
    base, length = shown.array(0, 1)
    assert (base, length) == (68, 1)
    assert shown.array_below(base, base, 0) == (68, 1)
    away = Calldata(b"call" + word(32) + word(1) + word((1 << 256) - 4096), 1)
    start, length = away.array_below(base, base, 4)
    assert (start, length) == ((1 << 256) + 68 - 4096 + 32, 0)
    assert away.octets(start, 2) == bytes(64)
    assert away.octets(98, 2) == away.octets(98, 1)[:2] + bytes(62)
    for offset in (1, 32, 1 << 200, (1 << 255) - 1):
        with pytest.raises(Unreadable):
            Calldata(b"call" + word(32) + word(1) + word(offset), 1).below(base, base, 1 if offset > 1 else 2)


# --- two verifiers ----------------------------------------------------------------------------------


def mutants(rng: random.Random, proof: bytes, count: int) -> Iterator[bytes]:
    """The proof with words changed to what matters to whoever reads it."""
    for _ in range(count):
        made = bytearray(proof)
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
            at = 4 + 32 * rng.randrange(len(proof) // 32)
            old = int.from_bytes(made[at : at + 32])
            near = [
                0,
                1,
                2,
                32,
                old + 1,
                old - 1,
                old + 32,
                old - 32,
                old ^ 1 << 255,
                old + (1 << 64),
                old * 2,
            ]
            made[at : at + 32] = word(rng.choice([*near, len(proof) - 4, -old, -32]) % (1 << 256))
        kept = rng.choice((len(made), len(made), len(made) - 1, len(made) - 32, rng.randrange(len(made))))
        yield bytes(made[:kept]) + rng.choice((b"", b"", b"\0", bytes(64)))


def as_second(fact: Fact) -> tuple[Any, ...]:
    match fact:
        case Trusted():
            return (
                "trusted",
                fact.slasher,
                fact.request,
                fact.receiver,
                fact.evidence,
                fact.at.number,
                fact.at.hash,
            )
        case Accepted():
            return ("accepted", fact.task_hash, fact.digest, fact.non_signers, fact.at.number, fact.at.hash)
        case Stored():
            return ("stored", fact.contract, fact.name, fact.keys, fact.value, fact.at.number, fact.at.hash)
        case Absent():
            return ("absent", fact.event, fact.first, fact.last, fact.task_hash, fact.operator)
        case Counted():
            about = fact.slasher, fact.request, fact.task_hash, fact.operator
            return ("counted", *about, (fact.at.number, fact.at.hash), fact.place)
        case Forged():
            return ("forged", fact.task_hash, fact.operator, fact.digest, fact.signature)
    raise AssertionError(fact)


def of_bonds(at: BlockRef) -> tuple[list[list[Fact]], list[Fact]]:
    """What shows, two by two, that there is no breach; and what does not, but is much like it."""
    own, others = (Hash32(keccak(member.key)) for member in MEMBERS.members)
    registry, brought, bond = "operator_registry", "_keys.registration", ("delegation", "isUnderbonded")
    before, number = BlockRef(at.number - 1, at.hash), at.number
    newest, another = (int.from_bytes(each) for each in (MEMBERS.hash, TASK.hash))
    right: list[list[Fact]] = [
        [
            Stored(registry, "setHash", (), another, at),
            Absent("OperatorSetCommitted", number, number, None, None),
        ],
        [Stored(registry, brought, (own,), 3, at), Stored(registry, "_ends", (word(3),), number, at)],
        [Stored(*bond, (padded(ALICE),), 0, at), Absent("Delegated", number, number, None, ALICE)],
    ]
    wrong: list[Fact] = [
        *(
            Stored(registry, "setHash", (), *each)
            for each in ((newest, at), (newest, before), (another, before))
        ),
        Absent("OperatorSetCommitted", number - 1, number - 1, None, None),
        *(Stored(registry, brought, (key,), n, at) for key, n in ((own, 0), (others, 3))),
        *(Stored(registry, "_ends", (word(3),), end, at) for end in (0, number + 1)),
        Stored(registry, "_ends", (word(0),), 1, at),
        *(
            Stored(*bond, (padded(who),), *each)
            for who, *each in ((ALICE, 1, at), (ALICE, 0, before), (BOB, 0, at))
        ),
        *(Absent("Delegated", number, number, None, who) for who in (BOB, None)),
        Absent("Delegated", number + 1, number + 1, None, ALICE),
    ]
    return right, wrong


def test_both_verifiers_take_the_same_to_show_that_there_is_no_breach() -> None:
    """Of all that may be shown, one by one and two by two, and with something beside it."""
    asked = requested(9, condition=BOND_BREACH, task_hash=None, set_hash=MEMBERS.hash)
    proof = Trusted(TRUSTED, NAME, None, call(PROVE_BOND_BREACH, SET, word(0)), asked.at)
    right, wrong = of_bonds(asked.at)
    facts = [*(fact for pair in right for fact in pair), *wrong]
    beside = [[*pair, fact] for pair in right for fact in facts]
    for more in ([], *([each] for each in facts), *map(list, product(facts, facts)), *beside):
        flawed = is_flawed([asked, proof, *more], {})
        assert flawed == (more in right or more[::-1] in right), more
        assert flawed_to_second(asked, [proof, *more], {}) == flawed, more


def is_flawed(facts: Sequence[Fact], terms: dict[str, int]) -> bool:
    try:
        CONDITION.holds(Accused(ALICE, subject_of(TRUSTED, NAME, "not_proved")), facts, terms)
    except NotProved:
        return False
    return True


def flawed_to_second(asked: Requested, facts: Sequence[Fact], terms: dict[str, int]) -> bool:
    request = second.Request(
        *(asked.slasher, asked.request, asked.operator, bytes.fromhex(asked.condition[2:]), asked.task_hash),
        *(False, 12, 15, (9, bytes(32)), (2, 2), asked.set_hash),
    )
    return second.wrong_proof(request, [as_second(each) for each in facts], terms)


@pytest.mark.parametrize("part", range(4))
def test_both_verifiers_find_the_same_flaws_in_calldata_that_is_altered(part: int) -> None:
    duty, rng = missed(miss(), miss(OTHER)), random.Random(f"flaws {part}")
    proofs = [
        *((EQUIVOCATION, TASK.hash, each) for each in (equivocated(), in_quorum(), in_quorum(out=()))),
        *((INVALID_RESPONSE, TASK.hash, each) for each in (wrong_in_quorum(), wrong_in_quorum(GOOD))),
        *((MISSED_DUTY, OTHER.hash, each) for each in (duty, missed(miss(), miss(OTHER, out=(1,))))),
        (BOND_BREACH, None, call(PROVE_BOND_BREACH, SET, word(0))),
    ]
    at = requested(9).at
    record, manager = ("_status.recordHash", "attestedDigest"), "task_manager"
    beside: list[Fact] = [
        Accepted(TASK.hash, Hash32(keccak(GOOD)), (1,), at),
        Accepted(TASK.hash, Hash32(keccak(GOOD)), (), at),
        Accepted(OTHER.hash, Hash32(keccak(BAD)), (0,), at),
        *(Stored(manager, record[0], (TASK.hash,), value, at) for value in (0, 1)),
        *(Stored(manager, record[1], (of.hash, padded(ALICE)), 1, at) for of in (TASK, OTHER)),
        Stored(manager, record[1], (TASK.hash, padded(BOB)), 1, at),
        *(
            Counted(STRANGER, NAME, task_hash, operator, at, place)
            for task_hash, operator in ((TASK.hash, ALICE), (OTHER.hash, ALICE), (OTHER.hash, BOB))
            for place in ((2, 1), (2, 2))
        ),
        Forged(TASK.hash, ALICE, Hash32(keccak(BAD)), signed(ALICE, WRONG)[1]),
    ]
    said = list[bool]()
    for condition, task_hash, proof in proofs:
        for evidence in mutants(rng, proof, 150):
            terms = rng.choice((TERMS, {}))
            set_hash = (
                rng.choice((None, MEMBERS.hash, MEMBERS.hash, TASK.hash)) if task_hash is None else None
            )
            asked = requested(9, condition=condition, task_hash=task_hash, set_hash=set_hash)
            more = [
                Trusted(TRUSTED, NAME, None, evidence, at),
                *rng.choices(beside, k=rng.choice((0, 1, 1, 1, 2))),
            ]
            found = is_flawed([asked, *more], terms)
            assert flawed_to_second(asked, more, terms) == found, evidence.hex()
            said.append(found)
    assert said.count(True) > 100
    assert said.count(False) > 100


# --- the contract -----------------------------------------------------------------------------------

site = pytest.fixture(scope="module", name="site")(on_anvil)


class Nothing:
    """Nothing is known."""

    def is_forged(self, made: Signature) -> bool:
        return False

    def accepted(self, task_hash: Hash32, is_it: Callable[[Accepted], bool]) -> bool:
        return False

    def is_unanswered(self, task_hash: Hash32) -> bool:
        return False

    def attested(self, task_hash: Hash32, operator: Address) -> bool:
        return False

    def counted(self, task_hash: Hash32, request: Requested) -> bool:
        return False

    def is_of_before(self, set_hash: Hash32) -> bool:
        return False

    def had_left(self, operator: Address, key_hash: Hash32) -> bool:
        return False

    def kept_its_bond(self, operator: Address) -> bool:
        return False


def refusal(site: Site, evidence: bytes) -> bytes | None:
    """What the contract says to a call that it refuses; None: it does not."""
    try:
        site.chain.call(site.contracts["slashing_manager"], evidence)
    except Reverted as error:
        return error.data
    return None


@pytest.mark.real
def test_what_the_contract_accepts_has_no_flaw_however_it_is_encoded(site: Site) -> None:
    """And what it reverts on without a word has one, in proofs of responses: every word of theirs is read."""
    task = site.submit(n=10, window=30)
    missing = [3]
    site.do(site.stranger, "task_manager", "respond", *site.response(task, (5, 2), [0, 1, 2]))
    tasks = [site.submit(n=10, window=2, grace=0) for _ in range(CONTRACTS_TERMS.miss_allowance + 1)]
    site.mine_to(tasks[-1].end + 1)
    abi, index = site.abis["slashing_manager"], 1
    of = (task.fields, task.members, index)
    signature = site.sign(index, task, (2, 5))
    misses = [(each.fields, 0, index, []) for each in tasks]
    proofs = [
        (EQUIVOCATION, task.hash, abi.encode("proveEquivocation", *two_responses(site, task, index))),
        (
            *(EQUIVOCATION, task.hash),
            abi.encode("proveEquivocationInQuorum", *of, (5, 2), missing, (2, 5), signature),
        ),
        (
            *(INVALID_RESPONSE, task.hash),
            abi.encode("proveInvalidResponse", *of, (5, 2), site.sign(index, task, (5, 2)), 2),
        ),
        (
            *(INVALID_RESPONSE, task.hash),
            abi.encode("proveInvalidResponseInQuorum", *of, (5, 2), missing, 2),
        ),
        (MISSED_DUTY, tasks[-1].hash, abi.encode("proveMissedDuty", [tasks[0].members], misses)),
    ]
    operator = Address(bytes.fromhex(site.operators[index].account.address[2:]))
    rng, accepted, unread = random.Random("contract"), 0, 0
    for condition, task_hash, true in proofs:
        asked = requested(site.head, operator=operator, condition=condition, task_hash=Hash32(task_hash))
        for evidence in (true, *mutants(rng, true, 120)):
            said = Trusted(TRUSTED, NAME, None, evidence, asked.at)
            found = flaw(said, asked, Nothing(), {"miss_allowance": CONTRACTS_TERMS.miss_allowance})
            refused = refusal(site, evidence)
            if refused is None:
                accepted += 1
                assert not found, evidence.hex()
            elif not refused and condition != MISSED_DUTY:
                unread += 1
                assert found, evidence.hex()
            assert evidence != true or refused is None
    assert accepted > 50
    assert unread > 50

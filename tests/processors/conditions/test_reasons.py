"""What shows each reason why a slashing is wrong, and that nothing less, more or else does."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from eth_hash.auto import keccak

from nektar.evidence.verify import Accused, NotProved
from nektar.facts import (
    Accepted,
    Cancelled,
    Counted,
    Executed,
    Fact,
    Forged,
    Listed,
    Member,
    NotMember,
    Paused,
    Requested,
    Stored,
    Submitted,
    Trusted,
    Vetoed,
)
from nektar.model import (
    Address,
    BlockRef,
    Hash32,
    Moment,
)
from nektar.networks.encoding import encode_answer, padded
from processors.conditions.reasons import subject_of
from tests.processors.conditions.test_wrongful_slashing import (
    ALICE,
    BOB,
    CONDITION,
    NAME,
    OTHER,
    REASONS,
    SHOWN,
    TASK,
    UNHEARD,
    WRONG,
    signed,
)
from tests.processors.slashed import (
    BOND_BREACH,
    BURNER,
    EQUIVOCATION,
    ID,
    INVALID_RESPONSE,
    MISSED_DUTY,
    OWN,
    PROVED,
    THIEF,
    TRUSTED,
    WINDOW,
)


def at(number: int) -> BlockRef:
    return BlockRef(number, Hash32(bytes([number]) * 32))


def requested(number: int, *, trusted: bool = True, **more: Any) -> Requested:
    made = Requested(
        *(TRUSTED if trusted else PROVED, NAME, ALICE, MISSED_DUTY, TASK.hash, not trusted),
        *(Moment("block", 12), Moment("block", 15), at(number), (2, 2)),
    )
    return msgspec.structs.replace(made, **more)


ASKED = requested(9)
EQUIVOCATED = requested(9, condition=EQUIVOCATION)
OTHER_OF_IT = requested(9, request=Hash32(b"o" * 32), place=(2, 1), condition=EQUIVOCATION)
SUBMITTED = Submitted(TASK.preimage, at(3))
HELD = Stored("task_manager", "_status.submittedBlock", (TASK.hash,), 3, at(40))
UNKNOWN = Stored("task_manager", "_status.state", (TASK.hash,), 0, at(9))
DONE = Executed(TRUSTED, NAME, BURNER, at(13), (3, 0), 1156)
OVERRULED = Vetoed(TRUSTED, NAME, at(13), (2, 9))
LIE = Trusted(TRUSTED, NAME, BURNER, SHOWN["a signature is not the operator's"], at(9))
FALSE = Forged(TASK.hash, ALICE, Hash32(keccak(encode_answer(*WRONG))), signed(ALICE, WRONG, secret=2)[1])
BURNS = Listed(ID, BURNER, at(1))
ATTESTED = Stored("task_manager", "attestedDigest", (TASK.hash, padded(ALICE)), 1 << 255, at(9))
COUNTED = Counted(PROVED, NAME, TASK.hash, ALICE, at(90), (2, 1))
ACCEPTED = Accepted(TASK.hash, Hash32(bytes(32)), (1,), at(5))
PLACE = Member(TASK.hash, ALICE, 0, Hash32(bytes(32)))
OUTSIDE = NotMember(TASK.hash, ALICE)
OF_BOND: dict[str, Any] = {"condition": BOND_BREACH, "task_hash": None, "set_hash": UNHEARD}
HOLDS: dict[str, list[list[Fact]]] = {
    "signed": [[ASKED, ATTESTED], [ASKED, SUBMITTED, ACCEPTED, PLACE]],
    "no_duty": [
        [ASKED, OUTSIDE],
        [EQUIVOCATED, OUTSIDE],
        [ASKED, SUBMITTED, Cancelled(TASK.hash, at(5))],
        [ASKED, SUBMITTED, Paused(at(6))],
        [ASKED, SUBMITTED, Paused(at(3))],
        [msgspec.structs.replace(ASKED, at=at(8)), SUBMITTED],
    ],
    "unknown_task": [[ASKED, UNKNOWN]],
    "window_passed": [
        [msgspec.structs.replace(EQUIVOCATED, at=at(8 + WINDOW + 1)), SUBMITTED],
        [msgspec.structs.replace(EQUIVOCATED, at=at(3 + 12 + WINDOW + 1)), HELD],
        [msgspec.structs.replace(ASKED, at=at(3 + 12 + WINDOW + 1)), SUBMITTED],
        [msgspec.structs.replace(ASKED, at=at(3 + 12 + WINDOW + 1)), HELD],
    ],
    "twice": [
        [EQUIVOCATED, OTHER_OF_IT],
        [EQUIVOCATED, msgspec.structs.replace(OTHER_OF_IT, slasher=PROVED, proved=True, at=at(90))],
        [msgspec.structs.replace(each, **OF_BOND) for each in (EQUIVOCATED, OTHER_OF_IT)],
        [ASKED, COUNTED],
    ],
    "not_proved": [[EQUIVOCATED, LIE, FALSE], [EQUIVOCATED, msgspec.structs.replace(LIE, evidence=b"look")]],
    "after_veto": [[ASKED, OVERRULED, DONE]],
    "early": [[ASKED, msgspec.structs.replace(DONE, at=at(12))]],
    "after_expiry": [[ASKED, msgspec.structs.replace(DONE, at=at(16))]],
    "wrong_receiver": [
        [ASKED, BURNS, msgspec.structs.replace(DONE, receiver=THIEF)],
        [ASKED, BURNS, msgspec.structs.replace(LIE, receiver=THIEF)],
    ],
}
# Reason → what a fact of it is changed to, so that nothing holds any more: (place in the list, changes).
NOT: dict[str, list[tuple[int, int, dict[str, Any]]]] = {
    "signed": [
        (0, 0, {"condition": EQUIVOCATION}),
        (0, 0, {"task_hash": None}),
        (0, 1, {"value": 0}),
        (0, 1, {"contract": "delegation"}),
        (0, 1, {"name": "_status.state"}),
        (0, 1, {"keys": (TASK.hash, padded(BOB))}),
        (0, 1, {"keys": (OTHER.hash, padded(ALICE))}),
        (1, 1, {"task": OTHER.preimage}),
        (1, 2, {"non_signers": (0,)}),
        (1, 2, {"task_hash": OTHER.hash}),
        (1, 3, {"operator": BOB}),
        (1, 3, {"task_hash": OTHER.hash}),
    ],
    "no_duty": [
        (0, 0, {"proved": True}),
        (0, 0, {"condition": OWN}),
        (0, 1, {"operator": BOB}),
        (0, 1, {"task_hash": OTHER.hash}),
        (2, 0, {"proved": True}),
        (2, 0, {"condition": EQUIVOCATION}),
        (2, 1, {"task": OTHER.preimage}),
        (2, 2, {"task_hash": OTHER.hash}),
        (3, 0, {"condition": EQUIVOCATION}),
        (3, 2, {"at": at(7)}),
        (3, 2, {"at": at(2)}),
        (3, 0, {"at": at(8)}),  # that it was too soon is enough
        (2, 0, {"at": at(8)}),
        (5, 0, {"at": at(9)}),
        (5, 0, {"condition": EQUIVOCATION}),
        (5, 0, {"proved": True}),
        (5, 1, {"task": OTHER.preimage}),
    ],
    "unknown_task": [
        (0, 0, {"proved": True}),
        (0, 0, {"task_hash": OTHER.hash}),
        (0, 0, {"condition": OWN}),
        (0, 1, {"value": 1}),
        (0, 1, {"at": at(8)}),
        (0, 1, {"contract": "operator_registry"}),
        (0, 1, {"name": "_status.submittedBlock"}),
    ],
    "window_passed": [
        (0, 0, {"at": at(8 + WINDOW)}),
        (0, 0, {"proved": True}),
        (0, 0, {"condition": MISSED_DUTY}),
        (0, 0, {"condition": OWN}),
        (0, 1, {"task": OTHER.preimage}),
        (2, 0, {"at": at(3 + 12 + WINDOW)}),
        (2, 1, {"at": at(4)}),
        (3, 1, {"value": 4}),
        (1, 0, {"at": at(3 + 12 + WINDOW)}),
        (1, 1, {"value": 0}),
        (1, 1, {"name": "_status.state"}),
    ],
    "twice": [
        (0, 0, {"proved": True}),
        (0, 0, {"task_hash": None}),
        (0, 1, {"place": (2, 3)}),
        (0, 1, {"place": (2, 2)}),
        (0, 1, {"at": at(10)}),
        (0, 1, {"operator": BOB}),
        (0, 1, {"task_hash": OTHER.hash}),
        (0, 1, {"condition": INVALID_RESPONSE}),
        (0, 1, {"request": NAME}),
        (2, 0, {"set_hash": OTHER.hash}),
        (2, 0, {"set_hash": None}),
        (2, 1, {"condition": OWN}),
        (3, 0, {"proved": True}),
        (3, 0, {"condition": INVALID_RESPONSE}),
        (3, 0, {"task_hash": None}),
        (3, 1, {"task_hash": OTHER.hash}),
        (3, 1, {"operator": BOB}),
    ],
    "not_proved": [
        (0, 0, {"request": OTHER.hash}),
        (0, 1, {"request": OTHER.hash}),
        (0, 1, {"slasher": PROVED}),
        (0, 2, {"operator": BOB}),
        (0, 2, {"digest": OTHER.hash}),
        (0, 2, {"task_hash": OTHER.hash}),
        (0, 2, {"signature": bytes(64)}),
        (1, 1, {"evidence": b""}),
    ],
    "after_veto": [
        (0, 1, {"at": at(14)}),
        (0, 1, {"place": (3, 1)}),
        (0, 1, {"slasher": PROVED}),
        (0, 1, {"request": OTHER.hash}),
        (0, 2, {"request": OTHER.hash}),
    ],
    "early": [(0, 1, {"at": at(13)}), (0, 1, {"request": OTHER.hash}), (0, 1, {"slasher": PROVED})],
    "after_expiry": [
        (0, 0, {"execution_deadline": None}),
        (0, 0, {"execution_deadline": Moment("epoch", 1)}),
        (0, 1, {"at": at(15)}),
    ],
    "wrong_receiver": [
        (0, 1, {"network": UNHEARD}),
        (0, 1, {"burner": THIEF}),
        (0, 2, {"receiver": BURNER}),
        (0, 2, {"receiver": None}),
        (1, 2, {"receiver": BURNER}),
        (1, 2, {"slasher": PROVED}),
    ],
}
TOLD = {"slashing_window": WINDOW, "max_duration": 12, "network": int.from_bytes(ID)}


def accused_of(reason: str, slasher: Address = TRUSTED) -> Accused:
    return Accused(ALICE, subject_of(slasher, NAME, reason))


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_each_reason_holds_for_what_shows_it_and_for_nothing_less_or_more(reason: str) -> None:
    for facts in HOLDS[reason]:
        CONDITION.holds(accused_of(reason), facts, TOLD)
        CONDITION.holds(accused_of(reason), facts[::-1], TOLD)
        less = [facts[:i] + facts[i + 1 :] for i in range(len(facts))]
        others = [each for every in HOLDS.values() for these in every for each in these]
        more = [[*facts, each] for each in others]
        for these in (*less, *more):
            with pytest.raises(NotProved):
                CONDITION.holds(accused_of(reason), these, TOLD)
        for accused in (
            Accused(BOB, accused_of(reason).subject),
            accused_of(reason, PROVED),
            *(accused_of(each) for each in REASONS - {reason}),
        ):
            with pytest.raises(NotProved):
                CONDITION.holds(accused, facts, TOLD)
    for i, j, changes in NOT[reason]:
        facts = list(HOLDS[reason][i])
        facts[j] = msgspec.structs.replace(facts[j], **changes)
        with pytest.raises(NotProved):
            CONDITION.holds(accused_of(reason), facts, TOLD)


def test_what_rests_on_a_term_needs_it() -> None:
    needed: dict[str, list[tuple[str, int]]] = {
        "slashing_window": [("window_passed", i) for i in range(4)],
        "max_duration": [("window_passed", i) for i in (1, 2, 3)],
        "network": [("wrong_receiver", 0), ("wrong_receiver", 1)],
    }
    assert needed.keys() == TOLD.keys()
    for name, of in needed.items():
        terms = {each: number for each, number in TOLD.items() if each != name}
        for reason, i in of:
            with pytest.raises(NotProved, match=f"expected to know the contracts' {name}"):
                CONDITION.holds(accused_of(reason), HOLDS[reason][i], terms)


def test_a_request_of_before_is_no_proof_of_a_later_ones_place_in_another_block() -> None:
    """The order of blocks comes first, then that of transactions, then that of logs."""
    for before, after in (((8, (9, 9)), (9, (0, 0))), ((9, (1, 9)), (9, (2, 0))), ((9, (2, 1)), (9, (2, 2)))):
        first, second = (
            msgspec.structs.replace(each, at=at(number), place=place)
            for each, (number, place) in ((OTHER_OF_IT, before), (EQUIVOCATED, after))
        )
        CONDITION.holds(accused_of("twice"), [second, first], TOLD)
        pairs = ((second, first), (first, second))
        swapped = [msgspec.structs.replace(a, at=b.at, place=b.place) for a, b in pairs]
        with pytest.raises(NotProved):
            CONDITION.holds(accused_of("twice"), swapped, TOLD)

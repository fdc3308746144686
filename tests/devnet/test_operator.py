"""What an operator does is decided by the head alone: nothing twice, and what a reorg took is due again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from immutables import Map

from devnet.behaviour import Behaviour, right_answer, wrong_answer
from devnet.operator import IMPATIENCE, Action, due
from devnet.view import OpenTask, SetMember
from nektar.evidence import bls

ME, OTHER = "0x" + "11" * 20, "0x" + "22" * 20
N = 1009 * 20011
SUBMITTED, DEADLINE, GRACE = 10, 18, 3
RIGHT, WRONG = (bls.response_digest(*answer) for answer in (right_answer(N), wrong_answer(N)))


def task(**changes: object) -> OpenTask:
    fields = (b"", N, b"", b"", DEADLINE, GRACE, 5000, 5000, 1)
    members = (SetMember(ME, (1, 2), 1), SetMember(OTHER, (1, 2), 1))
    return OpenTask(b"t" * 32, fields, SUBMITTED, members, **changes)  # type: ignore[arg-type]


IN_QUORUM, LEFT_OUT = frozenset({1}), frozenset({0})  # non-signers; I am the first of two
SIGNS_FIRST = {
    Behaviour.EQUIVOCATING_IN_QUORUM: (Action.SIGN_RIGHT, Action.ATTEST_WRONG, WRONG),
    Behaviour.TURNCOAT: (Action.SIGN_WRONG, Action.ATTEST_RIGHT, RIGHT),
}


def attested(*digests: bytes) -> Map[str, frozenset[bytes]]:
    return Map({ME: frozenset(digests)})


heads = st.integers(SUBMITTED, DEADLINE + GRACE + 2)


@given(heads, st.sampled_from(list(Behaviour)))
def test_nothing_is_done_about_a_cancelled_task_or_by_a_stranger(head: int, behaviour: Behaviour) -> None:
    assert due(task(cancelled=True), head, ME, behaviour) == []
    assert due(task(), head, "0x" + "33" * 20, behaviour) == []


@given(heads)
def test_an_honest_operator_that_the_response_left_out_attests(head: int) -> None:
    left_out = due(task(non_signers=frozenset({0})), head, ME, Behaviour.HONEST)
    assert (Action.ATTEST_RIGHT in left_out) == (head < DEADLINE + GRACE)
    included = due(task(non_signers=frozenset({1})), head, ME, Behaviour.HONEST)
    assert Action.ATTEST_RIGHT not in included


@given(heads)
def test_an_honest_operator_waits_for_the_aggregate_until_it_is_nearly_too_late(head: int) -> None:
    attests = Action.ATTEST_RIGHT in due(task(), head, ME, Behaviour.HONEST)
    assert attests == (DEADLINE - IMPATIENCE <= head < DEADLINE + GRACE)


@given(heads)
def test_a_slow_operator_is_always_late(head: int) -> None:
    assert bool(due(task(), head, ME, Behaviour.SLOW)) == (DEADLINE <= head < DEADLINE + GRACE)


@given(heads, st.sampled_from([Behaviour.HONEST, Behaviour.SLOW, Behaviour.WRONG_RESPONSE]))
def test_nobody_attests_again_what_the_chain_already_shows(head: int, behaviour: Behaviour) -> None:
    actions = due(task(attested=attested(RIGHT)), head, ME, behaviour)
    assert not {Action.ATTEST_RIGHT, Action.ATTEST_WRONG} & set(actions)


def test_an_equivocator_attests_one_answer_and_sends_another_to_the_aggregator_alone() -> None:
    assert due(task(), SUBMITTED, ME, Behaviour.EQUIVOCATING) == [Action.ATTEST_RIGHT]
    assert due(task(attested=attested(RIGHT)), SUBMITTED, ME, Behaviour.EQUIVOCATING) == [Action.SIGN_WRONG]


@pytest.mark.parametrize("behaviour", [Behaviour.EQUIVOCATING_ON_CHAIN, Behaviour.EQUIVOCATING_ONCE])
def test_an_equivocator_attests_right_then_wrong_then_nothing(behaviour: Behaviour) -> None:
    assert due(task(), SUBMITTED, ME, behaviour) == [Action.ATTEST_RIGHT]
    assert due(task(attested=attested(RIGHT)), SUBMITTED, ME, behaviour) == [Action.ATTEST_WRONG]
    assert due(task(attested=attested(RIGHT, WRONG)), SUBMITTED, ME, behaviour) == []


@pytest.mark.parametrize("behaviour", list(SIGNS_FIRST))
def test_who_equivocates_in_a_quorum_attests_another_answer_once_its_own_is_accepted(
    behaviour: Behaviour,
) -> None:
    signs, attests, digest = SIGNS_FIRST[behaviour]
    assert due(task(), SUBMITTED, ME, behaviour) == [signs]
    assert due(task(non_signers=IN_QUORUM), SUBMITTED + 2, ME, behaviour) == [attests]
    done = task(non_signers=IN_QUORUM, attested=attested(digest))
    assert due(done, SUBMITTED + 3, ME, behaviour) == []
    assert attests not in due(task(non_signers=LEFT_OUT), SUBMITTED + 2, ME, behaviour)


@given(heads, st.sampled_from([None, IN_QUORUM, LEFT_OUT]))
def test_a_colluder_sends_a_wrong_answer_and_attests_nothing(
    head: int, non_signers: frozenset[int] | None
) -> None:
    expected = [Action.SIGN_WRONG] if head < DEADLINE else []
    assert due(task(non_signers=non_signers), head, ME, Behaviour.COLLUDING) == expected


@pytest.mark.parametrize(
    ("behaviour", "action", "at"),
    [
        (Behaviour.TOO_LATE, Action.ATTEST_RIGHT, DEADLINE + GRACE),
        (Behaviour.MISPLACED, Action.MISPLACE_RIGHT, DEADLINE - IMPATIENCE),
        (Behaviour.MISPLACED_WRONG, Action.MISPLACE_WRONG, DEADLINE - IMPATIENCE),
    ],
)
def test_what_the_chain_rejects_is_sent_at_one_head_alone(
    behaviour: Behaviour, action: Action, at: int
) -> None:
    sent = {head: due(task(), head, ME, behaviour) for head in range(SUBMITTED, DEADLINE + GRACE + 3)}
    assert sent.pop(at) == [action]
    assert not any(sent.values())


@given(heads)
def test_an_offline_operator_does_nothing(head: int) -> None:
    assert due(task(), head, ME, Behaviour.OFFLINE) == []

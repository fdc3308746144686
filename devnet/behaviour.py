"""How agents behave with a task, and the task itself: given n ≥ 2, its least divisor p > 1 and q = n / p."""

from __future__ import annotations

import enum


class Behaviour(enum.StrEnum):
    """What an operator does with one task."""

    HONEST = "honest"
    OFFLINE = "offline"  # does nothing
    SLOW = "slow"  # signs when the deadline has come: `late`
    WRONG_RESPONSE = "wrong_response"  # signs a wrong answer; left out of the response, it attests it itself
    EQUIVOCATING = "equivocating"  # attests the right answer, and sends a wrong one to the aggregator alone
    EQUIVOCATING_ON_CHAIN = "equivocating_on_chain"  # attests both; again if a reorg undoes it
    EQUIVOCATING_ONCE = "equivocating_once"  # attests both, but never again after a reorg
    EQUIVOCATING_IN_QUORUM = "equivocating_in_quorum"  # signs the accepted answer, then attests a wrong one
    COLLUDING = "colluding"  # sends a wrong answer to an aggregator that is in on it
    TURNCOAT = "turncoat"  # does so too, and attests the right one as soon as the wrong one is accepted
    MISTAKEN = "mistaken"  # sends a wrong answer to the aggregator, and thinks that this was all
    UNREACHABLE = "unreachable"  # reaches neither the aggregator nor the chain
    QUITTING = "quitting"  # lets the task go where its own clock, which is fast, says that the time is over
    VANISHING = "vanishing"  # signs, then goes offline: only the aggregator can save it
    # Rejected by the chain, so that they respond nothing:
    TOO_LATE = "too_late"  # attests when the grace has passed
    MISPLACED = "misplaced"  # attests in another's place of the set
    MISPLACED_WRONG = "misplaced_wrong"  # does so with a wrong answer


REJECTED = (Behaviour.TOO_LATE, Behaviour.MISPLACED, Behaviour.MISPLACED_WRONG)
# As far as the chain shows.
RESPONDS_NOTHING = {
    Behaviour.OFFLINE,
    Behaviour.MISTAKEN,
    Behaviour.UNREACHABLE,
    Behaviour.QUITTING,
    *REJECTED,
}
EQUIVOCATES = {
    Behaviour.EQUIVOCATING,
    Behaviour.EQUIVOCATING_ON_CHAIN,
    Behaviour.EQUIVOCATING_ONCE,
    Behaviour.EQUIVOCATING_IN_QUORUM,
    Behaviour.TURNCOAT,
}
# Duties that are not done, though a wrong answer is signed that others have, or the chain.
LEAVES_WRONG = {Behaviour.MISTAKEN, Behaviour.MISPLACED_WRONG}
# An equivocator's other answer is wrong as well, since there is but one right one.
SIGNS_WRONG = {
    Behaviour.WRONG_RESPONSE,
    Behaviour.MISTAKEN,
    Behaviour.COLLUDING,
    Behaviour.MISPLACED_WRONG,
    *EQUIVOCATES,
}


class AggregatorBehaviour(enum.StrEnum):
    """What the aggregator does with one task."""

    HONEST = "honest"
    CENSORING = "censoring"  # drops its victims' signatures
    FRAMING = "framing"  # does so, says that they signed a wrong answer, and that all are in the quorum
    COLLUDING = "colluding"  # says of nobody what it signed
    ABANDONING = "abandoning"  # does not submit again when a reorg has undone its response


def least_divisor(n: int) -> int:
    """The least divisor p > 1 of n ≥ 2, by trial division: what a task asks for."""
    if n % 2 == 0:
        return 2
    d = 3
    while d * d <= n:
        if n % d == 0:
            return d
        d += 2
    return n


def right_answer(n: int) -> tuple[int, int]:
    """(p, q): the least divisor of n and n / p."""
    p = least_divisor(n)
    return p, n // p


def wrong_answer(n: int) -> tuple[int, int]:
    """An answer that one multiplication, or one smaller divisor, refutes."""
    p, q = right_answer(n)
    return (p, q + 1) if p == n else (n, 1)

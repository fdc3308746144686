"""Which answers are wrong, and what shows it, against trial division."""

from __future__ import annotations

import random

import pytest

from nektar.networks.answers import LIMIT, least_divisor, refutation, refutes

# Products of large primes, a square and a cube of one, primes, and strong pseudoprimes to small bases.
LARGE = {
    4294967291 * 4294967279: 4294967279,
    4294967291**2: 4294967291,
    2642239**3: 2642239,
    18446744073709551557: 18446744073709551557,
    2 * 9223372036854775783: 2,
    3215031751: 151,
    3825123056546413051: 149491,
    LIMIT - 1: 3,
}


def by_trial(n: int) -> int:
    return next((d for d in range(2, int(n**0.5) + 1) if n % d == 0), n)


def test_the_least_divisor_of_small_numbers() -> None:
    assert [least_divisor(n) for n in range(2, 5000)] == [by_trial(n) for n in range(2, 5000)]


@pytest.mark.parametrize("n", LARGE)
def test_the_least_divisor_of_large_ones(n: int) -> None:
    assert least_divisor(n) == LARGE[n]


def test_what_divisor_is_known_changes_nothing() -> None:
    for n in range(2, 400):
        for known in (d for d in range(1, n + 1) if n % d == 0):
            assert least_divisor(n, known) == by_trial(n)
    rng = random.Random(5)
    for _ in range(50):
        p, q = rng.randrange(2, 1 << 24), rng.randrange(2, 1 << 24)
        assert least_divisor(p * q, known=p) == least_divisor(p * q) == min(by_trial(p), by_trial(q))


def test_what_is_not_asked_about_is_refused() -> None:
    for n in (-1, 0, 1, LIMIT):
        with pytest.raises(ValueError, match="below 2"):
            least_divisor(n)


def test_an_answer_is_refuted_unless_it_is_the_right_one() -> None:
    for n in range(2, 60):
        right = (by_trial(n), n // by_trial(n))
        for p in range(n + 2):
            for q in {n // p if p else 0, 0, 1, n}:
                found = refutation(n, p, q)
                assert (found is None) == ((p, q) == right)
                assert refutes(n, p, q, found or 0) == (found is not None)

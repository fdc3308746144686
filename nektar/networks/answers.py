"""The reference Network's work: given n ≥ 2, its least divisor p > 1 and q = n / p (`TaskManager.refutes`).

To find a divisor is dear by trial: n is below 2^64, and p may be near 2^32. Pollard's rho, in Brent's form,
takes some 2^16 steps at most; what it finds is checked, so nothing rests on it but time.
"""

from __future__ import annotations

from itertools import count
from math import gcd

_SMALL = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
LIMIT = 1 << 64  # TaskManager.submitTask: InputOutOfRange


def refutes(n: int, p: int, q: int, divisor: int) -> bool:
    """Whether an answer for n is shown to be wrong, by itself (`divisor` 0) or by a smaller divisor."""
    if wrong_by_itself(n, p, q):
        return True
    return 1 < divisor < p and n % divisor == 0


def wrong_by_itself(n: int, p: int, q: int) -> bool:
    """Whether one multiplication refutes the answer."""
    return p < 2 or p * q != n


def refutation(n: int, p: int, q: int) -> int | None:
    """The divisor that refutes an answer for n: 0 where it refutes itself; None where it is right."""
    if wrong_by_itself(n, p, q):
        return 0
    least = least_divisor(n, known=p)
    return least if least < p else None


def least_divisor(n: int, known: int = 1) -> int:
    """The least divisor p > 1 of 2 ≤ n < 2^64. A divisor that is known spares most of the search, or all."""
    if not 2 <= n < LIMIT:
        raise ValueError(f"expected a number of 2 and more, below 2^64; got {n}")
    if 1 < known < n:
        return min(least_divisor(known), least_divisor(n // known))
    for prime in _SMALL:
        if n % prime == 0:
            return prime
    if _is_prime(n):
        return n
    divisor = _divisor(n)
    return min(least_divisor(divisor), least_divisor(n // divisor))


def _is_prime(n: int) -> bool:
    """Miller and Rabin's test of an odd n; the first twelve primes as bases decide it below 2^64 (Sorenson
    and Webster, 2015)."""
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in _SMALL:
        if n == base:
            return True
        x = pow(base, odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def _divisor(n: int) -> int:
    """A divisor of an odd composite n that is neither 1 nor n (Brent, 1980)."""
    for constant in count(1):
        y, found, step, product = 2, 1, 1, 1
        x = kept = y
        while found == 1:
            x = y
            for _ in range(step):
                y = (y * y + constant) % n
            done = 0
            while done < step and found == 1:
                kept = y
                for _ in range(min(128, step - done)):
                    y = (y * y + constant) % n
                    product = product * abs(x - y) % n
                found = gcd(product, n)
                done += 128
            step *= 2
        if found == n:  # too many steps at once: again one by one
            found = 1
            while found == 1:
                kept = (kept * kept + constant) % n
                found = gcd(abs(x - kept), n)
        if found != n:
            return found
    raise AssertionError("unreachable: some constant finds a divisor")

"""Points of BN254, and whatever may be sent in place of one: made with py_ecc, never with what is tested.

`NEKTAR_FUZZ` multiplies how many are drawn: `NEKTAR_FUZZ=100 make test ARGS='-k bls'` takes many minutes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from py_ecc import optimized_bn128 as oracle
from py_ecc.optimized_bn128 import FQ, FQ2

from nektar.evidence import bls
from nektar.model import G1, G2

P, R = oracle.field_modulus, oracle.curve_order
IDENTITY_1, IDENTITY_2 = G1(bytes(64)), G2(bytes(128))
FOLDER = Path(os.environ.get("NEKTAR_CORPORA") or Path(__file__).parents[4] / "shared" / "corpora") / "bn254"

# The twist has r · (2p − r) points over the field of p² elements; these divide 2p − r and are the orders of
# its small subgroups, in one of which an attacker would have a key.
SMALL_ORDERS = (10069, 5864401, 1875725156269)

secrets = st.integers(1, R - 1)
digests = st.binary(min_size=32, max_size=32)


def fuzz(examples: int) -> settings:
    """So many examples, times NEKTAR_FUZZ."""
    return settings(
        max_examples=int(examples * float(os.environ.get("NEKTAR_FUZZ", "1"))),
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


# --- between bytes and py_ecc -----------------------------------------------------------------------


def words(point: bytes) -> list[int]:
    return [int.from_bytes(point[i : i + 32], "big") for i in range(0, len(point), 32)]


def packed(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(32, "big") for number in numbers)


def oracle1(point: bytes) -> Any:
    x, y = words(point)
    return FQ(x), FQ(y), FQ(1)


def oracle2(point: bytes) -> Any:
    x1, x0, y1, y0 = words(point)
    return FQ2([x0, x1]), FQ2([y0, y1]), FQ2.one()


def bytes1(point: Any) -> G1:
    x, y = oracle.normalize(point)
    return G1(packed(int(x), int(y)))


def bytes2(point: Any) -> G2:
    x, y = oracle.normalize(point)
    (x0, x1), (y0, y1) = map(int, x.coeffs), map(int, y.coeffs)
    return G2(packed(x1, x0, y1, y0))


# --- points of the twist that are no keys -------------------------------------------------------------


@cache
def off_the_subgroup(start: int) -> G2:
    """A point of the twist that is not of order r: nearly all of them."""
    x = start
    while True:
        square = FQ2([x, 1]) ** 3 + oracle.b2
        real, imaginary = map(int, square.coeffs)
        for norm_root in _roots((real**2 + imaginary**2) % P):
            for half in _roots((real + norm_root) * pow(2, -1, P) % P):
                y = FQ2([half, imaginary * pow(2 * half, -1, P) % P])
                if y * y == square:
                    return bytes2((FQ2([x, 1]), y, FQ2.one()))
        x += 1


@cache
def of_small_order(order: int) -> G2:
    """A point of the twist of this order, which is one of SMALL_ORDERS."""
    start = 1
    while True:
        point = oracle.multiply(oracle2(off_the_subgroup(start)), R * (2 * P - R) // order)
        if not oracle.is_inf(point):
            return bytes2(point)
        start += 1


def _roots(number: int) -> list[int]:
    root = pow(number, (P + 1) // 4, P)
    return [root, P - root] if root and root * root % P == number else []


# --- what may be sent -------------------------------------------------------------------------------


def key1(secret: int) -> G1:
    return bls.public_keys(secret)[0]


def key2(secret: int) -> G2:
    return bls.public_keys(secret)[1]


def _shifted(point: bytes, which: int, by: int) -> bytes:
    """One word plus `by`, where that fits."""
    changed = words(point)
    changed[which] = (changed[which] + by) % (1 << 256)
    return packed(*changed)


def _halves(point: bytes) -> bytes:
    middle = len(point) // 2
    return point[middle:] + point[:middle]


def _parts(point: bytes) -> bytes:
    """Every pair of words the other way round: for G2 real and imaginary part."""
    return b"".join(point[i + 32 : i + 64] + point[i : i + 32] for i in range(0, len(point), 64))


def _negated(point: bytes) -> bytes:
    half = len(point) // 2
    return point[:half] + packed(*(-y % P for y in words(point[half:])))


def _flipped(point: bytes, bit: int) -> bytes:
    changed = bytearray(point)
    changed[bit // 8 % len(point)] ^= 1 << bit % 8
    return bytes(changed)


def mutated(points: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """What is nearly one of these points, one of them among it."""
    numbers = st.integers(0, 1 << 12)
    cut: Callable[[bytes, int], bytes] = lambda point, n: point[: n % len(point)]  # noqa: E731
    return st.one_of(
        points,
        points.map(_negated),
        points.map(_halves),
        points.map(_parts),
        st.builds(_flipped, points, numbers),
        st.builds(lambda point, n, by: _shifted(point, n % (len(point) // 32), by), points, numbers, near_p),
        st.builds(cut, points, numbers),
        st.builds(lambda point, more: point + more, points, st.binary(min_size=1, max_size=64)),
    )


near_p = st.sampled_from([1, -1, P, -P, 2 * P, 4 * P, R, P - R])
"""What a coordinate may be off by; p and its multiples leave the same point under another name."""

numbers = st.one_of(st.integers(0, 3), st.integers(P - 3, P + 3), st.integers(0, 2**256 - 1))


def anything(size: int) -> st.SearchStrategy[bytes]:
    words_ = st.lists(numbers, min_size=size // 32, max_size=size // 32).map(lambda each: packed(*each))
    return words_ | st.binary(min_size=size, max_size=size) | st.binary(max_size=size + 32)


strays = st.builds(off_the_subgroup, st.integers(1, 50)) | st.builds(
    of_small_order, st.sampled_from(SMALL_ORDERS)
)
"""Points of the twist that are no keys."""

mixed = st.builds(
    lambda stray, secret: bytes2(oracle.add(oracle2(stray), oracle2(key2(secret)))), strays, secrets
)
"""A key with a part beside the subgroup: it pairs like a key for whoever does not look."""

points1 = mutated(st.builds(key1, secrets)) | anything(64) | st.just(bytes(IDENTITY_1))
points2 = mutated(st.builds(key2, secrets) | strays | mixed) | anything(128) | st.just(bytes(IDENTITY_2))


# --- vectors of others ------------------------------------------------------------------------------


def corpus(name: str) -> Any:
    """A file of the corpora; skips the test where there is none."""
    if not (FOLDER / name).exists():
        pytest.skip(f"needs corpora: no {name} in {FOLDER}; name the folder above in NEKTAR_CORPORA")
    return json.loads((FOLDER / name).read_bytes())


def geth_inputs(name: str) -> list[bytes]:
    return [bytes.fromhex(each["Input"]) for each in corpus(f"geth_bn256{name}.json")]

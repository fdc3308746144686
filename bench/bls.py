"""The BLS gate measured: what it costs to refuse a point, to accept one, and to verify.

What counts for whoever is flooded is the row of what is refused: only a signature that is a point costs a
pairing, and only a key that is on the curve, and not known yet, the subgroup check.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

from nektar.chain.keccak import keccak
from nektar.evidence import bls
from nektar.model import G1, G2

SECRET = 123456789
ONES = G1(b"\xff" * 64)
ROUNDS = 5


def main() -> None:
    """Print µs of CPU time a call, the best of several rounds; what is `new` no call has seen before."""
    key, twin = bls.public_keys(SECRET)
    number = count(1)
    digest = keccak(b"")
    signature = bls.sign(SECRET, digest)
    tries = keccak((263859).to_bytes(32, "big"))  # 19 of them; see docs/bls-vectors.json
    signatures = [bls.sign(secret, digest) for secret in range(1, 101)]

    def fresh_digest() -> bytes:
        return keccak(next(number).to_bytes(32, "big"))

    def off_curve() -> G1:
        return G1(key[:-8] + next(number).to_bytes(8, "big"))

    def off_curve_2() -> G2:
        return G2(twin[:-8] + next(number).to_bytes(8, "big"))

    def nothing() -> None:
        return None

    def fresh_key() -> G2:
        return bls.public_keys(next(number))[1]

    def refused(twin: G2) -> None:
        try:
            bls.aggregate_g2([twin])
        except bls.InvalidPoint:
            return
        raise AssertionError("expected a point off the curve to be refused")

    rows: list[tuple[str, int, Callable[[], object], Callable[..., object]]] = [
        ("refuse a signature: not canonical", 1000, nothing, lambda _: bls.verify(twin, digest, ONES)),
        ("refuse a signature: off the curve", 1000, off_curve, lambda s: bls.verify(twin, digest, s)),
        ("refuse a key: off the curve", 1000, off_curve_2, refused),
        ("accept a point of G1, known or not", 500, nothing, lambda _: bls.aggregate([key])),
        ("accept a key in G2, known", 1000, nothing, lambda _: bls.aggregate_g2([twin])),
        ("accept a key in G2, new", 40, fresh_key, lambda k: bls.aggregate_g2([k])),
        ("hash to G1, digests as they come", 500, fresh_digest, bls.hash_to_g1),
        ("hash to G1, 19 tries", 50, nothing, lambda _: bls.hash_to_g1(tries)),
        ("verify, true", 40, nothing, lambda _: bls.verify(twin, digest, signature)),
        ("verify, false: another digest", 40, fresh_digest, lambda d: bls.verify(twin, d, signature)),
        ("keys match", 40, nothing, lambda _: bls.keys_match(key, twin)),
        ("aggregate 100 signatures", 5, nothing, lambda _: bls.aggregate(signatures)),
    ]  # fmt: skip
    for name, calls, make, call in rows:
        best = min(_round(calls, make, call) for _ in range(ROUNDS))
        print(f"{name:<40} {best * 1e6:>9.1f} µs")


def _round(calls: int, make: Callable[[], object], call: Callable[..., object]) -> float:
    inputs = [make() for _ in range(calls)]
    started = time.process_time()
    for each in inputs:
        call(each)
    return (time.process_time() - started) / calls

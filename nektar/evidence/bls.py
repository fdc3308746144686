"""BLS signatures on BN254 as the EVM can check them: signatures in G1, keys in G2 with a twin in G1.

What an Operator signs is an EIP-712 message, hashed to G1; the contracts (`devnet/contracts/BN254.sol`) do
the same, and check with the pairing precompile of EIP-197. The arithmetic is zksnake's, which stops a
process that hands it a point off the curve, takes x + p for x, and verifies anything under the identity. So
values from outside pass one gate before it sees them: canonical coordinates below p, on the curve, in the
subgroup, not the identity.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeAlias

from zksnake._algebra import ec_bn254

from nektar.chain.keccak import keccak
from nektar.errors import NektarError
from nektar.model import G1, G2, Hash32

__all__ = [
    "G1",
    "G2",
    "InvalidPoint",
    "aggregate",
    "aggregate_g2",
    "compressed",
    "decompressed",
    "hash_to_g1",
    "key_hash",
    "keys_match",
    "proof_digest",
    "public_keys",
    "response_digest",
    "sign",
    "signing_digest",
    "verify",
    "verify_possession",
]

P = 21888242871839275222246405745257275088696311157297823662689037894645226208583
"""The field's modulus."""
R = 21888242871839275222246405745257275088548364400416034343698204186575808495617
"""The groups' order."""
# BN254 is the Barreto-Naehrig curve of this parameter.
_U = 4965661367192848881

# Distinct keys seen again and again: as many as a few large OperatorSets hold.
_KNOWN_KEYS = 4096


class InvalidPoint(NektarError):
    """Bytes that are no key or signature: not canonical, off the curve, out of the subgroup, identity."""


# --- what is signed ---------------------------------------------------------------------------------

_DOMAIN_TYPE = keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_RESPONSE_TYPE = keccak(b"Response(bytes32 taskHash,bytes32 responseDigest)")
_PROOF_TYPE = keccak(b"ProofOfPossession(address operator,bytes32 keyHash)")
_NAME, _VERSION = keccak(b"Nektar"), keccak(b"1")


def response_digest(p: int, q: int) -> Hash32:
    """What stands for an answer: keccak256(abi.encode(p, q)). Raises ValueError outside of uint256."""
    return Hash32(keccak(_word(p) + _word(q)))


def signing_digest(chain_id: int, task_manager: bytes, task_hash: bytes, digest: bytes) -> Hash32:
    """What an Operator signs for a response (EIP-712): `TaskManager.signingDigest`."""
    return _typed(chain_id, task_manager, _RESPONSE_TYPE + _sized(task_hash, 32) + _sized(digest, 32))


def key_hash(key: G1) -> Hash32:
    """The name of a key in proofs of possession: keccak256(abi.encode(key))."""
    return Hash32(keccak(_sized(key, 64)))


def proof_digest(chain_id: int, registry: bytes, operator: bytes, key: G1) -> Hash32:
    """What an Operator signs to show that it has a key (EIP-712): `OperatorRegistry.proofDigest`."""
    return _typed(chain_id, registry, _PROOF_TYPE + _sized(operator, 20).rjust(32, b"\0") + key_hash(key))


def _typed(chain_id: int, contract: bytes, message: bytes) -> Hash32:
    """The EIP-712 digest of an encoded message in the domain ("Nektar", "1", chain id, contract)."""
    domain = _DOMAIN_TYPE + _NAME + _VERSION + _word(chain_id) + _sized(contract, 20).rjust(32, b"\0")
    return Hash32(keccak(b"\x19\x01" + keccak(domain) + keccak(message)))


# --- keys and signatures ----------------------------------------------------------------------------


def hash_to_g1(digest: bytes) -> G1:
    """The point that stands for a digest: x = digest mod p, then x + 1 … until x³ + 3 is a square;
    y is its (p + 1)/4-th power.

    Two tries on average, each some 100 µs. Digests come from keccak, so that whoever wants one that needs n
    tries must hash 2^n times: 40 tries, 4 ms, are out of reach.
    """
    x = int.from_bytes(_sized(digest, 32), "big") % P
    while True:
        square = (x * x * x + 3) % P
        y = pow(square, (P + 1) // 4, P)
        if y * y % P == square:
            return G1(_word(x) + _word(y))
        x = (x + 1) % P


def public_keys(secret: int) -> tuple[G1, G2]:
    """The key in G1 and its twin in G2. Raises ValueError where `secret` is not 1 … r − 1."""
    _require_secret(secret)
    return _bytes1(ec_bn254.g1() * secret), _bytes2(ec_bn254.g2() * secret)


def sign(secret: int, digest: bytes) -> G1:
    """The signature over a digest. Raises ValueError where `secret` is not 1 … r − 1."""
    _require_secret(secret)
    return _bytes1(_point1(hash_to_g1(digest)) * secret)


def verify(key: G2, digest: bytes, signature: G1) -> bool:
    """Whether `signature` over `digest` was made with the secret behind `key`: e(σ, G2) = e(H, key).

    Bytes that do not pass the gate verify nothing: False. So does a digest that is not 32 bytes.
    """
    if len(digest) != 32:
        return False
    try:
        sigma, public = _gate1(signature), _gate2(key)
    except InvalidPoint:
        return False
    return _pairs(sigma, ec_bn254.g2(), _point1(hash_to_g1(digest)), public)


def keys_match(key: G1, twin: G2) -> bool:
    """Whether one secret is behind both keys: e(key, G2) = e(G1, twin). False also for what is no key."""
    try:
        return _pairs(_gate1(key), ec_bn254.g2(), ec_bn254.g1(), _gate2(twin))
    except InvalidPoint:
        return False


def verify_possession(chain_id: int, registry: bytes, operator: bytes, key: G1, twin: G2, proof: G1) -> bool:
    """Whether `operator` has shown to this registry that it has the one secret behind both keys, as
    `OperatorRegistry.register` sees it. Without that, a key made from others' could cancel them in a sum.

    False also for what is no key, no signature or no address.
    """
    if len(operator) != 20 or not keys_match(key, twin):
        return False
    return verify(twin, proof_digest(chain_id, registry, operator, key), proof)


def aggregate(points: Iterable[G1]) -> G1:
    """The sum of signatures, or of keys in G1.

    Raises InvalidPoint where one does not pass the gate, where there is none, or where they cancel out.
    """
    total = _sum(_gate1(point) for point in points)
    return _bytes1(total)


def aggregate_g2(points: Iterable[G2]) -> G2:
    """The sum of keys in G2. Raises InvalidPoint as `aggregate` does."""
    total = _sum(_gate2(point) for point in points)
    return _bytes2(total)


def compressed(point: G1) -> bytes:
    """A signature, or a key in G1, in 32 bytes: x, and in its highest bit whether y is odd. Raises
    InvalidPoint for what verifies nothing."""
    x, y = _on_curve(point)
    return _word(x | (y & 1) << 255)


def decompressed(point: bytes) -> G1:
    """What `compressed` was of. It takes a root, some 0.1 ms."""
    number = int.from_bytes(_sized(point, 32))
    x, is_odd = number & (1 << 255) - 1, number >> 255
    y = pow(x * x * x + 3, (P + 1) // 4, P)
    return G1(_word(x) + _word(y if y & 1 == is_odd else P - y))


# --- the gate ---------------------------------------------------------------------------------------

# Cheap checks first: a point of the wrong size, not canonical or off the curve is refused within a few µs.
# The subgroup check of a key in G2 takes some ms, and is made once for each key that passes.

_Point: TypeAlias = Any  # zksnake's PointG1 or PointG2: a compiled module without types
_F2: TypeAlias = tuple[int, int]  # a + b·i


def _gate1(point: bytes) -> _Point:
    """A point of G1 other than the identity. Raises InvalidPoint."""
    return ec_bn254.PointG1(*_on_curve(point))


def _on_curve(point: bytes) -> tuple[int, int]:
    """The coordinates of a point of G1, which is the whole curve but for the identity. Raises
    InvalidPoint."""
    x, y = _coordinates(point, 2)
    if (y * y - x * x * x - 3) % P:
        raise InvalidPoint("expected a point of BN254's G1; got one off the curve")
    return x, y


@lru_cache(_KNOWN_KEYS)
def _gate2(point: bytes) -> _Point:
    """A point of G2 other than the identity. Raises InvalidPoint."""
    x1, x0, y1, y0 = _coordinates(point, 4)
    x, y = (x0, x1), (y0, y1)
    if _sub(_mul(y, y), _add(_mul(_mul(x, x), x), _TWIST_B)) != (0, 0):
        raise InvalidPoint("expected a point of BN254's G2; got one off the curve")
    if not _in_subgroup(x, y):
        raise InvalidPoint("expected a point of BN254's G2; got one outside of the subgroup of order r")
    return ec_bn254.PointG2(x0, x1, y0, y1)


def _coordinates(point: bytes, count: int) -> list[int]:
    if len(point) != 32 * count:
        raise InvalidPoint(f"expected a point of {32 * count} bytes; got {len(point)}")
    numbers = [int.from_bytes(point[i : i + 32], "big") for i in range(0, len(point), 32)]
    if max(numbers) >= P:
        raise InvalidPoint("expected coordinates below the field's modulus; got a larger one")
    if not any(numbers):
        raise InvalidPoint("expected a key or a signature; got the identity")
    return numbers


def _in_subgroup(x: _F2, y: _F2) -> bool:
    """Whether ψ(Q) = 6u²·Q, which holds for points of order r alone (eprint 2022/352, section 4.3).

    ψ is the Frobenius map, brought over from the curve that G2 is a twist of.
    """
    multiple = _times(6 * _U * _U, x, y)
    if multiple is None:
        return False
    mx, my, mz = multiple
    z2 = _mul(mz, mz)
    psi_x, psi_y = _mul(_conjugate(x), _PSI_X), _mul(_conjugate(y), _PSI_Y)
    return _mul(psi_x, z2) == mx and _mul(psi_y, _mul(z2, mz)) == my


def _times(scalar: int, x: _F2, y: _F2) -> tuple[_F2, _F2, _F2] | None:
    """scalar · (x, y) in Jacobian coordinates; None where the way meets the identity or adds a point to
    itself, which points of order r never do below r."""
    px, py, pz = x, y, (1, 0)
    for bit in bin(scalar)[3:]:
        # dbl-2009-l (a = 0)
        a, b = _mul(px, px), _mul(py, py)
        c = _mul(b, b)
        d = _sub(_mul(_add(px, b), _add(px, b)), _add(a, c))
        d = _add(d, d)
        e = _add(_add(a, a), a)
        nx = _sub(_mul(e, e), _add(d, d))
        c8 = ((8 * c[0]) % P, (8 * c[1]) % P)
        ny = _sub(_mul(e, _sub(d, nx)), c8)
        nz = _mul(_add(py, py), pz)
        px, py, pz = nx, ny, nz
        if bit == "1":
            # add-2008 with an affine second point
            z2 = _mul(pz, pz)
            h = _sub(_mul(x, z2), px)
            r = _sub(_mul(y, _mul(z2, pz)), py)
            if h == (0, 0):
                return None
            h2 = _mul(h, h)
            h3, v = _mul(h2, h), _mul(px, h2)
            nx = _sub(_sub(_mul(r, r), h3), _add(v, v))
            py = _sub(_mul(r, _sub(v, nx)), _mul(py, h3))
            px, pz = nx, _mul(pz, h)
        if pz == (0, 0):
            return None
    return px, py, pz


def _add(a: _F2, b: _F2) -> _F2:
    return (a[0] + b[0]) % P, (a[1] + b[1]) % P


def _sub(a: _F2, b: _F2) -> _F2:
    return (a[0] - b[0]) % P, (a[1] - b[1]) % P


def _mul(a: _F2, b: _F2) -> _F2:
    return (a[0] * b[0] - a[1] * b[1]) % P, (a[0] * b[1] + a[1] * b[0]) % P


def _conjugate(a: _F2) -> _F2:
    return a[0], -a[1] % P


def _power(base: _F2, exponent: int) -> _F2:
    result = (1, 0)
    for bit in bin(exponent)[2:]:
        result = _mul(result, result)
        if bit == "1":
            result = _mul(result, base)
    return result


# The twist is y² = x³ + 3 / (9 + i).
_XI = (9, 1)
_TWIST_B = _mul((3, 0), _power(_XI, P * P - 2))
_PSI_X = _power(_XI, (P - 1) // 3)
_PSI_Y = _power(_XI, (P - 1) // 2)


# --- between bytes and zksnake ----------------------------------------------------------------------


def _pairs(a: _Point, b: _Point, c: _Point, d: _Point) -> bool:
    """Whether e(a, b) = e(c, d); all four have passed the gate or were made here."""
    return bool(ec_bn254.multi_pairing([a, -c], [b, d]) == _one())


@lru_cache(1)
def _one() -> Any:
    g1, g2 = ec_bn254.g1(), ec_bn254.g2()
    return ec_bn254.multi_pairing([g1, -g1], [g2, g2])


def _sum(points: Iterable[_Point]) -> _Point:
    total = None
    for point in points:
        total = point if total is None else total + point
    if total is None:
        raise InvalidPoint("expected points to sum up; got none")
    if total.is_zero():
        raise InvalidPoint("the points cancel each other out: their sum is the identity")
    return total


def _point1(point: G1) -> _Point:
    """A point that was made here."""
    return ec_bn254.PointG1(int.from_bytes(point[:32], "big"), int.from_bytes(point[32:], "big"))


def _bytes1(point: _Point) -> G1:
    return G1(_word(point.x) + _word(point.y))


def _bytes2(point: _Point) -> G2:
    (x0, x1), (y0, y1) = point.x, point.y
    return G2(_word(x1) + _word(x0) + _word(y1) + _word(y0))


def _require_secret(secret: int) -> None:
    if not 0 < secret < R:
        raise ValueError("a BLS secret is above 0 and below the group's order")


def _word(number: int) -> bytes:
    if not 0 <= number < 1 << 256:
        raise ValueError("expected a number that fits uint256")
    return number.to_bytes(32, "big")


def _sized(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise ValueError(f"expected {size} bytes; got {len(value)}")
    return value

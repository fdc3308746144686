"""What the contracts hash, sign and accept, for those who write it in another language.

    python -m tests.devnet.contracts.vectors        writes docs/bls-vectors.json again

Everything in the file is the contracts' and the precompiles' answer, but for keys in G2, which no precompile
multiplies: those are py_ecc's, and `register` accepts them as twins.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eth_hash.auto import keccak
from py_ecc import optimized_bn128 as oracle

from devnet.anvil import anvil
from devnet.chain import Reverted
from devnet.deploy import g1_argument, g2_argument
from nektar.model import G1, G2
from tests.devnet.contracts.conftest import CHAIN_ID, Site
from tests.nektar.evidence.points import P, R, bytes2, of_small_order, oracle2, packed

FILE = Path(__file__).parents[3] / "docs" / "bls-vectors.json"

# Where the contracts stand in the vectors, whatever nonce they were deployed with.
PLACES = {"task_manager": "0x" + "7a" * 20, "operator_registry": "0x" + "7b" * 20}
OPERATOR, OTHER = "0x" + "e0" * 20, "0x" + "e1" * 20
SECRETS = (1, 77, 2**253 + 12345, R - 1)
DIGESTS = (
    bytes(32),
    b"\xff" * 32,
    packed(P - 1),
    packed(P),  # one past the last coordinate: the same point as zero's
    keccak(b""),
    keccak(packed(263859)),  # takes 19 tries, the most of the first 350,000 of its kind
)


def vectors(site: Site) -> dict[str, Any]:
    """The file's content."""
    asked = Asked(site)
    first, second = keccak(b"a task"), keccak(b"a response")
    signed = asked.signing_digest(first, second)
    keys = {secret: (asked.multiple(packed(1, 2), secret), twin(secret)) for secret in SECRETS}
    return {
        "encoding": "points as the precompiles read them: G1 x, y; G2 x.imaginary, x.real, y.imaginary, "
        "y.real; each 32 bytes, big-endian",
        "chain_id": CHAIN_ID,
        **PLACES,
        "hash_to_g1": [{"digest": hex_(d), "point": hex_(asked.hash_to_g1(d))} for d in DIGESTS],
        "signing_digest": [
            {"task_hash": hex_(t), "response_digest": hex_(r), "digest": hex_(asked.signing_digest(t, r))}
            for t, r in ((first, second), (second, first), (bytes(32), b"\xff" * 32))
        ],
        "signature": [
            {
                "secret": str(secret),
                "key": hex_(key),
                "key_g2": hex_(key_g2),
                "digest": hex_(digest),
                "signature": hex_(asked.multiple(asked.hash_to_g1(digest), secret)),
            }
            for secret, (key, key_g2) in keys.items()
            for digest in (signed, DIGESTS[-1])
        ],
        "possession": [
            {
                "what": what,
                "operator": OPERATOR,
                "key": hex_(key),
                "key_g2": hex_(key_g2),
                "proof": hex_(proof),
                "accepted": asked.accepts(key, key_g2, proof),
            }
            for what, key, key_g2, proof in proofs(asked, keys)
        ],
    }


class Asked:
    """The contracts, put in their PLACES for the length of a call."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._codes = {
            place: {"code": site.chain.rpc("eth_getCode", site.contracts[name], "latest")}
            for name, place in PLACES.items()
        }
        # Whatever is asked it answers 1, so that OPERATOR has the stake that it needs.
        self._codes[site.contracts["delegation"]] = {"code": "0x60015f5260205ff3"}

    def hash_to_g1(self, digest: bytes) -> G1:
        return G1(packed(*self._ask("task_manager", "hashToG1", digest)))

    def signing_digest(self, task_hash: bytes, response_digest: bytes) -> bytes:
        digest: bytes = self._ask("task_manager", "signingDigest", task_hash, response_digest)
        return digest

    def proof_digest(self, operator: str, key: G1) -> bytes:
        digest: bytes = self._ask("operator_registry", "proofDigest", operator, keccak(key))
        return digest

    def multiple(self, point: bytes, scalar: int) -> G1:
        return G1(self._site.chain.call(f"0x{7:040x}", point + packed(scalar)))

    def accepts(self, key: G1, key_g2: G2, proof: G1) -> bool:
        """Whether `register` takes them from OPERATOR."""
        points = (g1_argument(key), g2_argument(key_g2), g1_argument(proof))
        try:
            self._call("operator_registry", "register", *points, "", 1)
        except Reverted:
            return False
        return True

    def _ask(self, contract: str, function: str, *args: object) -> Any:
        return self._site.abis[contract].result(function, self._call(contract, function, *args))

    def _call(self, contract: str, function: str, *args: object) -> bytes:
        data = self._site.abis[contract].encode(function, *args)
        request = {"from": OPERATOR, "to": PLACES[contract], "data": hex_(data)}
        return bytes.fromhex(self._site.chain.rpc("eth_call", request, "latest", self._codes)[2:])


def proofs(asked: Asked, keys: dict[int, tuple[G1, G2]]) -> list[tuple[str, G1, G2, G1]]:
    """Proofs of possession, most of them none."""
    secret, other = 77, 1
    key, key_g2 = keys[secret]
    x, y = g1_argument(key)

    def proof(by: int, of: G1 = key, operator: str = OPERATOR) -> G1:
        return asked.multiple(asked.hash_to_g1(asked.proof_digest(operator, of)), by)

    rogue = (other - secret) % R
    rogue_key = asked.multiple(packed(1, 2), rogue)
    good = proof(secret)
    stray = bytes2(oracle.add(oracle2(key_g2), oracle2(of_small_order(10069))))
    return [
        ("a proof", key, key_g2, good),
        ("by another key", key, key_g2, proof(other)),
        ("for another operator", key, key_g2, proof(secret, operator=OTHER)),
        ("with another key's twin", key, keys[other][1], good),
        (
            "a rogue key, proved by the key that it and another add up to",
            rogue_key,
            twin(rogue),
            proof(other),
        ),
        ("negated", key, key_g2, asked.multiple(good, R - 1)),
        ("the identity", key, key_g2, G1(bytes(64))),
        ("all identities", G1(bytes(64)), G2(bytes(128)), G1(bytes(64))),
        ("a key that is not canonical", G1(packed(x + P, y)), key_g2, good),
        ("a key off the curve", G1(packed(x, y + 1)), key_g2, good),
        ("a twin with a part of order 10069", key, stray, good),
    ]


def twin(secret: int) -> G2:
    return bytes2(oracle.multiply(oracle.G2, secret))


def hex_(octets: bytes) -> str:
    return "0x" + octets.hex()


def written(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1) + "\n"


if __name__ == "__main__":
    with anvil(chain_id=CHAIN_ID, slots=8) as chain:
        FILE.write_text(written(vectors(Site(chain))), "utf-8")

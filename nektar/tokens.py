"""Bearer tokens of telemetry: who sends, said by a key that the Network or its configuration knows.

    nektar1.CLAIMS.SIGNATURE

`CLAIMS` is canonical JSON (`evidence/canonical.py`), `SIGNATURE` a point of BN254's G1 (`evidence/bls.py`),
both in base64url without padding. What is signed is an EIP-712 digest in a domain of its own, so that no
token is ever a response, and no response a token:

    domain = ("Nektar Telemetry", "1", chain id)
    Token(string network,string audience,string role,string sender,uint64 expires)

A token says nothing by itself: whoever takes it asks what key its sender has now (`indexer/admission.py`).
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from enum import StrEnum

import msgspec

from nektar.chain.keccak import keccak
from nektar.errors import NektarError
from nektar.evidence import bls, canonical
from nektar.evidence.canonical import Natural, NotCanonical, Octets
from nektar.model import G1, G2, Hash32

PREFIX = "nektar1."
# Bytes of each name in a token; printable ones, which JSON writes in twice as many at most.
MAX_NAME = 128
# Claims with names as long as they may be, and a signature, in base64url.
MAX_CHARACTERS = 2_048
# So long may one be valid: whoever's key is stolen deregisters it, and who names it in a file takes it out; a
# token that leaked by itself ends with this.
MAX_SECONDS = 400 * 24 * 3600
# So many seconds may the collector's clock be behind the sender's when a token is made for so long. At its
# end nothing is forgiven.
CLOCKS_APART = 300

_DOMAIN = keccak(b"EIP712Domain(string name,string version,uint256 chainId)") + b"".join(
    map(keccak, (b"Nektar Telemetry", b"1"))
)
_TYPE = keccak(b"Token(string network,string audience,string role,string sender,uint64 expires)")
_ADDRESS = re.compile("0x[0-9a-f]{40}")


class Role(StrEnum):
    """What a sender is to the Network. What an Operator says of itself is its own; the others may say what
    they saw of any."""

    OPERATOR = "operator"
    AGGREGATOR = "aggregator"
    OBSERVER = "observer"


class BadToken(NektarError):
    """Text that is no token, or one that is not valid here and now; the message never repeats it."""


class Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a token says."""

    network: str
    chain_id: Natural
    audience: str  # the collector that it is for, as `telemetry.audience` names it
    role: Role
    sender: str  # an Operator's address, in lower case; of others the name in nektar.yaml
    expires: Natural  # seconds since 1970
    key: Octets  # twin in G2 of the sender's key, 128 bytes

    def __post_init__(self) -> None:
        for name in ("network", "audience", "sender"):
            text = getattr(self, name)
            if not (text.isprintable() and 1 <= len(text.encode()) <= MAX_NAME):
                raise ValueError(f"{name}: expected 1 to {MAX_NAME} bytes of printable text")
        if len(self.key) != 128:
            raise ValueError(f"key: expected 128 bytes; got {len(self.key)}")
        if self.role is Role.OPERATOR and not _ADDRESS.fullmatch(self.sender):
            raise ValueError("sender: expected an Operator's address, 0x… in lower case")


def signing_digest(claims: Claims) -> Hash32:
    """What the sender signs (EIP-712). Its key is not in it: a signature is of one key alone."""
    said = (claims.network, claims.audience, str(claims.role), claims.sender)
    message = _TYPE + b"".join(keccak(each.encode()) for each in said) + claims.expires.to_bytes(32, "big")
    domain = _DOMAIN + claims.chain_id.to_bytes(32, "big")
    return Hash32(keccak(b"\x19\x01" + keccak(domain) + keccak(message)))


def mint(secret: int, claims: Claims) -> str:
    """The token. Raises ValueError where `secret` is no key, or not the one that `claims` names."""
    if Octets(bls.public_keys(secret)[1]) != claims.key:
        raise ValueError("expected the secret behind the key of the claims; it is another's")
    signature = bls.sign(secret, signing_digest(claims))
    return PREFIX + ".".join(_text(part) for part in (canonical.encode(claims), signature))


def read(token: str) -> tuple[Claims, G1]:
    """What a token says, and by what signature, which is not verified yet. Raises BadToken."""
    if len(token) > MAX_CHARACTERS or not token.startswith(PREFIX):
        raise BadToken(f"expected a token of at most {MAX_CHARACTERS} characters, {PREFIX}…")
    claims, dot, signature = token.removeprefix(PREFIX).partition(".")
    if not dot:
        raise BadToken(f"expected {PREFIX}CLAIMS.SIGNATURE")
    try:
        found = canonical.decode(_octets(claims), Claims)
    except NotCanonical as error:
        raise BadToken("expected claims in canonical JSON, as `nektar token` writes them") from error
    return found, G1(_octets(signature))


def is_signed(claims: Claims, signature: G1) -> bool:
    """Whether the claims' key signed them. Takes two pairings, some 5 ms."""
    return bls.verify(G2(claims.key), signing_digest(claims), signature)


def _text(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


def _octets(text: str) -> bytes:
    """Raises BadToken for whatever `_text` does not write."""
    try:
        octets = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except ValueError:
        octets = b""
    if not octets or _text(octets) != text:
        raise BadToken("expected base64url without padding")
    return octets

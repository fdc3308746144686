"""Tokens: what one says is what was signed, and nothing else is one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from eth_account.messages import encode_typed_data
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st

from nektar import tokens
from nektar.evidence import bls, canonical
from nektar.evidence.canonical import Octets
from nektar.tokens import BadToken, Claims, Role, is_signed, mint, read, signing_digest

SECRET = 1234567
KEY, TWIN = bls.public_keys(SECRET)
CLAIMS = Claims("home", 31337, "collector", Role.OPERATOR, "0x" + "ab" * 20, 1_900_000_000, Octets(TWIN))
TOKEN = mint(SECRET, CLAIMS)


def test_a_token_says_what_was_signed() -> None:
    claims, signature = read(TOKEN)
    assert claims == CLAIMS
    assert is_signed(claims, signature)


@pytest.mark.parametrize(
    "other",
    [
        {"network": "away"},
        {"chain_id": 1},
        {"audience": "another"},
        {"role": Role.OBSERVER},
        {"sender": "0x" + "ac" * 20},
        {"expires": 1_900_000_001},
        {"key": Octets(bls.public_keys(7)[1])},
    ],
    ids=lambda other: next(iter(other)),
)
def test_each_claim_is_signed_for(other: dict[str, object]) -> None:
    _, signature = read(TOKEN)
    assert not is_signed(msgspec.structs.replace(CLAIMS, **other), signature)


def test_the_digest_is_what_wallets_make_of_the_typed_data() -> None:
    said = encode_typed_data(
        {"name": "Nektar Telemetry", "version": "1", "chainId": CLAIMS.chain_id},
        {
            "Token": [
                *({"name": name, "type": "string"} for name in ("network", "audience", "role", "sender")),
                {"name": "expires", "type": "uint64"},
            ]
        },
        {
            "network": CLAIMS.network,
            "audience": CLAIMS.audience,
            "role": str(CLAIMS.role),
            "sender": CLAIMS.sender,
            "expires": CLAIMS.expires,
        },
    )
    assert signing_digest(CLAIMS) == keccak(b"\x19" + said.version + said.header + said.body)


def test_whoever_has_another_secret_mints_none() -> None:
    with pytest.raises(ValueError, match="another's"):
        mint(7, CLAIMS)


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"network": ""}, "network: expected 1 to 128 bytes"),
        ({"network": "x" * 129}, "network"),
        ({"audience": "ä" * 65}, "audience"),
        ({"audience": "a\nb"}, "audience: .* printable"),
        ({"audience": "\ud800"}, "audience"),
        ({"sender": "operator-1"}, "an Operator's address"),
        ({"role": Role.OBSERVER, "sender": "x" * 129}, "sender"),
        ({"key": Octets(bytes(64))}, "key: expected 128 bytes"),
    ],
)
def test_claims_that_no_collector_takes_can_not_be_made(claims: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Claims(**{name: getattr(CLAIMS, name) for name in Claims.__struct_fields__} | claims)


@pytest.mark.parametrize("name", ["x" * 128, "ä" * 64, '"' * 128, "\\" * 128], ids=repr)
def test_the_longest_token_is_no_longer_than_one_may_be(name: str) -> None:
    longest = msgspec.structs.replace(
        CLAIMS, network=name, audience=name, role=Role.OBSERVER, sender=name, expires=(1 << 53) - 1
    )
    assert read(mint(SECRET, longest))[0] == longest


@given(st.data())
def test_of_a_token_that_is_altered_anywhere_nothing_is_signed(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(TOKEN) - 1))
    altered = TOKEN[:at] + data.draw(st.characters(codec="ascii")) + TOKEN[at + 1 :]
    try:
        claims, signature = read(altered)
    except BadToken:
        return
    assert altered == TOKEN or not is_signed(claims, signature)


@given(st.text() | st.text(alphabet="abcdefgh012-_.").map(lambda text: tokens.PREFIX + text))
def test_any_text_is_a_token_or_a_bad_one_and_is_not_repeated(text: str) -> None:
    with pytest.raises(BadToken) as bad:
        read(text)
    assert len(text) < 16 or text not in str(bad.value)


@pytest.mark.parametrize(
    "claims",
    [
        {"sender": "0x" + "AB" * 20},
        {"sender": "operator-1"},
        {"network": ""},
        {"network": "x" * 129},
        {"expires": 1 << 53},
        {"key": "0x11"},
        {"role": "owner"},
        {"more": 1},
    ],
    ids=str,
)
def test_claims_that_are_none_are_refused(claims: dict[str, object]) -> None:
    said = {**msgspec.json.decode(canonical.encode(CLAIMS)), **claims}
    _, _, signature = TOKEN.rpartition(".")
    token = tokens.PREFIX + tokens._text(msgspec.json.encode(said, order="sorted")) + "." + signature
    with pytest.raises(BadToken):
        read(token)


def test_a_token_has_one_form() -> None:
    claims, _, signature = TOKEN.removeprefix(tokens.PREFIX).partition(".")
    spaced = tokens._text(canonical.encode(CLAIMS) + b" ")
    for other in (f"{claims}=.{signature}", f"{claims}.{signature}=", f"{spaced}.{signature}", claims):
        with pytest.raises(BadToken):
            read(tokens.PREFIX + other)

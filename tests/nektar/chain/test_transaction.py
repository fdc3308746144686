from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from nektar.chain import rlp
from nektar.chain.jsonrpc import Malformed
from nektar.chain.transaction import (
    Unsigned,
    decode_transaction,
    encode_transaction,
    read_transaction,
    sender,
)
from tests.nektar.chain.blocks import corpora
from tests.seeds import seeds


def test_real_transactions_of_every_type_hash_and_recover_right() -> None:
    seen = set()
    for block in corpora():
        for tx in block.block["transactions"]:
            read = read_transaction(tx)
            assert "0x" + read.hash.hex() == tx["hash"]
            assert "0x" + sender(read).hex() == tx["from"]
            protected = read.type == 0 and int(tx["v"], 16) > 28
            seen.add((read.type, protected))
    assert seen == {(0, False), (0, True), (1, False), (2, False), (3, False), (4, False)}


def test_it_agrees_with_eth_account_on_a_transaction_that_creates_a_contract() -> None:
    account = Account.from_key("0x" + 32 * "17")
    signed = account.sign_transaction(
        {"nonce": 3, "gas": 90_000, "gasPrice": 7, "value": 1, "data": "0x600160005500", "chainId": 31_337}
    )
    read = read_transaction(
        {
            "nonce": "0x3",
            "gas": "0x15f90",
            "gasPrice": "0x7",
            "to": None,
            "value": "0x1",
            "input": "0x600160005500",
            "v": hex(signed.v),
            "r": hex(signed.r),
            "s": hex(signed.s),
        }
    )
    assert read.raw == signed.raw_transaction
    assert read.to is None
    assert "0x" + sender(read).hex() == account.address.lower()


def sample(kind: int) -> dict[str, Any]:
    return next(
        tx
        for block in corpora()
        for tx in block.block["transactions"]
        if int(tx.get("type", "0x0"), 16) == kind
    )


@pytest.mark.parametrize("kind", range(5))
def test_another_senders_signature_is_another_sender(kind: int) -> None:
    tx = sample(kind)
    forged = tx | {"value": hex(int(tx["value"], 16) + 1)}
    with suppress(Unsigned):
        assert "0x" + sender(read_transaction(forged)).hex() != tx["from"]


@pytest.mark.parametrize("signature", [{"r": "0x0"}, {"s": "0x0"}, {"r": "0x" + 64 * "f"}])
def test_a_signature_that_is_nobodys_says_so(signature: dict[str, str]) -> None:
    with pytest.raises(Unsigned, match=r"transaction 0x[0-9a-f]{64}: nobody's signature"):
        sender(read_transaction(sample(0) | signature))


def test_a_recovery_value_between_those_of_two_eras_is_refused() -> None:
    with pytest.raises(Unsigned, match="nobody's signature: expected a signature's v of 27, 28, or 35"):
        sender(read_transaction(sample(0) | {"v": "0x5"}))


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(Malformed, match="transaction of type 0 to 4; got 126"):
        encode_transaction(sample(2) | {"type": "0x7e"})


@pytest.mark.parametrize("raw", [b"", b"\x02", b"\x02" + rlp.encode([b"", b""]), b"\xc0", b"\x05\xff"])
def test_an_envelope_cut_short_is_nobodys(raw: bytes) -> None:
    read = read_transaction(sample(2))
    with pytest.raises(Unsigned, match="nobody's signature"):
        sender(msgspec.structs.replace(read, raw=raw))


# --- decoded again ------------------------------------------------------------------------------------


def is_transaction(raw: bytes) -> bool:
    try:
        decode_transaction(raw)
    except rlp.BadRlp:
        return False
    return True


def test_real_transactions_decode_to_what_they_were_read_as() -> None:
    for block in corpora():
        for tx in block.block["transactions"]:
            read = read_transaction(tx)
            assert decode_transaction(read.raw) == read


@given(st.data())
@settings(max_examples=seeds(100, 300))
def test_a_real_transaction_with_a_byte_changed_is_another_or_none(data: st.DataObject) -> None:
    read = read_transaction(sample(data.draw(st.integers(0, 4))))
    at = data.draw(st.integers(0, len(read.raw) - 1))
    other = read.raw[:at] + bytes((read.raw[at] ^ data.draw(st.integers(1, 255)),)) + read.raw[at + 1 :]
    assert not is_transaction(other) or decode_transaction(other) != read


@given(st.binary(max_size=80) | st.lists(st.binary(max_size=21), max_size=15).map(rlp.encode))
def test_junk_raises_nothing_but_bad_rlp(junk: bytes) -> None:
    for kind in (b"", b"\1", b"\2", b"\3", b"\4"):
        is_transaction(kind + junk)


@pytest.mark.parametrize("kind", range(5))
def test_an_envelope_of_more_or_fewer_fields_is_no_transaction(kind: int) -> None:
    raw = read_transaction(sample(kind)).raw
    before, fields = (raw[:1], rlp.decode(raw[1:])) if kind else (b"", rlp.decode(raw))
    assert not isinstance(fields, bytes)
    place = (3, 4, 5, 5, 5)[kind]
    assert is_transaction(before + rlp.encode(fields))
    assert not is_transaction(before + rlp.encode(fields[:-1]))
    assert not is_transaction(before + rlp.encode([*fields, b""]))
    for i, other in ((0, b"\1" * 19), (0, []), (1, []), (2, [])):
        at = place + i
        assert not is_transaction(before + rlp.encode([*fields[:at], other, *fields[at + 1 :]]))
    assert {each for each in range(0x80) if each > 4 and is_transaction(bytes((each,)) + raw)} == set()

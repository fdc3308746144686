from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from eth_account import Account

from nektar.chain import rlp
from nektar.chain.jsonrpc import Malformed
from nektar.chain.transaction import Unsigned, encode_transaction, read_transaction, sender
from tests.nektar.chain.blocks import corpora


def test_real_transactions_of_every_type_hash_and_recover_right() -> None:
    seen = set()
    for given in corpora():
        for tx in given.block["transactions"]:
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
        for given in corpora()
        for tx in given.block["transactions"]
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

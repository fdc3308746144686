from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nektar.chain import rlp
from nektar.chain.bloom import bloom
from nektar.chain.jsonrpc import Malformed
from nektar.chain.receipt import Entry, decode_receipt, read_receipt
from nektar.chain.trie import ordered_root
from nektar.model import Address, Hash32
from tests.nektar.chain.blocks import corpora
from tests.seeds import seeds

EMPTY: dict[str, Any] = {"type": "0x2", "status": "0x1", "cumulativeGasUsed": "0x5208", "logs": []}


def test_real_receipts_of_every_fork_give_their_root() -> None:
    kinds = set()
    for each in corpora():
        read = [read_receipt(receipt) for receipt in each.receipts]
        assert "0x" + ordered_root([receipt.raw for receipt in read]).hex() == each.block["receiptsRoot"]
        kinds |= {(receipt.type, receipt.status) for receipt in read}
    assert {(0, None), (0, True), (0, False), (1, True), (2, True), (3, True), (4, True)} <= kinds


def test_a_receipt_with_neither_status_nor_state_root_is_refused() -> None:
    with pytest.raises(Malformed, match=r"^root: expected 32 bytes"):
        read_receipt(EMPTY | {"status": None})


@pytest.mark.parametrize("change", [{"status": "0x2"}, {"type": "0x5"}, {"logs": None}, {"logs": [{}]}])
def test_a_receipt_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        read_receipt(EMPTY | change)


def test_a_log_has_at_most_four_topics() -> None:
    log = {"address": "0x" + 20 * "11", "topics": 5 * ["0x" + 32 * "22"], "data": "0x"}
    with pytest.raises(Malformed, match="at most 4; got 5"):
        read_receipt(EMPTY | {"logs": [log]})


# --- decoded again ------------------------------------------------------------------------------------

ENTRIES = st.lists(
    st.builds(
        Entry,
        st.binary(min_size=20, max_size=20).map(Address),
        st.lists(st.binary(min_size=32, max_size=32).map(Hash32), max_size=4).map(tuple),
        st.binary(max_size=70),
    ),
    max_size=4,
)


def is_receipt(raw: bytes) -> bool:
    try:
        decode_receipt(raw)
    except rlp.BadRlp:
        return False
    return True


def test_real_receipts_decode_to_what_they_were_read_as() -> None:
    for block in corpora():
        for receipt in block.receipts:
            read = read_receipt(receipt)
            assert decode_receipt(read.raw) == read


@given(st.integers(0, 4), st.none() | st.booleans(), st.integers(0, 2**64), ENTRIES)
def test_what_is_encoded_decodes_to_itself(
    kind: int, status: bool | None, gas: int, entries: list[Entry]
) -> None:
    said = {
        "type": hex(kind),
        "status": None if status is None else hex(status),
        "root": "0x" + 32 * "77",
        "cumulativeGasUsed": hex(gas),
        "logs": [
            {
                "address": "0x" + each.address.hex(),
                "topics": ["0x" + topic.hex() for topic in each.topics],
                "data": "0x" + each.data.hex(),
            }
            for each in entries
        ],
    }
    read = read_receipt(said)
    assert decode_receipt(read.raw) == read
    assert read.entries == tuple(entries)


@given(st.data())
@settings(max_examples=seeds(100, 300))
def test_a_real_receipt_with_a_byte_changed_is_another_or_none(data: st.DataObject) -> None:
    receipts = [receipt for each in corpora() for receipt in each.receipts]
    read = read_receipt(receipts[data.draw(st.integers(0, len(receipts) - 1))])
    at = data.draw(st.integers(0, len(read.raw) - 1))
    other = read.raw[:at] + bytes((read.raw[at] ^ data.draw(st.integers(1, 255)),)) + read.raw[at + 1 :]
    assert not is_receipt(other) or decode_receipt(other) != read


@given(st.binary(max_size=80))
def test_junk_is_no_receipt_and_raises_nothing_else(junk: bytes) -> None:
    assert not is_receipt(junk)


ADDRESS, TOPIC = b"\x11" * 20, b"\x22" * 32
LOG = [ADDRESS, [TOPIC], b"data"]
NONE = bloom(())


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ([b"\1", b"\7", NONE], "list of 4 fields"),
        ([b"\2", b"\7", NONE, []], "a status of 0 or 1"),
        ([[], b"\7", NONE, []], "expected a status"),
        ([b"\1", [], NONE, []], "expected a status"),
        ([b"\1", b"\7", NONE, b""], "expected a status"),
        ([b"\1", b"\7", [], []], "bloom of its logs"),
        ([b"\1", b"\7", b"\1" + NONE[1:], []], "bloom of its logs"),
        ([b"\1", b"\7", NONE, [LOG]], "bloom of its logs"),
        ([b"\1", b"\7", NONE, [b"log"]], "list of 3 fields"),
        ([b"\1", b"\7", NONE, [[ADDRESS[1:], [], b""]]], "an address of 20 bytes"),
        ([b"\1", b"\7", NONE, [[ADDRESS, [], []]]], "an address of 20 bytes"),
        ([b"\1", b"\7", NONE, [[ADDRESS, b"", b""]]], "at most 4 topics"),
        ([b"\1", b"\7", NONE, [[ADDRESS, [TOPIC] * 5, b""]]], "at most 4 topics"),
        ([b"\1", b"\7", NONE, [[ADDRESS, [TOPIC[1:]], b""]]], "topics of 32 bytes"),
        ([b"\1", b"\7", NONE, [[ADDRESS, [[TOPIC]], b""]]], "nested deeper"),
    ],
)
def test_an_envelope_of_another_shape_is_no_receipt(fields: list[Any], why: str) -> None:
    for kind in (b"", b"\2"):
        with pytest.raises(rlp.BadRlp, match=why):
            decode_receipt(kind + rlp.encode(fields))


def test_an_envelope_of_a_type_that_nobody_knows_is_no_receipt() -> None:
    body = rlp.encode([b"\1", b"\7", NONE, []])
    assert [kind for kind in range(0x80) if is_receipt(bytes((kind,)) + body)] == [1, 2, 3, 4]

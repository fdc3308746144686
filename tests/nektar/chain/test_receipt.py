from __future__ import annotations

from typing import Any

import pytest

from nektar.chain.jsonrpc import Malformed
from nektar.chain.receipt import read_receipt
from nektar.chain.trie import ordered_root
from tests.nektar.chain.blocks import corpora

EMPTY: dict[str, Any] = {"type": "0x2", "status": "0x1", "cumulativeGasUsed": "0x5208", "logs": []}


def test_real_receipts_of_every_fork_give_their_root() -> None:
    kinds = set()
    for given in corpora():
        read = [read_receipt(receipt) for receipt in given.receipts]
        assert "0x" + ordered_root([receipt.raw for receipt in read]).hex() == given.block["receiptsRoot"]
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

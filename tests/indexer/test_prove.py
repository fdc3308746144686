from __future__ import annotations

import copy
import random
from typing import Any

import msgspec
import pytest
from eth_hash.auto import keccak

from devnet.anvil import anvil, find_anvil
from devnet.chain import DevnetError
from indexer.prove import Contradiction, level, prove
from nektar.chain.transaction import sender
from nektar.model import Address, Level
from tests.nektar.chain.blocks import Given, Path_, corpora, put, values_in


def named(number: str) -> Given:
    return next(given for given in corpora() if given.name.endswith(f":{number}"))


def test_every_real_block_is_proved() -> None:
    for given in corpora():
        proved = prove(given.block, given.receipts)
        assert (proved.level, "0x" + proved.hash.hex()) == (Level.PROVED, given.block["hash"])
        assert proved.time == int(given.block["timestamp"], 16)
        logs = [log for receipt in given.receipts for log in receipt["logs"]]
        assert [log.log_index for log in proved.logs] == list(range(len(logs)))
        assert ["0x" + log.data.hex() for log in proved.logs] == [log["data"] for log in logs]
        assert [log.tx_index for log in proved.logs] == [int(log["transactionIndex"], 16) for log in logs]
        expected = [{"0x0": False, "0x1": True}.get(receipt.get("status")) for receipt in given.receipts]
        assert list(proved.statuses) == expected


def test_real_blocks_link_to_each_other() -> None:
    blocks = [
        prove(given.block, given.receipts) for given in corpora() if given.name.startswith("hivechain54_bl")
    ]
    chain = {block.number: block for block in blocks}
    for number, block in chain.items():
        if number - 1 in chain:
            assert block.parent == chain[number - 1].hash


@pytest.mark.parametrize(
    ("number", "path", "value", "message"),
    [
        ("54", ("block", "stateRoot"), "0x" + 64 * "1", "block 54: header hash: expected 0x"),
        ("54", ("block", "transactions", 0, "value"), "0x1", "block 54, transaction 0: hash"),
        ("54", ("block", "transactions", 0, "to"), "0x" + 40 * "1", "block 54, transaction 0: hash"),
        ("54", ("block", "transactions", 0, "v"), "0x1b", "block 54, transaction 0: hash"),
        ("54", ("block", "transactions", 1, "transactionIndex"), "0x0", "transaction 1: transactionIndex"),
        ("54", ("receipts", 0, "cumulativeGasUsed"), "0x1", "block 54: receiptsRoot"),
        ("54", ("receipts", 0, "status"), "0x0", "block 54: receiptsRoot"),
        ("54", ("receipts", 0, "type"), "0x1", "receipt 0: type: expected 1, recomputed; got 0"),
        ("54", ("receipts", 0, "transactionHash"), "0x" + 64 * "1", "receipt 0: transactionHash"),
        ("54", ("receipts", 0, "logsBloom"), "0x01" + 510 * "0", "receipt 0: logsBloom"),
        (
            "7000000",
            ("receipts", 1, "logs", 0, "logIndex"),
            "0x7",
            "log 0: logIndex: expected 0, recomputed; got 7",
        ),
        ("7000000", ("receipts", 1, "logs", 0, "data"), "0x", "block 7000000: receiptsRoot"),
        ("7000000", ("receipts", 1, "logs", 0, "blockHash"), "0x" + 64 * "1", "log 0: blockHash"),
        ("7000000", ("receipts", 1, "logs", 0, "transactionIndex"), "0x0", "log 0: transactionIndex"),
        ("7000000", ("receipts", 1, "logs", 0, "removed"), True, "log 0: the node says that a reorg"),
        ("19426587", ("block", "withdrawals", 3, "amount"), "0x1", "block 19426587: withdrawalsRoot"),
        (
            "7000000",
            ("block", "transactions", 0),
            None,
            "block 7000000: transactions: expected an object; got None",
        ),
        (
            "7000000",
            ("block", "transactions"),
            ["0x" + 64 * "1"],
            "transactions: expected an object; got '0x1",
        ),
        ("7000000", ("receipts", 0), "0x", "receipts: expected an object; got '0x'"),
        ("7000000", ("block", "hash"), None, "hash: expected 32 bytes"),
    ],
)
def test_a_contradiction_names_what_differs(number: str, path: Path_, value: Any, message: str) -> None:
    told = put(named(number), path, value)
    with pytest.raises(Contradiction) as error:
        prove(told.block, told.receipts)
    assert message in str(error.value)
    assert len(str(error.value)) < 300


def test_omitting_a_log_a_receipt_or_a_transaction_is_caught() -> None:
    given = named("7000000")
    with pytest.raises(Contradiction, match="expected 38 receipts; got 37"):
        prove(given.block, given.receipts[:-1])
    with pytest.raises(Contradiction, match="expected 38 receipts; got 0"):
        prove(given.block, [])
    fewer = copy.deepcopy(given.receipts)
    next(receipt for receipt in fewer if receipt["logs"])["logs"].pop()
    with pytest.raises(Contradiction):
        prove(given.block, fewer)
    block = given.block | {"transactions": given.block["transactions"][:-1]}
    with pytest.raises(Contradiction, match="transactionsRoot"):
        prove(block, given.receipts[:-1])


def test_two_swapped_transactions_are_caught() -> None:
    given = named("7000000")
    transactions = list(given.block["transactions"])
    transactions[:2] = [
        transactions[1] | {"transactionIndex": "0x0"},
        transactions[0] | {"transactionIndex": "0x1"},
    ]
    with pytest.raises(Contradiction, match="transactionsRoot"):
        prove(given.block | {"transactions": transactions}, given.receipts)


def test_metadata_that_is_left_out_is_counted() -> None:
    given = named("7000000")
    bare = copy.deepcopy(given.receipts)
    for receipt in bare:
        for log in receipt["logs"]:
            for key in ("blockHash", "blockNumber", "transactionHash", "transactionIndex", "logIndex"):
                del log[key]
    assert prove(given.block, bare) == prove(given.block, given.receipts)


JUNK = (None, True, 7, -1, 1e9, "", "0x", "0x0", "zz", "0x" + 70 * "f", [], [None], {}, {"0x": 1}, [[]])


def test_junk_anywhere_is_a_contradiction_or_changes_nothing() -> None:
    rng, caught = random.Random(20_261_124), 0
    for given in corpora():
        if "large" in given.name:
            continue
        honest = prove(given.block, given.receipts)
        places = [path for path, _ in values_in(given)]
        for path in rng.sample(places, min(20, len(places))):
            told = put(given, path, rng.choice(JUNK))
            try:
                assert prove(told.block, told.receipts) == honest, path
            except Contradiction:
                caught += 1
    assert caught > 500


@pytest.mark.parametrize(
    "junk", [None, 7, "0x", ["0x"], {}, {"number": "0x1"}, {"number": None, "hash": "0x"}]
)
def test_what_is_no_block_is_a_contradiction(junk: Any) -> None:
    with pytest.raises(Contradiction):
        prove(junk, [])


# --- where receipts are withheld ---


def all_logs(given: Given) -> list[dict[str, Any]]:
    return [log for receipt in given.receipts for log in receipt["logs"]]


def test_without_receipts_a_block_is_linked_and_says_no_more_than_it_was_given() -> None:
    given = named("7000000")
    linked = prove(given.block, None, logs=all_logs(given))
    proved = prove(given.block, given.receipts)
    assert linked.level == Level.LINKED
    assert set(linked.statuses) == {None}
    assert (linked.logs, linked.transactions) == (proved.logs, proved.transactions)
    assert prove(given.block, None).logs == ()
    some = prove(given.block, None, logs=all_logs(given)[5:9])
    assert some.logs == proved.logs[5:9]


def test_absence_is_proved_by_the_bloom_and_by_who_is_called_and_by_nothing_less() -> None:
    given = named("7000000")
    linked = prove(given.block, None)
    logged = {Address(bytes.fromhex(log["address"][2:])) for log in all_logs(given)}
    called = {tx.to for tx in linked.transactions if tx.to is not None}
    assert {level(linked, [each]) for each in logged | called} == {Level.LINKED}
    strangers = [Address(keccak(i.to_bytes(2))[12:]) for i in range(2000)]
    absent = [each for each in strangers if level(linked, [each]) is Level.PROVED]
    assert 1900 < len(absent) < 2000, "a bloom excludes most, and never all"
    assert level(linked, absent) is Level.PROVED
    assert level(linked, [*absent, next(iter(called))]) is Level.LINKED
    assert level(prove(given.block, given.receipts), logged) is Level.PROVED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"address": "0x" + 20 * "11"}, "the header's bloom excludes 0x" + 20 * "11"),
        ({"topics": ["0x" + 32 * "22"]}, "the header's bloom excludes 0x" + 32 * "22"),
        ({"transactionIndex": "0x26"}, "expected a transaction below 38; got 38"),
        ({"transactionIndex": "0x0"}, "transactionHash"),
        ({"transactionHash": "0x" + 32 * "33"}, "transactionHash"),
        ({"blockHash": "0x" + 32 * "33"}, "blockHash"),
        ({"blockNumber": "0x1"}, "blockNumber"),
        ({"logIndex": None}, "logIndex: expected a number"),
        ({"logIndex": "0x0"}, "expected logs in the chain's order"),
        ({"removed": True}, "a reorg has removed it"),
    ],
)
def test_a_log_without_its_receipt_is_taken_only_if_nothing_speaks_against_it(
    change: dict[str, Any], message: str
) -> None:
    given = named("7000000")
    logs = all_logs(given)[:3]
    with pytest.raises(Contradiction) as error:
        prove(given.block, None, logs=[*logs[:2], logs[2] | change])
    assert message in str(error.value)


# --- a chain of our own ---


@pytest.mark.real
def test_a_block_that_anvil_makes_is_proved() -> None:
    try:
        find_anvil()
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")
    # Logs one word under one topic while it is created.
    code = "0x60016000527f" + 32 * "ab" + "60206000a100"
    with anvil(chain_id=31_337, slots=2) as chain:
        account = chain.rpc("eth_accounts")[0]
        common = {"from": account, "gas": "0x186a0"}
        chain.rpc("eth_sendTransaction", {**common, "data": code, "gasPrice": "0x77359400"})
        chain.rpc("eth_sendTransaction", {**common, "to": account, "value": "0x1"})
        chain.rpc(
            "eth_sendTransaction", {**common, "to": account, "accessList": [], "gasPrice": "0x77359400"}
        )
        chain.rpc("evm_mine")
        block = chain.rpc("eth_getBlockByNumber", "latest", True)
        receipts = chain.rpc("eth_getBlockReceipts", "latest")
        logs = chain.rpc("eth_getLogs", {"blockHash": block["hash"]})
        genesis = prove(
            chain.rpc("eth_getBlockByNumber", "0x0", True), chain.rpc("eth_getBlockReceipts", "0x0")
        )
    proved = prove(block, receipts)
    assert proved.level == Level.PROVED
    assert proved.parent == genesis.hash
    assert sorted(tx.type for tx in proved.transactions) == [0, 1, 2]
    assert {"0x" + sender(tx).hex() for tx in proved.transactions} == {account.lower()}
    assert [log.topics for log in proved.logs] == [(32 * b"\xab",)]
    linked = prove(block, None, logs=logs)
    assert msgspec.structs.replace(linked, level=Level.PROVED, statuses=proved.statuses) == proved

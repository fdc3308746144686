"""Whatever a provider puts where a number belongs: RpcError or Contradiction, or it goes into a record."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest

from indexer import source as asking
from indexer.backfill import records
from indexer.prove import Contradiction
from indexer.source import Source
from nektar.chain import rlp
from nektar.chain.abi import load
from nektar.chain.bloom import bloom
from nektar.chain.header import header_hash
from nektar.chain.jsonrpc import Malformed
from nektar.chain.receipt import read_entry, read_receipt
from nektar.chain.rpc import Call, Refused, RpcError
from nektar.chain.table import read_table
from nektar.chain.transaction import read_transaction
from nektar.chain.trie import ordered_root
from nektar.config import Limits
from nektar.log import New, decode, encode
from nektar.model import Address
from tests.indexer.world import ABI, CHAIN_ID, CONTRACT, Made, make

SET = {"type": "function", "name": "set", "inputs": [{"name": "what", "type": "uint8"}]}
KNOWN = load([*ABI, SET])
NUMBER = 5
HERE = "0x" + CONTRACT.hex()

# What JSON can have in the place of a number, and numbers at the edges of what anything holds.
JUNK: tuple[Any, ...] = (
    *(None, True, -1, 2**64, -(2**70), 0.5, 1e300, "", "0x", "-0x1", "7", "1e400", "0x1_0", "0x\uff11"),
    *("0x1" + 64 * "0", ["0x1"], {"0x1": 1}),
)
EDGES = tuple(hex(2**bits - 1 + more) for bits in (8, 32, 40, 63, 64) for more in (0, 1))
LARGEST = hex(2**256 - 1)
QUANTITIES = {
    *("number", "difficulty", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas", "blobGasUsed"),
    *("excessBlobGas", "index", "validatorIndex", "amount", "type", "nonce", "gasPrice", "gas", "value"),
    *("v", "r", "s", "yParity", "chainId", "maxFeePerGas", "maxPriorityFeePerGas", "maxFeePerBlobGas"),
    *("status", "cumulativeGasUsed", "transactionIndex", "logIndex", "blockNumber"),
}


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PAUSES_AFTER_NULL", ())
    monkeypatch.setattr(asking, "PAUSES_AFTER_REFUSAL", ())


def whole() -> Made:
    """A block of the newest fork, with a call of each transaction type and a withdrawal."""
    made = copy.deepcopy(make(NUMBER, bytes(32), b"salt", 5))
    listed = {"chainId": hex(CHAIN_ID), "accessList": [], "yParity": "0x0"}
    fees = listed | {"maxFeePerGas": "0x2", "maxPriorityFeePerGas": "0x1"}
    authorization = {
        "chainId": "0x1",
        "address": HERE,
        "nonce": "0x0",
        "yParity": "0x1",
        "r": "0x1",
        "s": "0x2",
    }
    blob = {"maxFeePerBlobGas": "0x3", "blobVersionedHashes": ["0x01" + 31 * "00"]}
    more = ({}, listed, fees, fees | blob, fees | {"authorizationList": [authorization]})
    (function,) = KNOWN.functions
    call = {"to": HERE, "value": "0x9", "input": "0x" + (function.selector + (7).to_bytes(32)).hex()}
    for kind, (tx, receipt) in enumerate(zip(made.block["transactions"], made.receipts, strict=True)):
        tx |= call | more[kind] | {"type": hex(kind)}
        receipt["type"] = hex(kind)
    made.block["withdrawals"] = [{"index": "0x1", "validatorIndex": "0x2", "address": HERE, "amount": "0x3"}]
    made.block.update({"withdrawalsRoot": "0x", "blobGasUsed": "0x0", "excessBlobGas": "0x0"})
    made.block.update({"parentBeaconBlockRoot": "0x" + 64 * "1", "requestsHash": "0x" + 64 * "2"})
    return sealed(made)


def sealed(made: Made) -> Made:
    """The block with its hashes and roots made anew, as a provider would that invents a chain."""
    block, txs, receipts = made.block, made.block["transactions"], made.receipts
    for tx, receipt in zip(txs, receipts, strict=True):
        tx["hash"] = receipt["transactionHash"] = "0x" + read_transaction(tx).hash.hex()
        for log in receipt["logs"]:
            log["transactionHash"] = tx["hash"]
    withdrawals = [
        rlp.sequence(
            rlp.string(bytes.fromhex(each[name][2:]))
            if name == "address"
            else rlp.number(int(each[name], 16))
            for name in ("index", "validatorIndex", "address", "amount")
        )
        for each in block["withdrawals"]
    ]
    roots = {
        "transactionsRoot": [read_transaction(tx).raw for tx in txs],
        "receiptsRoot": [read_receipt(receipt).raw for receipt in receipts],
        "withdrawalsRoot": withdrawals,
    }
    block |= {name: "0x" + ordered_root(encoded).hex() for name, encoded in roots.items()}
    block["logsBloom"] = "0x" + bloom(read_entry(log) for each in receipts for log in each["logs"]).hex()
    block["hash"] = "0x" + header_hash(block).hex()
    for each in [*txs, *receipts, *(log for receipt in receipts for log in receipt["logs"])]:
        each |= {"blockHash": block["hash"], "blockNumber": block["number"]}
    return made


class Teller:
    """A provider of one block, in the place of `nektar.chain.rpc.Provider`."""

    name = "teller"
    limits = Limits()

    def __init__(self, made: Made, withholds: bool) -> None:
        self.made = made
        self.withholds = withholds

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        return [self._answer(call.method) for call in calls]

    async def call(self, method: str, *params: Any) -> Any:
        return self._answer(method)

    def _answer(self, method: str) -> Any:
        match method:
            case "eth_chainId":
                return hex(CHAIN_ID)
            case "eth_getBlockByNumber":
                return self.made.block
            case "eth_getBlockReceipts" if self.withholds:
                return Refused(self.name, method, -32000, "pruned")
            case "eth_getBlockReceipts":
                return self.made.receipts
            case _:
                return [log for receipt in self.made.receipts for log in receipt["logs"]]


async def indexed(made: Made, withholds: bool) -> New:
    """The record that the block becomes, by way of all that is asked of a provider."""
    source: Any = Source([Teller(made, withholds)], CHAIN_ID)  # type: ignore[list-item]
    await source.heads()
    await source.links(NUMBER, NUMBER)
    served = await source.block(NUMBER, settled=True)
    assert served is not None
    ((new,), _) = records({Address(CONTRACT): KNOWN}, [served])
    read = decode(encode(new))
    assert read == new
    for table in new.tables.values():
        read_table(table).validate(full=True)
    return new


Place = tuple[str | int, ...]


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Where a number belongs."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(each, dict | list):
            yield from places(each, (*at, key))
        elif key in QUANTITIES:
            yield (*at, key)


def told(made: Made, at: Place, value: Any) -> Made:
    made = copy.deepcopy(made)
    holder: Any = {"block": made.block, "receipts": made.receipts}
    for key in at[:-1]:
        holder = holder[key]
    holder[at[-1]] = value
    return made


def all_told(values: Sequence[Any], seal: bool) -> Iterator[tuple[Place, Any, Made]]:
    """The block with each value in each place where a number belongs."""
    made = whole()
    for at in places({"block": made.block, "receipts": made.receipts}):
        for value in values:
            changed = told(made, at, value)
            if seal:
                with suppress(Malformed):
                    changed = sealed(changed)
            yield at, value, changed


def caught(values: Sequence[Any], seal: bool, withholds: bool) -> list[str]:
    """What was said of those that came to nothing."""

    async def go() -> list[str]:
        said = []
        for at, value, made in all_told(values, seal):
            try:
                await indexed(made, withholds)
            except (RpcError, Contradiction) as error:
                said.append(str(error))
            except BaseException as error:
                raise AssertionError((at, value)) from error
        return said

    return asyncio.run(go())


@pytest.mark.parametrize("withholds", [False, True])
def test_the_block_itself_is_taken_whole(withholds: bool) -> None:
    new = asyncio.run(indexed(whole(), withholds))
    assert [name.rpartition("_")[0] for name in new.tables] == ["call_set", "event_happened"]


@pytest.mark.parametrize("withholds", [False, True])
@pytest.mark.parametrize(
    ("values", "seal"), [(JUNK, False), ((*EDGES, LARGEST), True)], ids=["junk", "sealed"]
)
def test_no_number_does_more_than_contradict_its_provider(
    values: Sequence[Any], seal: bool, withholds: bool
) -> None:
    """Sealed: every hash and root is right, since who invents a chain may write into it what they like."""
    said = caught(values, seal, withholds)
    assert len(said) > (100 if seal else 1000)
    assert all(each.startswith("provider teller: ") for each in said)


@pytest.mark.parametrize(
    ("at", "value", "bits"),
    [
        (("receipts", 4, "logs", 0, "logIndex"), 2**32, 32),
        (("block", "number"), 2**63, 63),
        (("block", "timestamp"), 2**32, 32),
    ],
)
def test_a_number_that_its_column_can_not_hold_is_named(at: Place, value: int, bits: int) -> None:
    made = told(whole(), at, hex(value))
    named = (
        rf"^provider teller: (block 5: )?{at[-1]}: expected a number as 0x… of at most {bits} bits; got '0x"
    )
    with pytest.raises(Contradiction, match=named):
        asyncio.run(indexed(sealed(made) if at[0] == "block" else made, True))

"""A chain that a test drives, with real headers, roots and blooms; and providers of it, with faults."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from eth_hash.auto import keccak

from nektar.chain.bloom import bloom
from nektar.chain.header import header_hash
from nektar.chain.receipt import read_receipt
from nektar.chain.rpc import Call, Refused, Unreachable
from nektar.chain.transaction import read_transaction
from nektar.chain.trie import ordered_root
from nektar.config import Limits

CHAIN_ID = 31337
CONTRACT = bytes.fromhex("c0" * 20)
ELSEWHERE = "0x" + "e1" * 20
ABI = [
    {
        "type": "event",
        "name": "Happened",
        "inputs": [
            {"name": "at", "type": "uint64", "indexed": True},
            {"name": "what", "type": "bytes32", "indexed": False},
        ],
    }
]
TOPIC = keccak(b"Happened(uint64,bytes32)")
NO_UNCLES = keccak(b"\xc0")


class Entry(msgspec.Struct, frozen=True):
    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


class Made(msgspec.Struct, frozen=True):
    """A block and its receipts, as a provider answers."""

    block: dict[str, Any]
    receipts: list[dict[str, Any]]

    @property
    def number(self) -> int:
        return int(self.block["number"], 16)

    @property
    def hash(self) -> bytes:
        return bytes.fromhex(self.block["hash"][2:])

    @property
    def whats(self) -> list[bytes]:
        """What the contract's logs say, in order."""
        return [bytes.fromhex(log["data"][2:]) for receipt in self.receipts for log in receipt["logs"]]


def make(number: int, parent: bytes, salt: bytes, transactions: int) -> Made:
    """A block whose transactions each make the contract log something that no other block has."""
    txs, receipts = [], []
    for index in range(transactions):
        tx = {
            "type": "0x0",
            "nonce": hex(index),
            "gasPrice": "0x1",
            "gas": "0x5208",
            "to": ELSEWHERE,
            "value": "0x0",
            "input": "0x" + salt.hex(),
            "v": "0x1b",
            "r": "0x1",
            "s": "0x1",
        }
        tx["hash"] = "0x" + read_transaction(tx).hash.hex()
        what = keccak(salt + number.to_bytes(8) + bytes([index]))
        entry = Entry(CONTRACT, (TOPIC, number.to_bytes(32)), what)
        log = {
            "address": "0x" + CONTRACT.hex(),
            "topics": ["0x" + topic.hex() for topic in entry.topics],
            "data": "0x" + what.hex(),
            "transactionHash": tx["hash"],
            "transactionIndex": hex(index),
            "logIndex": hex(index),
        }
        receipts.append(
            {
                "type": "0x0",
                "status": "0x1",
                "cumulativeGasUsed": hex(21000 * (index + 1)),
                "logs": [log],
                "logsBloom": "0x" + bloom([entry]).hex(),
                "transactionHash": tx["hash"],
                "transactionIndex": hex(index),
            }
        )
        txs.append(tx)
    entries = [Entry(CONTRACT, (TOPIC, number.to_bytes(32)), b"")] if transactions else []
    zero = "0x" + bytes(32).hex()
    block: dict[str, Any] = {
        "parentHash": "0x" + parent.hex(),
        "sha3Uncles": "0x" + NO_UNCLES.hex(),
        "miner": "0x" + bytes(20).hex(),
        "stateRoot": zero,
        "transactionsRoot": "0x" + ordered_root([read_transaction(tx).raw for tx in txs]).hex(),
        "receiptsRoot": "0x" + ordered_root([read_receipt(receipt).raw for receipt in receipts]).hex(),
        "logsBloom": "0x" + bloom(entries).hex(),
        "difficulty": "0x0",
        "number": hex(number),
        "gasLimit": hex(30_000_000),
        "gasUsed": hex(21000 * transactions),
        "timestamp": hex(1_700_000_000 + 12 * number),
        "extraData": "0x" + salt.hex(),
        "mixHash": zero,
        "nonce": "0x" + bytes(8).hex(),
        "baseFeePerGas": "0x1",
        "transactions": txs,
    }
    block["hash"] = "0x" + header_hash(block).hex()
    for each in [*txs, *receipts, *(log for receipt in receipts for log in receipt["logs"])]:
        each["blockHash"], each["blockNumber"] = block["hash"], block["number"]
    return Made(block, receipts)


class Chain:
    """The canonical chain, all that it ever held, and its tags."""

    def __init__(self, rng: random.Random, safe: int = 2, final: int = 5) -> None:
        self._rng = rng
        self._safe, self._final = safe, final
        self.blocks: list[Made] = [make(0, bytes(32), b"genesis", 0)]
        self.ever: dict[bytes, Made] = {self.blocks[0].hash: self.blocks[0]}
        self.finalized = 0
        self.safe = 0

    @property
    def head(self) -> int:
        return self.blocks[-1].number

    def mine(self, count: int = 1) -> None:
        for _ in range(count):
            parent = self.blocks[-1]
            salt = self._rng.randbytes(8)
            made = make(parent.number + 1, parent.hash, salt, self._rng.choice([0, 1, 1, 2]))
            self.blocks.append(made)
            self.ever[made.hash] = made
        self.finalized = max(self.finalized, self.head - self._final)
        self.safe = max(self.finalized, self.head - self._safe)

    def reorg(self, depth: int, grow: int) -> None:
        """Replace the newest `depth` blocks by `grow` others; below finalized only if that is asked for."""
        del self.blocks[len(self.blocks) - depth :]
        self.safe = min(self.safe, self.head)
        if self.finalized > self.head:
            self.finalized = self.head
        self.mine(grow)

    @property
    def deepest(self) -> int:
        """How many blocks may be taken back."""
        return self.head - self.finalized


class Node:
    """A provider of a `Chain`, in the place of `nektar.chain.rpc.Provider`. Its faults are attributes."""

    def __init__(self, name: str, chain: Chain, rng: random.Random, in_flight: int = 4) -> None:
        self.name = name
        self.limits = Limits(in_flight=in_flight)
        self.chain = chain
        self.rng = rng
        self._behind: tuple[list[Made], int, int] | None = None
        self.fails = 0.0  # chance that a request has no answer
        self.nulls = 0.0  # chance that a call for a block or receipts is answered with null
        self._nulled: dict[str, int] = {}  # how often in a row so far: what comes often is for good
        self.lies = 0.0  # … with one changed digit
        self.unpruned = 0  # headers below this number are not served, but for the genesis block
        self.withheld: set[int] = set()  # numbers of blocks whose receipts are not served
        self.between: list[Any] = []  # called between two calls of a batch: reorgs in the middle of anything
        self.untagged = ""  # what it answers in place of its safe and finalized blocks: null or an error
        self.dawdles = False  # lets others go first now and then, so that answers come in any order
        self.asked = 0
        self.syncing: Any = False  # what it says to `eth_syncing`
        self.contracts = {"0x" + CONTRACT.hex()}

    def fall_behind(self, blocks: int) -> None:
        """Show from now on what the chain was, `blocks` ago; a fork of it, maybe, as time goes by."""
        shown = self.chain.blocks[: len(self.chain.blocks) - blocks]
        head = shown[-1].number
        self._behind = shown, min(self.chain.safe, head), min(self.chain.finalized, head)

    def wander(self, depth: int, grow: int) -> None:
        """Show from now on another chain than the canonical one, from `depth` blocks below its head on."""
        shown = self.chain.blocks[: len(self.chain.blocks) - depth]
        stands = shown[-1].number
        for _ in range(grow):
            shown.append(
                make(shown[-1].number + 1, shown[-1].hash, self.rng.randbytes(8), self.rng.randint(0, 1))
            )
            self.chain.ever[shown[-1].hash] = shown[-1]
        self._behind = shown, min(self.chain.safe, stands), min(self.chain.finalized, stands)

    def disputes(self, number: int) -> bool:
        """Whether another block than the canonical one stands there for it."""
        shown, canonical = self.shown[0], self.chain.blocks
        return number < len(shown) and shown[number].hash != canonical[number].hash

    def catch_up(self) -> None:
        self._behind = None

    @property
    def shown(self) -> tuple[list[Made], int, int]:
        """Blocks, and the numbers of the safe and the finalized one."""
        return self._behind or (self.chain.blocks, self.chain.safe, self.chain.finalized)

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        self.asked += 1
        for _ in range(self.rng.randint(0, 3) if self.dawdles else 0):
            await asyncio.sleep(0)
        if self.rng.random() < self.fails:
            raise Unreachable(self.name, "HTTP 503")
        return [self._answer(call) for call in calls]

    async def call(self, method: str, *params: Any) -> Any:
        (answer,) = await self.batch([Call(method, params)])
        return answer

    def _answer(self, call: Call) -> Any:
        if self.between and self.rng.random() < 0.3:
            self.between.pop()()
        if call.method == "eth_chainId":
            return hex(CHAIN_ID)
        if call.method == "eth_syncing":
            return self.syncing
        if call.method == "eth_blockNumber":
            return hex(self.shown[0][-1].number)
        if call.method == "eth_getCode":
            return "0x60" if call.params[0] in self.contracts else "0x"
        if call.method == "eth_getLogs":
            made = self._by_hash(call.params[0]["blockHash"])
            return None if made is None else [log for r in made.receipts for log in r["logs"]]
        if self.untagged and call.params[0] in ("safe", "finalized"):
            refused = Refused(self.name, call.method, -39001, "Unknown block")
            return refused if self.untagged == "error" else None
        made = self._find(call.params[0])
        if made is None or (call.params[0] != "latest" and self._nulls(call.params[0])):
            return None
        if call.method == "eth_getBlockReceipts":
            if made.number in self.withheld:
                return Refused(self.name, call.method, -32000, "missing receipts: pruned")
            return self._told(made.receipts)
        return self._told(made.block)

    def _nulls(self, which: str) -> bool:
        nulled = self._nulled.get(which, 0)
        is_null = self.rng.random() < self.nulls and nulled < 2
        self._nulled[which] = nulled + 1 if is_null else 0
        return is_null

    def _told(self, value: Any) -> Any:
        if self.rng.random() >= self.lies:
            return value
        text = msgspec.json.encode(value).decode()
        digits = [
            i for i, c in enumerate(text) if c in "0123456789abcdef" and text[max(0, i - 9) : i].count("0x")
        ]
        if not digits:
            return value
        at = self.rng.choice(digits)
        changed = text[:at] + self.rng.choice("0123456789abcdef") + text[at + 1 :]
        return msgspec.json.decode(changed)

    def _find(self, which: str) -> Made | None:
        blocks, safe, finalized = self.shown
        tags: Mapping[str, int] = {"latest": blocks[-1].number, "safe": safe, "finalized": finalized}
        if which in tags:
            return blocks[tags[which]]
        if len(which) == 66:
            return self._by_hash(which)
        number = int(which, 16)
        if 0 < number < self.unpruned or number >= len(blocks):
            return None
        return blocks[number]

    def _by_hash(self, text: str) -> Made | None:
        return self.chain.ever.get(bytes.fromhex(text[2:]))

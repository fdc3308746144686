"""Chains to index: an anvil on which one contract has emitted a number of events, each of other content.

Two shapes, since a proof costs a receipt and a leaf of the trie for every transaction: many logs in each
transaction and one transaction a block, and one log in each of many transactions a block.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from devnet.anvil import anvil
from devnet.chain import Chain, Contract
from devnet.compile import solc

CHAIN_ID = 31_337
# A log of `Emitter` takes about 2,000 gas; a transaction's own 21,000 and its calldata come on top.
GAS_A_LOG, GAS_A_TRANSACTION = 3_000, 60_000
GAS_PRICE = 100 * 10**9


class Shape(NamedTuple):
    """How the events of a load lie on its chain."""

    logs_a_transaction: int
    transactions_a_block: int

    @property
    def logs_a_block(self) -> int:
        return self.logs_a_transaction * self.transactions_a_block


BUNDLED, SINGLE = Shape(100, 1), Shape(1, 100)


class Load(NamedTuple):
    """A chain, and what of it is to be indexed: `logs` events in blocks `first` to `last`."""

    url: str
    address: str
    abi: Path
    topic: str
    first: int
    last: int
    logs: int

    def beginning(self, logs: int) -> Load:
        """Its first blocks, as many as hold so many events."""
        blocks = logs * (self.last - self.first + 1) // self.logs
        return self._replace(last=self.first + blocks - 1, logs=logs)


@contextmanager
def load(shape: Shape, logs: int) -> Iterator[Load]:
    """A chain with `logs` events (a multiple of those in a block), in one unbroken row of blocks."""
    emitter = solc(Path(__file__).parent / "contracts")["Emitter"]
    contract = Contract(emitter["abi"])
    blocks = logs // shape.logs_a_block
    with anvil(chain_id=CHAIN_ID, slots=2) as chain, tempfile.TemporaryDirectory() as directory:
        abi = Path(directory) / "Emitter.json"
        abi.write_text(json.dumps(emitter["abi"]))
        (sender,) = chain.rpc("eth_accounts")
        chain.rpc("anvil_setBalance", sender, hex(10**30))
        created = chain.rpc(
            "eth_sendTransaction",
            {"from": sender, "data": "0x" + emitter["evm"]["bytecode"]["object"], "gas": hex(1_000_000)},
        )
        first = chain.mine()[0] + 1
        address = chain.receipt(created)["contractAddress"]
        _emit(chain, contract, sender, address, shape, blocks)
        last = first + blocks - 1
        assert chain.head()[0] == last
        yield Load(
            chain.url, address, abi, contract.topic("Sample"), first, last, blocks * shape.logs_a_block
        )


def _emit(chain: Chain, contract: Contract, sender: str, address: str, shape: Shape, blocks: int) -> None:
    nonce = int(chain.rpc("eth_getTransactionCount", sender, "latest"), 16)
    gas = hex(GAS_A_TRANSACTION + GAS_A_LOG * shape.logs_a_transaction)
    for number in range(blocks * shape.transactions_a_block):
        data = contract.encode("emitSamples", number * shape.logs_a_transaction, shape.logs_a_transaction)
        chain.rpc(
            "eth_sendTransaction",
            {
                "from": sender,
                "to": address,
                "data": "0x" + data.hex(),
                "gas": gas,
                "gasPrice": hex(GAS_PRICE),
                "nonce": hex(nonce + number),
            },
        )
        if (number + 1) % shape.transactions_a_block == 0:
            chain.rpc("evm_mine")

"""Blocks of a range, proved many at once: their logs as columns.

What `prove.py` does for one block, whole, is done here for what bulk reading wants: headers hash and are
linked to each other; where a header's bloom excludes what is looked for, that is all there is to know;
elsewhere all receipts are encoded again and must give the header's roots, and where each log stands is
counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from indexer.prove import Apart, Contradiction, hash_of
from nektar.chain.abi import Abi
from nektar.chain.bloom import may_contain
from nektar.chain.columns import Ints, Octets
from nektar.chain.header import BLOOM_BYTES
from nektar.chain.jsonrpc import objects, octets, parse_object, quantity
from nektar.chain.keccak import keccak
from nektar.chain.logs import HASH, NO_LOGS, NUMBER_BITS, TIME_BITS, UNTIMED, Logs
from nektar.chain.receipt import type_and_status
from nektar.chain.receipts import Receipts, blooms, encoded
from nektar.chain.transaction import encode_transaction, transaction_type
from nektar.chain.trie import ordered_root
from nektar.model import Address, Hash32

# Bytes of JSON that a block has without its transactions, and each of these beside what it has as hex digits.
HEADER_TEXT, TRANSACTION_TEXT = 2_000, 500


class Header(NamedTuple):
    """A block whose header hashes to `hash` and whose transactions give its root."""

    number: int
    hash: Hash32
    parent: Hash32
    time: int
    bloom: bytes
    receipts_root: bytes
    transactions: Sequence[tuple[Hash32, int]]  # hash and type of each
    text: int  # about how many bytes its JSON has


def header(block: object, number: int) -> Header:
    """The block that was asked for, from `eth_getBlockByNumber(…, true)`. Raises Contradiction, Malformed."""
    said = parse_object(block, "block")
    hash_ = hash_of(said, number)
    transactions = objects(said, "transactions")
    raw = [encode_transaction(each) for each in transactions]
    if ordered_root(raw) != octets(said, "transactionsRoot", HASH):
        raise Contradiction(f"block {number}: its transactions do not give its transactionsRoot")
    return Header(
        number,
        hash_,
        Hash32(octets(said, "parentHash", HASH)),
        quantity(said, "timestamp", TIME_BITS),
        octets(said, "logsBloom", BLOOM_BYTES),
        octets(said, "receiptsRoot", HASH),
        [(Hash32(keccak(of)), transaction_type(tx)) for of, tx in zip(raw, transactions, strict=True)],
        HEADER_TEXT + sum(TRANSACTION_TEXT + 2 * len(of) for of in raw),
    )


def check_links(headers: Sequence[Header]) -> None:
    """Raises Apart where a block is not the parent of the next."""
    for one, two in pairwise(headers):
        if two.parent != one.hash:
            raise Apart(f"block {two.number}: it is no child of block {one.number} as that was served")


def may_hold(block: Header, contracts: Mapping[Address, Abi]) -> bool:
    """False proves that no event of the contracts is in the block."""
    return any(
        may_contain(block.bloom, address)
        and (bool(abi.anonymous) or any(may_contain(block.bloom, topic) for topic in abi.topics))
        for address, abi in contracts.items()
    )


def logs(blocks: Sequence[Header], receipts: Receipts) -> Logs:
    """All logs of these blocks, whose receipts these are, in order. Raises Contradiction, Malformed."""
    by_number: dict[int, list[int]] = {}
    for row, said in enumerate(receipts.said):
        by_number.setdefault(quantity(said, "blockNumber", NUMBER_BITS), []).append(row)
    if unasked := by_number.keys() - {block.number for block in blocks}:
        raise Contradiction(f"asked for receipts of other blocks than {min(unasked)}")
    for block in blocks:  # before anything is computed of more receipts than there are transactions
        if (got := len(by_number.get(block.number, []))) != len(block.transactions):
            raise Contradiction(
                f"block {block.number}: expected {len(block.transactions)} receipts; got {got}"
            )
    if (counted := int(receipts.ends[-1:].sum())) != len(receipts.logs.number):
        raise Contradiction(f"receipts have {counted} logs; got {len(receipts.logs.number)}")
    filters = blooms(receipts)
    raw = encoded(receipts, filters)
    order: list[int] = []
    for block in blocks:
        rows = by_number.get(block.number, [])
        at = f"block {block.number}"
        for row, (_, kind) in zip(rows, block.transactions, strict=True):
            if (said_kind := type_and_status(receipts.said[row])[0]) != kind:
                raise Contradiction(f"{at}: expected a receipt of type {kind}; got one of type {said_kind}")
            if octets(receipts.said[row], "logsBloom", BLOOM_BYTES) != filters[row].tobytes():
                raise Contradiction(f"{at}: a receipt's logs do not give its logsBloom")
        if ordered_root([raw[row] for row in rows]) != block.receipts_root:
            raise Contradiction(f"{at}: its receipts do not give its receiptsRoot")
        if np.bitwise_or.reduce(filters[rows]).tobytes() != block.bloom:
            raise Contradiction(f"{at}: its logs do not give its logsBloom")
        order += rows
    return _in_place(blocks, receipts, np.array(order, np.int64))


def _in_place(blocks: Sequence[Header], receipts: Receipts, order: Ints) -> Logs:
    """The logs in the blocks' order. No root covers where a log says that it stands: that is counted, and
    must be what it says. Raises Contradiction."""
    counts = np.diff(receipts.ends, prepend=0)
    starts = receipts.ends - counts
    # The rows of each receipt's logs, one receipt's after another's.
    begins = np.cumsum(counts[order]) - counts[order]
    rows = np.arange(counts[order].sum()) + np.repeat(starts[order] - begins, counts[order])
    found = receipts.logs if (rows == np.arange(len(rows))).all() else receipts.logs.take(rows)
    sizes = [len(block.transactions) for block in blocks]
    of_block = np.repeat(np.repeat(np.arange(len(blocks)), sizes), counts[order])
    transactions = b"".join(hash_ for block in blocks for hash_, _ in block.transactions)
    of_transaction = np.repeat(np.arange(len(order)), counts[order])
    firsts = np.searchsorted(of_block, np.arange(len(blocks)))
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    counted = {
        "blockNumber": (found.number, np.array([block.number for block in blocks])[of_block]),
        "blockHash": (found.block_hash, _hashes(b"".join(block.hash for block in blocks))[of_block]),
        "transactionIndex": (found.tx_index, place[of_transaction]),
        "transactionHash": (found.tx_hash, _hashes(transactions)[of_transaction]),
        "logIndex": (found.log_index, np.arange(len(rows)) - firsts[of_block]),
    }
    for name, (said, expected) in counted.items():
        if (unlike := said != expected).any():
            number = blocks[int(of_block[np.argwhere(unlike)[0, 0]])].number
            raise Contradiction(f"block {number}: a log's {name} is not that of where it stands")
    times = np.array([block.time for block in blocks], np.int64)[of_block]
    if ((found.time != times) & (found.time != UNTIMED)).any():
        raise Contradiction("a log's blockTimestamp is not that of its block")
    return found._replace(time=times)


def _hashes(joined: bytes) -> Octets:
    return np.frombuffer(joined, np.uint8).reshape(-1, HASH)


def wanted(found: Logs, contracts: Mapping[Address, Abi]) -> Logs:
    """Those of the logs that are the contracts'."""
    there = found.addresses
    if there <= contracts.keys():
        return found
    if there.isdisjoint(contracts):
        return NO_LOGS
    keep = [Address(bytes(each)) in contracts for each in found.address.tolist()]
    return found.take(np.flatnonzero(keep))

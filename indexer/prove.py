"""Whether what a provider says of a block follows from the block's own header.

The header is hashed; the transactions, the withdrawals and the receipts are encoded again and must give the
header's roots; the logs must give its bloom. What no root covers (who sent a transaction, where a log stands)
is recomputed or counted, and a provider that says otherwise is contradicted. That makes a block consistent,
not canonical: which headers are the chain's rests on an anchor, and is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from nektar.chain import rlp
from nektar.chain.bloom import may_contain, union
from nektar.chain.header import BLOOM_BYTES, header_hash, unknown_fields
from nektar.chain.jsonrpc import Malformed, Object, objects, octets, parse_object, parse_objects, quantity
from nektar.chain.logs import INDEX_BITS, NUMBER_BITS, TIME_BITS
from nektar.chain.receipt import Receipt, read_entry, read_receipt
from nektar.chain.transaction import Transaction, UnknownType, read_transaction
from nektar.chain.trie import ordered_root
from nektar.errors import NektarError
from nektar.model import Address, BlockRef, Hash32, Level

# Characters of unknown fields' names that are told.
MOST_NAMES = 100


class Contradiction(NektarError):
    """What a provider served can't be this block: ask another one. The message names what differed."""


class Unnamed(Contradiction):
    """One for which nobody is named, since who is honest may have served it."""


class Apart(Unnamed):
    """Answers of one provider that don't belong together, and may be of two moments: a reorg between them
    looks the same."""


class Unread(Unnamed):
    """What is not read here, and may be so on the chain: types of transactions, or fields of headers, that
    are not Ethereum's, or not yet."""


def contradiction(where: str, error: Contradiction | Malformed) -> Contradiction:
    """What is wrong with what was served, and where that is, or who served it."""
    if isinstance(error, UnknownType):
        return Unread(f"{where}: {error}")
    kind = type(error) if isinstance(error, Unnamed) else Contradiction
    return kind(f"{where}: {error}")


class Log(msgspec.Struct, frozen=True):
    """One log, and where in its block it stands."""

    address: Address
    topics: tuple[Hash32, ...]
    data: bytes
    tx_index: int
    tx_hash: Hash32
    log_index: int  # in the block


class Proved(msgspec.Struct, frozen=True):
    """A block that holds together: its header hashes to `hash`, and all else follows from the header.

    At level `linked` the receipts were withheld: the statuses are None, and `logs` are those offered that the
    header's bloom admits; what is not among them may have happened all the same.
    """

    number: int
    hash: Hash32
    parent: Hash32
    time: int  # seconds since 1970 UTC
    level: Level  # proved or linked
    transactions: tuple[Transaction, ...]
    statuses: tuple[bool | None, ...]  # one a transaction; None: not known (withheld, or before Byzantium)
    logs: tuple[Log, ...]  # in order; all of the block, where it is proved
    bloom: bytes = BLOOM_BYTES * b"\xff"  # the header's; one that is not known excludes nothing

    @property
    def ref(self) -> BlockRef:
        return BlockRef(self.number, self.hash)


def hash_of(block: Object, number: int | None = None) -> Hash32:
    """The hash of a header, which must be of the block that was asked for, where `number` says which.

    What a header hashes to, and what it says that it does, a liar chooses apart. So nothing is concluded from
    either before both are the same: whoever looks at a hash gets it here. Raises Contradiction, Malformed.
    """
    said = quantity(block, "number", NUMBER_BITS)
    if number not in (None, said):
        raise Contradiction(f"asked for block {number}; got block {said}")
    recomputed = header_hash(block)
    try:
        _same(f"block {said}", "header hash", recomputed, octets(block, "hash", 32))
    except Contradiction as error:
        if unknown := unknown_fields(block):
            names = ", ".join(unknown)[:MOST_NAMES]
            raise Unread(f"{error}, and fields of a header that are not known here: {names}") from None
        raise
    return recomputed


def level(proved: Proved, contracts: Iterable[Address]) -> Level:
    """How well the block tells what happened to these contracts: `proved` also without its receipts, where no
    transaction is to one of them and its bloom excludes them all. Presence is proved by the root, absence by
    the bloom, both of a header that hashes right."""
    ours = frozenset(contracts)
    if any(tx.to in ours for tx in proved.transactions) or any(may_contain(proved.bloom, a) for a in ours):
        return proved.level
    return Level.PROVED


def prove(
    block: Mapping[str, Any],
    receipts: Sequence[Mapping[str, Any]] | None,
    *,
    logs: Sequence[Mapping[str, Any]] = (),
) -> Proved:
    """The block that `eth_getBlockByNumber(…, true)` and `eth_getBlockReceipts` answered with, recomputed.

    `receipts` None says that no provider serves them; then `logs` are what `eth_getLogs` said of this block,
    and the level is `linked`. Whether the block is the one that was asked for (number, hash, parent) is for
    the caller to compare. Raises Contradiction for anything that is not a consistent block.
    """
    where = "block"
    try:
        where = f"block {quantity(parse_object(block, 'block'), 'number')}"
        number, block_hash = quantity(block, "number", NUMBER_BITS), hash_of(block)
        time = quantity(block, "timestamp", TIME_BITS)
        here = {"blockHash": block_hash, "blockNumber": number}
        transactions = _transactions(where, block, here)
        _withdrawals(where, block)
        if receipts is None:
            statuses: tuple[bool | None, ...] = (None,) * len(transactions)
            found = _admitted_logs(where, block, here, transactions, parse_objects(logs, "logs"))
        else:
            receipts = parse_objects(receipts, "receipts")
            read = _receipts(where, block, here, transactions, receipts)
            statuses = tuple(receipt.status for receipt in read)
            found = _proved_logs(where, here, transactions, receipts, read)
        return Proved(
            number=number,
            hash=block_hash,
            parent=Hash32(octets(block, "parentHash", 32)),
            time=time,
            level=Level.LINKED if receipts is None else Level.PROVED,
            transactions=transactions,
            statuses=statuses,
            logs=found,
            bloom=octets(block, "logsBloom", BLOOM_BYTES),
        )
    except Malformed as error:
        raise contradiction(where, error) from error


def _transactions(where: str, block: Object, here: Mapping[str, Any]) -> tuple[Transaction, ...]:
    given = objects(block, "transactions")
    transactions = tuple(map(read_transaction, given))
    for index, (tx, says) in enumerate(zip(transactions, given, strict=True)):
        at = f"{where}, transaction {index}"
        _same(at, "hash", tx.hash, octets(says, "hash", 32))
        _metadata(at, says, {**here, "transactionIndex": index})
    _same(
        where,
        "transactionsRoot",
        ordered_root([tx.raw for tx in transactions]),
        octets(block, "transactionsRoot", 32),
    )
    return transactions


def _withdrawals(where: str, block: Object) -> None:
    """EIP-4895. Nothing here reads withdrawals, but who invents one is not to be trusted with the rest."""
    if block.get("withdrawalsRoot") is None:
        return
    encoded = [
        rlp.sequence(
            (
                rlp.number(quantity(each, "index")),
                rlp.number(quantity(each, "validatorIndex")),
                rlp.string(octets(each, "address", 20)),
                rlp.number(quantity(each, "amount")),
            )
        )
        for each in objects(block, "withdrawals")
    ]
    _same(where, "withdrawalsRoot", ordered_root(encoded), octets(block, "withdrawalsRoot", 32))


def _receipts(
    where: str,
    block: Object,
    here: Mapping[str, Any],
    transactions: Sequence[Transaction],
    given: Sequence[Object],
) -> list[Receipt]:
    if len(given) != len(transactions):
        raise Contradiction(f"{where}: expected {len(transactions)} receipts; got {len(given)}")
    read = []
    for index, (says, tx) in enumerate(zip(given, transactions, strict=True)):
        at = f"{where}, receipt {index}"
        receipt = read_receipt(says)
        _same(at, "type", receipt.type, tx.type)
        _same(at, "logsBloom", receipt.bloom, octets(says, "logsBloom", BLOOM_BYTES))
        _metadata(at, says, {**here, "transactionIndex": index, "transactionHash": tx.hash})
        read.append(receipt)
    root = ordered_root([receipt.raw for receipt in read])
    _same(where, "receiptsRoot", root, octets(block, "receiptsRoot", 32))
    whole = union(receipt.bloom for receipt in read)
    _same(where, "logsBloom", whole, octets(block, "logsBloom", BLOOM_BYTES))
    return read


def _proved_logs(
    where: str,
    here: Mapping[str, Any],
    transactions: Sequence[Transaction],
    given: Sequence[Object],
    read: Sequence[Receipt],
) -> tuple[Log, ...]:
    """All logs, counted: a log's index is how many stand before it in the block."""
    found: list[Log] = []
    for tx_index, (tx, says, receipt) in enumerate(zip(transactions, given, read, strict=True)):
        expected = {**here, "transactionIndex": tx_index, "transactionHash": tx.hash}
        for entry, log in zip(receipt.entries, objects(says, "logs"), strict=True):
            log_index = len(found)
            at = f"{where}, log {log_index}"
            _metadata(at, log, {**expected, "logIndex": log_index})
            _not_removed(at, log)
            found.append(Log(entry.address, entry.topics, entry.data, tx_index, tx.hash, log_index))
    return tuple(found)


def _admitted_logs(
    where: str,
    block: Object,
    here: Mapping[str, Any],
    transactions: Sequence[Transaction],
    given: Sequence[Object],
) -> tuple[Log, ...]:
    """The logs offered without receipts, if the header's bloom admits each and they are in order.

    Where they stand can't be counted, since some may be missing; the transaction that each names is proved.
    """
    filter_ = octets(block, "logsBloom", BLOOM_BYTES)
    found: list[Log] = []
    for says in given:
        entry = read_entry(says)
        tx_index, log_index = quantity(says, "transactionIndex"), quantity(says, "logIndex", INDEX_BITS)
        at = f"{where}, log {log_index}"
        if tx_index >= len(transactions):
            raise Contradiction(f"{at}: expected a transaction below {len(transactions)}; got {tx_index}")
        tx = transactions[tx_index]
        _metadata(at, says, {**here, "transactionHash": tx.hash})
        _not_removed(at, says)
        for item in (entry.address, *entry.topics):
            if not may_contain(filter_, item):
                raise Contradiction(f"{at}: the header's bloom excludes 0x{item.hex()}")
        if found and not (found[-1].log_index < log_index and found[-1].tx_index <= tx_index):
            raise Contradiction(
                f"{at}: expected logs in the chain's order; got it after {found[-1].log_index}"
            )
        found.append(Log(entry.address, entry.topics, entry.data, tx_index, tx.hash, log_index))
    return tuple(found)


def _metadata(at: str, says: Object, expected: Mapping[str, Any]) -> None:
    """What JSON-RPC repeats in every object must be what the block says. It may be left out."""
    for key, value in expected.items():
        if says.get(key) is not None:
            got = quantity(says, key) if isinstance(value, int) else octets(says, key, 32)
            _same(at, key, value, got)


def _not_removed(at: str, log: Object) -> None:
    if log.get("removed"):
        raise Contradiction(f"{at}: the node says that a reorg has removed it; ask for the block again")


def _same(at: str, what: str, recomputed: bytes | int, said: bytes | int) -> None:
    if recomputed != said:
        raise Contradiction(f"{at}: {what}: expected {_shown(recomputed)}, recomputed; got {_shown(said)}")


def _shown(value: bytes | int) -> str:
    if isinstance(value, int):
        return str(value)
    return f"0x{value.hex()}" if len(value) <= 32 else f"0x{value[:16].hex()}… ({len(value)} bytes)"

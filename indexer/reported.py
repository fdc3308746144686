"""What `eth_getLogs` says of a range of blocks, as Arrow: one batch per event type, a whole answer at a time.

Nothing of it is proved, only that it holds together: it is what was asked for, in the chain's order, and no
block has two hashes. Texts of one field are joined and decoded at once, so that a log costs its share of a
few calls and no loop of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from indexer.decode import Undecodable
from indexer.prove import LOG_INDEX_BITS, NUMBER_BITS, TIME_BITS, Contradiction
from nektar.chain.abi import Abi, EventType
from nektar.chain.columns import Bodies, Ints, Joined, decode
from nektar.chain.texts import joined, octets, quantities
from nektar.model import Address, At, BlockRef, Hash32


class LogText(msgspec.Struct, gc=False):
    """One log as JSON-RPC writes it."""

    address: str
    topics: tuple[str, ...]
    data: str
    block_hash: str = msgspec.field(name="blockHash")
    block_number: str = msgspec.field(name="blockNumber")
    transaction_hash: str = msgspec.field(name="transactionHash")
    transaction_index: str = msgspec.field(name="transactionIndex")
    log_index: str = msgspec.field(name="logIndex")
    block_timestamp: str | None = msgspec.field(name="blockTimestamp", default=None)
    removed: bool = False


class Batch(NamedTuple):
    """Rows of one event type, with the columns of its schema."""

    event: EventType
    rows: pa.RecordBatch


class Asked(NamedTuple):
    """What an answer was asked for."""

    contracts: Mapping[Address, Abi]
    first: int
    last: int


class Places(NamedTuple):
    """Where the logs of an answer stand, a row each."""

    number: Ints
    time: Ints
    tx_index: Ints
    log_index: Ints


def batches(
    logs: Sequence[LogText], asked: Asked, times: Mapping[int, int]
) -> tuple[list[Batch], list[Undecodable]]:
    """The logs as rows in their order, and those that their ABI can't have made.

    `times` are the times of blocks whose logs don't say them (`untimed`). Raises Contradiction, Malformed.
    """
    if not logs:
        return [], []
    places = _places(logs, times)
    _check(logs, places, asked)
    kinds: dict[tuple[str, str, int], list[int]] = {}
    keys = [(log.address, log.topics[0] if log.topics else "", len(log.topics)) for log in logs]
    if len(set(keys)) == 1:
        kinds[keys[0]] = list(range(len(logs)))
    else:
        for row, key in enumerate(keys):
            kinds.setdefault(key, []).append(row)
    of_events: dict[str, tuple[EventType, list[int]]] = {}
    lost: list[Undecodable] = []
    for (address, topic0, count), rows in kinds.items():
        event = _event(asked.contracts, address, topic0, count)
        if event is None:
            lost += (_lost(logs, places, row, f"no such event has {count} topics") for row in rows)
        else:
            of_events.setdefault(event.table, (event, []))[1].extend(rows)
    found = []
    for event, rows in of_events.values():
        rows.sort()
        batch, refused = _batch(event, logs, places, rows)
        lost += (_lost(logs, places, row, reason) for row, reason in refused)
        if batch.rows.num_rows:
            found.append(batch)
    return found, sorted(lost, key=lambda each: each.at)


def untimed(logs: Sequence[LogText]) -> set[int]:
    """The blocks whose logs don't say when they were made. Raises Malformed."""
    without = [log.block_number for log in logs if log.block_timestamp is None]
    return set(quantities(without, "blockNumber", NUMBER_BITS).tolist())


def _places(logs: Sequence[LogText], times: Mapping[int, int]) -> Places:
    number = quantities([log.block_number for log in logs], "blockNumber", NUMBER_BITS)
    said = [log.block_timestamp for log in logs]
    if None in said:
        time = np.fromiter((times[each] for each in number.tolist()), np.int64, len(logs))
    else:
        time = quantities([each for each in said if each is not None], "blockTimestamp", TIME_BITS)
    return Places(
        number,
        time,
        quantities([log.transaction_index for log in logs], "transactionIndex", LOG_INDEX_BITS),
        quantities([log.log_index for log in logs], "logIndex", LOG_INDEX_BITS),
    )


def _check(logs: Sequence[LogText], places: Places, asked: Asked) -> None:
    """Raises Contradiction where the answer can't be one to what was asked."""
    number, time, tx_index, log_index = places
    if any(log.removed for log in logs):
        raise Contradiction("a log that a reorg has removed; ask again")
    if number.min() < asked.first or number.max() > asked.last:
        raise Contradiction(
            f"asked for blocks {asked.first} to {asked.last}; got logs of {number.min()} to {number.max()}"
        )
    same = number[1:] == number[:-1]
    ahead = (number[1:] > number[:-1]) | (
        same & (log_index[1:] > log_index[:-1]) & (tx_index[1:] >= tx_index[:-1])
    )
    if not ahead.all():
        row = int(np.argmin(ahead)) + 1
        raise Contradiction(
            f"block {number[row]}, log {log_index[row]}: expected logs in the chain's order, each once"
        )
    hashes = [log.block_hash for log in logs]
    pairs = zip(hashes[1:], hashes[:-1], same.tolist(), strict=True)
    if any(mine != before for mine, before, together in pairs if together):
        raise Contradiction("two logs of one block name two hashes for it")
    if (time[1:] != time[:-1])[same].any():
        raise Contradiction("two logs of one block name two times for it")


def _event(contracts: Mapping[Address, Abi], address: str, topic0: str, count: int) -> EventType | None:
    """The event that a log is one of; None where its contract has one of that topic with other arguments.

    Raises Contradiction for a log that was not asked for.
    """
    abi = contracts.get(Address(octets([address], 20, "address")))
    topic = Hash32(octets([topic0], 32, "topics")) if count else None
    if abi is None or topic is None or topic not in abi.topics:
        raise Contradiction(f"asked for other logs than one of {address} with the topic {topic0 or 'none'}")
    return abi.by_topics.get((topic, count))


def _batch(
    event: EventType, logs: Sequence[LogText], places: Places, rows: Sequence[int]
) -> tuple[Batch, list[tuple[int, str]]]:
    taken = logs if len(rows) == len(logs) else [logs[row] for row in rows]
    indexed = b"" if not event.indexed else _topics(taken, len(event.indexed))
    width = 32 * len(event.indexed)
    parts = (
        Bodies(
            [a.type for a in event.indexed], Joined(indexed, np.full(len(taken), width, np.int64)), exact=True
        ),
        Bodies([a.type for a in event.unindexed], joined([log.data for log in taken], "data"), exact=True),
    )
    columns, kept, refused = decode(parts, len(taken))
    if refused:
        taken = [taken[row] for row in kept.tolist()]
    chosen = np.asarray(rows)[kept]
    arguments = dict(zip(event.indexed + event.unindexed, columns, strict=True))
    hashes = octets([log.block_hash for log in taken], 32, "blockHash")
    transactions = octets([log.transaction_hash for log in taken], 32, "transactionHash")
    addresses = octets([log.address for log in taken], 20, "address")
    fixed = {
        "block_number": places.number[chosen].astype(np.uint64),
        "block_hash": hashes,
        "block_time": places.time[chosen],
        "tx_index": places.tx_index[chosen].astype(np.uint32),
        "tx_hash": transactions,
        "log_index": places.log_index[chosen].astype(np.uint32),
        "address": addresses,
    }
    schema, count = event.schema, len(taken)
    arrays = [
        pa.Array.from_buffers(schema.field(name).type, count, [None, pa.py_buffer(values)])
        for name, values in fixed.items()
    ]
    arrays += (arguments[each] for each in event.arguments)
    said = [(rows[each.row], each.reason) for each in refused]
    return Batch(event, pa.RecordBatch.from_arrays(arrays, schema=schema)), said


def _topics(logs: Sequence[LogText], count: int) -> bytes:
    """The topics after the first of each log, one log's after another's."""
    if count == 1:
        return octets([log.topics[1] for log in logs], 32, "topics")
    return octets([topic for log in logs for topic in log.topics[1:]], 32, "topics")


def _lost(logs: Sequence[LogText], places: Places, row: int, reason: str) -> Undecodable:
    log = logs[row]
    number = int(places.number[row])
    block = BlockRef(number, Hash32(octets([log.block_hash], 32, "blockHash")))
    at = At(number, int(places.tx_index[row]), int(places.log_index[row]))
    topics = octets(list(log.topics), 32, "topics")
    return Undecodable(
        block,
        at,
        Address(octets([log.address], 20, "address")),
        tuple(topics[i : i + 32] for i in range(0, len(topics), 32)),
        joined([log.data], "data").data,
        reason,
    )

"""What `eth_getLogs` says of a range of blocks, as Arrow: one batch per event type.

Nothing of it is proved, only that it holds together: it is what was asked for, in the chain's order, and no
block has two hashes or two times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from indexer.decode import LOST_A_BLOCK, Undecodable, and_more
from indexer.prove import Contradiction
from nektar.arrow import pa
from nektar.chain.abi import Abi, EventType
from nektar.chain.columns import Bodies, Ints, Joined, Octets, decode
from nektar.chain.logs import HASH, UNTIMED, Logs
from nektar.model import Address, At, BlockRef, Hash32


class Batch(NamedTuple):
    """Rows of one event type, with the columns of its schema."""

    event: EventType
    rows: pa.RecordBatch


def check(logs: Logs, contracts: Mapping[Address, Abi], first: int, last: int) -> None:
    """Raises Contradiction where the logs can't be the answer to what was asked."""
    if not logs:
        return
    if unasked := logs.addresses - contracts.keys():
        raise Contradiction(f"asked for other logs than those of 0x{min(unasked).hex()}")
    number = logs.number
    if number.min() < first or number.max() > last:
        raise Contradiction(
            f"asked for blocks {first} to {last}; got logs of {number.min()} to {number.max()}"
        )
    same = number[1:] == number[:-1]
    further = (logs.log_index[1:] > logs.log_index[:-1]) & (logs.tx_index[1:] >= logs.tx_index[:-1])
    ahead = (number[1:] > number[:-1]) | (same & further)
    if not ahead.all():
        row = int(np.argmin(ahead)) + 1
        raise Contradiction(
            f"block {number[row]}, log {logs.log_index[row]}: expected logs in the chain's order, each once"
        )
    hashes = _words(logs.block_hash)
    if (hashes[1:] != hashes[:-1]).any(axis=1)[same].any():
        raise Contradiction("two logs of one block name two hashes for it")
    if (logs.time[1:] != logs.time[:-1])[same].any():
        raise Contradiction("two logs of one block name two times for it")


def untimed(logs: Logs) -> dict[int, bytes]:
    """The blocks whose logs don't say when they were made, and the hashes that these name."""
    rows = np.flatnonzero(logs.time == UNTIMED)
    numbers, firsts = np.unique(logs.number[rows], return_index=True)
    return {
        number: logs.block_hash[row].tobytes()
        for number, row in zip(numbers.tolist(), rows[firsts].tolist(), strict=True)
    }


def timed(logs: Logs, times: Mapping[int, int]) -> Logs:
    """The logs with the times of their blocks."""
    at = np.fromiter((times[number] for number in logs.number.tolist()), np.int64, len(logs.number))
    return logs._replace(time=at)


def batches(logs: Logs, contracts: Mapping[Address, Abi]) -> tuple[list[Batch], list[Undecodable]]:
    """The logs as rows in their order, and those that their ABI can't have made, within bounds.

    All are of the contracts. Which event a log is, is decided as for proved ones (`decode.py`).
    """
    of_events: dict[str, tuple[EventType, list[Ints]]] = {}
    lost: dict[int, str] = {}  # why, by row
    for rows in _kinds(logs):
        address, count = Address(logs.address[rows[0]].tobytes()), int(logs.topic_count[rows[0]])
        layouts = contracts[address].layouts([topic.tobytes() for topic in logs.topics[rows[0], :count]])
        if layouts is None:
            continue  # no event that the ABI speaks of
        if not layouts:
            lost |= dict.fromkeys(rows.tolist(), f"no such event has {count} topics")
        elif len(layouts) == 1:
            of_events.setdefault(layouts[0].table, (layouts[0], []))[1].append(rows)
        else:
            lost |= _told_apart(layouts, logs, rows, of_events)
    found = []
    for event, parts in of_events.values():
        rows = parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))
        batch, refused = _batch(event, logs, rows)
        lost |= refused
        if batch.rows.num_rows:
            found.append(batch)
    return found, list(_lost(logs, lost)) if lost else []


def _told_apart(
    layouts: Sequence[EventType], logs: Logs, rows: Ints, of_events: dict[str, tuple[EventType, list[Ints]]]
) -> dict[int, str]:
    """Put rows that several events may be to the one that they fit. What fits none or several is lost: by
    row, why."""
    fits = np.zeros((len(layouts), len(rows)), bool)
    for place, event in enumerate(layouts):
        fits[place, decode(_bodies(event, logs, rows), len(rows)).rows] = True
    for place, event in enumerate(layouts):
        alone = rows[fits[place] & (fits.sum(axis=0) == 1)]
        if len(alone):
            of_events.setdefault(event.table, (event, []))[1].append(alone)
    lost = {}
    for at in np.flatnonzero(fits.sum(axis=0) != 1).tolist():
        fitting = [event.table for event, fit in zip(layouts, fits[:, at], strict=True) if fit]
        tables = ", ".join(fitting or [event.table for event in layouts])
        reason = f"{len(fitting)} events fit: {tables}" if fitting else f"no event fits of {tables}"
        lost[int(rows[at])] = reason
    return lost


def _kinds(logs: Logs) -> list[Ints]:
    """Rows by (address, first topic, number of topics)."""
    if not logs:
        return []
    words = np.concatenate(
        [logs.address.reshape(-1, 20), logs.topics[:, 0], logs.topic_count.astype("u1")[:, None]], axis=1
    )
    if not (words != words[0]).any():
        return [np.arange(len(words))]
    keys = np.ascontiguousarray(words).view(f"V{words.shape[1]}").ravel()
    kinds: dict[bytes, list[int]] = {}
    for row, key in enumerate(keys.tolist()):
        kinds.setdefault(bytes(key), []).append(row)
    return [np.array(rows) for rows in kinds.values()]


def _bodies(event: EventType, logs: Logs, rows: Ints) -> tuple[Bodies, Bodies]:
    """What the topics and the data of these logs hold, if they are this event."""
    indexed, first = len(event.indexed), event.topic_count - len(event.indexed)
    topics = _rows(logs.topics, rows)[:, first : first + indexed]
    sizes = np.full(len(rows), HASH * indexed, np.int64)
    return (
        Bodies([a.type for a in event.indexed], Joined(topics.tobytes(), sizes), exact=True),
        Bodies([a.type for a in event.unindexed], logs.data.take(rows), exact=True),
    )


def _batch(event: EventType, logs: Logs, rows: Ints) -> tuple[Batch, dict[int, str]]:
    parts = _bodies(event, logs, rows)
    columns, kept, refused = decode(parts, len(rows))
    arguments = dict(zip(event.indexed + event.unindexed, columns, strict=True))
    said = {int(rows[each.row]): each.reason for each in refused}
    if refused:
        rows = rows[kept]
    fixed = {
        "block_number": _rows(logs.number, rows).astype(np.uint64),
        "block_hash": _rows(logs.block_hash, rows),
        "block_time": _rows(logs.time, rows),
        "tx_index": _rows(logs.tx_index, rows).astype(np.uint32),
        "tx_hash": _rows(logs.tx_hash, rows),
        "log_index": _rows(logs.log_index, rows).astype(np.uint32),
        "address": _rows(logs.address, rows),
    }
    schema = event.schema
    arrays = [
        pa.Array.from_buffers(
            schema.field(name).type, len(rows), [None, pa.py_buffer(np.ascontiguousarray(each))]
        )
        for name, each in fixed.items()
    ]
    arrays += (arguments[each] for each in event.arguments)
    return Batch(event, pa.RecordBatch.from_arrays(arrays, schema=schema)), said


def _rows(column: Any, rows: Ints) -> Any:
    """The rows of a column, which are in order."""
    return column if len(rows) == len(column) else column[rows]


def _words(octets: Octets) -> Any:
    return np.ascontiguousarray(octets).view(np.uint64)


def _lost(logs: Logs, reasons: Mapping[int, str]) -> Iterator[Undecodable]:
    """The first rows of each block that can't be decoded, in order; the last of them says how many more there
    were (`decode.bounded`). There may be very many, so the others are not looked at one by one."""
    rows = np.array(sorted(reasons), np.int64)
    _, firsts, counts = np.unique(logs.number[rows], return_index=True, return_counts=True)
    place = np.arange(len(rows)) - np.repeat(firsts, counts)
    kept = rows[place < LOST_A_BLOCK]
    last = counts > LOST_A_BLOCK
    lasts, beyond = rows[firsts[last] + LOST_A_BLOCK - 1], counts[last] - LOST_A_BLOCK
    more: dict[int, int] = dict(zip(lasts.tolist(), beyond.tolist(), strict=True))
    of = logs.take(kept)
    ends = np.cumsum(of.data.size)
    for at, row in enumerate(kept.tolist()):
        number = int(of.number[at])
        lost = Undecodable(
            BlockRef(number, Hash32(of.block_hash[at].tobytes())),
            At(number, int(of.tx_index[at]), int(of.log_index[at])),
            Address(of.address[at].tobytes()),
            tuple(topic.tobytes() for topic in of.topics[at, : of.topic_count[at]]),
            of.data.data[ends[at] - of.data.size[at] : ends[at]],
            reasons[row],
        )
        yield and_more(lost, more[row]) if row in more else lost

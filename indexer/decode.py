"""What happened in proved blocks, as Arrow: one table per event type and per function called.

The indexer knows bytes, not meaning. Logs are taken whose first topic an event of the contract has; every
transaction to a contract is a call, failed ones included, since a response that reverts leaves no log. Calls
accuse their sender, and the sender is recovered from the signature. Calls made inside other contracts are
not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from indexer.prove import Log, Proved
from nektar.chain.abi import CALL_COLUMNS, EVENT_COLUMNS, Abi, EventType, FunctionType
from nektar.chain.columns import Bodies, Joined, Refused, decode
from nektar.chain.table import write_table
from nektar.chain.transaction import Transaction, Unsigned, sender
from nektar.chain.types import WORD
from nektar.model import Address, At, BlockRef

SELECTOR_BYTES = 4


class Undecodable(msgspec.Struct, frozen=True):
    """A log or call of our contracts that its ABI can't have made, whole, and why."""

    block: BlockRef
    at: At  # a call has the log index -1
    address: Address
    topics: tuple[bytes, ...]  # none for a call
    data: bytes  # the log's data, or the call's input
    reason: str


class _LogRow(NamedTuple):
    block: Proved
    log: Log


class _CallRow(NamedTuple):
    block: Proved
    tx_index: int
    tx: Transaction
    sender: Address


def tables(
    contracts: Mapping[Address, Abi], proved: Sequence[Proved]
) -> tuple[dict[str, bytes], list[Undecodable]]:
    """Table name → Arrow IPC stream, for `nektar.log.New.tables`, and what could not be read.

    Rows stand in the chain's order; a table without rows is left out; the same blocks give the same bytes.
    Logs whose first topic no event of the contract has are out of scope and are not taken; nor are calls
    without input, which only send value.
    """
    logs: dict[str, tuple[EventType, list[_LogRow]]] = {}
    calls: dict[str, tuple[FunctionType, list[_CallRow]]] = {}
    lost: list[Undecodable] = []
    for block in proved:
        for log in block.logs:
            abi = contracts.get(log.address)
            if abi is None or not log.topics or log.topics[0] not in abi.topics:
                continue
            event = abi.by_topics.get((log.topics[0], len(log.topics)))
            if event is None:
                lost.append(_lost_log(_LogRow(block, log), f"no such event has {len(log.topics)} topics"))
            else:
                logs.setdefault(event.table, (event, []))[1].append(_LogRow(block, log))
        for index, tx in enumerate(block.transactions):
            abi = None if tx.to is None else contracts.get(tx.to)
            if abi is None or not tx.input:
                continue
            function = abi.by_selector.get(tx.input[:SELECTOR_BYTES])
            if function is None:
                lost.append(_lost_call(block, index, tx, "no function of the contract has its selector"))
                continue
            try:
                row = _CallRow(block, index, tx, sender(tx))
            except Unsigned as error:
                lost.append(_lost_call(block, index, tx, str(error)))
            else:
                calls.setdefault(function.table, (function, []))[1].append(row)

    found: dict[str, bytes] = {}
    for event, log_rows in logs.values():
        batch, refused = _events(event, log_rows)
        lost += (_lost_log(log_rows[each.row], each.reason) for each in refused)
        if batch.num_rows:
            found[event.table] = write_table(batch)
    for function, call_rows in calls.values():
        batch, refused = _calls(function, call_rows)
        lost += (_lost_call(*call_rows[each.row][:3], each.reason) for each in refused)
        if batch.num_rows:
            found[function.table] = write_table(batch)
    return dict(sorted(found.items())), sorted(lost, key=lambda each: each.at)


def _events(event: EventType, rows: Sequence[_LogRow]) -> tuple[pa.RecordBatch, list[Refused]]:
    parts = (
        Bodies(
            [a.type for a in event.indexed],
            Joined.of([b"".join(row.log.topics[1:]) for row in rows]),
            exact=True,
        ),
        Bodies([a.type for a in event.unindexed], Joined.of([row.log.data for row in rows]), exact=True),
    )
    columns, kept, refused = decode(parts, len(rows))
    taken = [rows[row] for row in kept]
    arguments = dict(zip(event.indexed + event.unindexed, columns, strict=True))
    fixed = {
        **_where([row.block for row in taken]),
        "tx_index": [row.log.tx_index for row in taken],
        "tx_hash": [row.log.tx_hash for row in taken],
        "log_index": [row.log.log_index for row in taken],
        "address": [row.log.address for row in taken],
    }
    return _batch(event.schema, EVENT_COLUMNS, fixed, [arguments[each] for each in event.arguments]), refused


def _calls(function: FunctionType, rows: Sequence[_CallRow]) -> tuple[pa.RecordBatch, list[Refused]]:
    # Solidity takes calldata that is longer than its arguments, and wallets append marks of their own.
    bodies = Joined.of([row.tx.input[SELECTOR_BYTES:] for row in rows])
    part = Bodies([each.type for each in function.arguments], bodies, exact=False)
    columns, kept, refused = decode((part,), len(rows))
    taken = [rows[row] for row in kept]
    fixed = {
        **_where([row.block for row in taken]),
        "tx_index": [row.tx_index for row in taken],
        "tx_hash": [row.tx.hash for row in taken],
        "sender": [row.sender for row in taken],
        "address": [row.tx.to for row in taken],
        "value": [row.tx.value.to_bytes(WORD, "little") for row in taken],
        "status": [row.block.statuses[row.tx_index] for row in taken],
        # No root covers why a call reverted; whoever asks a node for it may add it here.
        "revert": [None] * len(taken),
    }
    return _batch(function.schema, CALL_COLUMNS, fixed, columns), refused


def _where(blocks: Sequence[Proved]) -> dict[str, list[Any]]:
    return {
        "block_number": [block.number for block in blocks],
        "block_hash": [block.hash for block in blocks],
        "block_time": [block.time for block in blocks],
    }


def _batch(
    schema: pa.Schema,
    fields: Sequence[pa.Field],
    fixed: Mapping[str, Sequence[Any]],
    arguments: Sequence[pa.Array],
) -> pa.RecordBatch:
    columns = [_column(field.type, fixed[field.name]) for field in fields]
    return pa.RecordBatch.from_arrays([*columns, *arguments], schema=schema)


def _column(type_: pa.DataType, values: Sequence[Any]) -> pa.Array:
    """`pa.array(values, type_)` for the fixed columns, which would load pandas: 50 MB, and over a second."""
    if pa.types.is_string(type_):
        return pa.nulls(len(values), type_)
    known = None
    if pa.types.is_fixed_size_binary(type_):
        buffer = b"".join(values)
    elif pa.types.is_boolean(type_):
        if None in values:
            known = pa.py_buffer(_bits([value is not None for value in values]))
        buffer = _bits([bool(value) for value in values])
    else:
        kind = "u" if pa.types.is_unsigned_integer(type_) else "i"
        buffer = np.array(values, f"<{kind}{type_.bit_width // 8}").tobytes()
    return pa.Array.from_buffers(type_, len(values), [known, pa.py_buffer(buffer)])


def _bits(values: Sequence[bool]) -> bytes:
    return np.packbits(np.array(values, bool), bitorder="little").tobytes()


def _lost_log(row: _LogRow, reason: str) -> Undecodable:
    block, log = row
    at = At(block.number, log.tx_index, log.log_index)
    return Undecodable(BlockRef(block.number, block.hash), at, log.address, log.topics, log.data, reason)


def _lost_call(block: Proved, index: int, tx: Transaction, reason: str) -> Undecodable:
    at = At(block.number, index, -1)
    return Undecodable(BlockRef(block.number, block.hash), at, Address(tx.to or b""), (), tx.input, reason)

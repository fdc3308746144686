"""What happened in proved blocks, as Arrow: one table per event type and per function called.

The indexer knows bytes, not meaning. Logs are taken whose first topic an event of the contract has, and, of
contracts that have anonymous events, all others too. Where several events could have made a log (anonymous
ones, or one event with other arguments indexed), it is the one that its topics and data fit; a log that fits
none or several is lost, and never guessed. Every transaction to a contract is a call, failed ones included,
since a response that reverts leaves no log. Calls accuse their sender, and the sender is recovered from the
signature. Calls made inside other contracts are not seen.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np

from indexer.found import NOTHING, Found, Made
from indexer.prove import Log, Proved
from indexer.reverts import Reasons
from nektar.arrow import pa
from nektar.chain.abi import CALL_COLUMNS, EVENT_COLUMNS, SELECTOR_BYTES, Abi, EventType, FunctionType
from nektar.chain.columns import Bodies, Joined, Refused, decode
from nektar.chain.table import write_table
from nektar.chain.transaction import Transaction, Unsigned, sender
from nektar.chain.types import WORD
from nektar.model import Address, At, BlockRef, Hash32

# Of a block, that many logs and as many calls are kept of those that can't be read: strangers may send
# anything to a contract, and whoever looks through `nektar.dead` wants to find what matters.
LOST_A_BLOCK = 16
NO_REASONS: Reasons = {}


class Undecodable(msgspec.Struct, frozen=True):
    """A log or call of our contracts that its ABI can't have made, whole, and why."""

    block: BlockRef
    at: At  # a call has the log index -1
    address: Address
    topics: tuple[bytes, ...]  # none for a call
    data: bytes  # the log's data, or the call's input
    reason: str
    more: int = 0  # of its block, that can't be read either and are not kept


class _LogRow(NamedTuple):
    block: Proved
    log: Log


class _CallRow(NamedTuple):
    block: Proved
    tx_index: int
    tx: Transaction
    sender: Address


def tables(
    contracts: Mapping[Address, Abi],
    proved: Sequence[Proved],
    found: Found = NOTHING,
    reverts: Reasons = NO_REASONS,
    *,
    only_with_events: bool = False,
) -> tuple[dict[str, bytes], list[Undecodable]]:
    """Table name → Arrow IPC stream, for `nektar.log.New.tables`, and what could not be read.

    Rows stand in the chain's order; a table without rows is left out; the same blocks give the same bytes.
    `found` are the contracts that blocks before these made. Where these make more, they are read once more
    with those: seldom, and at most as often as contracts make contracts that make contracts. `reverts` is why
    calls failed, where a node said so: of all that is here, only that is believed. `only_with_events`: calls
    are taken of those blocks alone that hold an event of the contracts, which a bloom can exclude.
    """
    made: list[Made] = [() for _ in proved]
    while True:
        scope = {**contracts, **found.contracts()}
        scopes = []
        for block in made:
            scope = {**scope, **found.contracts(block)} if block else scope
            scopes.append(scope)
        with uncollected():
            encoded, lost = _decoded([*zip(proved, scopes, strict=True)], reverts, only_with_events)
        more = found.made(encoded, [block.hash for block in proved])
        if more == made:
            return encoded, lost
        made = more


@contextmanager
def uncollected() -> Iterator[None]:
    """Rows are made by the thousand, in no cycle, and soon gone: the collector would walk them in vain."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


_Scoped: TypeAlias = tuple[Proved, Mapping[Address, Abi]]  # a block, and the contracts in scope in it


def _decoded(
    blocks: Sequence[_Scoped], reverts: Reasons, only_with_events: bool
) -> tuple[dict[str, bytes], list[Undecodable]]:
    found: dict[str, bytes] = {}
    logs, lost = _sorted_out(blocks)
    for event, log_rows in logs.values():
        batch, refused = _events(event, log_rows)
        lost += (_lost_log(log_rows[each.row], each.reason) for each in refused)
        if batch.num_rows:
            found[event.table] = write_table(batch)
    if only_with_events:
        rows = (row for _, rows in logs.values() for row in rows)
        eventful = {row.block.hash for row in rows} | {each.block.hash for each in lost}
        blocks = [each for each in blocks if each[0].hash in eventful]
    calls, lost_calls = _called(blocks)
    for function, call_rows in calls.values():
        batch, refused = _calls(function, call_rows, reverts)
        lost_calls += (_lost_call(*call_rows[each.row][:3], each.reason) for each in refused)
        if batch.num_rows:
            found[function.table] = write_table(batch)
    return dict(sorted(found.items())), sorted(
        (*bounded(lost), *bounded(lost_calls)), key=lambda each: each.at
    )


_Logs: TypeAlias = dict[str, tuple[EventType, list[_LogRow]]]  # by table
_Calls: TypeAlias = dict[str, tuple[FunctionType, list[_CallRow]]]


def _sorted_out(blocks: Sequence[_Scoped]) -> tuple[_Logs, list[Undecodable]]:
    """The contracts' logs by the event that each is. What none can be is lost where the ABI speaks of it, and
    otherwise out of scope."""
    logs: _Logs = {}
    nothing: list[_LogRow] = []  # what no event can be
    unclear: dict[tuple[str, ...], tuple[Sequence[EventType], list[_LogRow]]] = {}

    def taken_to(layouts: Sequence[EventType] | None) -> list[_LogRow] | None:
        if layouts is None:
            return None
        if len(layouts) == 1:
            return logs.setdefault(layouts[0].table, (layouts[0], []))[1]
        key = tuple(each.table for each in layouts)
        return unclear.setdefault(key, (layouts, []))[1] if layouts else nothing

    # This is done for every log: what is the same for all of one kind is looked up once.
    kinds: dict[tuple[int, bytes, int], list[_LogRow] | None] = {}
    for block, contracts in blocks:
        for log in block.logs:
            abi = contracts.get(log.address)
            if abi is None:
                continue
            topics = log.topics
            kind = id(abi), topics[0] if topics else b"", len(topics)
            try:
                rows = kinds[kind]
            except KeyError:
                rows = kinds[kind] = taken_to(abi.layouts(topics))
            if rows is not None:
                rows.append(_LogRow(block, log))
    lost = [_lost_log(row, f"no such event has {len(row.log.topics)} topics") for row in nothing]
    for layouts, rows in unclear.values():
        lost += _told_apart(layouts, rows, logs)
    return logs, lost


def _told_apart(layouts: Sequence[EventType], rows: Sequence[_LogRow], logs: _Logs) -> Iterator[Undecodable]:
    """Put rows that several events may be to the one that they fit; those that fit none or several are lost.

    A guess would be a row like any other, and nobody could tell.
    """
    fitting: list[list[EventType]] = [[] for _ in rows]
    for event in layouts:
        for row in decode(_bodies(event, rows), len(rows)).rows.tolist():
            fitting[row].append(event)
    for row, fit in zip(rows, fitting, strict=True):
        if len(fit) == 1:
            logs.setdefault(fit[0].table, (fit[0], []))[1].append(row)
        elif fit:
            yield _lost_log(row, f"{len(fit)} events fit: {', '.join(each.table for each in fit)}")
        else:
            yield _lost_log(row, f"no event fits of {', '.join(each.table for each in layouts)}")
    for event in layouts:
        if event.table in logs:
            logs[event.table][1].sort(key=_place)


def _place(row: _LogRow) -> tuple[int, int]:
    return row.block.number, row.log.log_index


def _called(blocks: Sequence[_Scoped]) -> tuple[_Calls, list[Undecodable]]:
    """Transactions to the contracts by the function that each calls. What only sends value to a contract that
    takes none is out of scope."""
    calls: _Calls = {}
    lost: list[Undecodable] = []
    for block, contracts in blocks:
        for index, tx in enumerate(block.transactions):
            abi = None if tx.to is None else contracts.get(tx.to)
            if abi is None:
                continue
            function = abi.called(tx.input)
            if function is None:
                if tx.input:
                    lost.append(_lost_call(block, index, tx, "no function of the contract has its selector"))
                continue
            try:
                row = _CallRow(block, index, tx, sender(tx))
            except Unsigned as error:
                lost.append(_lost_call(block, index, tx, str(error)))
            else:
                calls.setdefault(function.table, (function, []))[1].append(row)
    return calls, lost


def bounded(lost: Sequence[Undecodable]) -> Iterator[Undecodable]:
    """The first of each block, in order; the last of them says how many more there were."""
    by_block: dict[Hash32, list[Undecodable]] = {}
    for each in sorted(lost, key=lambda each: each.at):
        by_block.setdefault(each.block.hash, []).append(each)
    for found in by_block.values():
        kept, more = found[:LOST_A_BLOCK], len(found) - LOST_A_BLOCK
        if more > 0:
            kept[-1] = and_more(kept[-1], more)
        yield from kept


def and_more(last: Undecodable, more: int) -> Undecodable:
    """The last of a block's that are kept says that there are more."""
    reason = f"{last.reason} (and {more} more of this block, which are not kept)"
    return msgspec.structs.replace(last, reason=reason, more=more)


def _events(event: EventType, rows: Sequence[_LogRow]) -> tuple[pa.RecordBatch, list[Refused]]:
    columns, kept, refused = decode(_bodies(event, rows), len(rows))
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


def _bodies(event: EventType, rows: Sequence[_LogRow]) -> tuple[Bodies, Bodies]:
    """What the topics and the data of these logs hold, if they are this event."""
    first = event.topic_count - len(event.indexed)
    return (
        Bodies(
            [a.type for a in event.indexed],
            Joined.of([b"".join(row.log.topics[first:]) for row in rows]),
            exact=True,
        ),
        Bodies([a.type for a in event.unindexed], Joined.of([row.log.data for row in rows]), exact=True),
    )


def _calls(
    function: FunctionType, rows: Sequence[_CallRow], reverts: Reasons
) -> tuple[pa.RecordBatch, list[Refused]]:
    # Solidity takes calldata that is longer than its arguments, and wallets append marks of their own.
    bodies = Joined.of([_arguments(function, row.tx.input) for row in rows])
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
        "revert": [reverts.get((row.block.hash, row.tx_index)) for row in taken],
    }
    return _batch(function.schema, CALL_COLUMNS, fixed, columns), refused


def _arguments(function: FunctionType, input_: bytes) -> bytes:
    """The encoded arguments. What came to a fallback is put as an argument of its own, of `bytes`."""
    if function.selector:
        return input_[SELECTOR_BYTES:]
    padded = input_ + bytes(-len(input_) % WORD)
    return WORD.to_bytes(WORD) + len(input_).to_bytes(WORD) + padded


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
    known = None
    if (pa.types.is_string(type_) or pa.types.is_boolean(type_)) and None in values:
        known = pa.py_buffer(_bits([value is not None for value in values]))
    if pa.types.is_string(type_):
        texts = [(value or "").encode() for value in values]
        ends = np.cumsum([0, *map(len, texts)], dtype=np.int32)
        return pa.Array.from_buffers(
            type_, len(values), [known, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))]
        )
    if pa.types.is_fixed_size_binary(type_):
        buffer = b"".join(values)
    elif pa.types.is_boolean(type_):
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

"""Event and function types from a contract's ABI, and the table that each fills.

A table's name ends in a hash of its ABI entry, so that a contract which changes an event's layout fills
another table and never bends the old one. Names and columns are in docs/DESIGN.md, "Records and rows".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import pyarrow as pa
from eth_hash.auto import keccak

from nektar.chain.types import AbiError, Type, Word, column_names, field, parse, parse_parameter
from nektar.model import Hash32

BYTES32 = Word("bytes", 32, "bytes32")


class Argument(msgspec.Struct, frozen=True):
    """One argument. `type` is how it stands on chain: indexed, what takes more than a word is its hash."""

    column: str
    type: Type
    indexed: bool = False


class EventType(msgspec.Struct, frozen=True):
    """An event of a contract."""

    name: str
    table: str
    topic0: Hash32
    arguments: tuple[Argument, ...]
    schema: pa.Schema

    @property
    def indexed(self) -> tuple[Argument, ...]:
        """Those that the topics after the first hold."""
        return tuple(each for each in self.arguments if each.indexed)

    @property
    def unindexed(self) -> tuple[Argument, ...]:
        """Those that the data holds."""
        return tuple(each for each in self.arguments if not each.indexed)


class FunctionType(msgspec.Struct, frozen=True):
    """A function of a contract."""

    name: str
    table: str
    selector: bytes  # 4 bytes
    arguments: tuple[Argument, ...]
    schema: pa.Schema


class Abi(msgspec.Struct, frozen=True):
    """A contract's events and functions. Anonymous events have no topic to be known by, and are left out."""

    by_topics: dict[tuple[Hash32, int], EventType]  # (first topic, number of topics)
    by_selector: dict[bytes, FunctionType]
    topics: frozenset[Hash32]  # first topics of all events

    @property
    def events(self) -> tuple[EventType, ...]:
        return tuple(self.by_topics.values())

    @property
    def functions(self) -> tuple[FunctionType, ...]:
        return tuple(self.by_selector.values())

    @property
    def schemas(self) -> dict[str, pa.Schema]:
        """Every table that this ABI can fill."""
        return {e.table: e.schema for e in self.events} | {f.table: f.schema for f in self.functions}

    def event(self, name: str) -> EventType:
        """The event called `name`. Raises AbiError where there is none, or several."""
        return _only(name, "event", self.events)

    def function(self, name: str) -> FunctionType:
        """The function called `name`. Raises AbiError where there is none, or several."""
        return _only(name, "function", self.functions)


def load(abi: Iterable[Mapping[str, Any]]) -> Abi:
    """The events and functions of an ABI as solc writes it. Raises AbiError.

    Two events may share their first topic if they differ in how many arguments are indexed; a log then says
    by its topics which one it is. Where they differ in which ones, it can't be told.
    """
    by_topics: dict[tuple[Hash32, int], EventType] = {}
    by_selector: dict[bytes, FunctionType] = {}
    for entry in abi:
        if not isinstance(entry, Mapping):
            raise AbiError(f"expected an ABI's list of objects, as solc writes it; it holds {entry!r:.60}")
        kind = entry.get("type", "function")
        if kind == "event" and not entry.get("anonymous"):
            event = _event(entry)
            key = event.topic0, 1 + len(event.indexed)
            known = by_topics.setdefault(key, event)
            if [each.indexed for each in known.arguments] != [each.indexed for each in event.arguments]:
                raise AbiError(
                    f"event {event.name}: two entries index different arguments and no log says which; "
                    "keep the one that the contract has"
                )
        elif kind == "function":
            function = _function(entry)
            by_selector.setdefault(function.selector, function)
    return Abi(by_topics, by_selector, frozenset(topic0 for topic0, _ in by_topics))


def _fixed(*columns: tuple[str, str]) -> tuple[pa.Field, ...]:
    return tuple(field(name, parse(abi, name)) for name, abi in columns)


_TIME = pa.field("block_time", pa.timestamp("s", "UTC"), nullable=False)
_BLOCK = (*_fixed(("block_number", "uint64"), ("block_hash", "bytes32")), _TIME)
EVENT_COLUMNS = (
    *_BLOCK,
    *_fixed(("tx_index", "uint32"), ("tx_hash", "bytes32"), ("log_index", "uint32"), ("address", "address")),
)
CALL_COLUMNS = (
    *_BLOCK,
    *_fixed(("tx_index", "uint32"), ("tx_hash", "bytes32"), ("sender", "address"), ("address", "address")),
    *_fixed(("value", "uint256")),
    *(each.with_nullable(True) for each in _fixed(("status", "bool"), ("revert", "string"))),
)
# Columns that the store puts beside ours in every table (docs/DESIGN.md, "Store tables").
STORE_COLUMNS = ("network", "level", "version", "is_deleted")


def _event(entry: Mapping[str, Any]) -> EventType:
    name, parameters, types = _signature(entry)
    indexed = [bool(parameter.get("indexed")) for parameter in parameters]
    if sum(indexed) > 3:
        raise AbiError(f"event {name}: expected at most 3 indexed arguments; got {sum(indexed)}")
    arguments = tuple(
        Argument(column, BYTES32 if hashed and not isinstance(type_, Word) else type_, hashed)
        for column, type_, hashed in zip(_columns(parameters, EVENT_COLUMNS), types, indexed, strict=True)
    )
    return EventType(
        name=name,
        table=_table("event", entry),
        topic0=Hash32(keccak(_canonical(name, types))),
        arguments=arguments,
        schema=_schema(EVENT_COLUMNS, arguments),
    )


def _function(entry: Mapping[str, Any]) -> FunctionType:
    name, parameters, types = _signature(entry)
    arguments = tuple(map(Argument, _columns(parameters, CALL_COLUMNS), types))
    return FunctionType(
        name=name,
        table=_table("call", entry),
        selector=keccak(_canonical(name, types))[:4],
        arguments=arguments,
        schema=_schema(CALL_COLUMNS, arguments),
    )


def _signature(entry: Mapping[str, Any]) -> tuple[str, Sequence[Mapping[str, Any]], list[Type]]:
    name, parameters = entry.get("name"), entry.get("inputs", [])
    if not isinstance(name, str) or not name:
        raise AbiError(f"expected an ABI entry with a name; got {entry!r:.80}")
    if not isinstance(parameters, list | tuple) or not all(isinstance(p, Mapping) for p in parameters):
        raise AbiError(f"{name}: inputs: expected a list of parameters, as solc writes it")
    return name, parameters, [parse_parameter(each, name) for each in parameters]


def _columns(parameters: Sequence[Mapping[str, Any]], fixed: Sequence[pa.Field]) -> tuple[str, ...]:
    return column_names(parameters, "arg", {*STORE_COLUMNS, *(each.name for each in fixed)})


def _canonical(name: str, types: Sequence[Type]) -> bytes:
    return f"{name}({','.join(each.abi for each in types)})".encode()


def _schema(fixed: Sequence[pa.Field], arguments: Sequence[Argument]) -> pa.Schema:
    return pa.schema([*fixed, *(field(each.column, each.type) for each in arguments)])


def _table(kind: str, entry: Mapping[str, Any]) -> str:
    digest = keccak(json.dumps(entry, sort_keys=True, separators=(",", ":")).encode())
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", entry["name"]).lower()
    return f"{kind}_{re.sub('[^a-z0-9_]', '_', snake)}_{digest[:4].hex()}"


Found = TypeVar("Found", EventType, FunctionType)


def _only(name: str, what: str, among: Sequence[Found]) -> Found:
    found = [each for each in among if each.name == name]
    if len(found) == 1:
        return found[0]
    if not found:
        known = ", ".join(sorted({each.name for each in among})) or "none"
        raise AbiError(f"expected one of the {what}s {known}; got {name!r}")
    raise AbiError(f"{what} {name!r} has {len(found)} layouts: {', '.join(each.table for each in found)}")

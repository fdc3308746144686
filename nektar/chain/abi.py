"""Event, function and error types from a contract's ABI, and the table that each fills.

A table's name ends in a hash of its ABI entry, so that a contract which changes an event's layout fills
another table and never bends the old one. Names and columns are in docs/DESIGN.md, "Records and rows".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from nektar.arrow import pa
from nektar.chain.keccak import keccak
from nektar.chain.types import (
    BYTES32,
    AbiError,
    Bytes,
    Type,
    Word,
    column_names,
    field,
    parse,
    parse_parameter,
)
from nektar.model import Hash32

SELECTOR_BYTES = 4
MAX_TOPICS = 4  # what the EVM's LOG4 takes


class Argument(msgspec.Struct, frozen=True):
    """One argument. `type` is how it stands on chain: indexed, what takes more than a word is its hash."""

    column: str
    type: Type
    indexed: bool = False


class EventType(msgspec.Struct, frozen=True):
    """An event of a contract. An anonymous one has no topic that names it."""

    name: str
    table: str
    topic0: Hash32 | None
    arguments: tuple[Argument, ...]
    schema: pa.Schema
    entry: str  # of the ABI, as canonical JSON: what the table is named by

    @property
    def indexed(self) -> tuple[Argument, ...]:
        """Those that the topics after the first hold."""
        return tuple(each for each in self.arguments if each.indexed)

    @property
    def unindexed(self) -> tuple[Argument, ...]:
        """Those that the data holds."""
        return tuple(each for each in self.arguments if not each.indexed)

    @property
    def topic_count(self) -> int:
        """How many topics its logs have."""
        return len(self.indexed) + (self.topic0 is not None)


class FunctionType(msgspec.Struct, frozen=True):
    """A function of a contract; `receive` and `fallback` too, which have no selector."""

    name: str
    table: str
    selector: bytes  # 4 bytes, or none
    arguments: tuple[Argument, ...]
    schema: pa.Schema
    entry: str


class ErrorType(msgspec.Struct, frozen=True):
    """An error that a contract may revert with."""

    name: str
    selector: bytes  # 4 bytes
    arguments: tuple[Argument, ...]


class Abi(msgspec.Struct, frozen=True):
    """A contract's events, functions and errors."""

    by_topics: dict[tuple[Hash32, int], tuple[EventType, ...]]  # (first topic, number of topics) → layouts
    anonymous: dict[int, tuple[EventType, ...]]  # by the number of topics
    by_selector: dict[bytes, FunctionType]
    receive: FunctionType | None  # what a transaction without input calls
    fallback: FunctionType | None  # what one calls whose selector no function has
    errors: dict[bytes, ErrorType]  # by selector
    topics: frozenset[Hash32]  # first topics of all events that are not anonymous

    @property
    def events(self) -> tuple[EventType, ...]:
        layouts = *self.by_topics.values(), *self.anonymous.values()
        return tuple(each for events in layouts for each in events)

    @property
    def functions(self) -> tuple[FunctionType, ...]:
        special = (each for each in (self.receive, self.fallback) if each is not None)
        return (*self.by_selector.values(), *special)

    @property
    def schemas(self) -> dict[str, pa.Schema]:
        """Every table that this ABI can fill."""
        return {e.table: e.schema for e in self.events} | {f.table: f.schema for f in self.functions}

    def layouts(self, topics: Sequence[bytes]) -> Sequence[EventType] | None:
        """The events that a log with these topics may be; None: it is none that this ABI speaks of.

        A first topic that names an event is taken at its word. Any other log may be an anonymous event,
        where there are some; which one is seen from its data.
        """
        if topics and topics[0] in self.topics:
            return self.by_topics.get((Hash32(topics[0]), len(topics)), ())
        return self.anonymous.get(len(topics), ()) if self.anonymous else None

    def called(self, input_: bytes) -> FunctionType | None:
        """What a transaction with this input calls, by Solidity's rules; None where nothing takes it."""
        if not input_:
            return self.receive or self.fallback
        return self.by_selector.get(input_[:SELECTOR_BYTES]) or self.fallback

    def event(self, name: str) -> EventType:
        """The event called `name`. Raises AbiError where there is none, or several."""
        return _only(name, "event", self.events)

    def function(self, name: str) -> FunctionType:
        """The function called `name`. Raises AbiError where there is none, or several."""
        return _only(name, "function", self.functions)


def load(abi: Iterable[Mapping[str, Any]]) -> Abi:
    """The events, functions and errors of an ABI as solc writes it. Raises AbiError.

    Events may share their first topic and differ in which arguments are indexed. How many are is seen from a
    log's topics; which ones, from whether topics and data fit. Where no log can tell, the ABI is refused.
    """
    events: dict[tuple[Hash32 | None, int], list[EventType]] = {}
    by_selector: dict[bytes, FunctionType] = {}
    special: dict[str, FunctionType] = {}
    errors: dict[bytes, ErrorType] = {}
    for entry in abi:
        if not isinstance(entry, Mapping):
            raise AbiError(f"expected an ABI's list of objects, as solc writes it; it holds {entry!r:.60}")
        kind = entry.get("type", "function")
        if kind == "event":
            event = _event(entry)
            _add(event, events.setdefault((event.topic0, event.topic_count), []))
        elif kind == "function":
            function = _function(entry)
            by_selector.setdefault(function.selector, function)
        elif kind in ("receive", "fallback"):
            special.setdefault(kind, _special(kind, entry))
        elif kind == "error":
            error = _error(entry)
            errors.setdefault(error.selector, error)
    by_topics = {(topic0, n): tuple(found) for (topic0, n), found in events.items() if topic0 is not None}
    return Abi(
        by_topics=by_topics,
        anonymous={n: tuple(found) for (topic0, n), found in events.items() if topic0 is None},
        by_selector=by_selector,
        receive=special.get("receive"),
        fallback=special.get("fallback"),
        errors=errors,
        topics=frozenset(topic0 for topic0, _ in by_topics),
    )


def load_events(abi: Iterable[Mapping[str, Any]]) -> Abi:
    """The events alone: of an ABI's other entries nothing is read. Raises AbiError."""
    return load(entry for entry in abi if not isinstance(entry, Mapping) or entry.get("type") == "event")


def _add(event: EventType, layouts: list[EventType]) -> None:
    """One more event among those that logs of as many topics may be. Raises AbiError."""
    for known in layouts:
        if event.topic0 is None:
            if known.table == event.table:
                return
        elif [each.indexed for each in known.arguments] == [each.indexed for each in event.arguments]:
            return  # the same event, whose arguments are called otherwise
        elif _types(known) == _types(event):
            raise AbiError(
                f"event {event.name}: two entries index different arguments and no log says which; "
                "keep the one that the contract has"
            )
    layouts.append(event)


def _types(event: EventType) -> tuple[list[str], list[str]]:
    """What the topics and the data of its logs are made of."""
    return [a.type.abi for a in event.indexed], [a.type.abi for a in event.unindexed]


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
# Columns that the store puts beside ours in every table (docs/DESIGN.md, "Store tables"), and those that
# ClickHouse keeps for itself.
STORE_COLUMNS = ("network", "level", "version", "is_deleted")
RESERVED_COLUMNS = ("_block_number", "_block_offset", "_row_exists")


def _event(entry: Mapping[str, Any]) -> EventType:
    name, parameters, types = _signature(entry)
    indexed = [bool(parameter.get("indexed")) for parameter in parameters]
    anonymous = bool(entry.get("anonymous"))
    if sum(indexed) > (most := MAX_TOPICS - (not anonymous)):
        raise AbiError(f"event {name}: expected at most {most} indexed arguments; got {sum(indexed)}")
    arguments = tuple(
        Argument(column, BYTES32 if hashed and not isinstance(type_, Word) else type_, hashed)
        for column, type_, hashed in zip(_columns(parameters, EVENT_COLUMNS), types, indexed, strict=True)
    )
    return EventType(
        name=name,
        table=_table("event", name, entry),
        entry=_text(entry),
        topic0=None if anonymous else Hash32(keccak(_canonical(name, types))),
        arguments=arguments,
        schema=_schema(EVENT_COLUMNS, arguments),
    )


def _function(entry: Mapping[str, Any]) -> FunctionType:
    name, parameters, types = _signature(entry)
    arguments = tuple(map(Argument, _columns(parameters, CALL_COLUMNS), types))
    return FunctionType(
        name=name,
        table=_table("call", name, entry),
        entry=_text(entry),
        selector=keccak(_canonical(name, types))[:SELECTOR_BYTES],
        arguments=arguments,
        schema=_schema(CALL_COLUMNS, arguments),
    )


def _special(name: str, entry: Mapping[str, Any]) -> FunctionType:
    """`receive` takes no input and `fallback` any: what came is its one column, as it came."""
    arguments = (Argument("data", Bytes("bytes")),) if name == "fallback" else ()
    schema = _schema(CALL_COLUMNS, arguments)
    return FunctionType(name, _table("call", name, entry), b"", arguments, schema, _text(entry))


def _error(entry: Mapping[str, Any]) -> ErrorType:
    name, parameters, types = _signature(entry)
    arguments = tuple(map(Argument, column_names(parameters, "arg"), types))
    return ErrorType(name, keccak(_canonical(name, types))[:SELECTOR_BYTES], arguments)


def _signature(entry: Mapping[str, Any]) -> tuple[str, Sequence[Mapping[str, Any]], list[Type]]:
    name, parameters = entry.get("name"), entry.get("inputs", [])
    if not isinstance(name, str) or not name:
        raise AbiError(f"expected an ABI entry with a name; got {entry!r:.80}")
    if not isinstance(parameters, list | tuple) or not all(isinstance(p, Mapping) for p in parameters):
        raise AbiError(f"{name}: inputs: expected a list of parameters, as solc writes it")
    return name, parameters, [parse_parameter(each, name) for each in parameters]


def _columns(parameters: Sequence[Mapping[str, Any]], fixed: Sequence[pa.Field]) -> tuple[str, ...]:
    taken = {*STORE_COLUMNS, *RESERVED_COLUMNS, *(each.name for each in fixed)}
    return column_names(parameters, "arg", taken)


def _canonical(name: str, types: Sequence[Type]) -> bytes:
    return f"{name}({','.join(each.abi for each in types)})".encode()


def _schema(fixed: Sequence[pa.Field], arguments: Sequence[Argument]) -> pa.Schema:
    return pa.schema([*fixed, *(field(each.column, each.type) for each in arguments)])


def _table(kind: str, name: str, entry: Mapping[str, Any]) -> str:
    digest = keccak(_text(entry).encode())
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    return f"{kind}_{re.sub('[^a-z0-9_]', '_', snake)}_{digest[:4].hex()}"


def _text(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, sort_keys=True, separators=(",", ":"))


Found = TypeVar("Found", EventType, FunctionType)


def _only(name: str, what: str, among: Sequence[Found]) -> Found:
    found = [each for each in among if each.name == name]
    if len(found) == 1:
        return found[0]
    if not found:
        known = ", ".join(sorted({each.name for each in among})) or "none"
        raise AbiError(f"expected one of the {what}s {known}; got {name!r}")
    raise AbiError(f"{what} {name!r} has {len(found)} layouts: {', '.join(each.table for each in found)}")

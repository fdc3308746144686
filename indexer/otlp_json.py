"""OTLP in JSON, as the OpenTelemetry protocol defines it: proto3's mapping, but for ids, which are hex.

Walks JSON by the descriptors of the messages. protobuf's own `json_format` does the same, is seven times
slower, and reads ids as base64; the tests hold this to it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import msgspec
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from nektar.otlp import MAX_ITEMS, BadRequest, Signal

# As deep as protobuf itself reads.
MAX_DEPTH = 100
_IDS = frozenset({"trace_id", "span_id", "parent_span_id"})
# As JSON writes numbers, or with leading zeros.
_INTEGER = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}

Reader = Callable[[Any, int], Any]
"""(JSON value, depth left) → what a message's constructor takes.

Raises ValueError, TypeError, OverflowError."""


def parse(signal: Signal, body: bytes) -> Any:
    """The request in JSON; fields that are not known are ignored. Raises BadRequest."""
    try:
        value = msgspec.json.decode(body)
        return signal.request(**_message(signal.request.DESCRIPTOR)(value, MAX_DEPTH))
    except (msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadRequest(f"expected an {signal.request.__name__} in JSON; {str(error)[:200]}") from None


@cache
def _message(descriptor: Descriptor) -> Reader:
    """A reader of objects. Fields' readers are made when they are first met: messages hold themselves."""
    named = {field.json_name: field for field in descriptor.fields}
    readers: dict[str, tuple[str, Reader]] = {}

    def read(value: Any, depth: int) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise TypeError(f"{descriptor.name}: expected an object; got {type(value).__name__}")
        if depth == 0:
            raise ValueError(f"expected at most {MAX_DEPTH} levels")
        found = {}
        for key, each in value.items():
            known = readers.get(key)
            if known is None:
                if key not in named:
                    continue
                known = readers[key] = named[key].name, _field(named[key])
            if each is not None:
                found[known[0]] = known[1](each, depth - 1)
        return found

    return read


def _field(field: FieldDescriptor) -> Reader:
    one = _one(field)
    if not field.is_repeated:
        return one

    def read(value: Any, depth: int) -> list[Any]:
        if not isinstance(value, list):
            raise TypeError(f"{field.json_name}: expected an array; got {type(value).__name__}")
        if len(value) > MAX_ITEMS:  # which is refused anyhow, and costs little as long as it is not read
            raise ValueError(f"{field.json_name}: expected at most {MAX_ITEMS}; got {len(value)}")
        return [one(each, depth) for each in value]

    return read


def _one(field: FieldDescriptor) -> Reader:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return _message(field.message_type)
        case FieldDescriptor.CPPTYPE_ENUM:
            return _enum(field.enum_type)
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return _double
        case FieldDescriptor.CPPTYPE_BOOL:
            return _is(bool, field.json_name)
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_STRING:
            return _is(str, field.json_name)
        case FieldDescriptor.CPPTYPE_STRING:
            return _id if field.name in _IDS else _base64
    return _integer


def _is(type_: type, name: str) -> Reader:
    def read(value: Any, depth: int) -> Any:
        if type(value) is not type_:
            raise TypeError(f"{name}: expected a {type_.__name__}; got {type(value).__name__}")
        return value

    return read


def _enum(enum: EnumDescriptor) -> Reader:
    numbers: Mapping[str, int] = {name: value.number for name, value in enum.values_by_name.items()}

    def read(value: Any, depth: int) -> int:
        return numbers[value] if value in numbers else _integer(value, depth)

    return read


def _integer(value: Any, depth: int) -> int:
    """64-bit integers are strings in proto3's JSON; numbers are read, too."""
    if type(value) is int:
        return value
    if isinstance(value, str):
        return int(_matched(_INTEGER, value))
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise TypeError(f"expected an integer; got {value!r:.40}")


def _double(value: Any, depth: int) -> float:
    if isinstance(value, str):
        return _NOT_FINITE[value] if value in _NOT_FINITE else float(_matched(_NUMBER, value))
    if type(value) in (int, float):
        return float(value)
    raise TypeError(f"expected a number; got {value!r:.40}")


def _matched(form: re.Pattern[str], text: str) -> str:
    """`text`. Raises ValueError where it is not written so; Python's own numbers may be written otherwise."""
    if not form.fullmatch(text):
        raise ValueError(f"expected a number; got {text[:40]!r}")
    return text


def _id(value: Any, depth: int) -> bytes:
    return binascii.unhexlify(value)


def _base64(value: Any, depth: int) -> bytes:
    if type(value) is not str:
        raise TypeError(f"expected bytes in base64; got {value!r:.40}")
    text = value.replace("-", "+").replace("_", "/")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)

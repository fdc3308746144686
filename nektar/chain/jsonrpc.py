"""Values as Ethereum's JSON-RPC writes them: `0x` and hex digits; quantities have no fixed length, data has
two digits a byte (execution-apis, `src/schemas/base-types.yaml`).

Nothing here is believed: whatever does not look like that raises Malformed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from nektar.errors import NektarError

Object = Mapping[str, Any]


class Malformed(NektarError):
    """An answer that is not of the JSON-RPC shape: ask another provider. The message names the field."""


WORD_BITS = 256  # of an EVM word, which all numbers of the chain fit


def quantity(of: Object, key: str, bits: int = WORD_BITS) -> int:
    """The number at `key`, of at most so many bits: those of what it is kept in."""
    value = of.get(key)
    # int() also takes signs, spaces and underscores.
    if isinstance(value, str) and value.startswith("0x") and value[2:].isalnum() and len(value) <= 66:
        try:
            number = int(value, 16)
        except ValueError:
            pass
        else:
            if number.bit_length() <= bits:
                return number
    raise Malformed(f"{key}: expected a number as 0x… of at most {bits} bits; got {_shown(value)}")


def octets(of: Object, key: str, size: int | None = None) -> bytes:
    """The bytes at `key`, of which there must be `size` if that is given."""
    return parse_octets(of.get(key), key, size)


def parse_octets(value: object, name: str, size: int | None = None) -> bytes:
    """The bytes that `value` writes; `name` is what an error calls it."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            parsed = bytes.fromhex(value[2:])
        except ValueError:
            pass
        else:
            # fromhex skips spaces, so the length is checked against the text.
            if 2 * len(parsed) == len(value) - 2 and size in (None, len(parsed)):
                return parsed
    many = "bytes" if size is None else f"{size} bytes"
    raise Malformed(f"{name}: expected {many} as 0x…; got {_shown(value)}")


# Bytes that an answer has for each object or array in it, at least: honest ones have twice as many, in access
# lists without keys, and far more elsewhere. A few more are no harm.
LEAST_OCTETS, A_FEW = 32, 1_000


def is_dense(opened: int, size: int) -> bool:
    """Whether a text of this size opens so many objects and arrays that a parse takes many times as much."""
    return opened > A_FEW + size // LEAST_OCTETS


def check_density(text: bytes) -> None:
    """Raises Malformed for a text of which a parse would take many times its size."""
    characters = np.frombuffer(text, np.uint8)
    if is_dense(sum(int(np.count_nonzero(characters == ord(each))) for each in "{["), len(text)):
        raise Malformed(f"expected a JSON-RPC answer; its {len(text)} bytes are mostly braces and brackets")


_RESULT = b'"result":['


class _Answer(msgspec.Struct):
    """A result that is looked at no closer than to find where it ends; with an error beside it it is none."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


_answers = msgspec.json.Decoder(_Answer)


def result(body: bytes) -> bytes | None:
    """The text of what a JSON-RPC answer has as its result, however that is written; None where it has none,
    but an error. Nothing is made of the text."""
    try:
        answer = _answers.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    text = bytes(answer.result)
    return None if text == b"null" or bytes(answer.error) != b"null" else text


def result_array(body: bytes) -> tuple[int, int] | None:
    """Where the array stands that a JSON-RPC answer has as its result, as nodes write it; None for any other.

    Only what stands around the array is parsed: whoever reads it finds whether it is one, and asks for
    `result` where it is not.
    """
    start, end = body.find(_RESULT, 0, 256) + len(_RESULT) - 1, body.rfind(b"]") + 1
    if start < len(_RESULT) or end <= start:
        return None
    try:
        answer = _answers.decode(body[:start] + b"[]" + body[end:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return (start, end) if bytes(answer.error) == b"null" else None


def items(of: Object, key: str) -> Sequence[Any]:
    """The array at `key`."""
    return _array(of.get(key), key)


def objects(of: Object, key: str) -> Sequence[Object]:
    """The array of objects at `key`."""
    return parse_objects(of.get(key), key)


def parse_objects(value: object, name: str) -> Sequence[Object]:
    """The array of objects that `value` is; `name` is what an error calls it."""
    return [parse_object(each, name) for each in _array(value, name)]


def parse_object(value: object, name: str) -> Object:
    """The object that `value` is; `name` is what an error calls it."""
    if isinstance(value, Mapping):
        return value
    raise Malformed(f"{name}: expected an object; got {_shown(value)}")


def _array(value: object, name: str) -> Sequence[Any]:
    if isinstance(value, list | tuple):
        return value
    raise Malformed(f"{name}: expected an array; got {_shown(value)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"

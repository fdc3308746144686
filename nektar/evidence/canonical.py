"""JSON in one form, so that equal evidence is equal bytes, and nothing else is taken for it.

UTF-8, keys sorted, no white space, nothing that is left out written as null; bytes are 0x… in lower case,
numbers are whole and below 2^53, which every language reads exactly.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec

from nektar.errors import NektarError

T = TypeVar("T")
_HEX = re.compile("0x(?:[0-9a-f]{2})*")
_SHOWN = 40

Natural = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class Octets(bytes):
    """Bytes that are written as 0x…."""


class NotCanonical(NektarError):
    """Text that is not what this module writes for what it says."""


def encode(value: object) -> bytes:
    """The one text of a struct of this package."""
    return msgspec.json.encode(value, enc_hook=_write, order="sorted")


def decode(text: bytes, kind: type[T]) -> T:
    """What `encode` wrote. Raises NotCanonical for anything else, down to a space."""
    try:
        value = msgspec.json.decode(text, type=kind, dec_hook=_read)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotCanonical(f"expected canonical JSON of a {kind.__name__}: {error}") from error
    if (again := encode(value)) != text:
        at = next((i for i, (a, b) in enumerate(zip(again, text, strict=False)) if a != b), len(again))
        raise NotCanonical(
            f"expected text that reads and writes to itself; from byte {at} on it has "
            f"{text[at : at + _SHOWN]!r} and should have {again[at : at + _SHOWN]!r}"
        )
    return value


def _write(value: object) -> str:
    if isinstance(value, Octets):
        return "0x" + value.hex()
    raise NotImplementedError(f"no canonical form of a {type(value).__name__}")


def _read(kind: type[Any], value: object) -> Octets:
    if kind is Octets and isinstance(value, str) and _HEX.fullmatch(value):
        return Octets.fromhex(value[2:])
    raise ValueError(f"expected 0x and pairs of lower-case digits; got {str(value)[:_SHOWN]!r}")

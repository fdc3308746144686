"""OTLP's attributes as text, which the store keeps of them."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any


def attributes(pairs: Iterable[Any]) -> dict[str, str]:
    """Key → value as text; of keys that come twice the last."""
    return {pair.key: (value := pair.value).string_value or text(value) for pair in pairs}


def text(value: Any) -> str:
    """An AnyValue as text: numbers, lists and maps as JSON writes them, bytes in base64."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return str(value.string_value)
    if kind == "int_value":  # as JSON writes it, which takes four times as long to
        return str(value.int_value)
    plain = _plain(value, kind)
    if isinstance(plain, str):
        return plain
    if plain is None:
        return ""
    if isinstance(plain, float):
        return _decimal(plain)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _plain(value: Any, kind: str | None) -> Any:
    match kind:
        case "array_value":
            return [_plain(each, each.WhichOneof("value")) for each in value.array_value.values]
        case "kvlist_value":
            return {
                pair.key: _plain(pair.value, pair.value.WhichOneof("value"))
                for pair in value.kvlist_value.values
            }
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "double_value":
            number = value.double_value
            if not math.isfinite(number):
                return {math.inf: "+Inf", -math.inf: "-Inf"}.get(number, "NaN")
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
        case "string_value" | "int_value" | "bool_value":
            return getattr(value, kind)
    return None


def _decimal(number: float) -> str:
    """A fraction, or what is too large to be written out, as JavaScript writes it."""
    if 1e-6 <= abs(number) < 1e21:
        return format(Decimal(repr(number)), "f")
    mantissa, _, exponent = repr(number).partition("e")
    return f"{mantissa}e{int(exponent):+d}"

"""Random types of Solidity's ABI, values of them, and what eth_abi makes of their encodings."""

from __future__ import annotations

from typing import Any, NamedTuple

from eth_abi.codec import ABICodec
from eth_abi.decoding import StringDecoder
from eth_abi.encoding import TextStringEncoder
from eth_abi.registry import BaseEquals, registry
from hypothesis import strategies as st

from nektar.chain.types import Array, Tuple, Type, Word, parse_parameter


class LenientText(StringDecoder):
    """As ours: text that is not UTF-8 is taken, its broken bytes replaced."""

    def __init__(self) -> None:
        super().__init__("replace")


_lenient = registry.copy()
_lenient.unregister("string")
_lenient.register(
    BaseEquals("string", with_sub=False),
    TextStringEncoder,
    LenientText,
    label="string",
)
CODEC = ABICodec(_lenient)


class Drawn(NamedTuple):
    """A type as an ABI writes it, and its values as eth_abi takes them."""

    parameter: dict[str, Any]
    values: st.SearchStrategy[Any]

    @property
    def type(self) -> Type:
        return parse_parameter(self.parameter, "drawn")


def _numbers(signed: bool, size: int) -> Drawn:
    bits = 8 * size
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    edges = st.sampled_from([low, high, 0, high // 2])
    return Drawn({"type": f"{'' if signed else 'u'}int{bits}"}, st.integers(low, high) | edges)


def _fixed_bytes(size: int) -> Drawn:
    return Drawn({"type": f"bytes{size}"}, st.binary(min_size=size, max_size=size))


WORDS = st.one_of(
    st.builds(_numbers, st.booleans(), st.integers(1, 32)),
    st.builds(_fixed_bytes, st.integers(1, 32)),
    st.just(Drawn({"type": "bool"}, st.booleans())),
    st.just(Drawn({"type": "function"}, st.binary(min_size=24, max_size=24))),
    st.just(Drawn({"type": "address"}, st.binary(min_size=20, max_size=20).map(lambda a: "0x" + a.hex()))),
)
LEAVES = WORDS | st.sampled_from(
    [Drawn({"type": "bytes"}, st.binary(max_size=70)), Drawn({"type": "string"}, st.text(max_size=40))]
)


def _array(item: Drawn, length: int | None) -> Drawn:
    low, high = (0, 3) if length is None else (length, length)
    suffix = "[]" if length is None else f"[{length}]"
    parameter = item.parameter | {"type": item.parameter["type"] + suffix}
    return Drawn(parameter, st.lists(item.values, min_size=low, max_size=high))


def _tuple(items: list[Drawn]) -> Drawn:
    components = [{**item.parameter, "name": f"m{i}"} for i, item in enumerate(items)]
    return Drawn({"type": "tuple", "components": components}, st.tuples(*(item.values for item in items)))


TYPES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(_array, inner, st.none() | st.integers(1, 3)),
        st.builds(_tuple, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=5,
)


def encode(types: list[Drawn], values: list[Any]) -> bytes:
    return CODEC.encode([each.type.abi for each in types], values)


def oracle(types: list[Drawn], body: bytes) -> list[Any]:
    """eth_abi's values in our shape. Raises whatever eth_abi raises."""
    found = CODEC.decode([each.type.abi for each in types], body)
    return [plain(each.type, value) for each, value in zip(types, found, strict=True)]


def plain(of: Type, value: Any) -> Any:
    """A value of eth_abi's as `nektar.chain.table.values` says it."""
    if isinstance(of, Array):
        return [plain(of.item, each) for each in value]
    if isinstance(of, Tuple):
        return {name: plain(t, v) for name, t, v in zip(of.names, of.items, value, strict=True)}
    if isinstance(of, Word) and of.kind == "address":
        return bytes.fromhex(value[2:])
    return value

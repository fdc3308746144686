"""The types of Solidity's ABI, and the Arrow type in which the values of each travel.

`head` is how many bytes a value takes where it stands: a dynamic one an offset, any other all of itself
(Solidity's ABI specification, "Formal Specification of the Encoding"). Arrow types are in docs/DESIGN.md,
"Records and rows"; every field carries its ABI type as metadata, which tells a uint256 from a bytes32.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from nektar.arrow import pa
from nektar.errors import NektarError

WORD = 32  # bytes in which the ABI puts every value, offset and length

# Deeper than any contract's types, and shallow enough for recursion over them.
MAX_DEPTH = 16
# Bytes that an array of fixed length may take: no transaction could pay for more.
MAX_HEAD = 1 << 20
# Names that ClickHouse refuses to components.
RESERVED_COMPONENTS = ("null",)


class AbiError(NektarError):
    """The ABI is not one that can be read; the message names the entry and what to do."""


class Word(msgspec.Struct, frozen=True):
    """A value of one word: `kind` is uint, int, bool, address or bytes; `size` its bytes that may be set."""

    kind: str
    size: int
    abi: str

    dynamic = False
    head = WORD

    @property
    def arrow(self) -> pa.DataType:
        if self.kind == "bool":
            return pa.bool_()
        if self.kind in ("uint", "int") and self.size <= 8:
            return _INTEGERS[self.kind, 1 << (self.size - 1).bit_length()]
        return pa.binary(WORD if self.kind in ("uint", "int") else self.size)


class Bytes(msgspec.Struct, frozen=True):
    """`bytes` or `string`: a length, and that many bytes padded to whole words."""

    abi: str

    dynamic = True
    head = WORD

    @property
    def arrow(self) -> pa.DataType:
        return pa.string() if self.abi == "string" else pa.binary()


class Array(msgspec.Struct, frozen=True):
    """`T[]`, or `T[k]` with its length."""

    item: Type
    length: int | None

    @property
    def abi(self) -> str:
        return f"{self.item.abi}[{'' if self.length is None else self.length}]"

    @property
    def dynamic(self) -> bool:
        return self.length is None or self.item.dynamic

    @property
    def head(self) -> int:
        """Bytes that it takes where it stands: an offset, or all of it."""
        return WORD if self.dynamic or self.length is None else self.length * self.item.head

    @property
    def arrow(self) -> pa.DataType:
        return pa.list_(field("item", self.item))


class Tuple(msgspec.Struct, frozen=True):
    """A struct; its components' names are those of the ABI, or f0, f1 … where it has none."""

    names: tuple[str, ...]
    items: tuple[Type, ...]

    @property
    def abi(self) -> str:
        return f"({','.join(item.abi for item in self.items)})"

    @property
    def dynamic(self) -> bool:
        return any(item.dynamic for item in self.items)

    @property
    def body(self) -> int:
        """Bytes of its components' heads."""
        return sum(item.head for item in self.items)

    @property
    def head(self) -> int:
        """Bytes that it takes where it stands: an offset, or all of it."""
        return WORD if self.dynamic else self.body

    @property
    def arrow(self) -> pa.DataType:
        return pa.struct([field(*each) for each in zip(self.names, self.items, strict=True)])


Type = Word | Bytes | Array | Tuple

_INTEGERS = {
    ("uint", 1): pa.uint8(),
    ("uint", 2): pa.uint16(),
    ("uint", 4): pa.uint32(),
    ("uint", 8): pa.uint64(),
    ("int", 1): pa.int8(),
    ("int", 2): pa.int16(),
    ("int", 4): pa.int32(),
    ("int", 8): pa.int64(),
}

BYTES32 = Word("bytes", 32, "bytes32")
_ELEMENTARY: dict[str, Type] = {
    "bool": Word("bool", 1, "bool"),
    "address": Word("address", 20, "address"),
    "function": Word("bytes", 24, "function"),  # an address and a selector
    "bytes": Bytes("bytes"),
    "string": Bytes("string"),
    "uint": Word("uint", 32, "uint256"),
    "int": Word("int", 32, "int256"),
}


def field(name: str, type_: Type) -> pa.Field:
    """The Arrow field of a value of `type_`."""
    return pa.field(name, type_.arrow, nullable=False, metadata={"abi": type_.abi})


def parse(written: str, where: str, components: Sequence[Any] = (), depth: int = MAX_DEPTH) -> Type:
    """The type that an ABI writes as `written`, with the components of a tuple in it.

    `where` is what an error names. Raises AbiError.
    """
    if depth == 0:
        raise AbiError(f"{where}: expected types nested at most {MAX_DEPTH} deep; got deeper ones")
    if array := re.fullmatch(r"(.+)\[([0-9]{0,9})\]", written):
        length = int(array[2]) if array[2] else None
        if length == 0:
            raise AbiError(f"{where}: expected an array of at least one item; got {written}")
        found = Array(parse(array[1], where, components, depth - 1), length)
        if found.head > MAX_HEAD:
            raise AbiError(
                f"{where}: expected types of at most {MAX_HEAD} bytes; {written} takes {found.head}"
            )
        return found
    if written == "tuple" and components:
        items = tuple(parse_parameter(each, where, depth - 1) for each in components)
        return Tuple(column_names(components, "f", RESERVED_COMPONENTS), items)
    if written in _ELEMENTARY:
        return _ELEMENTARY[written]
    if sized := re.fullmatch(r"(u?int|bytes)([1-9][0-9]{0,2})", written):
        kind, size = sized[1], int(sized[2])
        if kind != "bytes" and size % 8 == 0 and size <= 256:
            return Word(kind, size // 8, written)
        if kind == "bytes" and size <= WORD:
            return Word(kind, size, written)
    if re.fullmatch(r"u?fixed([0-9]{1,3}x[0-9]{1,2})?", written):
        raise AbiError(
            f"{where}: expected a type that solc compiles; got {written}, and fixed-point numbers it only "
            "declares: take this entry out of the ABI"
        )
    raise AbiError(f"{where}: expected a type that Solidity's ABI has; got {written!r:.60}")


def parse_parameter(parameter: object, where: str, depth: int = MAX_DEPTH) -> Type:
    """The type of an ABI's parameter or component object. Raises AbiError."""
    if isinstance(parameter, Mapping):
        written, components = parameter.get("type"), parameter.get("components", ())
        if isinstance(written, str) and isinstance(components, list | tuple):
            return parse(written, where, components, depth)
    raise AbiError(f"{where}: expected a parameter with a type, as solc writes it; got {parameter!r:.60}")


def column_names(
    parameters: Sequence[Mapping[str, Any]], prefix: str, taken: Iterable[str] = ()
) -> tuple[str, ...]:
    """A name for each parameter: its own or `prefix` and its place, with `_` after it while that is taken."""
    used = set(taken)
    names = []
    for i, parameter in enumerate(parameters):
        name = str(parameter.get("name") or f"{prefix}{i}")
        while name in used:
            name += "_"
        used.add(name)
        names.append(name)
    return tuple(names)

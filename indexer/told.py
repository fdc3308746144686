"""Rows that a store holds of blocks already, whoever told them: what a proof is held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from indexer.audit import Rows
from indexer.ranges import Range
from indexer.reads import OCTETS_AN_INSERT
from nektar.arrow import pa
from nektar.store.port import Store
from nektar.store.schema import quoted

# Rows that are held at once, and bytes of what in them has no fixed length, unless one block alone has more.
# An honest insert's worth is half of it.
MOST_ROWS, MOST_OCTETS = 200_000, 2 * OCTETS_AN_INSERT


class _Size(NamedTuple):
    rows: int
    octets: int


_NOTHING = _Size(0, 0)


class Scope(NamedTuple):
    """Which rows of a table are meant, by a condition in SQL, and their pyarrow schema in the store."""

    table: str
    schema: Any
    where: str


class Told:
    """The rows of some scopes, each by a name."""

    def __init__(self, store: Store, scopes: Mapping[str, Scope]) -> None:
        self._store = store
        self._scopes = scopes

    def parts(self, blocks: Range) -> Iterator[tuple[Range, Rows]]:
        """The blocks in as many parts as memory asks for, with their rows in the chain's order."""
        sizes = self._sizes(blocks)
        rows, octets = map(sum, zip(*sizes.values(), strict=True))
        if (rows > MOST_ROWS or octets > MOST_OCTETS) and blocks.blocks > 1:
            half, rest = blocks.cut(blocks.blocks // 2)
            yield from self.parts(half)
            if rest is not None:
                yield from self.parts(rest)
        else:
            yield blocks, {name: self._rows(name, blocks, sizes[name].rows > 0) for name in self._scopes}

    def count(self, blocks: Range) -> int:
        """How many rows there are."""
        return sum(size.rows for size in self._sizes(blocks, "FINAL").values())

    def _sizes(self, blocks: Range, final: str = "") -> dict[str, _Size]:
        """By scope; without `final`, as they are stored: what was written twice may count twice."""
        parts = [
            f"SELECT {place}, count(), {_octets(scope.schema)} FROM {quoted(scope.table)} {final}"  # noqa: S608  # quoted
            f" WHERE {scope.where} AND {_within(blocks)}"
            for place, scope in enumerate(self._scopes.values())
        ]
        found = {place: _Size(*size) for place, *size in self._store.rows(" UNION ALL ".join(parts))}
        return {name: found.get(place, _NOTHING) for place, name in enumerate(self._scopes)}

    def _rows(self, name: str, blocks: Range, any_: bool) -> Any:
        scope = self._scopes[name]
        if not any_:
            return scope.schema.empty_table()
        columns = ", ".join(map(quoted, scope.schema.names))
        sql = (
            f"SELECT {columns} FROM {quoted(scope.table)} FINAL WHERE {scope.where} AND {_within(blocks)}"  # noqa: S608
            " ORDER BY block_number, log_index"
        )
        return self._store.arrow(sql, scope.schema)


def _octets(schema: Any) -> str:
    """How many bytes rows have in columns of no fixed length, in SQL."""
    long = [quoted(field.name) for field in schema if not _is_fixed(field.type)]
    return f"sum(byteSize({', '.join(long)}))" if long else "toUInt64(0)"


def _is_fixed(type_: Any) -> bool:
    return bool(pa.types.is_fixed_size_binary(type_) or pa.types.is_primitive(type_))


def _within(blocks: Range) -> str:
    return f"block_number BETWEEN {blocks.first} AND {blocks.last}"

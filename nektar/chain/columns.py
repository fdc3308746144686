"""ABI-encoded bodies into Arrow columns, a whole batch at a time: no row is ever looked at alone.

The bodies are joined. A vector of positions says where in the joined bytes each row's value of one type
stands; a gather brings those words together, and they are checked and turned into an Arrow buffer at once.
An offset is such a gather too: it gives the positions of the next type down, and an array gives as many
positions as it has items. So a tree of types is walked once a batch, and each step is a few numpy calls.

What is refused is at least what Solidity's own decoder and eth_abi refuse: bodies cut short, offsets out of
the body or into the head that holds them, padding that is not zero, numbers and booleans out of range. So is
a body in which more is read than it has, as only overlapping offsets can make it: a few hundred bytes could
stand for gigabytes. Text that is not UTF-8 is taken, its broken bytes replaced: Solidity lets anyone put any
bytes into a string, and nobody may hide an event by that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from nektar.arrow import pa
from nektar.chain.types import WORD, Array, Bytes, Tuple, Type, Word

Ints: TypeAlias = npt.NDArray[np.int64]
Octets: TypeAlias = npt.NDArray[np.uint8]

# Offsets and lengths above this are refused before they are added to anything.
_FAR = 1 << 40
_MOST_OFFSET = (1 << 31) - 1  # that Arrow counts with
# Which bytes of the word in which a text of that length modulo 32 ends are its own; the others must be zero.
# With none left over, that word is no part of it.
_WITHIN = np.arange(WORD) < np.arange(WORD)[:, None]
_WITHIN[0] = True


class Joined(NamedTuple):
    """Bodies one after the other, and how many bytes each has."""

    data: bytes
    size: Ints

    @classmethod
    def of(cls, bodies: Sequence[bytes]) -> Joined:
        return cls(b"".join(bodies), np.fromiter(map(len, bodies), np.int64, len(bodies)))

    @classmethod
    def joined(cls, parts: Sequence[Joined]) -> Joined:
        return cls(b"".join(part.data for part in parts), np.concatenate([part.size for part in parts]))

    def take(self, rows: Ints) -> Joined:
        """Those of `rows`, in their order."""
        if len(rows) == len(self.size) and (rows[1:] > rows[:-1]).all():
            return self
        ends = np.cumsum(self.size)
        starts, ends = (ends - self.size)[rows].tolist(), ends[rows].tolist()
        data = b"".join(self.data[a:b] for a, b in zip(starts, ends, strict=True))
        return Joined(data, self.size[rows])


class Bodies(NamedTuple):
    """One body a row, each the encoding of a tuple of `types`."""

    types: Sequence[Type]
    bodies: Joined
    exact: bool  # whether a body may hold no more than what is read; calldata may


class Refused(NamedTuple):
    """A row that is not in the columns, and why."""

    row: int
    reason: str


class Decoded(NamedTuple):
    columns: list[pa.Array]  # one a type, in the order of the parts
    rows: Ints  # which rows these are
    refused: list[Refused]


def decode(parts: Sequence[Bodies], count: int) -> Decoded:
    """The columns of `count` rows, each of which has a body in every part; refused rows are left out.

    A check that fails names its rows, and the others are decoded again without them: at most once a check,
    and most batches never.
    """
    rows: Ints = np.arange(count)
    refused: list[Refused] = []
    while True:
        columns: list[pa.Array] = []
        try:
            for part in parts:
                columns += _Batch(part.bodies.take(rows), part.exact).read(part.types)
        except _Bad as bad:
            refused += (Refused(row, bad.reason) for row in rows[bad.rows].tolist())
            rows = np.delete(rows, bad.rows)
        else:
            return Decoded(columns, rows, sorted(refused))


class _Bad(Exception):
    """Rows of a batch that fail one check."""

    def __init__(self, rows: Ints, reason: str) -> None:
        super().__init__(reason)
        self.rows, self.reason = rows, reason


class _Batch:
    """The bodies of one part, joined. `at` is always positions in it, and `row` the body each belongs to."""

    def __init__(self, bodies: Joined, exact: bool) -> None:
        # A word of padding, so that a gather at the very end stays inside.
        self._joined = bodies.data + bytes(WORD)
        self._words = np.ndarray(len(self._joined) - WORD + 1, "V32", self._joined, strides=(1,))
        self._size = bodies.size
        self._end: Ints = np.cumsum(self._size)
        self._claimed: Ints = np.zeros(len(self._size), np.int64)
        self._exact = exact

    def read(self, types: Sequence[Type]) -> list[pa.Array]:
        """The columns of a tuple of `types` that starts each body."""
        row: Ints = np.arange(len(self._size))
        at = self._end - self._size
        head = sum(each.head for each in types)
        self._claim(at, row, np.full(len(row), head))
        columns = self._members(types, at, row, head)
        if self._exact:
            extra = self._size != self._claimed
            self._require(~extra, row, "it is longer than what its types take")
        return columns

    def _members(self, types: Sequence[Type], base: Ints, row: Ints, head: int) -> list[pa.Array]:
        """The values of consecutive types whose heads start at `base`, which is what offsets count from."""
        columns, at = [], base
        heads = np.full(len(row), head)
        for each in types:
            columns.append(self._value(each, at, row, base, heads))
            at = at + each.head
        return columns

    def _value(self, of: Type, at: Ints, row: Ints, base: Ints, heads: Ints) -> pa.Array:
        """The values whose heads are at `at`, in tuples or arrays at `base` with `heads` bytes of heads."""
        if of.dynamic:
            offset = self._number(at, row, "an offset")
            self._require(offset >= heads, row, "an offset points into the head that holds it")
            at = base + offset
        match of:
            case Word():
                return _word_column(of, self._gather(at), lambda ok, why: self._require(ok, row, why))
            case Bytes():
                return self._bytes(of, at, row)
            case Array():
                return self._array(of, at, row)
            case Tuple():
                if of.dynamic:
                    self._claim(at, row, np.full(len(row), of.body))
                members = self._members(of.items, at, row, of.body)
                return pa.StructArray.from_arrays(members, fields=list(of.arrow))

    def _array(self, of: Array, at: Ints, row: Ints) -> pa.Array:
        size = of.item.head
        if of.length is None:
            self._claim(at, row, np.full(len(row), WORD))
            count = self._number(at, row, "an array's length")
            at = at + WORD
        else:
            count = np.full(len(row), of.length)
        if of.dynamic:
            self._claim(at, row, count * size)
        ends = np.cumsum(count)
        place = np.arange(count.sum()) - np.repeat(ends - count, count)
        base = np.repeat(at, count)
        items = self._value(
            of.item, base + place * size, np.repeat(row, count), base, np.repeat(count * size, count)
        )
        return pa.ListArray.from_buffers(of.arrow, len(row), [None, _offsets(count)], children=[items])

    def _bytes(self, of: Bytes, at: Ints, row: Ints) -> pa.Array:
        self._claim(at, row, np.full(len(row), WORD))
        length = self._number(at, row, "a length")
        start = at + WORD
        self._claim(start, row, (length + WORD - 1) // WORD * WORD)
        last = self._gather(start + length // WORD * WORD)
        clean = np.asarray(((last == 0) | _WITHIN[length % WORD]).all(axis=1))
        self._require(clean, row, "the padding of bytes or text is not zero")
        joined = self._joined
        found = [joined[a:b] for a, b in zip(start.tolist(), (start + length).tolist(), strict=True)]
        payload = b"".join(found)
        if of.abi == "string" and not payload.isascii():
            found = [each.decode("utf-8", "replace").encode() for each in found]
            length, payload = np.fromiter(map(len, found), np.int64, len(found)), b"".join(found)
        return pa.Array.from_buffers(of.arrow, len(row), [None, _offsets(length), pa.py_buffer(payload)])

    def _number(self, at: Ints, row: Ints, what: str) -> Ints:
        """Offsets and lengths: words that were claimed, as numbers that can be added without overflow."""
        limbs = self._gather(at).view(">u8")
        ok = (limbs[:, :3] == 0).all(axis=1) & (limbs[:, 3] < _FAR)
        self._require(ok, row, f"{what} is out of all range")
        return limbs[:, 3].astype(np.int64)

    def _gather(self, at: Ints) -> Octets:
        """The words at `at`, a row each."""
        return self._words[at].view(np.uint8).reshape(len(at), WORD)

    def _claim(self, at: Ints, row: Ints, size: Ints) -> None:
        """`size` bytes at `at` are read as part of a body: they must lie in it, and be no one else's."""
        self._require(at + size <= self._end[row], row, "it is cut short, or an offset points out of it")
        self._claimed += np.bincount(row, size, len(self._size)).astype(np.int64)
        whole: Ints = np.arange(len(self._size))
        self._require(self._claimed <= self._size, whole, "offsets overlap: it says more than it holds")

    def _require(self, ok: npt.NDArray[np.bool_], row: Ints, reason: str) -> None:
        if not ok.all():
            raise _Bad(np.unique(row[~ok]), reason)


def _word_column(of: Word, words: Octets, require: Any) -> pa.Array:
    """Words as an Arrow array, once what must be zero (or the sign) is."""
    pad = WORD - of.size
    if of.kind in ("uint", "int"):
        sign = (words[:, pad] >> 7) * np.uint8(255 if of.kind == "int" else 0)
        require((words[:, :pad] == sign[:, None]).all(axis=1), f"a number does not fit its type, {of.abi}")
        width = of.arrow.bit_width // 8
        return _fixed(of, words[:, ::-1][:, :width])
    if of.kind == "bool":
        require((words[:, :31] == 0).all(axis=1) & (words[:, 31] < 2), "a boolean is neither 0 nor 1")
        bits = np.packbits(words[:, 31], bitorder="little")
        return pa.Array.from_buffers(of.arrow, len(words), [None, pa.py_buffer(bits)])
    if of.kind == "address":
        require((words[:, :pad] == 0).all(axis=1), "an address has more than 20 bytes")
        return _fixed(of, words[:, pad:])
    require((words[:, of.size :] == 0).all(axis=1), f"the padding of {of.abi} is not zero")
    return _fixed(of, words[:, : of.size])


def _fixed(of: Word, octets: Octets) -> pa.Array:
    buffer = pa.py_buffer(np.ascontiguousarray(octets))
    return pa.Array.from_buffers(of.arrow, len(octets), [None, buffer])


def _offsets(lengths: Ints) -> pa.Buffer:
    """Arrow's offsets of values of these lengths. A batch is far below the 2 GiB that they can count; raises
    OverflowError where one is not."""
    ends = np.cumsum(lengths, dtype=np.int64)
    if ends[-1:].sum() > _MOST_OFFSET:
        raise OverflowError(f"values of {ends[-1]} bytes or items in one column: decode fewer rows at once")
    offsets = np.zeros(len(lengths) + 1, np.int32)
    offsets[1:] = ends
    return pa.py_buffer(offsets)

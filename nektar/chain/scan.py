"""Many JSON objects of few layouts, read as columns without parsing each.

A node writes all logs of an answer alike: the same keys in the same order, and values as long as the others'.
So the first of those that have one length is parsed, and says where in its text each value stands; then all
are laid one below the other, and where their text may not differ (keys, punctuation, every literal) it is
compared at once. What is left are columns of hex digits, which are checked where they are decoded. An object
that fits no layout, or an answer of too many layouts, is not read here: `None` says so, and whoever asked
parses it in the ordinary way, which also tells what is wrong with it.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Collection
from typing import Any, NamedTuple

import msgspec
import numpy as np

from nektar.chain.columns import Ints, Octets
from nektar.chain.jsonrpc import LEAST_OCTETS

# Layouts in one answer. Each costs a parse; logs of a few events have a few, by the digits of their numbers.
MOST_LAYOUTS = 64
PADDING = 8  # texts are compared by words of so many bytes

_TOKEN = re.compile(rb'"([^"\\\x00-\x1f]*)"([ \t\r\n]*:)?|[\[\]{}]')
_HEX = re.compile(rb"0x[0-9a-fA-F]*")


class Unlike(Exception):
    """A value is not what a column of its kind holds: parse the answer in the ordinary way."""


class Layout(NamedTuple):
    """Where values stand in an object's text: the hex digits after `0x` at each path, end exclusive."""

    digits: dict[str, tuple[int, int]]
    mask: Octets  # 255 where the text may not differ, 0 at those digits
    first: dict[str, Any]  # the object that it is of: what else it says, the others say too


class Group(NamedTuple):
    """Objects of one layout: which of all they are, and their texts one below the other."""

    rows: Ints
    layout: Layout
    texts: Octets

    def octets(self, path: str, size: int | None = None) -> Octets:
        """The bytes at `path`, a row each. Raises Unlike."""
        start, end = self._at(path)
        if (end - start) % 2 or size not in (None, (end - start) // 2):
            raise Unlike
        return _octets(self.texts[:, start:end]).reshape(len(self.rows), (end - start) // 2)

    def numbers(self, path: str, bits: int) -> Ints:
        """The numbers at `path`, each of at most `bits` (63 at most). Raises Unlike."""
        start, end = self._at(path)
        if not 1 <= end - start <= 16:
            raise Unlike
        digits = np.full((len(self.rows), 16), ord("0"), np.uint8)
        digits[:, 16 - (end - start) :] = self.texts[:, start:end]
        found = _octets(digits).view(">u8").astype(np.uint64)
        if int(found.max(initial=0)) >> bits:
            raise Unlike
        return found.astype(np.int64)

    def _at(self, path: str) -> tuple[int, int]:
        if (found := self.layout.digits.get(path)) is None:
            raise Unlike
        return found


def _octets(digits: Octets) -> Octets:
    """The bytes that hex digits write, one row's after another's. Raises Unlike."""
    try:
        return np.frombuffer(binascii.unhexlify(digits.tobytes()), np.uint8)
    except binascii.Error:
        raise Unlike from None


def groups(text: bytes, starts: Ints, ends: Ints, keys: Collection[str]) -> list[Group] | None:
    """The objects whose texts are `text[start:end]`, by layout; None where they have too many, or odd ones.

    `text` goes on for PADDING bytes at least after the last of them. Only values of `keys` may differ within
    a group, and only in their hex digits: whoever asks must read all of them, since that checks that they are
    digits.
    """
    lengths = ends - starts
    found: list[Group] = []
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        width = -(-length // PADDING) * PADDING
        windows = np.ndarray(len(text) - width + 1, f"V{width}", text, strides=(1,))
        texts = windows[starts[rows]].view(np.uint8).reshape(len(rows), width)
        while len(rows):
            layout = _layout(texts[0, :length].tobytes(), width, keys)
            if layout is None or len(found) == MOST_LAYOUTS:
                return None
            words, mask = texts.view(np.uint64), layout.mask.view(np.uint64)
            # Where all have a bit, or none has it, they are alike: two passes, and nothing kept in between.
            differing = np.bitwise_or.reduce(words) ^ np.bitwise_and.reduce(words)
            if not (differing & mask).any():
                found.append(Group(rows, layout, texts))
                break
            alike = ~((words ^ words[0]) & mask).any(axis=1)
            found.append(Group(rows[alike], layout, texts[alike]))
            rows, texts = rows[~alike], texts[~alike]
    return found


def array_of_objects(text: bytes, start: int, end: int) -> tuple[Ints, Ints] | None:
    """(starts, ends) of what is in `text[start:end]`, `{…},{…}` with nothing between two but a comma; None
    for any other text. Whether each is an object, its layout tells."""
    if start == end:
        nothing: Ints = np.zeros(0, np.int64)
        return nothing, nothing
    characters = np.frombuffer(text, np.uint8)
    starts = np.flatnonzero(characters[start:end] == ord("{")) + start
    if len(starts) * LEAST_OCTETS > end - start:  # much would be made of nothing
        return None
    if not len(starts) or starts[0] != start or (characters[starts[1:] - 1] != ord(",")).any():
        return None
    return starts, np.append(starts[1:] - 1, end)


def _layout(text: bytes, width: int, keys: Collection[str]) -> Layout | None:
    """The layout of an object whose values are texts, arrays of texts, numbers, booleans or null."""
    try:
        parsed: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(parsed, dict) or b"\\" in text:
        return None
    mask = np.zeros(width, np.uint8)
    mask[: len(text)] = 255
    digits: dict[str, tuple[int, int]] = {}
    met = 0
    key, place = "", -1  # of the value that comes next; place in its array, or -1
    for token in _TOKEN.finditer(text):
        if token[1] is None:
            if token[0] == b"[":
                if place >= 0:
                    return None  # arrays in arrays
                place = 0
            elif token[0] == b"]":
                place = -1
            elif token[0] == b"{" and token.start():
                return None  # an object in an object
        elif token[2] is not None:
            key = token[1].decode("utf-8", "replace")
            met += 1
        else:
            path = key if place < 0 else f"{key}/{place}"
            place += place >= 0
            if key in keys and _HEX.fullmatch(token[1]):
                start, end = token.start(1) + 2, token.end(1)
                digits[path] = start, end
                mask[start:end] = 0
    return Layout(digits, mask, parsed) if met == len(parsed) else None

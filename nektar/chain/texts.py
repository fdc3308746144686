"""Many of JSON-RPC's texts of one field at a time, as `jsonrpc.py` reads one: the same is refused.

The texts are joined and looked at as one array of characters, so that a value costs nanoseconds.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence

import numpy as np

from nektar.chain import jsonrpc
from nektar.chain.columns import Ints, Joined

_PREFIX = np.frombuffer(b"0x", np.uint8)


def octets(texts: Sequence[str], size: int, name: str) -> bytes:
    """The bytes that all texts write, `size` each, one after the other. Raises Malformed."""
    width = 2 + 2 * size
    if set(map(len, texts)) <= {width}:
        try:
            characters = np.frombuffer("".join(texts).encode("ascii"), np.uint8).reshape(len(texts), width)
            if (characters[:, :2] == _PREFIX).all():
                return binascii.unhexlify(characters[:, 2:].tobytes())
        except ValueError:  # not ASCII, or no hex digits
            pass
    return b"".join(jsonrpc.parse_octets(text, name, size) for text in texts)


def joined(texts: Sequence[str], name: str) -> Joined:
    """The bytes that the texts write, of whatever size, and how many each has. Raises Malformed."""
    lengths = set(map(len, texts))
    if len(lengths) == 1 and (length := lengths.pop()) >= 2 and length % 2 == 0:
        size = length // 2 - 1
        return Joined(octets(texts, size, name), np.full(len(texts), size, np.int64))
    parsed = [jsonrpc.parse_octets(text, name) for text in texts]
    return Joined(b"".join(parsed), np.fromiter(map(len, parsed), np.int64, len(parsed)))


def quantities(texts: Sequence[str], name: str, bits: int) -> Ints:
    """The numbers that the texts write, each of at most `bits` (63 at most). Raises Malformed.

    In one answer the same numbers come again and again, so each is read once.
    """
    known = _Numbers(name, bits)
    return np.fromiter(map(known.__getitem__, texts), np.int64, len(texts))


class _Numbers(dict[str, int]):
    """Text → number, read when it is first asked for."""

    def __init__(self, name: str, bits: int) -> None:
        self._name, self._bits = name, bits

    def __missing__(self, text: str) -> int:
        number = self[text] = jsonrpc.quantity({self._name: text}, self._name, self._bits)
        return number

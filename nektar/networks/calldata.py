"""Calldata as contracts read it that Solidity's compiler made (ABI coder v2, arguments left in calldata): by
its offsets, whatever stands between and beyond. What they revert on without a word is Unreadable.

Positions are those in the calldata, the selector's four octets included, and wrap around as the machine's
words do: an offset within an array has a sign, and where there is no calldata any more there are zeros.
"""

from __future__ import annotations

from nektar.networks.encoding import BadEncoding, word

_SELECTOR = 4
_ROUND = 1 << 256
_LARGEST = (1 << 64) - 1  # of offsets and lengths


class Unreadable(BadEncoding):
    """A contract that is called with this reverts before it looks at anything."""


class Calldata:
    """The arguments of a call."""

    def __init__(self, octets: bytes, head: int) -> None:
        """`head` is how many words the arguments take beside what offsets lead to."""
        self._octets = octets
        if len(octets) < _SELECTOR + 32 * head:
            raise Unreadable(f"calldata: expected {head} words behind the selector; got {len(octets)} octets")

    def octets(self, at: int, words: int) -> bytes:
        """So many words from a position on."""
        return self._octets[at : at + 32 * words].ljust(32 * words, b"\0")

    def number(self, at: int) -> int:
        return int.from_bytes(self.octets(at, 1))

    def argument(self, place: int, words: int = 1) -> bytes:
        """What stands in this word of the head, and in those that follow."""
        return self.octets(_SELECTOR + 32 * place, words)

    def array(self, place: int, each: int) -> tuple[int, int]:
        """(position, length) of the elements of an argument that is an array, of so many words each."""
        offset = self.number(_SELECTOR + 32 * place)
        if offset > _LARGEST or _SELECTOR + offset + 32 > len(self._octets):
            raise Unreadable(f"calldata: expected an array at {offset}; it lies beyond")
        at, length = _SELECTOR + offset + 32, self.number(_SELECTOR + offset)
        if length > _LARGEST or at + 32 * each * length > len(self._octets):
            raise Unreadable(f"calldata: expected {length} elements of an array; they lie beyond")
        return at, length

    def below(self, base: int, at: int, words: int) -> int:
        """The position of what the offset at `at` leads to from `base` on, of so many words at least."""
        offset = self.number(at)
        if _signed(offset) >= _signed(len(self._octets) - base - 32 * words + 1):
            raise Unreadable("calldata: expected an offset to what is there; it leads beyond")
        return (base + offset) % _ROUND

    def array_below(self, base: int, at: int, each: int) -> tuple[int, int]:
        """(position, length) of the elements of an array that the offset at `at` leads to from `base` on."""
        head = self.below(base, at, 1)
        length, start = self.number(head), (head + 32) % _ROUND
        if length > _LARGEST or _signed(start) > _signed(len(self._octets) - 32 * each * length):
            raise Unreadable(f"calldata: expected {length} elements of an array; they lie beyond")
        return start, length

    def numbers(self, at: int, length: int) -> tuple[int, ...]:
        """The uint256[] of this position and length."""
        octets = self.octets(at, length)
        return tuple(int.from_bytes(octets[i : i + 32]) for i in range(0, len(octets), 32))

    def members(self, at: int, length: int, words: int) -> bytes:
        """As abi.encode writes the array of this position and length, whose hash names it."""
        return word(32) + word(length) + self.octets(at, words * length)


def _signed(number: int) -> int:
    number %= _ROUND
    return number - _ROUND if number >> 255 else number

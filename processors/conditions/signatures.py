"""Signatures of a set's members, by their places.

A Task that nobody responds to has one of each member, and a thousand such Tasks may be open: so a signature
takes 32 bytes, and little beside. Those of 64 places stand in one string behind the bitmap of those that are
there, so that one more copies that string alone: what snapshots share they go on sharing.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from immutables import Map

from nektar.evidence import bls
from nektar.model import G1

_PLACES, _BITMAP = 64, 8  # places of a string, bytes of its bitmap
SIGNATURE_BYTES = 32


class Signatures(msgspec.Struct, frozen=True):
    """The signatures of some members, one of each."""

    strings: Map[int, bytes] = Map()  # place // 64 → bitmap, then the points by rising places

    def __contains__(self, place: int) -> bool:
        return bool(self._found(place)[1])

    def __iter__(self) -> Iterator[int]:
        """The places, in no order."""
        for number, string in self.strings.items():
            bitmap = int.from_bytes(string[:_BITMAP])
            yield from (number * _PLACES + i for i in range(_PLACES) if bitmap >> i & 1)

    def __len__(self) -> int:
        return sum(len(string) // SIGNATURE_BYTES for string in self.strings.values())

    def is_held(self, place: int, signature: bytes) -> bool:
        """Whether this one, as `bls.compressed`, is the member's."""
        string, is_there, at = self._found(place)
        return is_there and string[at : at + SIGNATURE_BYTES] == signature

    def get(self, place: int) -> G1:
        """That of a member who has one. It takes a root, some 0.1 ms."""
        string, is_there, at = self._found(place)
        if not is_there:
            raise KeyError(place)
        return bls.decompressed(string[at : at + SIGNATURE_BYTES])

    def put(self, place: int, signature: bytes) -> Signatures:
        """With this one, as `bls.compressed`, for the member's."""
        return self._with(place, signature)

    def drop(self, place: int) -> Signatures:
        """Without the member's."""
        return self._with(place, b"")

    def _found(self, place: int) -> tuple[bytes, bool, int]:
        """The string of a place, whether it is there, and where it stands, or would."""
        string = self.strings.get(place // _PLACES, bytes(_BITMAP))
        bitmap, bit = int.from_bytes(string[:_BITMAP]), 1 << place % _PLACES
        return string, bool(bitmap & bit), _BITMAP + SIGNATURE_BYTES * (bitmap & bit - 1).bit_count()

    def _with(self, place: int, signature: bytes) -> Signatures:
        string, is_there, at = self._found(place)
        bit = 1 << place % _PLACES
        bitmap = int.from_bytes(string[:_BITMAP]) & ~bit | (bit if signature else 0)
        if not bitmap:
            return Signatures(self.strings.delete(place // _PLACES) if is_there else self.strings)
        rest = string[at + SIGNATURE_BYTES * is_there :]
        after = bitmap.to_bytes(_BITMAP) + string[_BITMAP:at] + signature + rest
        return Signatures(self.strings.set(place // _PLACES, after))

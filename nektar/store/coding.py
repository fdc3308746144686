"""HTTP's content encodings, as far as the SQL endpoint speaks them: gzip, or none."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator

# Below this an answer fits a packet, and packing it only costs time.
WORTH_PACKING = 1024
# ClickHouse's own default (`http_zlib_compression_level`): half the size of Native for little time.
_LEVEL = 3
_GZIP = 16 + zlib.MAX_WBITS  # zlib's way to say gzip and nothing else
_REFUSED = re.compile(r"q=0(\.0*)?")


class BadGzip(Exception):
    """The bytes are no gzip stream, or only the beginning of one, or go on after its end."""


class TooLong(Exception):
    """The stream is longer than was allowed."""


def wants_gzip(accept_encoding: str) -> bool:
    """Whether a client with this Accept-Encoding header takes gzip."""
    for each in accept_encoding.lower().split(","):
        name, _, quality = each.partition(";")
        if name.strip() == "gzip":
            return not _REFUSED.fullmatch(quality.strip())
    return False


def gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """`pieces` as one gzip stream, in pieces that are not empty."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


class Body:
    """A request's body, unpacked where `packed`. Neither what comes nor what it unpacks to may be longer
    than `limit`, and no more than that is ever unpacked, whatever it would grow to."""

    def __init__(self, limit: int, packed: bool) -> None:
        self._unpacker = zlib.decompressobj(_GZIP) if packed else None
        self._left = self._may_come = limit
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes that came. Raises TooLong, BadGzip."""
        self._may_come -= len(chunk)
        if self._unpacker is not None:
            try:
                chunk = self._unpacker.decompress(chunk, self._left + 1)
            except zlib.error:
                raise BadGzip from None
        self._left -= len(chunk)
        if min(self._left, self._may_come) < 0:
            raise TooLong
        self._parts.append(chunk)

    def whole(self) -> bytes:
        """All of it, when all has come. Raises BadGzip."""
        if self._unpacker is not None and (not self._unpacker.eof or self._unpacker.unused_data):
            raise BadGzip
        return b"".join(self._parts)

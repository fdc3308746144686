"""Bodies of requests as they were before they were packed, and never more of them than is taken.

What is packed may be in several gzip members or zstd frames, each after the other, as whoever packs in pieces
leaves it; it ends where the last of them does.
"""

from __future__ import annotations

from nektar.arrow import pa
from nektar.errors import NektarError

# As `Content-Encoding` names them; what packs, as Arrow does.
ENCODINGS = ("gzip", "zstd")


class NotPacked(NektarError):
    """A body that is not in the encoding that it is said to be in."""


class TooLarge(NektarError):
    """A body that is larger than is taken, once it is unpacked."""


def unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """A body of at most `most` bytes that is packed in one of ENCODINGS. Raises NotPacked, TooLarge.

    Takes memory for `most` bytes, whatever the body says that it holds or needs: of a window that is larger,
    which zstd allows up to 128 MiB, what is not written is never there.
    """
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), encoding) as stream:
            # Not `read`, which never frees what it had read where an error comes.
            found = stream.read_buffer(most + 1)
    except OSError as error:
        raise NotPacked(f"expected a body in {encoding}; {error}") from None
    if found.size > most:
        raise TooLarge(f"expected a body of at most {most} bytes, packed or not; send smaller batches")
    unpacked: bytes = found.to_pybytes()
    return unpacked

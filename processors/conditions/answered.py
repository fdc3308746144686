"""A Task of this chain and who is known to have answered it, held as bytes: a tenth of what it takes as an
object, since there are a hundred thousand of them (`wrongful_slashing.py`)."""

from __future__ import annotations

import zlib

import msgspec

from nektar.model import Hash32
from nektar.networks.encoding import deadline_of, set_hash_of
from processors.conditions.exhibits import Place


class Answered(msgspec.Struct, frozen=True):
    """A Task, and who answered it."""

    at: Place
    task: bytes  # what its hash is of
    held: bool  # the registry holds its set
    responded: Place | None = None
    digest: Hash32 | None = None  # of the response
    out: int | None = None  # bitmap, of the response: who did not sign it, if that is told
    attested: int = 0  # bitmap: who did so by itself
    cancelled: Place | None = None
    linked: int = 0  # bitmap: of these, those of whom only a block that is not proved says it

    @property
    def set_hash(self) -> Hash32:
        return set_hash_of(self.task)

    @property
    def end(self) -> int:
        """The last block of its grace."""
        return sum(deadline_of(self.task))


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    """It, with what is long as bytes: of ABI most bytes are nought, and of bitmaps mostly all or none."""

    at: Place
    task: bytes
    held: bool
    responded: Place | None
    digest: Hash32 | None
    out: bytes | None
    attested: bytes
    cancelled: Place | None
    linked: bytes


_decoder = msgspec.msgpack.Decoder(_Packed)


def pack(known: Answered) -> bytes:
    said = msgspec.structs.asdict(known) | {
        "task": zlib.compress(known.task, 1),
        "out": None if known.out is None else _bitmap(known.out),
        "attested": _bitmap(known.attested),
        "linked": _bitmap(known.linked),
    }
    return msgspec.msgpack.encode(_Packed(**said))


def unpack(packed: bytes) -> Answered:
    """What was packed."""
    of = _decoder.decode(packed)
    said = msgspec.structs.asdict(of) | {
        "task": zlib.decompress(of.task),
        "out": None if of.out is None else _places(of.out),
        "attested": _places(of.attested),
        "linked": _places(of.linked),
    }
    return Answered(**said)


def _bitmap(places: int) -> bytes:
    """Two bytes for each of few places, or one for each eight: whichever is shorter, and which of them."""
    size = (places.bit_length() + 7) // 8
    if 2 * places.bit_count() >= size or size > 1 << 13:
        return b"\1" + places.to_bytes(size, "little")
    few = bytearray(b"\0")
    while places:
        lowest = places & -places
        few += (lowest.bit_length() - 1).to_bytes(2)
        places ^= lowest
    return bytes(few)


def _places(bitmap: bytes) -> int:
    if bitmap[0]:
        return int.from_bytes(bitmap[1:], "little")
    return sum(1 << int.from_bytes(bitmap[i : i + 2]) for i in range(1, len(bitmap), 2))

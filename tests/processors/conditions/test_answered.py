"""A Task that is packed is what it was, and small."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nektar.model import Hash32, Level
from processors.conditions.answered import Answered, pack, unpack
from processors.conditions.exhibits import Place

HASHES = st.binary(min_size=32, max_size=32).map(Hash32)
PLACES = st.builds(
    Place,
    st.integers(0, 2**48),
    HASHES,
    st.integers(0, 2**31),
    st.integers(-1, 2**31),
    st.sampled_from(list(Level)),
)
# Of no places, some, most or all of a set, which has as many members as a mask has bits.
BITMAPS = st.integers(0, 4_096).flatmap(
    lambda size: st.one_of(
        st.integers(0, 2**size),
        st.lists(st.integers(0, size), max_size=20).map(lambda places: sum(1 << each for each in {*places})),
        st.just(2**size - 1),
        st.just(1 << 70_000 + size),
    )
)
TASKS = st.builds(
    Answered,
    at=PLACES,
    task=st.binary(max_size=600),
    held=st.booleans(),
    responded=st.none() | PLACES,
    digest=st.none() | HASHES,
    out=st.none() | BITMAPS,
    attested=BITMAPS,
    cancelled=st.none() | PLACES,
    linked=BITMAPS,
)


@given(TASKS)
def test_what_is_packed_is_what_it_was(known: Answered) -> None:
    assert unpack(pack(known)) == known


@given(TASKS)
def test_packed_equal_tasks_are_equal_bytes(known: Answered) -> None:
    assert pack(unpack(pack(known))) == pack(known)


@given(BITMAPS, BITMAPS)
def test_a_bitmap_takes_no_more_than_its_bits_and_two_bytes_for_each_of_few(out: int, attested: int) -> None:
    at = Place(1, Hash32(bytes(32)), 0, 0, Level.PROVED)
    none = Answered(at, b"", True, out=0)
    more = len(pack(Answered(at, b"", True, out=out, attested=attested))) - len(pack(none))
    assert more <= sum(
        min(
            2 * places.bit_count() if places.bit_length() < 1 << 16 else 1 << 62, places.bit_length() // 8 + 1
        )
        + 6
        for places in (out, attested)
    )

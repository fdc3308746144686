"""What is remembered is what was used last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from indexer.remembered import Remembered


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=60))
def test_of_many_the_last_that_were_used_are_kept(used: list[tuple[bool, int]]) -> None:
    remembered, kept = Remembered[int, str](3), list[int]()
    for puts, key in used:
        if puts:
            remembered.put(key, f"value {key}")
            kept = [*(each for each in kept if each != key), key][-3:]
        else:
            assert remembered.get(key) == (f"value {key}" if key in kept else None)
            if key in kept:
                kept = [*(each for each in kept if each != key), key]
    assert list(remembered._kept) == kept

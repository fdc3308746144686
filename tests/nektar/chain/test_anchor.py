"""What an anchor's words mean, and what follows from what providers say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nektar.chain.anchor import BadAnchor, Pinned, Quorum, Single, agreed, candidates, parse
from nektar.model import BlockRef, Hash32

HASH = "0x" + "Ab" * 32


@pytest.mark.parametrize(
    ("text", "providers", "anchor"),
    [
        ("single", 3, Single()),
        ("quorum 2", 3, Quorum(2, 3)),
        ("quorum 2/3", 3, Quorum(2, 3)),
        ("quorum 1", 1, Quorum(1, 1)),
        ("quorum 4/4", 4, Quorum(4, 4)),
        (f"pinned 0 {HASH}", 1, Pinned(BlockRef(0, Hash32(b"\xab" * 32)))),
        (f"pinned 19000000 {HASH}", 2, Pinned(BlockRef(19_000_000, Hash32(b"\xab" * 32)))),
    ],
)
def test_an_anchor_is_what_its_words_say(text: str, providers: int, anchor: object) -> None:
    assert parse(text, providers) == anchor


@pytest.mark.parametrize(
    ("text", "providers", "says"),
    [
        ("", 1, "expected `single`, `quorum M`"),
        ("Single", 1, "got 'Single'"),
        ("quorum", 3, "expected `single`"),
        ("quorum 0", 3, "expected `single`"),
        ("quorum 1/3", 3, "expected more than half of the 3 providers in rpc, and no more; got 1"),
        ("quorum 2/4", 4, "expected more than half"),
        ("quorum 4", 3, "and no more; got 4"),
        ("quorum 2/3", 2, "expected 2 after the `/`, since rpc names so many; got 3"),
        ("pinned", 1, "expected `single`"),
        ("pinned 5", 1, "expected `single`"),
        (f"pinned -5 {HASH}", 1, "expected `single`"),
        (f"pinned 5 {HASH}0", 1, "expected `single`"),
    ],
)
def test_what_is_no_anchor_says_what_was_expected(text: str, providers: int, says: str) -> None:
    with pytest.raises(BadAnchor, match=says):
        parse(text, providers)


def test_a_block_says_no_more_of_its_anchor_than_holds() -> None:
    pinned = Pinned(BlockRef(10, Hash32(bytes(32))))
    assert [pinned.words("a", number) for number in (9, 10, 11)] == ["pinned", "pinned", "single:a"]
    assert Single().words("a", 1) == "single:a"
    assert Quorum(2, 3).words("a", 1) == "quorum 2/3"


@given(st.lists(st.integers(0, 20), min_size=1, max_size=7), st.integers(1, 7))
def test_no_number_is_a_candidate_that_fewer_than_m_call_final(numbers: list[int], m: int) -> None:
    claimed = {str(place): number for place, number in enumerate(numbers)}
    found = candidates(m, claimed)
    assert found == sorted(set(found), reverse=True)
    for number in set(numbers):
        assert (number in found) == (sum(each >= number for each in numbers) >= m)


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=7), st.integers(1, 7))
def test_a_hash_is_agreed_on_where_m_have_it(hashes: list[bytes], n: int) -> None:
    m = n // 2 + 1
    said = {str(place): Hash32(hash_) for place, hash_ in enumerate(hashes[:n])}
    found = agreed(m, said)
    enough = {hash_ for hash_ in said.values() if list(said.values()).count(hash_) >= m}
    assert found == (enough.pop() if enough else None)
    assert not enough

"""What was told, held against what is proved: every difference is named once, as a person would name it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from indexer import audit
from indexer.audit import UNDECODED, WHOLE_BLOCK, Kind, Lie, judge
from indexer.decode import LOST_A_BLOCK
from nektar.model import Hash32

FIRST, BLOCKS = 7, 6
TABLES = ("event_a", "event_b", UNDECODED)
SCHEMA = pa.schema(
    [
        ("block_number", pa.uint64()),
        ("block_hash", pa.binary(32)),
        ("log_index", pa.uint32()),
        ("value", pa.uint64()),
        ("pairs", pa.list_(pa.struct([("x", pa.utf8())]))),
        ("reason", pa.utf8()),
    ]
)


class Row(NamedTuple):
    number: int
    hash: Hash32
    index: int
    value: int
    reason: str = ""


def own_hash(number: int) -> Hash32:
    return Hash32(bytes([number]) * 32)


HASHES = np.frombuffer(b"".join(own_hash(FIRST + at) for at in range(BLOCKS)), np.uint8).reshape(-1, 32)
Told = Mapping[str, list[Row]]


def tables(rows: Told) -> dict[str, Any]:
    found = {}
    for name in TABLES:
        # a value shows in a flat column or in a nested one
        columns = [
            (r.number, r.hash, r.index, r.value // 2, [{"x": "yes"}] * (r.value % 2), r.reason)
            for r in sorted(rows.get(name, []))
        ]
        found[name] = pa.Table.from_pylist(
            [dict(zip(SCHEMA.names, each, strict=True)) for each in columns], SCHEMA
        )
    return found


def judged(told: Told, proved: Told) -> tuple[list[Lie], dict[str, set[Row]]]:
    verdict = judge(tables(told), tables(proved), FIRST, HASHES)
    assert verdict.lies == sorted(verdict.lies)
    false = {name: {sorted(told[name])[row] for row in rows} for name, rows in verdict.false.items()}
    return verdict.lies, false


def keys(rows: Mapping[str, Iterable[Row]]) -> set[Any]:
    return {(table, each.number, each.hash, each.index) for table, found in rows.items() for each in found}


def lie(kind: Kind, number: int, index: int) -> Lie:
    return Lie(number, index, kind, own_hash(number))


DRAWN = st.dictionaries(
    st.tuples(st.integers(FIRST, FIRST + BLOCKS - 1), st.integers(0, 5)),
    st.tuples(st.sampled_from(TABLES), st.integers(0, 3)),
    max_size=20,
)


@given(DRAWN, DRAWN, st.sets(st.integers(FIRST, FIRST + BLOCKS - 1), max_size=2))
def test_each_difference_is_named_once(
    told: dict[tuple[int, int], tuple[str, int]],
    proved: dict[tuple[int, int], tuple[str, int]],
    wrong: set[int],
) -> None:
    def rows(of: dict[tuple[int, int], tuple[str, int]], wrong: set[int]) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        for (number, index), (table, value) in of.items():
            hash_ = Hash32(b"\xff" * 32) if number in wrong else own_hash(number)
            found.setdefault(table, []).append(Row(number, hash_, index, value))
        return found

    lies, false = judged(rows(told, wrong), rows(proved, set()))
    wrong &= {number for number, _ in told}
    expected = [Lie(number, WHOLE_BLOCK, Kind.WRONG_BLOCK, Hash32(b"\xff" * 32)) for number in wrong]
    for place in told.keys() | proved.keys():
        said, is_ = told.get(place), proved.get(place)
        if said != is_ and place[0] not in wrong:
            kind = Kind.OMITTED if said is None else Kind.INVENTED if is_ is None else Kind.ALTERED
            expected.append(lie(kind, *place))
    assert lies == sorted(expected)
    # What is not struck out has the place of a proved row in its own table, which replaces it.
    left = {table: set(kept) - false.get(table, set()) for table, kept in rows(told, wrong).items()}
    assert keys(left) <= keys(rows(proved, set()))


def test_of_logs_that_are_not_all_kept_only_those_are_compared_that_both_sides_kept() -> None:
    def unread(*indices: int) -> Told:
        return {UNDECODED: [Row(FIRST, own_hash(FIRST), index, 0) for index in indices]}

    many = list(range(LOST_A_BLOCK + 1))
    without_one = [index for index in many if index != 3]
    lies, false = judged(unread(*without_one), unread(*many[:LOST_A_BLOCK]))
    assert lies == [lie(Kind.OMITTED, FIRST, 3)]
    assert false == {UNDECODED: {Row(FIRST, own_hash(FIRST), LOST_A_BLOCK, 0)}}


def test_blocks_of_which_not_all_logs_are_kept_may_be_very_many() -> None:
    blocks, log = 20_000, np.arange(LOST_A_BLOCK)
    places = (np.arange(blocks)[:, None] << 32 | log).ravel()
    began = time.process_time()
    assert audit._kept(places + 1, places).tolist() == [at + 1 for at in places if at % (1 << 32) != log[-1]]
    assert time.process_time() - began < 2  # by a look at all of them for each block it was 20


def test_why_a_log_could_not_be_read_is_nobodys_word() -> None:
    told, proved = (
        {UNDECODED: [Row(FIRST, own_hash(FIRST), 0, 0, reason)]} for reason in ("cut", "cut (and 2 more)")
    )
    assert judged(told, proved) == ([], {})
    events = ({"event_a": rows[UNDECODED]} for rows in (told, proved))
    assert judged(*events)[0] == [lie(Kind.ALTERED, FIRST, 0)]

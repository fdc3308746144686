from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nektar.chain.columns import Bodies, Joined, _offsets, decode
from nektar.chain.table import values, write_table
from nektar.chain.types import field, parse
from tests.nektar.chain.encodings import TYPES, Drawn, encode, oracle, plain
from tests.seeds import seeds

SIGNATURES = st.lists(TYPES, min_size=1, max_size=4)


def rows(
    types: list[Drawn], bodies: list[bytes], *, exact: bool = True
) -> tuple[dict[int, list[Any]], dict[int, str]]:
    """(row → values of its arguments, row → why it was refused), by way of the bytes that travel."""
    kinds = [each.type for each in types]
    columns, kept, refused = decode([Bodies(kinds, Joined.of(bodies), exact)], len(bodies))
    schema = pa.schema([field(f"a{i}", kind) for i, kind in enumerate(kinds)])
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    batch.validate(full=True)
    found = [list(row.values()) for row in values(write_table(batch))]
    return dict(zip(kept.tolist(), found, strict=True)), dict(refused)


@settings(max_examples=seeds(60, 150))
@given(st.data(), SIGNATURES)
def test_what_eth_abi_encodes_is_what_the_columns_hold(data: st.DataObject, types: list[Drawn]) -> None:
    given_ = data.draw(st.lists(st.tuples(*(each.values for each in types)), max_size=4))
    found, refused = rows(types, [encode(types, list(row)) for row in given_])
    assert not refused
    expected = [[plain(each.type, value) for each, value in zip(types, row, strict=True)] for row in given_]
    assert [found[i] for i in range(len(given_))] == expected


@st.composite
def mutations(draw: st.DrawFn, body: bytes) -> bytes:
    """A body with a byte changed, a word replaced by one that might be an offset, or another length."""
    kind = draw(st.sampled_from(["byte", "word", "word", "word", "cut", "longer"]))
    at = draw(st.integers(0, max(len(body) - 1, 0)))
    if kind == "byte":
        return body[:at] + draw(st.binary(min_size=1, max_size=1)) + body[at + 1 :]
    if kind == "word":
        number = draw(st.integers(0, len(body) + 33) | st.sampled_from([2**40, 2**64 - 32, 2**256 - 32]))
        start = at // 32 * 32
        return body[:start] + number.to_bytes(32) + body[start + 32 :]
    return body[:at] if kind == "cut" else body + draw(st.binary(min_size=1, max_size=40))


@settings(max_examples=seeds(100, 300))
@given(st.data(), SIGNATURES, st.booleans())
def test_what_eth_abi_refuses_is_refused_and_the_rows_beside_it_are_not(
    data: st.DataObject, types: list[Drawn], exact: bool
) -> None:
    honest = [list(data.draw(st.tuples(*(each.values for each in types)))) for _ in range(2)]
    bodies = [encode(types, row) for row in honest]
    mutated = [data.draw(mutations(body)) for body in bodies for _ in range(2)]
    found, refused = rows(types, [bodies[0], *mutated, bodies[1]], exact=exact)
    assert sorted([*found, *refused]) == list(range(len(mutated) + 2))
    for i, body in enumerate([bodies[0], *mutated, bodies[1]]):
        try:
            expected = oracle(types, body)
        except Exception:  # eth_abi has a dozen of them, and Python's own OverflowError
            assert i in refused, body.hex()
        else:
            assert i in refused or found[i] == expected, body.hex()
    assert {0, len(mutated) + 1} <= found.keys()


def test_damaged_bodies_are_read_as_eth_abi_reads_them_or_refused() -> None:
    """In both directions: what is honest is taken, and what is taken is what eth_abi says."""
    rng = random.Random(5)
    taken = refused_rightly = stricter = 0
    for _ in range(seeds(120, 400)):
        types, draw = signature(rng)
        bodies = [encode(types, draw()) for _ in range(10)]
        tried = bodies + [damaged(rng, body) for body in bodies for _ in range(5)]
        found, refused = rows(types, tried)
        assert not refused.keys() & set(range(len(bodies)))
        assert found.keys() | refused.keys() == set(range(len(tried)))
        for i, body in enumerate(tried):
            try:
                expected = oracle(types, body)
            except Exception:  # eth_abi has a dozen of them, and Python's own OverflowError
                assert i in refused, (types, body.hex())
                refused_rightly += 1
            else:
                assert i in refused or found[i] == expected, (types, body.hex())
                taken, stricter = taken + (i in found), stricter + (i in refused)
    # The damage is of every kind, or this would say nothing.
    assert min(taken, refused_rightly, stricter) > seeds(250, 1_000)
    assert taken + refused_rightly + stricter == 60 * seeds(120, 400)


def signature(rng: random.Random) -> tuple[list[Drawn], Callable[[], list[Any]]]:
    """Types, and what makes values of them: quicker than hypothesis, for many bodies of one signature."""
    made = [_made(rng, 3) for _ in range(rng.randint(1, 4))]
    return [Drawn(parameter, st.nothing()) for parameter, _ in made], lambda: [value() for _, value in made]


def _made(rng: random.Random, depth: int) -> tuple[dict[str, Any], Callable[[], Any]]:
    kind = rng.choice(["uint", "int", "bytesN", "bool", "address", "function", "bytes", "string", *NESTED])
    if kind in NESTED and depth:
        if kind == "tuple":
            members = [_made(rng, depth - 1) for _ in range(rng.randint(1, 3))]
            components = [{**parameter, "name": f"m{i}"} for i, (parameter, _) in enumerate(members)]
            return {"type": kind, "components": components}, lambda: tuple(value() for _, value in members)
        parameter, value = _made(rng, depth - 1)
        length = rng.randint(1, 3) if kind == "[k]" else None
        suffix = f"[{length or ''}]"
        return (
            parameter | {"type": parameter["type"] + suffix},
            lambda: [value() for _ in range(rng.randint(0, 3) if length is None else length)],
        )
    size = rng.randint(1, 32)
    low, high = (-(1 << 8 * size - 1), (1 << 8 * size - 1) - 1) if kind == "int" else (0, (1 << 8 * size) - 1)
    words: dict[str, tuple[str, Callable[[], Any]]] = {
        "uint": (f"uint{8 * size}", lambda: rng.choice([low, high, rng.randint(low, high)])),
        "int": (f"int{8 * size}", lambda: rng.choice([low, high, rng.randint(low, high)])),
        "bytesN": (f"bytes{size}", lambda: rng.randbytes(size)),
        "bool": ("bool", lambda: rng.random() < 0.5),
        "address": ("address", lambda: "0x" + rng.randbytes(20).hex()),
        "function": ("function", lambda: rng.randbytes(24)),
        "bytes": ("bytes", lambda: rng.randbytes(rng.randint(0, 70))),
    }
    type_, value = words.get(kind, ("string", lambda: rng.choice(["", "a", "hé" * 9, "x" * 32])))
    return {"type": type_}, value


NESTED = ("tuple", "[]", "[k]")


def damaged(rng: random.Random, body: bytes) -> bytes:
    """A byte or a bit changed, a word replaced, doubled or moved, bytes cut off or added."""
    kind = rng.choice(["bit", "byte", "word", "swap", "double", "cut", "longer", "none"])
    at = rng.randrange(max(len(body), 1))
    start, words = at // 32 * 32, len(body) // 32
    if kind == "none" or not body:
        return body
    if kind == "cut":
        return body[:at]
    if kind == "longer":
        return body + rng.choice([bytes(1), bytes(32), rng.randbytes(7), rng.randbytes(32)])
    if kind == "double":
        return body[:start] + body[start : start + 32] + body[start:]
    if kind == "swap":
        other = 32 * rng.randrange(max(words, 1))
        first, second = min(start, other), max(start, other)
        one, two = body[first : first + 32], body[second : second + 32]
        return body[:first] + two + body[first + 32 : second] + one + body[second + 32 :]
    if kind == "word":
        number = rng.choice([0, 1, 32 * rng.randint(0, words + 2), at, 2**40, 2**63, 2**256 - 32])
        return body[:start] + number.to_bytes(32) + body[start + 32 :]
    changed = bytearray(body)
    changed[at] = changed[at] ^ (1 << rng.randrange(8)) if kind == "bit" else rng.randrange(256)
    return bytes(changed)


@settings(max_examples=60)
@given(st.data(), SIGNATURES)
def test_a_batch_gives_what_its_rows_give_one_by_one(data: st.DataObject, types: list[Drawn]) -> None:
    bodies = [encode(types, list(data.draw(st.tuples(*(each.values for each in types))))) for _ in range(3)]
    bodies.insert(1, data.draw(mutations(bodies[0])))
    found, refused = rows(types, bodies)
    for i, body in enumerate(bodies):
        alone, why = rows(types, [body])
        assert alone.get(0) == found.get(i)
        assert why.get(0) == refused.get(i)


def words(*numbers: int) -> bytes:
    return b"".join((number % 2**256).to_bytes(32) for number in numbers)


def drawn(*types: str) -> list[Drawn]:
    return [Drawn({"type": each}, st.nothing()) for each in types]


@pytest.mark.parametrize(
    ("type_", "body", "reason"),
    [
        ("uint8", words(256), "a number does not fit its type, uint8"),
        ("int8", words(128), "a number does not fit its type, int8"),
        ("int72", words(1 << 255), "a number does not fit its type, int72"),
        ("bool", words(2), "a boolean is neither 0 nor 1"),
        ("address", words(1 << 160), "an address has more than 20 bytes"),
        ("bytes4", words(1), "the padding of bytes4 is not zero"),
        ("bytes", words(32, 1, 1), "the padding of bytes or text is not zero"),
        ("bytes", words(32, 33, 0), "it is cut short"),
        ("bytes", words(0, 0), "an offset points into the head"),
        ("bytes", words(2**64 + 32, 0), "an offset is out of all range"),
        ("bytes", words(32, 2**63), "a length is out of all range"),
        ("uint8[]", words(32, 2**41), "an array's length is out of all range"),
        ("uint8[]", words(32, 2, 1), "it is cut short"),
        ("bytes", words(64, 0, 0), "it is longer than what its types take"),
        ("uint8", words(1, 1), "it is longer than what its types take"),
        ("uint8", b"", "it is cut short"),
        ("uint8", bytes(31), "it is cut short"),
    ],
)
def test_each_check_refuses_and_says_why(type_: str, body: bytes, reason: str) -> None:
    found, refused = rows(drawn(type_), [body])
    assert not found
    assert reason in refused[0]


def test_calldata_may_be_longer_than_its_arguments() -> None:
    found, refused = rows(drawn("uint8"), [words(1) + b"referrer"], exact=False)
    assert (found, refused) == ({0: [1]}, {})


def test_text_that_is_not_utf8_hides_no_event() -> None:
    body = words(32, 5) + b"a\xffb\xc3\xa9" + bytes(27)
    assert rows(drawn("string"), [body])[0] == {0: ["a�bé"]}
    # Two rows whose broken ends would make a whole letter together.
    halves = [words(32, 1) + half + bytes(31) for half in (b"\xc3", b"\xa9")]
    assert rows(drawn("string"), halves)[0] == {0: ["�"], 1: ["�"]}


def test_a_few_words_can_not_stand_for_gigabytes() -> None:
    """Every item of every array is an offset to the same next array: 10 items, 10 deep, are 10¹⁰ numbers."""
    level = words(10, *(10 * [10 * 32]))
    body = words(32) + 9 * level + words(10, *range(10))
    started = time.perf_counter()
    found, refused = rows(drawn("uint8" + 10 * "[]"), [body])
    assert not found
    assert "offsets overlap" in refused[0]
    assert time.perf_counter() - started < 1


def test_no_rows_and_no_types_are_columns_too() -> None:
    assert rows(drawn("string[]", "uint8[2]"), []) == ({}, {})
    columns, kept, refused = decode([Bodies([], Joined.of([b"", b"\x00"]), exact=True)], 2)
    assert (columns, kept.tolist(), [each.row for each in refused]) == ([], [0], [1])


def test_a_row_refused_in_one_part_is_in_no_column() -> None:
    word, text = parse("uint8", ""), parse("string", "")
    parts = [
        Bodies([word], Joined.of([words(1), words(256), words(3)]), exact=True),
        Bodies([text], Joined.of([words(32, 0), words(32, 0), b""]), exact=True),
    ]
    columns, kept, refused = decode(parts, 3)
    assert [column.to_pylist() for column in columns] == [[1], [""]]
    assert kept.tolist() == [0]
    assert [each.row for each in refused] == [1, 2]


def test_more_than_arrow_can_count_is_no_column() -> None:
    most = np.array([1 << 30, (1 << 30) - 1])
    assert np.frombuffer(_offsets(most), np.int32)[-1] == (1 << 31) - 1
    with pytest.raises(OverflowError, match="decode fewer rows"):
        _offsets(most + 1)

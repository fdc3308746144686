"""The log's records as bytes: what is written comes back, and nothing else is believed."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nektar import log
from nektar.bus.port import Delivered
from nektar.log import MAX_RECORD_BYTES, PART_BYTES, PART_HEADER, BrokenLog, Joiner, Reading
from nektar.model import G1, Address, At, Block, BlockRef, Hash32, Level, Signed

numbers = st.integers(0, 2**63 - 1)
hashes = st.binary(min_size=32, max_size=32).map(Hash32)
addresses = st.binary(min_size=20, max_size=20).map(Address)
refs = st.builds(BlockRef, numbers, hashes)
blocks = st.builds(
    Block, numbers, hashes, hashes, numbers, st.sampled_from(Level), st.text(max_size=8), st.text(max_size=8)
)
tables = st.dictionaries(st.text(max_size=12), st.binary(max_size=64), max_size=3)
several = st.lists(blocks, max_size=3).map(tuple)
signed = st.builds(
    Signed,
    st.none() | st.builds(At, numbers, numbers, st.integers(-1, 2**31)),
    hashes,
    addresses,
    hashes,
    st.binary(min_size=64, max_size=64).map(G1),
)
records = st.one_of(
    st.builds(log.New, several, tables),
    st.builds(log.Undo, several, tables, st.none() | st.tuples(numbers, numbers)),
    st.builds(log.Mark, refs, refs, several, st.lists(addresses, max_size=3).map(tuple)),
    st.builds(log.Gap, numbers, numbers, st.none() | hashes, st.text(max_size=20)),
    st.builds(log.SignedBatch, st.lists(signed, max_size=3).map(tuple)),
)


@given(records)
def test_a_record_comes_back_as_it_was_written(record: log.Record) -> None:
    value = log.encode(record)
    assert log.decode(value) == record
    assert log.encode(log.decode(value)) == value


@given(st.one_of(st.binary(max_size=200), records.map(lambda r: log.encode(r)[:-1])))
def test_bytes_that_are_no_record_break_the_log_with_one_line(value: bytes) -> None:
    with pytest.raises(BrokenLog) as told:
        log.decode(value)
    assert "\n" not in str(told.value)


@given(records, st.data())
def test_a_changed_byte_is_refused_or_is_another_record(record: log.Record, data: st.DataObject) -> None:
    value = bytearray(log.encode(record))
    value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        read = log.decode(bytes(value))
    except BrokenLog:
        return
    assert log.decode(log.encode(read)) == read


def test_a_record_of_an_unknown_kind_or_shape_breaks_the_log() -> None:
    for value in (
        {"type": "other"},
        {"type": "new", "blocks": 1, "tables": {}},
        {"type": "gap", "first": "1", "last": 2, "last_hash": None, "why": ""},
        {"blocks": [], "tables": {}},
        [],
    ):
        with pytest.raises(BrokenLog):
            log.decode(msgspec.msgpack.encode(value))


@pytest.mark.parametrize(
    "value",
    [
        b"\x83\xa4type\xa3new\xa6blocks\x90\xa6tables\x81\xa2\xe2\x80\xc4\x00",  # a name that is not UTF-8
        b"\x82\xa4type\xa3gap\xa1x" + b"\x91" * 100_000,  # nested without end
    ],
)
def test_bytes_made_to_break_the_reader_break_the_log(value: bytes) -> None:
    with pytest.raises(BrokenLog):
        log.decode(value)


@given(st.text(min_size=1), st.integers(0, 10**9 - 1))
def test_a_key_names_a_network_and_a_generation(network: str, generation: int) -> None:
    assert log.parse_key(log.key(network, generation)) == (network, generation)


@given(st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode)))
def test_any_other_key_breaks_the_log(value: bytes) -> None:
    try:
        network, generation = log.parse_key(value)
    except BrokenLog:
        return
    assert log.key(network, generation) == value


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"net",
        b"/1",
        b"n\xff/1",
        b"net/",
        b"net/x",
        b"net/-1",
        "net/٣".encode(),
        b"net/1_0",
        "net/²".encode(),
        b"net/01",
    ],
)
def test_a_key_without_a_generation_breaks_the_log(value: bytes) -> None:
    with pytest.raises(BrokenLog, match="NETWORK/GENERATION"):
        log.parse_key(value)


values = st.lists(st.binary(max_size=40), max_size=6)


@given(values, st.integers(1, 12))
def test_parts_join_into_the_records_that_were_split(whole: list[bytes], size: int) -> None:
    join = Joiner()
    joined = []
    for value in whole:
        parts = list(log.split(value, size))
        assert all(len(part) <= size for part, _ in parts)
        assert b"".join(part for part, _ in parts) == value
        results = [join(part, headers) for part, headers in parts]
        assert results[:-1] == [None] * (len(parts) - 1)
        joined.append(results[-1])
    assert joined == whole


def test_a_value_that_fits_is_one_message_without_headers() -> None:
    assert list(log.split(bytes(PART_BYTES))) == [(bytes(PART_BYTES), {})]
    assert [h for _, h in log.split(bytes(PART_BYTES + 1))] == [{PART_HEADER: b"0/2"}, {PART_HEADER: b"1/2"}]


@given(st.binary(min_size=4, max_size=40), st.data())
def test_a_part_that_is_missing_doubled_or_out_of_turn_breaks_the_log(
    value: bytes, data: st.DataObject
) -> None:
    parts = list(log.split(value, 2))
    order = data.draw(st.lists(st.integers(0, len(parts) - 1), min_size=1, max_size=len(parts) + 1))
    join = Joiner()
    if order == list(range(len(order)))[: len(parts)]:
        results = [join(*parts[i]) for i in order]
        assert results[-1] == (value if len(order) == len(parts) else None)
    elif order[: len(parts)] != list(range(len(parts))) or order[len(parts) :] != [0]:
        with pytest.raises(BrokenLog, match="expected part"):
            _ = [join(*parts[i]) for i in order]


def test_a_whole_record_amid_parts_breaks_the_log() -> None:
    join = Joiner()
    join(b"x", {PART_HEADER: b"0/2"})
    with pytest.raises(BrokenLog, match="expected part 1/2"):
        join(b"whole", {})


@pytest.mark.parametrize(
    "header",
    [b"", b"1", b"0/0", b"-1/2", b"0/x", b"a/b", b"0/1/2", b"0/-1", b" 0/2", b"+0/2", b"0/2\n", b"0/1_0"],
)
def test_a_malformed_part_header_breaks_the_log(header: bytes) -> None:
    with pytest.raises(BrokenLog, match="expected"):
        Joiner()(b"x", {PART_HEADER: header})


def test_a_record_above_the_limit_breaks_the_log_before_it_fills_the_memory() -> None:
    join = Joiner(max_bytes=10)
    assert join(bytes(6), {PART_HEADER: b"0/3"}) is None
    with pytest.raises(BrokenLog, match="10 bytes"):
        join(bytes(6), {PART_HEADER: b"1/3"})
    assert MAX_RECORD_BYTES < 2**30


def test_a_count_of_parts_beyond_any_record_breaks_the_log() -> None:
    with pytest.raises(BrokenLog) as told:
        Joiner()(b"", {PART_HEADER: b"0/" + b"9" * 5000})
    assert len(str(told.value)) < 500


# --- records among each other -----------------------------------------------------------------------


@st.composite
def streams(draw: st.DrawFn) -> list[Delivered]:
    """One writer's records, some in parts, and others' whole ones anywhere among them; offsets with holes."""
    ours: list[tuple[bytes, dict[str, bytes]]] = []
    for i in range(draw(st.integers(0, 5))):
        ours += log.split(b"%d " % i + b"x" * draw(st.integers(0, 12)), 3)
    theirs = [(b"their %d" % i, {}) for i in range(draw(st.integers(0, 6)))]
    turns = draw(st.permutations([ours] * len(ours) + [theirs] * len(theirs)))
    messages, offset = [], -1
    for writer in turns:
        offset += draw(st.integers(1, 3))
        value, headers = writer.pop(0)
        messages.append(Delivered("s", 0, offset, b"k", value, headers, 0.0))
    return messages


def plainly(messages: list[Delivered]) -> list[tuple[int, bytes]]:
    """(offset of the first message, record), put together with all at hand and sorted."""
    whole = {m.offset: m.value for m in messages if PART_HEADER not in m.headers}
    first = 0
    for message in messages:
        if part := message.headers.get(PART_HEADER):
            first = message.offset if part.startswith(b"0/") else first
            whole[first] = whole.get(first, b"") + message.value
    return sorted(whole.items())


def read(reading: Reading, messages: list[Delivered]) -> list[tuple[int, bytes]]:
    return [(record.offset, record.value) for m in messages for record in reading(m)]


@given(streams())
def test_records_come_whole_in_the_order_of_their_first_messages(messages: list[Delivered]) -> None:
    reading = Reading()
    assert read(reading, messages) == plainly(messages)
    assert not reading.half


@given(streams())
def test_a_reading_from_any_record_on_gives_that_record_and_what_stands_after_it(
    messages: list[Delivered],
) -> None:
    records = plainly(messages)
    for i, (start, _) in enumerate(records):
        shown = [m for m in messages if m.offset >= start]
        assert read(Reading(start), shown) == records[i:]


@given(streams(), st.data())
def test_a_restart_where_nothing_is_half_read_loses_and_doubles_nothing(
    messages: list[Delivered], data: st.DataObject
) -> None:
    reading, got = Reading(), []
    for message in messages:
        got += read(reading, [message])
        if not reading.half and data.draw(st.booleans()):
            reading = Reading(message.offset + 1)
    assert got == plainly(messages)


@given(streams(), st.data())
def test_a_message_missing_from_a_log_shown_whole_is_a_record_missing_or_a_broken_log(
    messages: list[Delivered], data: st.DataObject
) -> None:
    if not messages:
        return
    lost = messages.pop(data.draw(st.integers(0, len(messages) - 1)))
    reading = Reading()
    if PART_HEADER not in lost.headers:
        assert read(reading, messages) == plainly(messages)
        return
    try:
        read(reading, messages)
    except BrokenLog:
        return
    assert reading.half  # it waits for the last part


def part(offset: int, header: bytes, value: bytes = b"x") -> Delivered:
    return Delivered("s", 0, offset, b"k", value, {PART_HEADER: header}, 0.0)


def test_only_the_first_parts_that_a_reading_meets_may_lack_their_beginning() -> None:
    with pytest.raises(BrokenLog, match="expected part 0/n"):
        Reading()(part(0, b"1/2"))
    reading = Reading(7)
    assert [reading(part(7, b"1/3")), reading(part(8, b"2/3"))] == [[], []]
    with pytest.raises(BrokenLog, match="expected part 0/n"):
        reading(part(9, b"1/2"))
    reading = Reading(7)
    reading(part(7, b"1/4"))
    for other in (b"3/4", b"2/5", b"0/2"):
        with pytest.raises(BrokenLog, match="expected part 2/4"):
            reading(part(8, other))
    reading = Reading(7)
    reading(part(7, b"0/2"))
    with pytest.raises(BrokenLog, match="expected part 1/2"):
        reading(part(8, b"0/2"))


def test_what_a_record_holds_back_is_bounded_and_not_lost_with_it() -> None:
    reading = Reading(max_bytes=10)
    reading(part(0, b"0/2"))
    between = Delivered("s", 0, 1, b"k", b"y" * 10, {}, 0.0)
    assert reading(between) == []
    with pytest.raises(BrokenLog, match="10 bytes stand between"):
        reading(between._replace(offset=2, value=b"z"))
    assert reading.give_up() == [between]
    assert not reading.half

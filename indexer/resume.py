"""Where a Network's log stands, from the log alone: there is no other memory.

The log is read backwards to its last mark, and on to the records that hold the rows of the blocks which that
mark calls unfinal; from there all records are folded forward. A log without a mark is read whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from indexer.found import NOTHING, Found
from indexer.known import Kept, Known, Skipped
from nektar.bus.port import Bus, Delivered
from nektar.log import NETWORK, PART_HEADER, BrokenLog, Gap, Joiner, Mark, New, Record, decode
from nektar.model import Block

# The header of each record that says which filter it was made with (`indexer/writer.py`).
FILTER_HEADER = "nektar-filter"
# Offsets read at once: at most this many messages of about 1 MB are held in memory.
WINDOW = 64


def read_back(
    bus: Bus, partition: int, key: bytes, first: int, found: Found = NOTHING, filter_: bytes = b""
) -> tuple[Known, bytes | None]:
    """What the log of `key` says, and the filter that it was made with; None where it is empty.

    `first` is the number of the first block in scope; `found` says by which rules contracts are found. A log
    of another filter than `filter_`, where that is given, is not read any further: it has other rules. Raises
    BrokenLog.
    """
    made_with: bytes | None = None
    mark: Mark | None = None
    since: list[Record] = []  # the mark, newest first
    before: list[Record] = []  # it, newest first
    missing: set[Block | tuple[int, int]] = set()
    for headers, record in _newest_first(bus, partition, key):
        made_with = made_with or headers.get(FILTER_HEADER)
        if made_with and filter_ not in (b"", made_with):
            return Known(first), made_with
        if mark is None:
            if isinstance(record, Mark):
                mark, missing = record, _needed(record)
            else:
                since.append(record)
        elif isinstance(record, New):
            before.append(record)
            missing.difference_update(record.blocks)
        elif isinstance(record, Gap):
            before.append(record)
            missing.discard((record.first, record.last))
        if mark is not None and not missing:
            break
    known = Known(first, settled=found) if mark is None else _at(first, mark, before, found)
    return known.fold(reversed(since)), made_with


def _needed(mark: Mark) -> set[Block | tuple[int, int]]:
    """The blocks, and the gaps between them, that some record before `mark` has brought."""
    needed: set[Block | tuple[int, int]] = set()
    expected = mark.finalized.number + 1
    for block in mark.unfinal:
        if block.number > expected:
            needed.add((expected, block.number - 1))
        needed.add(block)
        expected = block.number + 1
    return needed


def _at(first: int, mark: Mark, newest_first: Sequence[Record], found: Found) -> Known:
    """What was known at `mark`. A block that was undone and came again has its rows in either record."""
    sources: dict[Block, New] = {}
    gaps: dict[tuple[int, int], Gap] = {}
    for record in newest_first:
        if isinstance(record, New):
            for block in record.blocks:
                sources.setdefault(block, record)
        elif isinstance(record, Gap):
            gaps.setdefault((record.first, record.last), record)
    unfinal: list[Kept | Skipped] = []
    settled = found = found.read(mark.contracts)
    try:
        for needed in sorted(_needed(mark), key=lambda n: n.number if isinstance(n, Block) else n[0]):
            if isinstance(needed, Block):
                [made] = found.made(sources[needed].tables, [needed.hash])
                found = found.with_([made])
                unfinal.append(Kept(needed, sources[needed], made))
            else:
                unfinal.append(Skipped(gaps[needed]))
    except KeyError as error:
        raise BrokenLog(f"expected {error.args[0]} in a record before the mark that names it") from None
    return Known(first, mark.finalized, tuple(unfinal), (mark.safe, mark.finalized), settled)


def _newest_first(bus: Bus, partition: int, key: bytes) -> Iterator[tuple[Mapping[str, bytes], Record]]:
    """The whole records of `key`, and the headers of their first messages."""
    last = bus.last(NETWORK, partition, key)
    if last is None:
        return
    parts: list[Delivered] = []
    for message in _backwards(bus, partition, last.offset + 1):
        if message.key != key:
            continue
        # One that stands between the parts of another comes after it (`nektar.log.Reading`), so here before.
        own = parts if PART_HEADER in message.headers else []
        own.append(message)
        index, _, _ = message.headers.get(PART_HEADER, b"0").partition(b"/")
        if index != b"0":
            continue
        join = Joiner()
        try:
            whole = [join(part.value, part.headers) for part in reversed(own)][-1]
            if whole is None:
                raise BrokenLog("the record lacks its last parts")
            record = decode(whole)
        except BrokenLog as error:
            named = key.decode("utf-8", "replace")
            raise BrokenLog(
                f"{NETWORK}, partition {partition}, offset {message.offset} ({named}): {error}"
            ) from error
        yield message.headers, record
        own.clear()
    if parts:
        raise BrokenLog(f"a record at offset {parts[-1].offset} lacks its first parts")


def _backwards(bus: Bus, partition: int, end: int) -> Iterator[Delivered]:
    """Committed messages below offset `end`, newest first. Offsets may have holes."""
    while end > 0:
        start = max(0, end - WINDOW)
        window: list[Delivered] = []
        at = start
        while at < end and (found := bus.read(NETWORK, partition, at, end - at)):
            window.extend(message for message in found if message.offset < end)
            at = found[-1].offset + 1
        yield from reversed(window)
        end = start

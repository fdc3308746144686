"""What was reported of blocks, held against what their headers prove: which rows are false, and how each lie
is to be named.

    the place (block, log index)                       the lie
    is proved, and was not told                        omitted
    is proved, and was told with other columns,
        or as another event                            altered
    was told, and is not proved                        invented
    was told in a block of another hash                wrong block: named once, and not log by log

Pure: rows come as columns, a table for each event and one for what could not be read.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from indexer.decode import LOST_A_BLOCK
from nektar.arrow import pa
from nektar.chain.columns import Ints, Octets
from nektar.coverage import UndecodedRow
from nektar.model import Hash32
from nektar.store.schema import row_table

UNDECODED = row_table(UndecodedRow).name
Rows = Mapping[str, Any]
"""Table name → pyarrow Table in the chain's order, with `block_number`, `block_hash` and `log_index`."""

WHOLE_BLOCK = -1  # in place of a log's index
# A place is a block, counted from the first that is looked at, and a log's index in it.
_INDEX_BITS = 32
_HASH = 32


class Kind(enum.StrEnum):
    OMITTED = "omitted"
    ALTERED = "altered"
    INVENTED = "invented"
    WRONG_BLOCK = "wrong block"


class Lie(NamedTuple):
    """`hash` is the block's own; of a wrong block it is what was told."""

    number: int
    log_index: int
    kind: Kind
    hash: Hash32


class Verdict(NamedTuple):
    """The lies in the chain's order, and by table which of the told rows are false."""

    lies: list[Lie]
    false: dict[str, Ints]


class _Difference(NamedTuple):
    """Of one table: rows that were told in other blocks, and places."""

    elsewhere: Ints
    omitted: Ints
    altered: Ints
    invented: Ints
    false: Ints  # rows


def judge(told: Rows, proved: Rows, first: int, hashes: Octets) -> Verdict:
    """Hold what was told of the blocks from `first` on, whose hashes these are, against what is proved.

    Both have the same tables, and rows of no other blocks.
    """
    found = {
        name: _difference(told[name], proved[name], first, hashes, bounded=name == UNDECODED)
        for name in told
        if not told[name].equals(proved[name])
    }
    wrong = {
        Lie(int(number), WHOLE_BLOCK, Kind.WRONG_BLOCK, Hash32(hash_.tobytes()))
        for name, each in found.items()
        for number, hash_ in zip(
            _numbers(told[name], "block_number")[each.elsewhere],
            _octets(told[name], "block_hash")[each.elsewhere],
            strict=True,
        )
    }
    omitted, altered, invented = (
        np.concatenate([np.zeros(0, np.int64), *(getattr(each, kind) for each in found.values())])
        for kind in ("omitted", "altered", "invented")
    )
    otherwise = np.intersect1d(omitted, invented)  # told as another event than it is
    blocks = np.array([lie.number - first for lie in wrong], np.int64)
    omitted = omitted[~np.isin(omitted >> _INDEX_BITS, blocks)]
    lies = list(wrong)
    for kind, places in (
        (Kind.OMITTED, np.setdiff1d(omitted, otherwise)),
        (Kind.ALTERED, np.union1d(altered, otherwise)),
        (Kind.INVENTED, np.setdiff1d(invented, otherwise)),
    ):
        at, index = places >> _INDEX_BITS, places & ((1 << _INDEX_BITS) - 1)
        lies += (
            Lie(first + block, log, kind, Hash32(hashes[block].tobytes()))
            for block, log in zip(at.tolist(), index.tolist(), strict=True)
        )
    return Verdict(sorted(lies), {name: each.false for name, each in found.items() if len(each.false)})


def _difference(told: Any, proved: Any, first: int, hashes: Octets, *, bounded: bool) -> _Difference:
    """`bounded`: of each block only so many rows are kept, and the last says how many more there were."""
    said, is_ = _places(told, first), _places(proved, first)
    elsewhere = (_octets(told, "block_hash") != hashes[said >> _INDEX_BITS]).any(axis=1)
    here = np.flatnonzero(~elsewhere)
    _, mine, its = np.intersect1d(said[here], is_, assume_unique=True, return_indices=True)
    compared = [name for name in told.column_names if not (bounded and name == "reason")]
    unlike = _unlike(told.select(compared).take(here[mine]), proved.select(compared).take(its))
    omitted, invented = np.setdiff1d(is_, said[here]), np.setdiff1d(said[here], is_)
    false = np.flatnonzero(elsewhere | np.isin(said, invented))
    if bounded:
        omitted, invented = (_kept(each, said[here], is_) for each in (omitted, invented))
    return _Difference(np.flatnonzero(elsewhere), omitted, is_[its[unlike]], invented, false)


def _unlike(told: Any, proved: Any) -> npt.NDArray[np.bool_]:
    """Which rows differ in any column."""
    import pyarrow.compute as pc  # 30 ms of every start; most audits find nothing unlike

    found = np.zeros(told.num_rows, bool)
    for name in told.column_names:
        one, other = told[name], proved[name]
        if one.equals(other):
            continue
        if pa.types.is_nested(one.type):  # which no function of Arrow's compares row by row
            found |= [a != b for a, b in zip(one.to_pylist(), other.to_pylist(), strict=True)]
        else:
            found |= pc.not_equal(one, other).to_numpy()
    return found


def _kept(places: Ints, *sides: Ints) -> Ints:
    """Those of the places that each side would have kept if it had known of them."""
    for side in sides:
        side = np.sort(side)
        blocks, firsts, counts = np.unique(side >> _INDEX_BITS, return_index=True, return_counts=True)
        full = counts >= LOST_A_BLOCK
        blocks, lasts = blocks[full], side[firsts + counts - 1][full]
        if len(blocks):
            of = places >> _INDEX_BITS
            at = np.minimum(np.searchsorted(blocks, of), len(blocks) - 1)
            places = places[(blocks[at] != of) | (places <= lasts[at])]
    return places


def _places(rows: Any, first: int) -> Ints:
    numbers, indices = _numbers(rows, "block_number"), _numbers(rows, "log_index")
    return (numbers - first << _INDEX_BITS) | indices


def _numbers(rows: Any, name: str) -> Ints:
    found: Ints = rows[name].to_numpy().astype(np.int64)
    return found


def _octets(rows: Any, name: str) -> Octets:
    array = rows[name].combine_chunks()
    if not len(array):
        return np.zeros((0, _HASH), np.uint8)
    octets = np.frombuffer(array.buffers()[1], np.uint8).reshape(-1, _HASH)
    return octets[array.offset : array.offset + len(array)]

from __future__ import annotations

import pytest

from indexer.known import Known
from nektar.log import BrokenLog, Gap, Mark, New, SignedBatch, Undo
from tests.indexer.test_reconcile import block, known, name, ref


def test_only_a_child_of_the_last_block_may_follow() -> None:
    for wrong in (block(9), block(7), block(8, "a", "b")):
        with pytest.raises(BrokenLog, match="expected block 8 on 0x"):
            known(7, 3).after(New((wrong,), {}))
    with pytest.raises(BrokenLog, match="expected block 9 on 0x"):
        known(7, 3).after(New((block(8), block(10)), {}))


def test_only_the_newest_blocks_may_be_undone_and_none_that_is_final() -> None:
    log = known(7, 3)
    with pytest.raises(BrokenLog, match="expected to undo block 7"):
        log.after(Undo((block(6),), {}))
    with pytest.raises(BrokenLog, match="nothing, all is final; got block 3"):
        log.after(Undo(tuple(block(n) for n in (7, 6, 5, 4, 3)), {}))
    with pytest.raises(BrokenLog, match="got a gap"):
        log.after(Undo((block(7),), {}, (1, 2)))
    assert log.fold(log.undo(3)).tip == ref(3)
    assert log.undo(7) == []


def test_finalized_must_be_a_block_of_the_log_and_never_goes_back() -> None:
    log = known(7, 3)
    for wrong in (ref(2), ref(8), ref(5, "b")):
        with pytest.raises(BrokenLog, match="as finalized"):
            log.after(Mark(wrong, wrong))


def test_a_gap_begins_where_the_log_ends_and_the_child_names_its_last_block() -> None:
    log = known(7, 3)
    with pytest.raises(BrokenLog, match="a gap from block 8 on"):
        log.after(Gap(9, 10, None, ""))
    gap = log.after(Gap(8, 10, name(10, "a"), ""))
    assert gap.after(New((block(11),), {})).tip == ref(11)
    with pytest.raises(BrokenLog):
        gap.after(New((block(11, "a", "b"),), {}))


def test_each_gap_but_the_first_needs_an_undo_of_its_own() -> None:
    log = known(7, 3)
    for first in (8, 12):
        log = log.after(Gap(first, first + 2, name(first + 2, "a"), "")).after(New((block(first + 3),), {}))
    undone = log.undo(5)
    assert [([b.number for b in undo.blocks], undo.gap) for undo in undone] == [
        ([15], (12, 14)),
        ([11], (8, 10)),
        ([7, 6], None),
    ]
    assert log.fold(undone).tip == ref(5)


def test_what_operators_signed_changes_nothing() -> None:
    assert known(7, 3).after(SignedBatch(())) == known(7, 3)


def test_nothing_is_kept_of_what_is_final() -> None:
    log = Known(0)
    for number in range(2000):
        log = log.after(New((block(number),), {}))
        if number >= 5:
            log = log.after(Mark(ref(number), ref(number - 5)))
    assert len(log.unfinal) == 5

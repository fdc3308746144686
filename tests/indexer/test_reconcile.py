"""The cases of the table in `indexer/reconcile.py`, one test a row, and `mark`."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from indexer.headers import Heads, Link
from indexer.known import Known
from indexer.reconcile import (
    LOOK_BACK,
    Extend,
    Look,
    ReorgBelowFinality,
    TakeBack,
    View,
    Wait,
    mark,
    reconcile,
)
from nektar.log import Gap, Mark, New
from nektar.model import Block, BlockRef, Hash32, Level


def name(number: int, fork: str) -> Hash32:
    return Hash32(f"{number}{fork}".encode().ljust(32, b"."))


def link(number: int, fork: str = "a", parent: str = "") -> Link:
    return Link(number, name(number, fork), name(number - 1, parent or fork))


def ref(number: int, fork: str = "a") -> BlockRef:
    return BlockRef(number, name(number, fork))


def block(number: int, fork: str = "a", parent: str = "") -> Block:
    at = link(number, fork, parent)
    return Block(at.number, at.hash, at.parent, 12 * number, Level.PROVED, "p", "single:p")


def known(tip: int, finalized: int | None = None, first: int = 0) -> Known:
    """Blocks `first` to `tip` of fork a."""
    log = Known(first).after(New(tuple(block(n) for n in range(first, tip + 1)), {}))
    return log if finalized is None else log.after(Mark(ref(finalized), ref(finalized)))


def view(
    latest: Link, links: Mapping[int, Link | None] | None = None, finalized: BlockRef | None = None
) -> View:
    return View(Heads(latest, None, finalized), links or {})


def test_1_a_chain_that_has_not_come_to_the_first_block_is_waited_for() -> None:
    assert isinstance(reconcile(Known(10), view(link(9))), Wait)


def test_2_an_empty_log_begins_with_the_first_block() -> None:
    assert reconcile(Known(10), view(link(10))) == Extend(10, 10, settled=False)
    assert reconcile(Known(10), view(link(90), finalized=ref(50))) == Extend(10, 50, settled=True)


def test_3_a_log_at_the_head_waits_in_peace() -> None:
    assert reconcile(known(7, 3), view(link(7))) == Wait()


def test_4_a_provider_that_is_behind_on_our_chain_is_waited_for() -> None:
    assert reconcile(known(7, 3), view(link(4))) == Wait()


def test_5_a_provider_that_is_behind_finality_undoes_nothing_whatever_it_says() -> None:
    step = reconcile(known(7, 3), view(link(2, "b")))
    assert isinstance(step, Wait)
    assert step.why


def test_6_blocks_above_are_fetched_before_it_is_known_whether_they_follow() -> None:
    assert reconcile(known(7, 3), view(link(12))) == Extend(8, 12, settled=False)
    assert reconcile(known(7, 3), view(link(12), finalized=ref(9))) == Extend(8, 9, settled=True)


def test_7_a_child_of_our_last_block_is_appended() -> None:
    assert reconcile(known(7, 3), view(link(8))) == Extend(8, 8, settled=False)


def test_8_a_block_that_is_announced_but_null_is_waited_for() -> None:
    assert isinstance(reconcile(known(7, 3), view(link(12), {8: None})), Wait)


@pytest.mark.parametrize(("latest", "top"), [(8, 7), (7, 6), (5, 4)])
def test_9_another_parent_or_another_block_makes_us_look_where_the_chains_part(latest: int, top: int) -> None:
    assert reconcile(known(7, 3), view(link(latest, "b"))) == Look(3, top)


def test_9_looking_back_is_done_in_bounded_steps() -> None:
    assert reconcile(known(90, 3), view(link(91, "b"))) == Look(90 - LOOK_BACK + 1, 90)
    seen = {n: link(n, "b") for n in range(83, 91)}
    assert reconcile(known(90, 3), view(link(91, "b"), seen)) == Look(82 - LOOK_BACK + 1, 82)


def test_10_what_stands_on_both_chains_stays_and_all_above_is_taken_back() -> None:
    seen = {7: link(7, "b"), 6: link(6, "b", "a"), 5: link(5)}
    assert reconcile(known(7, 3), view(link(8, "b"), seen)) == TakeBack(5)
    deep = {n: link(n, "b") for n in range(5, 8)} | {4: link(4, "b", "a"), 3: link(3)}
    assert reconcile(known(7, 3), view(link(8, "b"), deep)) == TakeBack(3)
    # a shorter chain: what stands above its head is gone
    assert reconcile(known(7, 3), view(link(6, "b", "a"), {5: link(5)})) == TakeBack(5)


def test_10_without_a_finalized_block_all_of_it_may_be_taken_back() -> None:
    assert reconcile(known(6, first=5), view(link(6, "b"), {5: link(5, "b")})) == TakeBack(4)


@pytest.mark.parametrize("seen", [{7: link(7)}, {7: None}, {7: link(7, "b"), 6: None}])
def test_11_answers_of_two_moments_are_no_reason_to_undo(seen: dict[int, Link | None]) -> None:
    assert isinstance(reconcile(known(7, 3), view(link(8, "b"), seen)), Wait)


def test_12_another_block_at_our_finalized_number_stops_everything() -> None:
    seen = {n: link(n, "b") for n in range(3, 8)}
    with pytest.raises(ReorgBelowFinality):
        reconcile(known(7, 3), view(link(8, "b"), seen))
    with pytest.raises(ReorgBelowFinality):
        reconcile(known(7, 3), view(link(9), finalized=ref(3, "b")))
    with pytest.raises(ReorgBelowFinality):
        reconcile(known(3, 3), view(link(3, "b")))


def test_13_of_blocks_that_may_be_taken_back_no_more_are_held_than_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("indexer.known.MOST_BLOCKS", 4)
    assert reconcile(known(6, 3), view(link(9), finalized=ref(3))) == Extend(7, 9, settled=False)
    full = reconcile(known(7, 3), view(link(9), finalized=ref(3)))
    assert isinstance(full, Wait)
    assert "4 blocks are held that are not final (the last one was block 3)" in full.why
    assert reconcile(known(7, 3), view(link(9), finalized=ref(8))) == Extend(8, 8, settled=True)


def test_a_gap_is_passed_by_when_looking_where_chains_part() -> None:
    log = known(7, 3).after(Gap(8, 10, name(10, "a"), "")).after(New((block(11),), {}))
    assert reconcile(log, view(link(12, "b"), {11: link(11, "b"), 7: link(7)})) == TakeBack(7)
    (undo,) = log.undo(7)
    assert ([b.number for b in undo.blocks], undo.gap) == ([11], (8, 10))


def test_finalized_never_goes_back_and_safe_does() -> None:
    log = known(9, 3)
    assert mark(log, ref(3), ref(3)) is None
    assert mark(log, ref(3), ref(2)) is None
    forward = mark(log, ref(8), ref(5))
    assert forward == Mark(ref(8), ref(5), tuple(block(n) for n in range(6, 10)))
    back = mark(log.after(forward), ref(6), ref(5))
    assert back is not None
    assert (back.safe, back.finalized) == (ref(6), ref(5))


def test_what_is_not_on_the_log_is_neither_safe_nor_final() -> None:
    log = known(9, 3)
    assert mark(log, ref(8, "b"), ref(5, "b")) is None
    assert mark(log, ref(20), ref(12)) is None
    assert mark(Known(0), ref(0), ref(0)) is None
    assert mark(known(9), ref(4), None) is None


def test_a_safe_block_that_is_taken_back_falls_to_the_finalized_one() -> None:
    log = known(9, 3)
    log = log.fold([m for m in [mark(log, ref(8), ref(3))] if m is not None])
    undone = log.fold(log.undo(6))
    assert mark(undone, None, None) == Mark(ref(3), ref(3), tuple(block(n) for n in range(4, 7)))


def test_safe_is_never_below_finalized() -> None:
    assert mark(known(9, 3), ref(4), ref(6)) == Mark(ref(6), ref(6), tuple(block(n) for n in range(7, 10)))

"""What a fold may not say of findings: it is told so, before any finding that has become final changes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from nektar import fold as calculus
from nektar.fold import BrokenFold
from nektar.log import Mark, New, SignedBatch, Undo
from nektar.model import G1, At, Attested, BlockClosed, ChainEvent, Event, Signed, TaskCancelled
from nektar.rows import Change, Finding, FindingStatus
from tests.nektar.logs import (
    DIGESTS,
    NETWORK,
    OPERATORS,
    TASKS,
    Answer,
    Gossip,
    Heard,
    block,
    gossip,
    hash32,
    random_log,
    tables,
)

Said = tuple[Heard, list[Change]]
Key = tuple[bytes, bytes]


def answered(state: Heard, key: Key, answer: Answer | None) -> Heard:
    answers = state.answers.set(key, answer) if answer else state.answers.delete(key)
    return msgspec.structs.replace(state, answers=answers)


def grown(state: Heard, event: Event) -> list[tuple[Key, Answer, Finding]]:
    """Answers to which something was added after they were found, and what is found now."""
    if not isinstance(event, BlockClosed | Signed):
        return []
    found = [(k, a, gossip(k, a, a.block)) for k, a in sorted(state.answers.items()) if a.finding and a.block]
    return [(key, answer, now) for key, answer, now in found if now.facts != answer.finding.facts]  # type: ignore[union-attr]


def takes_back(state: Heard, event: Event, said: list[Change]) -> Said:
    """What is cancelled, to find it anew when it is heard again."""
    if isinstance(event, TaskCancelled):
        for key, answer in sorted(state.answers.items()):
            if key[0] == event.task_hash:
                said += [Change(answer.finding, None)] if answer.finding else []
                state = answered(state, key, None)
        state = msgspec.structs.replace(state, here=tuple(k for k in state.here if k[0] != event.task_hash))
    return state, said


def alters(state: Heard, event: Event, said: list[Change]) -> Said:
    for key, answer, now in grown(state, event):
        said.append(Change(answer.finding, now))
        state = answered(state, key, msgspec.structs.replace(answer, finding=now))
    return state, said


def says_again(state: Heard, event: Event, said: list[Change]) -> Said:
    for key, answer, now in grown(state, event):
        said.append(Change(None, now))
        state = answered(state, key, msgspec.structs.replace(answer, finding=now))
    return state, said


def backdates(state: Heard, event: Event, said: list[Change]) -> Said:
    """Names a block below the one that its claims rest on."""
    for i, change in enumerate(said):
        if isinstance(change.after, Finding):
            number = max(0, change.after.block_number - 3)
            said[i] = Change(None, msgspec.structs.replace(change.after, block_number=number))
    return state, said


def drifts(state: Heard, event: Event, said: list[Change]) -> Said:
    """Names, of what only messages say, a block by where the chain is when it hears them."""
    blocks = [answer.block for answer in state.answers.values() if answer.block]
    if isinstance(event, Signed) and blocks:
        newest = max(blocks, key=lambda each: each.number)
        for key, answer in sorted(state.answers.items()):
            if len(answer.digests) > 1 and not answer.finding and not answer.block:
                finding = gossip(key, answer, newest)
                finding = msgspec.structs.replace(finding, block_number=max(0, newest.number - 2))
                said.append(Change(None, finding))
                state = answered(state, key, msgspec.structs.replace(answer, finding=finding))
    return state, said


class Unruly(Gossip):
    """A fold that does one thing that it may not."""

    def __init__(self, misdeed: Callable[[Heard, Event, list[Change]], Said]) -> None:
        self._misdeed = misdeed
        self.misdone = False

    def step(self, state: Heard, event: Event) -> tuple[Heard, Sequence[Change]]:
        state, said = super().step(state, event)
        state, told = self._misdeed(state, event, list(said))
        self.misdone = self.misdone or told != list(said)
        return state, told


def final_ones(fold: Unruly, seed: int) -> bool:
    """Whether a random log is folded to its end. No finding that has become final is ever put out again."""
    folded = calculus.begin(fold, NETWORK)
    final: set[bytes] = set()
    for offset, written in enumerate(random_log(random.Random(seed), 40)):
        try:
            folded, changes = calculus.apply(fold, folded, written.record, written.events, offset)
        except BrokenFold:
            return False
        found = [change.after for change in changes if isinstance(change.after, Finding)]
        assert final.isdisjoint(each.id for each in found), (seed, offset)
        final |= {each.id for each in found if each.status == FindingStatus.FINAL}
    return True


# Seeds of logs in which findings changed that were final, by what the fold did, before it was told.
CHANGED = {
    takes_back: (1, 10, 11, 12, 19),
    backdates: (10, 17, 24, 37, 39),
    drifts: (206, 303, 317, 495, 607, 661),
}


@pytest.mark.parametrize(
    ("misdeed", "seed"), [(misdeed, seed) for misdeed, seeds in CHANGED.items() for seed in seeds]
)
def test_findings_that_once_changed_when_they_were_final(misdeed: Any, seed: int) -> None:
    assert not final_ones(Unruly(misdeed), seed)


@pytest.mark.parametrize("misdeed", [takes_back, alters])
def test_a_fold_that_does_not_leave_a_finding_as_it_is_is_told_so_each_time(misdeed: Any) -> None:
    for seed in range(200):
        fold = Unruly(misdeed)
        assert final_ones(fold, seed) != fold.misdone, seed


@pytest.mark.parametrize("misdeed", [backdates, drifts])
def test_a_finding_that_does_not_rest_on_its_block_never_changes_once_final(misdeed: Any) -> None:
    told = sum(not final_ones(Unruly(misdeed), seed) for seed in range(300))
    assert told > 10


# --- what it is told --------------------------------------------------------------------------------

BLOCKS = [block(7, hash32("start"))]
for _ in range(5):
    BLOCKS.append(block(BLOCKS[-1].number + 1, BLOCKS[-1].hash))


def attested(number: int, *digests: int) -> list[ChainEvent]:
    return [
        Attested(At(number, i, 0), TASKS[0], OPERATORS[0], DIGESTS[digest], True)
        for i, digest in enumerate(digests)
    ]


def heard(digest: int) -> Signed:
    return Signed(None, TASKS[0], OPERATORS[0], DIGESTS[digest], G1(bytes(64)))


def told(misdeed: Any, *records: tuple[Any, Sequence[ChainEvent]]) -> None:
    fold = Unruly(misdeed)
    folded = calculus.begin(fold, NETWORK)
    for record, events in records:
        folded, _ = calculus.apply(fold, folded, record, events)


def new(first: int, last: int, *events: ChainEvent) -> tuple[New, Sequence[ChainEvent]]:
    return New(tuple(each for each in BLOCKS if first <= each.number <= last), tables(events)), events


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize(
    ("misdeed", "event", "done"),
    [
        (takes_back, TaskCancelled(At(9, 0, 0), TASKS[0]), "taken back"),
        (alters, *attested(9, 2), "altered"),
        (says_again, *attested(9, 2), "said again"),
    ],
    ids=["taken back", "altered", "said again"],
)
def test_a_finding_is_said_once_whether_it_is_final_or_not(
    misdeed: Any, event: ChainEvent, done: str, final: bool
) -> None:
    """So that a fold that is wrong in this is found so by its first test, and not by a chain's finality."""
    marked = Mark(BLOCKS[1].ref, BLOCKS[1].ref)
    # Said by a message above the block that it rests on, so that it is held when that is final.
    begun = [new(7, 8, *attested(8, 0)), (SignedBatch((heard(1),)), ())]
    with pytest.raises(
        BrokenFold, match=rf"^gossip: expected finding 0x\w+ to be said once; it is {done}\. Mend"
    ):
        told(misdeed, *begun, *([(marked, ())] if final else []), new(9, 9, event))


def test_a_final_finding_that_an_undo_takes_away_did_not_rest_on_its_block() -> None:
    undo = Undo((BLOCKS[4],), {})
    with pytest.raises(
        BrokenFold, match=r"^gossip: expected finding 0x\w+ to rest on blocks up to 8, as it says"
    ):
        told(
            backdates,
            new(7, 10),
            (Mark(BLOCKS[1].ref, BLOCKS[1].ref), ()),
            new(11, 11, *attested(11, 0, 1)),
            (undo, ()),
        )


def test_two_findings_of_one_block_have_two_ids() -> None:
    def twice(state: Heard, event: Event, said: list[Change]) -> Said:
        return state, said * 2 if isinstance(event, BlockClosed) else said

    with pytest.raises(BrokenFold, match="said again"):
        told(twice, new(7, 7, *attested(7, 0, 1)))

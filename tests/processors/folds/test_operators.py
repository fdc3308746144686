"""The Operators' rows, and what the registry keeps."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest

from nektar import checkpoint
from nektar.evidence import bls
from nektar.model import (
    G1,
    G2,
    Address,
    At,
    Hash32,
    KeyRotated,
    OperatorDeregistered,
    OperatorRegistered,
    OperatorSet,
    OperatorSetCommitted,
)
from nektar.networks.encoding import encode_members, operator_set
from nektar.operators import UNKNOWN_TWIN, hold, release, step
from nektar.rows import OperatorRow
from processors.folds.operators import Operators
from tests.processors.world import (
    NETWORK,
    OPERATORS,
    STRANGER,
    ZERO,
    Rows,
    history,
    key_of,
    put,
    registered,
    set_of,
)

FOLD = Operators()
ALICE, BOB = OPERATORS[:2]


def test_every_row_is_what_the_last_events_about_its_operator_say() -> None:
    for seed in range(60):
        state, rows, expected = FOLD.initial(NETWORK), Rows(), dict[bytes, OperatorRow]()
        newest: OperatorSet | None = None
        for event in history(random.Random(f"operators {seed}"), 20):
            state, changes = FOLD.step(state, event)
            put(rows, changes)
            match event:
                case OperatorRegistered(at=at, operator=operator, key=key):
                    expected[operator] = OperatorRow(operator, key, "local", 1, 0, False, at.block, 0)
                case KeyRotated(operator=operator, key=key):
                    expected[operator] = _with(expected[operator], bls_key=key)
                case OperatorDeregistered(operator=operator, effective=effective):
                    expected[operator] = _with(expected[operator], deregistered_block=effective)
                case OperatorSetCommitted(set=set_):
                    newest = set_
            stakes = {m.operator: m.stake[0].amount for m in newest.members} if newest else {}
            for operator, row in expected.items():
                expected[operator] = _with(row, stake=stakes.get(row.operator, 0), in_set=operator in stakes)
            assert rows == {("operators", operator): row for operator, row in expected.items()}


def _with(row: OperatorRow, **values: object) -> OperatorRow:
    return OperatorRow(**({name: getattr(row, name) for name in row.__struct_fields__} | values))


def test_a_set_is_kept_while_it_is_the_newest_or_held() -> None:
    state = FOLD.initial(NETWORK)
    one, two = set_of([(ALICE, 1)]), set_of([(BOB, 2)])
    state = hold(step(state, OperatorSetCommitted(At(1, 0, 0), one)), one.hash)
    state = step(state, OperatorSetCommitted(At(2, 0, 0), two))
    assert set(state.sets) == {one.hash, two.hash}
    assert set(release(state, one.hash).sets) == {two.hash}
    again = step(state, OperatorSetCommitted(At(3, 0, 0), one))
    assert (set(again.sets), again.newest) == ({one.hash}, one.hash)
    assert set(release(again, one.hash).sets) == {one.hash}


def test_a_set_knows_the_twins_of_the_keys_that_it_was_committed_with() -> None:
    state = step(FOLD.initial(NETWORK), registered(At(1, 0, 0), ALICE, 1))
    set_ = set_of([(ALICE, 1), (BOB, 2)])
    state = step(state, OperatorSetCommitted(At(1, 1, 0), set_))
    state = step(state, KeyRotated(At(2, 0, 0), ALICE, *key_of(3)))
    # Bob registered before the log begins: nothing can be verified with his key.
    assert [each.twin for each in state.held(set_.hash)] == [key_of(1)[1], UNKNOWN_TWIN]


def test_a_twin_that_is_another_keys_is_none() -> None:
    """Of a block whose receipts nobody had, a provider says which twin a key has."""
    forged = msgspec.structs.replace(registered(At(1, 0, 0), ALICE, 1), key_g2=key_of(3)[1])
    state = step(FOLD.initial(NETWORK), forged)
    state = step(state, registered(At(1, 1, 0), BOB, 2))
    set_ = set_of([(ALICE, 1), (BOB, 2)])
    state = step(state, OperatorSetCommitted(At(1, 2, 0), set_))
    assert [each.twin for each in state.held(set_.hash)] == [UNKNOWN_TWIN, key_of(2)[1]]
    # The next key that she brings is her own again.
    state = step(state, KeyRotated(At(2, 0, 0), ALICE, *key_of(4)))
    new = set_of([(ALICE, 4), (BOB, 2)])
    state = step(state, OperatorSetCommitted(At(2, 1, 0), new))
    assert [each.twin for each in state.held(new.hash)] == [key_of(4)[1], key_of(2)[1]]


def test_a_twin_is_checked_once_however_often_and_by_however_many_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked, keys_match = list[G1](), bls.keys_match
    monkeypatch.setattr(bls, "keys_match", lambda *of: checked.append(of[0]) or keys_match(*of))
    for _ in range(2):
        state = step(FOLD.initial(NETWORK), registered(At(1, 0, 0), ALICE, 1_234_567))
        set_ = set_of([(ALICE, 1_234_567)])
        state = step(state, OperatorSetCommitted(At(1, 1, 0), set_))
        assert {each.twin for _ in range(9) for each in state.held(set_.hash)} == {key_of(1_234_567)[1]}
    assert checked == [key_of(1_234_567)[0]]


def test_a_set_is_what_was_committed_however_many_have_its_keys() -> None:
    """Against one that keeps all of each set; and of keys there are those of the sets that are held."""
    shared = 0
    for seed in range(20):
        rng = random.Random(f"sets {seed}")
        state, sets = FOLD.initial(NETWORK), dict[Hash32, dict[Address, tuple[G1, G2]]]()
        known, holds, newest = dict[Address, tuple[G1, G2]](), list[Hash32](), ZERO
        for event in history(rng, 30):
            state = step(state, event)
            if isinstance(event, OperatorRegistered | KeyRotated):
                known[event.operator] = (event.key, event.key_g2)
            if isinstance(event, OperatorSetCommitted):
                newest = event.set.hash
                sets[newest] = {
                    m.operator: (
                        m.key,
                        known[m.operator][1] if known[m.operator][0] == m.key else UNKNOWN_TWIN,
                    )
                    for m in event.set.members
                }
            if newest in state.sets and rng.random() < 0.3:
                state = hold(state, newest)
                holds.append(newest)
            if holds and rng.random() < 0.2:
                state = release(state, holds.pop(rng.randrange(len(holds))))
            assert set(state.sets) == {*holds, newest} - {ZERO}
            users = Counter[tuple[Address, G1, G2]]()
            for set_hash in state.sets:
                members, expected = state.held(set_hash), sets[set_hash]
                assert (len(members), members.everyone) == (len(expected), (1 << len(expected)) - 1)
                assert [(m.operator, (m.key, m.twin)) for m in members] == [*expected.items()]
                for operator in (*OPERATORS, STRANGER):
                    place = [*expected].index(operator) if operator in expected else None
                    assert members.place(operator) == place
                users += Counter((m.operator, m.key, m.twin) for m in members)
                with pytest.raises(IndexError):
                    members[len(members)]
            assert {(k.operator, k.key, k.twin): k.sets for k in state.keys.values()} == users
            assert sorted(n for those in state.numbers.values() for n in those) == sorted(state.keys)
            shared += sum(count > 1 for count in users.values())
    assert shared > 50


@pytest.mark.parametrize("first", [0, 250, 65_530, (1 << 24) - 3])
def test_a_place_is_found_whatever_its_numbers_bytes_are(first: int) -> None:
    rng = random.Random(first)
    operators = [Address((i + 1).to_bytes(20)) for i in range(600)]
    state = msgspec.structs.replace(FOLD.initial(NETWORK), next=first)
    for _ in range(3):
        members = rng.sample(operators, 500)
        committed = operator_set(encode_members([(each, each.rjust(64, b"k"), 1) for each in members]))
        state = hold(step(state, OperatorSetCommitted(At(1, 0, 0), committed)), committed.hash)
        held = state.held(committed.hash)
        assert [held.place(each) for each in members] == [*range(500)]
        assert {held.place(each) for each in operators if each not in members} == {None}
    assert len(state.keys) == len({k.operator for k in state.keys.values()})


def test_a_set_more_is_four_bytes_a_member() -> None:
    members = [(Address((i + 1).to_bytes(20)), G1(bytes([7]) * 62 + i.to_bytes(2))) for i in range(1_000)]
    sizes, state = list[int](), FOLD.initial(NETWORK)
    for number in range(20):
        stakes = [(address, key, 10**18 + number) for address, key in members]
        committed = operator_set(encode_members(stakes))
        state = hold(step(state, OperatorSetCommitted(At(number, 0, 0), committed)), committed.hash)
        sizes.append(len(checkpoint.to_json(state)))
    assert len(state.sets) == 20
    assert sizes[-1] - sizes[0] < 19 * 8 * len(members)

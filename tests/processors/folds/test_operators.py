"""The Operators' rows, and what the registry keeps."""

from __future__ import annotations

import random

from nektar.model import (
    At,
    KeyRotated,
    OperatorDeregistered,
    OperatorRegistered,
    OperatorSet,
    OperatorSetCommitted,
)
from nektar.operators import UNKNOWN_TWIN, hold, release, step
from nektar.rows import OperatorRow
from processors.folds.operators import Operators
from tests.processors.world import NETWORK, OPERATORS, Rows, history, key_of, put, registered, set_of

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
    assert state.sets[set_.hash].twins == (key_of(1)[1], UNKNOWN_TWIN)

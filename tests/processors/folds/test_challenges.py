"""Responses that a real contract accepted and then did not: from its events to the rows."""

from __future__ import annotations

import pytest

from nektar import fold as calculus
from nektar.rows import DutyRow, TaskRow
from processors.folds.tasks import Tasks
from tests.devnet.contracts.conftest import TERMS, Refused, Site, Task, on_anvil
from tests.processors.real_chain import ADAPTER, log, network
from tests.processors.world import Rows, put

pytestmark = pytest.mark.real
WRONG, REFUTED_BY = (13, 7), 7  # of n = 91
SIGNERS = [1, 2, 3]


site = pytest.fixture(scope="module", name="site")(on_anvil)


def challenge(site: Site, task: Task) -> None:
    site.do(site.stranger, "task_manager", "challenge", task.fields, WRONG, REFUTED_BY)


def test_what_was_challenged_in_time_shows_it_whether_its_grace_was_over_or_not(site: Site) -> None:
    soon, late, never = (site.submit(n=91, window=window, grace=1) for window in (9, 8, 7))
    site.mine_to(soon.deadline - 3)
    for task in (soon, late, never):  # they are due in the same block, and these are the last up to it
        site.do(site.stranger, "task_manager", "respond", *site.response(task, WRONG, SIGNERS))
    challenge(site, soon)
    assert site.head <= soon.end
    last = {task.hash: site.ask("task_manager", "statusOf", task.hash)[1] for task in (soon, late, never)}
    site.mine_to(last[late.hash] - 1)
    challenge(site, late)
    assert site.head > late.end
    site.mine_to(last[never.hash])
    with pytest.raises(Refused, match="ChallengeWindowPassed"):
        challenge(site, never)

    record, rows = log(site), Rows()
    events = ADAPTER.events(network(site), record.tables)
    folded, changes = calculus.apply(Tasks(), calculus.begin(Tasks(), network(site)), record, events)
    put(rows, changes)
    found = {row.task_hash: row for row in rows.values() if isinstance(row, TaskRow)}
    assert {each: row.state for each, row in found.items()} == {
        soon.hash: "challenged",
        late.hash: "challenged",
        never.hash: "responded",
    }
    assert {each: row.challenge_deadline for each, row in found.items()} == last
    assert all(
        row.challenge_deadline == row.response_block + TERMS.challenge_window for row in found.values()
    )
    duties = [row.state for row in rows.values() if isinstance(row, DutyRow)]
    assert (duties.count("signed"), duties.count("missed")) == (9, 3)
    assert (len(folded.state.tasks), len(folded.state.accepted)) == (0, 0)

"""What becomes of a finding's evidence, version by version."""

from __future__ import annotations

import random

import msgspec

from nektar.rows import Change, DryRunRow, EvidenceRow, Finding
from processors import docket
from processors.docket import MOST_ATTEMPTS, Case
from tests.processors.told import finding


def run(block: int, accepted: bool, provider: str = "p") -> DryRunRow:
    return DryRunRow(b"\1" * 32, block, block.to_bytes(32), provider, accepted, 0, "" if accepted else "No()")


def at(status: str, block: int = 7) -> Finding:
    return msgspec.structs.replace(finding(1, status), block_number=block)


def test_a_case_is_opened_once_and_follows_how_sure_its_finding_is() -> None:
    case, changes = docket.heard(None, at("seen"))
    assert (case, changes) == (Case(at("seen")), [])
    case, _ = docket.made(case, b"{}")
    again, changes = docket.heard(case, at("final"))
    assert again == msgspec.structs.replace(case, finding=at("final"))
    assert changes == []


def test_a_finding_that_moves_to_other_blocks_is_a_new_case() -> None:
    case, _ = docket.made(Case(at("seen")), b"{}")
    again, _ = docket.heard(case, at("seen", block=8))
    assert again == Case(at("seen", block=8))


def test_the_bundle_of_a_finding_that_is_retracted_goes() -> None:
    case, (put,) = docket.made(Case(at("seen")), b"{}")
    assert isinstance(put.after, EvidenceRow)
    assert (put.after.bundle, put.after.size) == ("{}", 2)
    gone, (change,) = docket.heard(case, at("retracted"))
    assert gone is None
    assert isinstance(change.before, EvidenceRow)
    assert (change.before.id, change.after) == (put.after.id, None)
    assert docket.heard(Case(at("seen")), at("retracted")) == (None, [])


def test_a_case_of_which_nothing_can_be_shown_is_closed_with_the_reason_until_it_moves() -> None:
    case, (change,) = docket.unshowable(Case(at("seen")), "it is too large")
    row = change.after
    assert isinstance(row, EvidenceRow)
    assert (row.id, row.bundle, row.size, row.missing) == (at("seen").id, "", 0, "it is too large")
    assert case.closed
    assert docket.heard(case, at("safe"))[0] == msgspec.structs.replace(case, finding=at("safe"))
    assert docket.heard(case, at("seen", block=8))[0] == Case(at("seen", block=8))
    gone, (change,) = docket.heard(case, at("retracted"))
    assert (gone, change.after) == (None, None)


def test_a_case_whose_evidence_nobody_serves_says_so_and_stays_open_until_somebody_does() -> None:
    case, (change,) = docket.unserved(Case(at("seen")), "missing trie node")
    row = change.after
    assert isinstance(row, EvidenceRow)
    assert (row.id, row.bundle, row.missing) == (at("seen").id, "", "missing trie node")
    assert not docket.heard(case, at("final"))[0].settled  # type: ignore[union-attr]
    assert docket.read(docket.write(case)) == case
    assert docket.heard(case, at("seen", block=8))[0] == Case(at("seen", block=8))
    gone, (change,) = docket.heard(case, at("retracted"))
    assert (gone, change.after) == (None, None)
    case, (change,) = docket.made(case, b"{}")
    row = change.after
    assert isinstance(row, EvidenceRow)
    assert (case.missing, row.bundle, row.missing) == ("", "{}", "")


def test_it_is_closed_when_the_proof_is_accepted_and_settled_when_that_is_final() -> None:
    case, (change,) = docket.tried(Case(at("seen")), [run(7, True)], ["p"])
    assert change == Change(None, run(7, True))
    assert case.closed
    assert not case.settled
    case, _ = docket.heard(case, at("final"))
    assert case
    assert case.settled


def test_what_is_refused_is_tried_in_later_blocks_and_not_for_ever() -> None:
    case = Case(at("seen"))
    for block in range(7, 7 + MOST_ATTEMPTS):
        assert not case.closed
        case, _ = docket.tried(case, [run(block, False)], ["p"])
        assert case.refused["p"][-1] == block
    assert case.closed


def test_a_refusal_beside_an_acceptance_counts_for_nothing() -> None:
    case, changes = docket.tried(Case(at("seen")), [run(7, False, "p"), run(7, True, "q")], ["p", "q"])
    assert case.closed
    assert changes == [Change(None, run(7, True, "q"))]


def test_a_case_is_open_until_each_provider_has_refused_its_proof_often_enough() -> None:
    """However fast one of them does, and whatever it calls its newest block."""
    case = Case(at("seen"))
    for block in range(10**9, 10**9 + MOST_ATTEMPTS):
        case, _ = docket.tried(case, [run(block, False, "p")], ["p", "q"])
    for block in range(8, 8 + MOST_ATTEMPTS):
        assert not case.closed
        case, _ = docket.tried(case, [run(block, False, "q")], ["p", "q"])
    assert case.closed


def test_an_attempt_names_all_that_refused_it_on_the_state_of_a_block() -> None:
    runs = [run(7, False, "p"), run(8, False, "q"), run(7, False, "r")]
    _, changes = docket.tried(Case(at("seen")), runs, ["p", "q", "r"])
    assert changes == [Change(None, run(7, False, "p, r")), Change(None, run(8, False, "q"))]


def test_a_case_that_is_kept_is_what_it_was_and_without_its_bundle_once_it_is_closed() -> None:
    rng = random.Random("docket")
    for _ in range(50):
        refused = {f"p{i}": tuple(range(rng.randrange(9))) for i in range(rng.randrange(3))}
        case = Case(at(rng.choice(["seen", "safe"])), rng.choice(["", '{"a":"ü"}']), refused=refused)
        assert docket.read(docket.write(case)) == case
        closed = docket.without_dispute(case)
        assert docket.read(docket.write(closed)) == msgspec.structs.replace(closed, bundle="")

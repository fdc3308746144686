"""What a demo counts as proved, beside what only looks so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cli import proofs
from cli.proofs import Provable, proved
from nektar.config import Config, NetworkConfig, Provider
from nektar.evidence.bundle import write
from nektar.evidence.verify import verify
from processors.conditions.equivocation import Equivocation
from tests.nektar.evidence.example import example
from tests.nektar.evidence.small_chain import CHAIN_ID, CONTRACTS, READER

BUNDLE = example()
VERDICT = verify(BUNDLE, READER, lambda name: Equivocation().holds)
(BLOCK,) = VERDICT.canonical
ID, HASH = f"0x{VERDICT.id.hex()}", f"0x{BLOCK.hash.hex()}"
OTHER = "0x" + "ab" * 32
CONFIG = Config(
    {"p": Provider("http://localhost")},
    (
        NetworkConfig(
            "home", CHAIN_ID, ("p",), {name: "0x" + address.hex() for name, address in CONTRACTS.items()}
        ),
    ),
)

AT = {"block_number": BLOCK.number, "block_hash": HASH}
STORE: Mapping[str, list[dict[str, Any]]] = {
    "findings": [{"id": ID, "condition": "equivocation", **AT}],
    "dry_runs": [{"id": ID, **AT}],
    "evidence": [{"id": ID, "network": "home", "bundle": write(BUNDLE).decode(), **AT}],
    "blocks": [{"network": "home", "number": BLOCK.number, "hash": HASH}],
}
ALL = {"found": 1, "dry_run_accepted": 1, "verified_offline": 1}


def counted(store: Mapping[str, list[dict[str, Any]]]) -> Provable:
    def ask(statement: str) -> list[dict[str, Any]]:
        return store[statement.partition(" FROM ")[2].partition(" ")[0]]

    return proved(CONFIG, ask, lambda: True)


def altered(table: str, **cells: Any) -> dict[str, list[dict[str, Any]]]:
    return {**STORE, table: [row | cells for row in STORE[table]]}


def test_what_is_proved_is_counted() -> None:
    assert counted(STORE) == Provable(ALL, "")
    assert counted(altered("dry_runs", block_number=BLOCK.number + 1, block_hash=OTHER)) == Provable(ALL, "")


@pytest.mark.parametrize(
    ("store", "what", "why"),
    [
        (
            altered("blocks", hash=OTHER),
            "verified_offline",
            f"rests on block 100, {HASH}",
        ),
        (altered("blocks", number=BLOCK.number + 1), "verified_offline", "rests on"),
        (altered("blocks", network="away"), "verified_offline", "rests on"),
        (altered("evidence", bundle=""), "verified_offline", "expected canonical JSON"),
        (altered("evidence", bundle=write(BUNDLE).decode() + " "), "verified_offline", "reads and writes"),
        (altered("dry_runs", block_hash=OTHER), "dry_run_accepted", "not proved"),
        (altered("dry_runs", block_number=BLOCK.number - 1), "dry_run_accepted", "not proved"),
        (altered("dry_runs", id=OTHER), "dry_run_accepted", "not proved"),
    ],
)
def test_what_is_not_is_told(store: Mapping[str, list[dict[str, Any]]], what: str, why: str) -> None:
    counts, wrong = counted(store)
    assert counts == ALL | {what: 0}
    assert why in wrong


def test_evidence_for_another_finding_is_none() -> None:
    store = altered("evidence", id=OTHER)
    store["findings"] = [*STORE["findings"], {"id": OTHER, "condition": "equivocation", **AT}]
    store["dry_runs"] = [*STORE["dry_runs"], {"id": OTHER, **AT}]
    counts, wrong = counted(store)
    assert counts == {"found": 2, "dry_run_accepted": 2, "verified_offline": 0}
    assert "another finding" in wrong


def test_evidence_of_a_condition_without_a_dispute_is_no_less_true() -> None:
    store = altered("findings", condition="wrongful_slashing")
    assert counted(store) == Provable(dict.fromkeys(ALL, 0), "")
    store["blocks"] = []
    counts, wrong = counted(store)
    assert counts == dict.fromkeys(ALL, 0)
    assert "rests on" in wrong


def test_what_is_of_a_finding_that_is_retracted_says_nothing() -> None:
    store = {**STORE, "findings": [], "blocks": []}
    assert counted(store) == Provable(dict.fromkeys(ALL, 0), "")


def test_it_waits_for_the_proofs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "LOOK_SECONDS", 0.0)
    for waits_for in ("dry_runs", "evidence"):
        looks = iter([*[[]] * 3, *[STORE[waits_for]] * 2])

        def ask(statement: str) -> list[dict[str, Any]]:
            table = statement.partition(" FROM ")[2].partition(" ")[0]
            return next(looks) if table == waits_for else STORE[table]  # noqa: B023

        assert proved(CONFIG, ask, lambda: False) == Provable(ALL, "")

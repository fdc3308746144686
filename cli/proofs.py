"""Whether a demo's findings are proved: each has a bundle that verifies offline, and a proof that the
slashing contract has accepted in a dry run. Counted over all that stand, of conditions that it can prove.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cli.settings import conditions
from nektar.config import Config
from nektar.errors import NektarError
from nektar.evidence import bundle as bundles
from nektar.evidence.reader import reader_of
from nektar.evidence.verify import verify

LOOK_SECONDS = 0.1
_FOUND = "SELECT id, condition FROM findings WHERE status != 'retracted'"
_ACCEPTED = "SELECT DISTINCT id FROM dry_runs WHERE accepted"
_EVIDENCE = "SELECT id, network, bundle FROM evidence"

Ask = Callable[[str], Sequence[dict[str, Any]]]


class Provable(NamedTuple):
    """What came of the findings' proofs."""

    counts: dict[str, int]
    wrong: str  # empty: all are proved


def proved(config: Config, ask: Ask, gives_up: Callable[[], bool]) -> Provable:
    """Wait until every finding's proof is accepted, or nobody waits any more; then verify each bundle."""
    known = conditions()
    while True:
        found = {row["id"] for row in ask(_FOUND) if known[row["condition"]].dispute}
        accepted = {row["id"] for row in ask(_ACCEPTED)}
        if found <= accepted or gives_up():
            break
        time.sleep(LOOK_SECONDS)
    readers = {network.name: reader_of(network) for network in config.networks}
    verified, why = set(), ""
    for row in ask(_EVIDENCE):
        try:
            bundle = bundles.read(row["bundle"].encode())
            verdict = verify(bundle, readers[row["network"]], lambda name: known[name].holds)
        except NektarError as error:
            why = f"{row['id']}: {error}"
            continue
        if f"0x{verdict.id.hex()}" == row["id"]:
            verified.add(row["id"])
    counts = {
        "found": len(found),
        "dry_run_accepted": len(found & accepted),
        "verified_offline": len(found & verified),
    }
    if len(set(counts.values())) == 1:
        return Provable(counts, "")
    missing = sorted(found - accepted | found - verified)
    return Provable(counts, why or f"not proved: {', '.join(missing[:5])} of {counts}")

"""Whether a demo's findings are proved: each has a bundle that verifies offline, on blocks that the store
has, and a proof that the slashing contract has accepted in a dry run, on its finding's block or a later one.
Counted over all that stand, of conditions that it can prove; of the others, evidence must be no less true.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NamedTuple

from cli.settings import conditions
from nektar.config import Config
from nektar.errors import NektarError
from nektar.evidence import bundle as bundles
from nektar.evidence.reader import reader_of
from nektar.evidence.verify import NotProved, Reader, verify

LOOK_SECONDS = 0.1
_FOUND = "SELECT id, condition, block_number, block_hash FROM findings WHERE status != 'retracted'"
_ACCEPTED = "SELECT id, block_number, block_hash FROM dry_runs WHERE accepted"
_MADE = "SELECT id, block_number, block_hash FROM evidence"
_EVIDENCE = "SELECT id, network, bundle FROM evidence"
_BLOCKS = "SELECT network, number, hash FROM blocks"

Row = Mapping[str, Any]
Ask = Callable[[str], Sequence[Row]]


class Provable(NamedTuple):
    """What came of the findings' proofs."""

    counts: dict[str, int]
    wrong: str  # empty: all are proved


def proved(config: Config, ask: Ask, gives_up: Callable[[], bool]) -> Provable:
    """Wait until every finding has its evidence, and its proof is accepted, or nobody waits any more; then
    verify each bundle."""
    known = conditions()
    while True:
        standing = {row["id"]: row for row in ask(_FOUND)}
        found = {id_ for id_, row in standing.items() if known[row["condition"]].dispute}
        accepted = {row["id"] for row in ask(_ACCEPTED) if _is_of(row, standing)}
        made = {row["id"] for row in ask(_MADE) if _is_of(row, standing)}
        if (found <= accepted and standing.keys() <= made) or gives_up():
            break
        time.sleep(LOOK_SECONDS)
    readers = {network.name: reader_of(network) for network in config.networks}
    blocks = {(row["network"], row["number"], row["hash"]) for row in ask(_BLOCKS)}
    verified, why = set(), ""
    for row in ask(_EVIDENCE):
        try:
            _check(row, readers[row["network"]], blocks)
        except NektarError as error:
            why = f"{row['id']}: {error}" if row["id"] in standing else why
        else:
            verified.add(row["id"])
    counts = {
        "found": len(found),
        "dry_run_accepted": len(found & accepted),
        "verified_offline": len(found & verified),
    }
    if len(set(counts.values())) == 1:
        return Provable(counts, why)
    missing = sorted(found - (accepted & verified))
    return Provable(counts, why or f"not proved: {', '.join(missing[:5])} of {counts}")


def _is_of(row: Row, standing: Mapping[str, Row]) -> bool:
    """Whether a row is of its finding's block, as that stands, or of a later one."""
    if (finding := standing.get(row["id"])) is None:
        return False
    place = row["block_number"], row["block_hash"]
    at = finding["block_number"], finding["block_hash"]
    return place == at or place[0] > at[0]


def _check(row: Row, reader: Reader, blocks: Set[tuple[str, int, str]]) -> None:
    """That a bundle proves the finding that it is for, on the Network's blocks. Raises NotProved,
    NotCanonical."""
    known = conditions()
    verdict = verify(bundles.read(row["bundle"].encode()), reader, lambda name: known[name].holds)
    if f"0x{verdict.id.hex()}" != row["id"]:
        raise NotProved(f"it proves another finding, 0x{verdict.id.hex()}")
    for block in verdict.canonical:
        if (row["network"], block.number, f"0x{block.hash.hex()}") not in blocks:
            raise NotProved(f"it rests on block {block.number}, 0x{block.hash.hex()}, which is not stored")

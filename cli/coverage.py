"""`nektar coverage`: which blocks the store has, how well each was checked, what is missing, and who lied."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cli.settings import data_config
from cli.show import rows
from nektar.errors import NektarError
from nektar.store.client import records
from nektar.store.coverage import COVERED, DISSENT, RESTS_ON, Lies, Stretch, below_findings, with_gaps


class Uncovered(NektarError):
    """Findings rest on blocks that the store does not have."""


def run(config_path: Path | None, directory: Path | None, as_json: bool) -> None:
    """All stretches of all Networks. Raises Uncovered where findings rest on a gap."""
    config = data_config(config_path, directory)
    stretches = with_gaps(msgspec.convert(records(config, COVERED), list[Stretch], strict=False))
    shown = [{**msgspec.structs.asdict(each), "blocks": each.last - each.first + 1} for each in stretches]
    columns = ["network", "kind", "first", "last", "blocks", "level", "provider", "anchor", "filter"]
    rows(shown, columns, as_json=as_json, title="coverage")
    if lies := msgspec.convert(records(config, DISSENT), list[Lies], strict=False):
        told = [msgspec.structs.asdict(each) for each in lies]
        columns = ["network", "provider", "lie", "lies", "first", "last", "why"]
        rows(told, columns, as_json=as_json, title="dissent")
    if gaps := below_findings(stretches, records(config, RESTS_ON)):
        first = gaps[0]
        raise Uncovered(
            f"coverage: findings of {first.network} rest on blocks after {first.first} to {first.last}, "
            "which nobody served: what did not happen there is not known; begin a new generation with a "
            "provider that has them"
        )

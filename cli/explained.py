"""What a demo's diagnoses say beside the causes that its plan holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from devnet.plan import INJECTED, Injected


def explained(injected: Iterable[Injected], found: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Cause → how many duties the plan holds of it (`injected`), and of how many of these it was found
    (`right`), another one was (`wrong`), or none could be (`none_reported`), as the operator is muted: what
    it signed is found all the same."""
    said = {(fact["task"], fact["operator"]): fact["value"] for fact in found if fact["kind"] == "cause"}
    counts = {cause: dict.fromkeys(("injected", "right", "wrong", "none_reported"), 0) for cause in INJECTED}
    for each in injected:
        cause = said.get((each.task, each.operator))
        if each.muted and cause == "none_reported":
            outcome = "none_reported"
        else:
            outcome = "right" if cause == each.cause else "wrong"
        counts[each.cause]["injected"] += 1
        counts[each.cause][outcome] += 1
    return counts

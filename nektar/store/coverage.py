"""What of the chain a store has, and how well it was checked: by `coverage` of what was read in bulk, and by
`blocks` of a Network's log. A negative claim is worth as much as this."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

# Consecutive blocks that were checked alike, as one row, and blocks that nobody served. What was read in bulk
# twice is as good as the better of both. Of calls a log takes all, or those of blocks that hold an event.
COVERED = """
SELECT network, kind, level, provider, anchor, first, last, lower(substring(hex(filter), 1, 8)) AS filter
FROM coverage
UNION ALL
SELECT network, kind, level, provider, anchor, first, last, '' AS filter
FROM (
  SELECT network, generation, level, provider, anchor, min(number) AS first, max(number) AS last
  FROM (
    SELECT network, generation, level, provider, anchor, number, number - row_number() OVER (
      PARTITION BY network, generation, level, provider, anchor ORDER BY number
    ) AS island
    FROM blocks
  )
  GROUP BY network, generation, level, provider, anchor, island
  UNION ALL
  SELECT network, generation, 'gap' AS level, '' AS provider, '' AS anchor, first, last FROM gaps
) AS of_log
INNER JOIN (
  SELECT network, generation, arrayJoin(
    multiIf(calls = 'all', ['logs', 'calls'], calls = 'with_events', ['logs', 'calls with events'], ['logs'])
  ) AS kind
  FROM generations
) AS taken USING (network, generation)
ORDER BY network, kind, filter, first, last
"""
# The newest block of each Network that a finding rests on.
RESTS_ON = "SELECT network, max(block_number) AS block FROM findings GROUP BY network"

# What providers said that can't be, and of the newest of each kind why.
DISSENT = """
SELECT network, provider, lie, count() AS lies, min(block_number) AS first, max(block_number) AS last,
       argMax(why, (found, block_number)) AS why
FROM dissent GROUP BY network, provider, lie ORDER BY network, provider, lie
"""

GAP = "gap"


class Lies(msgspec.Struct, frozen=True):
    """How often a provider told one kind of lie, and from which block to which."""

    network: str
    provider: str
    lie: str
    lies: int
    first: int
    last: int
    why: str = ""


class Stretch(msgspec.Struct, frozen=True):
    """Consecutive blocks of a kind, all checked alike; of level `gap` where there are none. `filter` tells
    what was read in bulk of some contracts from what was of others; a Network's own blocks have none."""

    network: str
    kind: str
    level: str
    provider: str
    anchor: str
    first: int
    last: int
    filter: str = ""


def with_gaps(stretches: Iterable[Stretch]) -> list[Stretch]:
    """The stretches in order, with those between them that nobody has."""
    found: list[Stretch] = []
    reached: dict[tuple[str, str, str], int] = {}
    for each in sorted(stretches, key=lambda s: (s.network, s.kind, s.filter, s.first, s.last)):
        key = each.network, each.kind, each.filter
        if (last := reached.get(key)) is not None and each.first > last + 1:
            found.append(Stretch(each.network, each.kind, GAP, "", "", last + 1, each.first - 1, each.filter))
        reached[key] = max(reached.get(key, each.last), each.last)
        found.append(each)
    return found


def below_findings(stretches: Sequence[Stretch], rests_on: Iterable[dict[str, Any]]) -> list[Stretch]:
    """The gaps below a block that a finding of their Network rests on; none does on what was read in bulk."""
    newest = {each["network"]: int(each["block"]) for each in rests_on}
    return [s for s in stretches if s.level == GAP and not s.filter and s.first <= newest.get(s.network, -1)]

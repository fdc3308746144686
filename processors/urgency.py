"""What comes first: findings of which people must hear while they can still act. A slashing can be overruled
for some blocks alone, and an incident may bring thousands of findings on which nothing depends so soon.
"""

from __future__ import annotations

FIRST = frozenset({"wrongful_slashing"})


def is_first(condition: str) -> bool:
    """Whether findings of this condition are told and proved before others that have waited for longer."""
    return condition in FIRST

"""Members' stakes, in all sets that Tasks hold: a registry knows those in the newest set alone."""

from __future__ import annotations

from immutables import Map

from nektar.model import Event, Hash32, OperatorSetCommitted
from nektar.operators import Registry

Stakes = Map[Hash32, tuple[int, ...]]
"""Of the sets that a registry holds, by place."""


def follow(stakes: Stakes, event: Event, before: Registry, after: Registry) -> Stakes:
    """Those in a set that is committed, too; those in sets that have gone no more."""
    if after.sets is before.sets:
        return stakes
    if isinstance(event, OperatorSetCommitted):
        stakes = stakes.set(event.set.hash, after.stakes)
    for set_hash in [each for each in stakes if each not in after.sets]:
        stakes = stakes.delete(set_hash)
    return stakes

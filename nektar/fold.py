"""The fold: state as a pure function of a log, with undo, finality and replay. No bus, no clock, no I/O.

A `Fold` is what a processor's author writes; the calculus here is what makes it survive reorgs:

* after each block above finality it keeps a snapshot (states are immutable and share structure), and the
  changes put out for that block;
* an `Undo` goes back to the snapshot before, and puts those changes out turned round, newest first.
  `Signed` messages are not in blocks: those that came after that snapshot are applied again, in order;
* a `Mark` moves findings `seen → safe → final` (back to `seen` where safe moves below them), drops the
  snapshots that can't be needed any more, and says which state a checkpoint may hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from nektar.model import Change, Event, Network

State = TypeVar("State")


class Fold(Protocol[State]):
    """A processor's meaning. Its state is immutable (`immutables.Map`, frozen structs) and JSON-able by
    msgspec, so that it can be checkpointed."""

    name: str
    """Name of the processor: its group on the bus, its checkpoints' key."""
    state_type: type[State]

    def initial(self, network: Network) -> State:
        """The state before the first block."""

    def step(self, state: State, event: Event) -> tuple[State, Sequence[Change]]:
        """The state after `event`, and what changed. Pure: time is the block's."""

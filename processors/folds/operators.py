"""The Operators of a Network as rows: identity, key, declared facts, stake in the newest OperatorSet."""

from __future__ import annotations

from nektar import operators
from nektar.model import (
    Address,
    Event,
    KeyRotated,
    Network,
    OperatorDeregistered,
    OperatorRegistered,
    OperatorSetCommitted,
)
from nektar.operators import Registry
from nektar.rows import Change, OperatorRow


class Operators:
    """The fold `operators`: puts out OperatorRow. An Operator that left keeps its row."""

    name = "operators"
    state_type = Registry

    def initial(self, network: Network) -> Registry:
        """Nobody."""
        return Registry()

    def step(self, state: Registry, event: Event) -> tuple[Registry, list[Change]]:
        """The registry after the event, and the rows of those whom it concerns."""
        match event:
            case OperatorRegistered() | KeyRotated() | OperatorDeregistered():
                concerned = {event.operator}
            case OperatorSetCommitted():
                concerned = {member.operator for member in event.set.members}
                if (former := state.newest_set) is not None:
                    concerned.update(member.operator for member in former)
            case _:
                return state, []
        after = operators.step(state, event)
        changes = [Change(_row(state, address), _row(after, address)) for address in sorted(concerned)]
        return after, [change for change in changes if change.before != change.after]


def _row(registry: Registry, address: Address) -> OperatorRow | None:
    known = registry.operators.get(address)
    if known is None:
        return None
    newest = registry.newest_set
    place = None if newest is None else newest.place(address)
    return OperatorRow(
        operator=address,
        bls_key=known.key,
        region=known.region,
        validators=known.validators,
        stake=0 if place is None else registry.stakes[place],
        in_set=place is not None,
        registered_block=known.registered,
        deregistered_block=known.deregistered,
    )

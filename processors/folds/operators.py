"""The Operators of a Network as rows: identity, key, declared facts, stake in the newest OperatorSet."""

from __future__ import annotations

from nektar import operators
from nektar.model import Address, Change, Event, Network, OperatorRow, OperatorSetCommitted
from nektar.operators import Registry


class Operators:
    """The fold `operators`: puts out OperatorRow."""

    name = "operators"
    state_type = Registry

    def initial(self, network: Network) -> Registry:
        """Nobody."""
        return Registry()

    def step(self, state: Registry, event: Event) -> tuple[Registry, list[Change]]:
        """The registry after the event, and the rows of those whom it concerns."""
        after = operators.step(state, event)
        if after is state:
            return state, []
        if isinstance(event, OperatorSetCommitted):
            concerned = sorted(set(_members(state)) | set(_members(after)) | set(after.operators))
        else:
            concerned = [a for a in after.operators if after.operators[a] != state.operators.get(a)]
        before, now = _members(state), _members(after)
        changes = [Change(_row(state, before, a), _row(after, now, a)) for a in concerned]
        return after, [c for c in changes if c.before != c.after]


def _members(registry: Registry) -> dict[Address, int]:
    """Operator → stake in the newest set."""
    if registry.newest is None:
        return {}
    return {m.operator: sum(p.amount for p in m.stake) for m in registry.newest.members}


def _row(registry: Registry, members: dict[Address, int], address: Address) -> OperatorRow | None:
    known = registry.operators.get(address)
    if known is None:
        return None
    return OperatorRow(
        operator=address,
        bls_key=known.key,
        region=known.region,
        validators=known.validators,
        stake=members.get(address, 0),
        in_set=address in members,
        registered_block=known.registered,
        deregistered_block=known.deregistered,
    )

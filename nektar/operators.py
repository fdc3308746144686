"""The Operators of a Network as its registry's events tell: who they are, their keys, the newest OperatorSet.

A small pure fold of its own. Ledgers and conditions keep a `Registry` in their state; so does whoever has to
know whom a key belongs to.
"""

from __future__ import annotations

import msgspec
from immutables import Map

from nektar.model import (
    G1,
    G2,
    Address,
    Event,
    KeyRotated,
    OperatorDeregistered,
    OperatorRegistered,
    OperatorSet,
    OperatorSetCommitted,
)


class Operator(msgspec.Struct, frozen=True):
    """One Operator as the registry knows it."""

    key: G1
    key_g2: G2
    region: str
    validators: int
    registered: int  # block
    deregistered: int = 0  # first block without duties for new Tasks; 0: it is registered


class Registry(msgspec.Struct, frozen=True):
    """What the registry's events add up to. A Task commits to the newest set."""

    operators: Map[Address, Operator] = Map()
    twins: Map[G1, G2] = Map()  # every key that was ever registered, with its twin in G2
    newest: OperatorSet | None = None

    def left_by(self, operator: Address, block: int) -> bool:
        """Whether the Operator's deregistration has taken effect by this block."""
        known = self.operators.get(operator)
        return known is not None and 0 < known.deregistered <= block


def step(registry: Registry, event: Event) -> Registry:
    """The registry after the event; the same object where the event is none of its business."""
    replace = msgspec.structs.replace
    match event:
        case OperatorRegistered():
            operator = Operator(event.key, event.key_g2, event.region, event.validators, event.at.block)
            return replace(
                registry,
                operators=registry.operators.set(event.operator, operator),
                twins=registry.twins.set(event.key, event.key_g2),
            )
        case KeyRotated():
            known = registry.operators.get(event.operator)
            if known is None:  # registered before the log begins
                known = Operator(event.key, event.key_g2, "", 0, 0)
            operator = replace(known, key=event.key, key_g2=event.key_g2)
            return replace(
                registry,
                operators=registry.operators.set(event.operator, operator),
                twins=registry.twins.set(event.key, event.key_g2),
            )
        case OperatorDeregistered():
            known = registry.operators.get(event.operator)
            if known is None:
                return registry
            operator = replace(known, deregistered=event.effective)
            return replace(registry, operators=registry.operators.set(event.operator, operator))
        case OperatorSetCommitted():
            return replace(registry, newest=event.set)
    return registry

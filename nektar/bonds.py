"""What is behind each Operator, as the events of the contract that keeps collateral tell, and whether so much
was asked back that it has too little: `Delegation.isUnderbonded`, followed exactly.

A small pure fold of its own, which conditions keep in their state. What it says rests on what did not happen
too, so it forgets all with a block that is not proved, or that nobody could serve. What an Operator has is
known again, or at first, from the next OperatorSet that is committed with it: that names its stake, which is
enough. How much of it is waiting to be taken back is known where the log tells all since the contract came to
be; where it is not, a slashing leaves unknown what is left of the stake.

Grows with the addresses behind which something is (some 100 bytes each), and with what was asked back and not
taken yet: either costs somebody collateral and a transaction.
"""

from __future__ import annotations

import msgspec
from immutables import Map

from nektar.model import (
    Address,
    BlockClosed,
    CollateralOpened,
    Delegated,
    Event,
    GapPassed,
    Level,
    OperatorSet,
    OperatorSetCommitted,
    Slashed,
    WithdrawalRequested,
    Withdrawn,
)


class Bond(msgspec.Struct, frozen=True, array_like=True):
    """What is behind an Operator."""

    stake: int
    waiting: int | None  # asked back and still here; None: not known
    underbonded: bool = False  # below the minimum, for so much was asked back


NOTHING = Bond(0, 0)


class Bonds(msgspec.Struct, frozen=True):
    """What is known."""

    minimum: int  # the least stake of a member of a set
    known: Map[Address, Bond] = Map()
    withdrawals: Map[int, Address] = Map()  # asked for, and not taken; of those whose waiting is known
    whole: bool = False  # the log tells all since the contract came to be: behind all others is nothing

    def of(self, operator: Address) -> Bond | None:
        """None where it is not known."""
        return self.known.get(operator, NOTHING if self.whole else None)


def step(bonds: Bonds, event: Event) -> Bonds:
    """What is known after the event; the same object where the event is none of its business."""
    match event:
        case CollateralOpened():
            return Bonds(bonds.minimum, whole=True)
        case Delegated():
            return _delegated(bonds, event)
        case WithdrawalRequested():
            return _asked_back(bonds, event)
        case Withdrawn():
            return _taken_back(bonds, event)
        case Slashed():
            return _slashed(bonds, event)
        case OperatorSetCommitted():
            return _committed(bonds, event.set)
        case BlockClosed(block) if block.level is not Level.PROVED:
            return Bonds(bonds.minimum)
        case GapPassed():
            return Bonds(bonds.minimum)
    return bonds


def _delegated(bonds: Bonds, event: Delegated) -> Bonds:
    if (bond := bonds.of(event.operator)) is None:
        return bonds
    stake = bond.stake + event.amount
    return _with(bonds, event.operator, Bond(stake, bond.waiting, bond.underbonded and stake < bonds.minimum))


def _asked_back(bonds: Bonds, event: WithdrawalRequested) -> Bonds:
    if (bond := bonds.of(event.operator)) is None:
        return bonds
    stake = bond.stake - event.amount
    fell = stake < bonds.minimum <= bond.stake
    waiting = bond.waiting
    if waiting is not None:
        waiting += event.amount
        withdrawals = bonds.withdrawals.set(event.withdrawal, event.operator)
        bonds = msgspec.structs.replace(bonds, withdrawals=withdrawals)
    return _with(bonds, event.operator, Bond(stake, waiting, bond.underbonded or fell))


def _taken_back(bonds: Bonds, event: Withdrawn) -> Bonds:
    if (operator := bonds.withdrawals.get(event.withdrawal)) is None:
        return bonds
    bonds = msgspec.structs.replace(bonds, withdrawals=bonds.withdrawals.delete(event.withdrawal))
    bond = bonds.of(operator)
    if bond is None or bond.waiting is None:
        return bonds
    return _with(bonds, operator, Bond(bond.stake, bond.waiting - event.amount, bond.underbonded))


def _slashed(bonds: Bonds, event: Slashed) -> Bonds:
    """As large a part of what waits as of all, rounded down; the rest of the stake (`Delegation.slash`)."""
    bond = bonds.of(event.operator)
    if bond is None or not event.amount:
        return bonds
    if bond.waiting is None:
        return msgspec.structs.replace(bonds, known=bonds.known.delete(event.operator))
    if event.amount > (total := bond.stake + bond.waiting):
        return Bonds(bonds.minimum)
    waiting = bond.waiting * event.amount // total
    stake = bond.stake - (event.amount - waiting)
    return _with(bonds, event.operator, Bond(stake, bond.waiting - waiting, bond.underbonded))


def _committed(bonds: Bonds, committed: OperatorSet) -> Bonds:
    """Members have the minimum at the commitment, so none is under it."""
    for member in committed.members:
        if bonds.of(member.operator) is None:
            stake = sum(position.amount for position in member.stake)
            bonds = _with(bonds, member.operator, Bond(stake, None))
    return bonds


def _with(bonds: Bonds, operator: Address, bond: Bond) -> Bonds:
    """Less than nothing is what somebody says of a block whose receipts nobody had: then all is in doubt."""
    if bond.stake < 0 or (bond.waiting or 0) < 0:
        return Bonds(bonds.minimum)
    if bonds.whole and bond == NOTHING:
        known = bonds.known.delete(operator) if operator in bonds.known else bonds.known
    else:
        known = bonds.known.set(operator, bond)
    return msgspec.structs.replace(bonds, known=known)

"""A toy adapter: what Symbiotic's events mean in the model's terms (docs/MODEL.md), for tests alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nektar.model import (
    Address,
    At,
    ChainEvent,
    Deadline,
    Hash32,
    Moment,
    Network,
    Position,
    SlashingExecuted,
    SlashingRequested,
    SlashingVetoed,
)
from nektar.networks.adapter import kind
from nektar.networks.encoding import word
from tests.nektar.foreign.chain import ABIS, Rows


class Symbiotic:
    """One subnetwork: its part of the slashers of vaults, which serve many."""

    name = "symbiotic"
    selector = frozenset({"subnetwork"})
    terms: frozenset[str] = frozenset()

    def abi(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        return ABIS["symbiotic"]

    def events(self, network: Network, tables: Mapping[str, bytes]) -> Sequence[ChainEvent]:
        """Vetoes and executions of other subnetworks' requests are among them: the log does not say whose
        they are, and whoever folds has no such request."""
        addresses: dict[str, list[Address]] = {}
        for name, address in network.contracts.items():
            addresses.setdefault(kind(name), []).append(address)
        rows = Rows("symbiotic", addresses, tables)
        subnetwork = bytes.fromhex(network.selector["subnetwork"][2:])
        found: list[ChainEvent] = []
        for row in rows("veto_slasher", "RequestSlash"):
            if row["subnetwork"] == subnetwork:
                requested = SlashingRequested(
                    at=_at(row),
                    slasher=Address(row["address"]),
                    request=Hash32(word(row["slashIndex"])),
                    operator=Address(row["operator"]),
                    penalty=_taken(row, "slashAmount"),
                    veto_deadline=Deadline("timestamp", row["vetoDeadline"] - 1),  # exclusive there
                    captured=Moment("timestamp", row["captureTimestamp"]),
                )
                found.append(requested)
        for row in rows("veto_slasher", "VetoSlash"):
            found.append(SlashingVetoed(_at(row), Address(row["address"]), Hash32(word(row["slashIndex"]))))
        for row in rows("veto_slasher", "ExecuteSlash"):
            slasher, request = Address(row["address"]), Hash32(word(row["slashIndex"]))
            found.append(SlashingExecuted(_at(row), slasher, request, None, _taken(row, "slashedAmount")))
        for row in rows("slasher", "Slash"):
            if row["subnetwork"] == subnetwork:
                captured = Moment("timestamp", row["captureTimestamp"])
                slasher, operator = Address(row["address"]), Address(row["operator"])
                penalty = _taken(row, "slashedAmount")
                found.append(SlashingExecuted(_at(row), slasher, None, operator, penalty, captured=captured))
        return sorted(found, key=lambda event: event.at)


def _at(row: Mapping[str, Any]) -> At:
    return At(row["block_number"], row["tx_index"], row["log_index"])


def _taken(row: Mapping[str, Any], field: str) -> tuple[Position, ...]:
    """A slasher takes from one vault alone, so that its address names it."""
    return (Position("0x" + row["address"].hex(), row[field]),)

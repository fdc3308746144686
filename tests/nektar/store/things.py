"""A Network with one of everything: an event of every kind of type, and a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nektar.chain import abi
from nektar.model import ChainEvent, Network


def _parameter(type_: str, name: str, *components: dict[str, Any], indexed: bool = False) -> dict[str, Any]:
    return {"type": type_, "name": name, "components": list(components), "indexed": indexed}


_KEY = _parameter("tuple", "key", _parameter("uint256", "x"), _parameter("uint256[2]", "y"))
_MEMBER = (
    _parameter("address", "operator"),
    _KEY,
    _parameter("bytes32[]", "proofs"),
    _parameter("bytes", "note"),
)

EVERYTHING = {
    "type": "event",
    "name": "Everything",
    "inputs": [
        _parameter("bytes32", "hash", indexed=True),
        _parameter("uint256", "wide"),
        _parameter("int256", "below"),
        _parameter("uint8", "small"),
        _parameter("int64", "signed"),
        _parameter("address", "who"),
        _parameter("bytes4", "selector"),
        _parameter("bool", "flag"),
        _parameter("bytes", "blob"),
        _parameter("string", "text"),
        _parameter("uint256[]", "amounts"),
        _parameter("uint256[2][]", "pairs"),
        _parameter("address[][]", "groups"),
        _parameter("tuple[]", "members", *_MEMBER),
        _parameter("uint64", "network"),
    ],
}
PLAIN = {"type": "event", "name": "Plain", "inputs": [_parameter("uint64", "n")]}
SUBMIT = {
    "type": "function",
    "name": "submit",
    "stateMutability": "nonpayable",
    "inputs": [_parameter("uint256", "input"), _parameter("bytes32", "id")],
    "outputs": [],
}
ABI = [EVERYTHING, PLAIN, SUBMIT]
EVENT = abi.load(ABI).event("Everything")
PLAIN_EVENT = abi.load(ABI).event("Plain")
CALL = abi.load(ABI).function("submit")


class Things:
    """An adapter that knows these bytes and no meaning."""

    name = "things"
    selector: frozenset[str] = frozenset()
    terms: frozenset[str] = frozenset()

    def abi(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        return {"things": ABI}

    def events(self, network: Network, tables: Mapping[str, bytes]) -> Sequence[ChainEvent]:
        return ()

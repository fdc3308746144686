"""OperatorSets from any provider: what comes is it, by its own hash, or is passed over."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from nektar.chain.jsonrpc import Malformed
from nektar.chain.keccak import keccak
from nektar.chain.pool import Absent
from nektar.chain.rpc import Provider
from nektar.evidence.canonical import Octets
from nektar.evidence.sets import Sets
from nektar.evidence.sought import SetSought
from nektar.networks.encoding import word
from nektar.networks.nektar import NektarNetwork
from nektar.networks.shown import SET_COMMITTED
from tests.nektar.evidence.small_chain import OPERATORS, SECRETS, SET, set_of
from tests.nektar.networks.test_shown import type_of

OTHER = set_of(SECRETS[:4], OPERATORS[:4])
ASKED: Counter[str] = Counter()


def data_of(preimage: bytes) -> str:
    """What the event's data is: the set's number, and its members behind their offset."""
    return "0x" + (word(7) + word(64) + preimage[32:]).hex()


class Saying(Provider):
    """A provider that says these logs to whatever it is asked."""

    def __init__(self, *data: str) -> None:
        super().__init__("p", "http://127.0.0.1:1")
        self._data = data

    async def call(self, method: str, *params: Any) -> Any:
        assert method == "eth_getLogs"
        (filter_,) = params
        ASKED[filter_["topics"][1]] += 1
        assert (filter_["fromBlock"], filter_["toBlock"]) == ("0x9", "0x9")
        assert filter_["topics"][0] == "0x" + SET_COMMITTED.hex()
        return [{"data": each} for each in self._data]


def sought(preimage: bytes) -> SetSought:
    return SetSought(Octets(keccak(preimage)), 9)


def fetched(sets: Sets, provider: Provider, *preimages: bytes) -> list[bytes]:
    async def ask() -> list[bytes]:
        return [await sets.of(provider, sought(each)) for each in preimages]

    return asyncio.run(ask())


def test_the_event_is_the_registrys() -> None:
    abi = NektarNetwork().abi()["operator_registry"]
    (event,) = (each for each in abi if each.get("name") == "OperatorSetCommitted")
    signature = f"OperatorSetCommitted({','.join(map(type_of, event['inputs']))})"
    assert keccak(signature.encode()) == SET_COMMITTED


def test_of_what_a_provider_says_that_is_taken_of_which_the_hash_is() -> None:
    false = SET[:-1] + bytes([SET[-1] ^ 1])
    for said in ([SET], [OTHER, SET], [false, SET], [b"", SET]):
        assert fetched(Sets(), Saying(*map(data_of, said)), SET) == [SET]
    for said in ([], [OTHER], [false], [SET + bytes(32)]):
        with pytest.raises(Absent, match="commits no set 0x"):
            fetched(Sets(), Saying(*map(data_of, said)), SET)
    with pytest.raises(Malformed):
        fetched(Sets(), Saying("no data"), SET)


def test_one_that_is_known_is_not_asked_for_again_and_as_many_are_known_as_there_is_room_for() -> None:
    for room, asked in ((len(SET) + len(OTHER), {SET: 1, OTHER: 1}), (1, {SET: 2, OTHER: 2})):
        ASKED.clear()
        both = Saying(data_of(SET), data_of(OTHER))
        assert fetched(Sets(room), both, SET, SET, OTHER, OTHER, SET, OTHER) == [
            *(SET, SET, OTHER, OTHER),
            *(SET, OTHER),
        ]
        assert {"0x" + keccak(each).hex(): count for each, count in asked.items()} == ASKED

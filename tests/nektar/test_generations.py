"""Which log is followed when the configuration asks for another filter, and how the bus keeps it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nektar import bus as buses
from nektar import generations
from nektar.bus.port import Bus, Message, partition_of
from nektar.config import Factory, NetworkConfig
from nektar.generations import Generations, Standing, configured, generation, handed_over, wanted
from nektar.log import BrokenLog
from nektar.model import ChainEvent, Network

A, B, C = b'{"a":1}', b'{"b":1}', b'{"c":1}'
NET = NetworkConfig(
    "net",
    1,
    ("p",),
    {"one": "0x" + "aB" * 20},
    adapter="ones",
    factories={"one": Factory("one", "Made", "it")},
    terms={"window": 3},
)


class Ones:
    name = "ones"
    selector: frozenset[str] = frozenset()
    terms: frozenset[str] = frozenset({"window"})

    def __init__(self, event: str = "Made") -> None:
        self._event = event

    def abi(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        return {"one": [{"type": "event", "name": self._event}]}

    def events(self, network: Network, tables: Mapping[str, bytes]) -> Sequence[ChainEvent]:
        return []


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    opened = buses.open(f"sqlite://{tmp_path / 'bus'}")
    yield opened
    opened.close()


def test_the_first_one_stands_at_once() -> None:
    assert wanted(None, A, 3) == Generations(generation(3, A), newest=3)


def test_the_same_filter_goes_on() -> None:
    said = wanted(None, A, 1)
    assert wanted(said, A, 1) == said


def test_a_changed_filter_begins_the_next_one_and_the_older_one_stands_until_it_is_handed_over() -> None:
    said = wanted(wanted(None, A, 1), B, 1)
    assert said == Generations(generation(1, A), generation(2, B), newest=2)
    assert wanted(said, B, 1) == said
    assert handed_over(said) == Generations(generation(2, B), before=1, newest=2)
    assert wanted(handed_over(said), B, 1) == handed_over(said)
    assert handed_over(handed_over(said)) == handed_over(said)


def test_a_change_that_is_taken_back_in_time_goes_on_with_what_stands() -> None:
    said = wanted(wanted(wanted(None, A, 1), B, 1), A, 1)
    assert (said.standing, said.next) == (generation(1, A), None)
    again = wanted(said, B, 1)
    assert again.next == generation(3, B), "a log that was left is left"


def test_taken_back_too_late_it_is_read_again() -> None:
    said = handed_over(wanted(wanted(None, A, 1), B, 1))
    assert wanted(said, A, 1).next == generation(3, A)


def test_a_raised_number_begins_another_whatever_the_filter() -> None:
    said = wanted(wanted(None, A, 1), A, 7)
    assert said == Generations(generation(1, A), generation(7, A), newest=7)
    assert wanted(said, B, 7).next == generation(8, B)
    assert wanted(handed_over(said), A, 2) == handed_over(said), "below what stands it says nothing"


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(1, 9), st.booleans()), max_size=12))
def test_numbers_only_grow_and_each_is_of_one_filter(changes: list[tuple[bytes, int, bool]]) -> None:
    said: Generations | None = None
    filters: dict[int, bytes] = {}
    for filter_, at_least, caught_up in changes:
        before = said
        said = wanted(said, filter_, at_least)
        assert said == wanted(said, filter_, at_least), "a restart decides the same"
        goes_on = said.next or said.standing
        assert goes_on.filter == filter_
        assert goes_on.number >= min(at_least, goes_on.number)
        assert before is None or (said.newest >= before.newest and said.standing == before.standing)
        assert filters.setdefault(goes_on.number, filter_) == filter_
        if caught_up:
            said = handed_over(said)
            assert (said.standing, said.next) == (goes_on, None)


def test_a_log_is_followed_by_what_it_was_begun_with() -> None:
    then = generation(4, generations.filter_of(NET, Ones().abi()))
    moved = msgspec.structs.replace(NET, contracts={"one": "0x" + "11" * 20}, terms={}, poll=1.0)
    found = configured(moved, then, Ones())
    contracts = {name: address.lower() for name, address in NET.contracts.items()}
    assert found == msgspec.structs.replace(NET, contracts=contracts, generation=4, poll=1.0)


@pytest.mark.parametrize(
    ("network", "adapter"),
    [
        (NET, Ones("Another")),  # the adapter knows the contracts otherwise by now
        (msgspec.structs.replace(NET, adapter="twos"), Ones()),
    ],
)
def test_what_this_version_can_not_follow_is_not(network: NetworkConfig, adapter: Ones) -> None:
    then = generation(1, generations.filter_of(NET, Ones().abi()))
    assert configured(network, then, adapter) is None
    assert configured(network, msgspec.structs.replace(then, filter=b""), Ones()) is None


def test_the_bus_keeps_it(bus: Bus) -> None:
    assert generations.read(bus, "net") is None
    said = wanted(wanted(None, A, 1), B, 1)
    standing = Standing(bus, [NET])
    assert standing(NET) == NET.generation
    with bus.writer("test", partition_of("net", bus.partitions)) as writer:
        writer.transaction([generations.message("net", said)])
        assert generations.read(bus, "net") == said
        writer.transaction([generations.message("net", handed_over(said))])
    assert standing(NET) == NET.generation, "as of the last look"
    standing.look()
    assert standing(NET) == 2


def test_what_is_none_breaks_the_log(bus: Bus) -> None:
    partition = partition_of("net", bus.partitions)
    with bus.writer("test", partition) as writer:
        writer.transaction([Message("nektar.checkpoints", b"generations/net", b"junk")])
    with pytest.raises(BrokenLog, match="generations/net: expected generations"):
        generations.read(bus, "net")

"""Operators' keys in memory: what the bus says of them within moments, and nothing that is too old."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from indexer import keys as module
from indexer.keys import OLD_SECONDS, SILENT_SECONDS, Keys, NotKnown
from nektar.bus.port import BusError
from nektar.bus.sqlite import SqliteBus
from nektar.evidence import bls
from nektar.model import G1, Address
from tests.indexer.senders import ALICE, BOB, as_of, has_key, say
from tests.indexer.test_heard import HOME
from tests.nektar.bus.reading import until

OF_ALICE = Address(bytes.fromhex(ALICE[2:]))
OF_BOB = Address(bytes.fromhex(BOB[2:]))
NEXT = msgspec.structs.replace(HOME, generation=HOME.generation + 1)
AWAY = msgspec.structs.replace(HOME, name="away")


def key(secret: int) -> G1:
    return bls.public_keys(secret)[0]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.005)


class Following:
    """Keys that follow a bus, by clocks of the test's own."""

    def __init__(self, bus: Any) -> None:
        self.later = self.silent = (
            0.0  # seconds that have passed at once: for blocks, and since the last look
        )
        self.standing = {"home": HOME.generation, "away": AWAY.generation}
        self.keys = Keys(
            *(bus, (HOME, AWAY), lambda network: self.standing[network.name]),
            now=lambda: time.time() + self.later,
            clock=lambda: time.monotonic() + self.silent,
        )

    def has(self, operator: Address, expected: int | None) -> None:
        """Wait until it has the key of this secret, or none."""

        def comes() -> bool:
            time.sleep(0.001)
            try:
                return self.keys.key(HOME, operator) == (expected and key(expected))
            except NotKnown:
                return False

        until(comes)

    def why_not(self, operator: Address = OF_ALICE) -> str:
        """Wait until it is not known, and say why."""
        found: list[str] = []

        def comes() -> bool:
            time.sleep(0.001)
            try:
                self.keys.key(HOME, operator)
            except NotKnown as error:
                found.append(str(error))
            return bool(found)

        until(comes)
        return found[0]


@contextmanager
def following(bus: Any) -> Iterator[Following]:
    made = Following(bus)
    try:
        yield made
    finally:
        made.keys.close(30)


def test_what_is_said_counts_at_once(bus: SqliteBus) -> None:
    say(bus, has_key(ALICE, 1), has_key(BOB, 2), as_of())
    with following(bus) as it:
        it.has(OF_ALICE, 1)
        it.has(OF_BOB, 2)
        say(bus, has_key(ALICE, 3))
        it.has(OF_ALICE, 3)
        say(bus, has_key(ALICE, 3, deregistered=9))
        it.has(OF_ALICE, None)
        say(bus, has_key(ALICE, 3))
        it.has(OF_ALICE, 3)
        say(bus, has_key(ALICE, None))
        it.has(OF_ALICE, None)
        it.has(OF_BOB, 2)


def test_before_all_keys_are_said_nothing_is_known(bus: SqliteBus) -> None:
    with following(bus) as it:
        assert "not known yet" in (it.why_not() and it.why_not())
        say(bus, has_key(ALICE, 1))
        assert "not known yet" in it.why_not()
        say(bus, as_of())
        it.has(OF_ALICE, 1)


def test_what_is_known_of_a_chain_that_is_not_followed_ends_after_a_while(bus: SqliteBus) -> None:
    say(bus, has_key(ALICE, 1), as_of(OLD_SECONDS - 60))
    with following(bus) as it:
        it.has(OF_ALICE, 1)
        it.later = 120
        assert "known as they were 864" in it.why_not()
        say(bus, as_of())
        it.has(OF_ALICE, 1)


@pytest.mark.parametrize("error", [BusError("no broker answers"), ZeroDivisionError()], ids=repr)
def test_a_bus_that_is_silent_is_waited_for_and_then_nothing_is_known(
    error: Exception, bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(bus, has_key(ALICE, 1), as_of())
    with following(bus) as it:
        it.has(OF_ALICE, 1)
        with monkeypatch.context() as gone:

            def end(*of: Any) -> int:
                raise error

            gone.setattr(bus, "end", end)
            it.silent = SILENT_SECONDS - 5
            it.has(OF_ALICE, 1)
            it.silent = SILENT_SECONDS + 5
            assert it.why_not() == "Operators' keys can't be looked up now"
        it.has(OF_ALICE, 1)


def test_each_network_and_generation_has_its_own(bus: SqliteBus) -> None:
    say(bus, has_key(ALICE, 1), as_of())
    say(bus, has_key(ALICE, 2, network=NEXT), as_of(network=NEXT))
    say(bus, has_key(ALICE, 3, network=AWAY), as_of(network=AWAY), network=AWAY)
    with following(bus) as it:
        it.has(OF_ALICE, 1)
        until(lambda: it.keys.key(AWAY, OF_ALICE) == key(3))
        it.standing["home"] = NEXT.generation
        it.has(OF_ALICE, 2)
        until(lambda: {*it.keys._keys} == {("home", NEXT.generation), ("away", AWAY.generation)})


def test_of_a_log_so_many_are_kept_and_no_more(bus: SqliteBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEYS", 1)
    say(bus, has_key(ALICE, 1), has_key(BOB, 2), as_of())
    with following(bus) as it:
        it.has(OF_ALICE, 1)
        it.has(OF_BOB, None)
        say(bus, has_key(ALICE, 3))
        it.has(OF_ALICE, 3)
        say(bus, has_key(ALICE, None), has_key(BOB, 2))
        it.has(OF_BOB, 2)

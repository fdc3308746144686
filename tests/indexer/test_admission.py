"""Whom tokens admit: the Operator whose key it is now, whom nektar.yaml names, nobody else, and cheaply."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from indexer import keys
from indexer.admission import A_SECOND, Admission
from indexer.fair_queue import OF_PEER, Busy
from indexer.keys import NotKnown
from nektar import tokens
from nektar.bus.sqlite import SqliteBus
from nektar.config import Config, Telemetry
from nektar.evidence import bls
from nektar.monitor import own_token
from nektar.senders import OWN, UNAUTHENTICATED, Sender
from nektar.tokens import BadToken, Role
from tests.indexer.senders import AGENTS, ALICE, AUDIENCE, BOB, ROLES, SECRETS, as_of, has_key, say, token
from tests.indexer.test_heard import AWAY, HOME
from tests.nektar.bus.reading import until

NOW = int(time.time())
STRANGER = "0x" + "cc" * 20


class Admitting:
    """An admission, and the clock that tells it how long tokens are valid."""

    def __init__(self, bus: SqliteBus, directory: Path, telemetry: Telemetry) -> None:
        self.config = Config({}, (HOME, AWAY), data_dir=str(directory), telemetry=telemetry)
        self.ahead = 0.0
        self.admission = Admission(
            *(self.config, bus, lambda network: network.generation),
            now=lambda: time.time() + self.ahead,
        )

    def __call__(self, given: str, peer: str = "192.0.2.1", scheme: str = "Bearer") -> Sender:
        return asyncio.run(self.admission.admit(f"{scheme} {given}", peer))

    def refuses(self, given: str, why: str = ".", peer: str = "192.0.2.1") -> None:
        with pytest.raises(BadToken, match=why) as refused:
            self(given, peer)
        assert given[10:] not in str(refused.value) or len(given) < 12
        assert not {HOME.name, AWAY.name, AUDIENCE} & set(str(refused.value).split())


@contextmanager
def admitting(bus: SqliteBus, directory: Path, **telemetry: Any) -> Iterator[Admitting]:
    made = Admitting(bus, directory, Telemetry(**telemetry))
    try:
        yield made
    finally:
        made.admission.close(30)


@pytest.fixture
def admit(bus: SqliteBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Admitting]:
    monkeypatch.setattr(keys, "LOOK_EVERY", 0.005)
    say(bus, *(has_key(each, SECRETS[each]) for each in (ALICE, BOB)), as_of())
    with admitting(bus, tmp_path, audience=AUDIENCE, agents=AGENTS) as made:
        until(lambda: knows(made))
        yield made


def knows(admit: Admitting) -> bool:
    try:
        return bool(admit.admission._keys.key(HOME, bytes(20)) is None)  # type: ignore[arg-type]
    except NotKnown:
        return False


@pytest.fixture
def pairings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One for each verification that was begun."""
    begun: list[int] = []
    keys_match = bls.keys_match
    monkeypatch.setattr(bls, "keys_match", lambda *of: begun.append(1) or keys_match(*of))
    return begun


# --- who is admitted --------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", [ALICE, BOB, *AGENTS])
def test_whoever_has_the_key_of_the_sender_is_admitted_and_verified_once(
    admit: Admitting, sender: str, pairings: list[int]
) -> None:
    given = token(sender)
    for scheme in ("Bearer", "bearer"):
        assert admit(given, scheme=scheme) == Sender(sender, ROLES[sender], HOME.name)
    assert len(pairings) == 1


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (token(ALICE, SECRETS[BOB]), "has not signed"),
        (token(network="nowhere"), "another one"),
        (token(chain_id=1), "another one"),
        (token(network=AWAY.name), "another one"),  # with the chain of HOME
        (token(audience="there"), "another one"),
        (token(expires=NOW), "expired"),
        (token(expires=NOW + tokens.MAX_SECONDS + 10_000), "for longer"),
        (token(sender=STRANGER), "no such one"),
        (token("operator-1", role=Role.AGGREGATOR), "no such one"),
        (token("operator-1", sender="stranger"), "no such one"),
        (token("operator-1", 5), "has not signed"),
        ("nektar1.", "CLAIMS"),
        (token()[:-4], "base64url|has not signed"),
        ("nektar2.", "nektar token"),
        ("", "nektar token"),
    ],
)
def test_whoever_has_not_is_refused(admit: Admitting, given: str, why: str) -> None:
    for _ in range(2):
        admit.refuses(given, why)


def test_a_token_of_another_key_is_no_ones_though_its_claims_name_the_right_one(admit: Admitting) -> None:
    """The signature is Bob's, the key that is shown Alice's."""
    head, _, _ = token(ALICE).rpartition(".")
    admit.refuses(f"{head}.{token(BOB, sender=ALICE).rpartition('.')[2]}", "has not signed")


def test_an_operator_of_one_network_is_none_of_another(admit: Admitting, bus: SqliteBus) -> None:
    say(bus, as_of(network=AWAY), network=AWAY)
    of_away = token(ALICE, network=AWAY.name, chain_id=AWAY.chain_id)

    def known() -> bool:
        try:
            admit(of_away)
        except NotKnown:
            return False
        except BadToken as error:
            return "no such one" in str(error)
        raise AssertionError("admitted")

    until(known)
    say(bus, has_key(ALICE, SECRETS[ALICE], network=AWAY), network=AWAY)
    until(lambda: not known_refused(admit, of_away))
    assert admit(of_away) == Sender(ALICE, Role.OPERATOR, AWAY.name)
    assert admit(token(ALICE)) == Sender(ALICE, Role.OPERATOR, HOME.name)


def known_refused(admit: Admitting, given: str) -> bool:
    try:
        admit(given)
    except BadToken:
        return True
    return False


def test_an_agent_is_of_the_networks_that_it_is_said_to_be_of(bus: SqliteBus, tmp_path: Path) -> None:
    agents = {n: msgspec.structs.replace(each, networks=(HOME.name,)) for n, each in AGENTS.items()}
    with admitting(bus, tmp_path, audience=AUDIENCE, agents=agents) as admit:
        assert admit(token("aggregator")).network == HOME.name
        admit.refuses(token("aggregator", network=AWAY.name, chain_id=AWAY.chain_id), "no such one")


def test_a_token_may_be_for_a_moment_longer_than_it_may_and_ends_in_time(admit: Admitting) -> None:
    assert admit(token(expires=NOW + tokens.MAX_SECONDS + tokens.CLOCKS_APART // 2))
    short = token(expires=NOW + 600)
    assert admit(short)
    admit.ahead = 601
    admit.refuses(short, "expired")


def test_the_pipelines_own_spans_come_by_a_token_of_its_own(admit: Admitting, pairings: list[int]) -> None:
    own = own_token(admit.config)
    assert admit(own) == OWN
    for other in ("", own[:-1], own + "x"):
        admit.refuses(other)
    assert pairings == []


@pytest.mark.parametrize("own", [True, False])
def test_with_no_audience_everyone_is_refused_but_the_pipeline_itself(
    own: bool, bus: SqliteBus, tmp_path: Path
) -> None:
    with admitting(bus, tmp_path, own=own) as admit:
        for given in ("", token(), token("aggregator")):
            admit.refuses(given, "takes telemetry from nobody")
        if own:
            assert admit(own_token(admit.config)) == OWN


def test_where_nobody_is_asked_for_a_token_everyone_is_unauthenticated(
    bus: SqliteBus, tmp_path: Path
) -> None:
    with admitting(bus, tmp_path, unauthenticated=True) as admit:
        for given in ("", "nonsense", token()):
            assert admit(given) == UNAUTHENTICATED


# --- keys that change -------------------------------------------------------------------------------


def test_a_deregistered_operator_is_refused_until_it_registers_again(
    admit: Admitting, bus: SqliteBus, pairings: list[int]
) -> None:
    given = token()
    admit(given)
    say(bus, has_key(ALICE, SECRETS[ALICE], deregistered=77))
    until(lambda: known_refused(admit, given))
    admit.refuses(given, "no more")
    say(bus, has_key(ALICE, SECRETS[ALICE]))
    until(lambda: not known_refused(admit, given))
    say(bus, has_key(ALICE, None))  # a reorg takes all of that back
    until(lambda: known_refused(admit, given))
    assert len(pairings) == 1


def test_a_key_that_was_changed_ends_its_tokens_and_begins_those_of_the_new_one(
    admit: Admitting, bus: SqliteBus, pairings: list[int]
) -> None:
    old, new = token(), token(ALICE, 99)
    admit(old)
    admit.refuses(new, "has not signed")
    say(bus, has_key(ALICE, 99))
    until(lambda: known_refused(admit, old))
    for _ in range(100):
        admit.refuses(old, "has not signed")  # which costs nothing
    assert admit(new).name == ALICE
    assert len(pairings) == 3


def test_until_operators_keys_are_known_they_are_told_to_come_again_and_agents_are_not(
    bus: SqliteBus, tmp_path: Path
) -> None:
    with admitting(bus, tmp_path, audience=AUDIENCE, agents=AGENTS) as admit:
        with pytest.raises(NotKnown):
            admit(token())
        assert admit(token("aggregator")).name == "aggregator"


# --- what it costs ----------------------------------------------------------------------------------


def test_who_names_nobody_that_is_registered_costs_no_verification(
    admit: Admitting, pairings: list[int]
) -> None:
    for i in range(3 * OF_PEER):
        admit.refuses(token(sender=STRANGER, expires=NOW + 100 + i))
    assert pairings == []


@pytest.mark.parametrize("peers", [1, 5])
def test_a_flood_of_forged_tokens_is_refused_for_its_number_and_holds_up_nobody_else(
    peers: int, admit: Admitting, pairings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    forged = [token(ALICE, SECRETS[BOB], expires=NOW + 1000 + i) for i in range(peers * 40)]
    hers, at = token(), "198.51.100.1"
    began, refused, counted = time.monotonic(), [], []
    submit = admit.admission._strangers.submit

    def counting(peer: str, work: Callable[[], None]) -> Future[None]:
        """Counts what was verified when she came, and when it was her turn."""
        if peer != at:
            return submit(peer, work)
        counted.append(len(pairings))
        return submit(peer, lambda: (counted.append(len(pairings)), work())[1])

    monkeypatch.setattr(admit.admission._strangers, "submit", counting)

    async def show(given: str, peer: str) -> None:
        with pytest.raises((BadToken, Busy)) as error:
            await admit.admission.admit(f"Bearer {given}", peer)
        refused.append(error.type)

    async def alice() -> None:
        assert (await admit.admission.admit(f"Bearer {hers}", at)).name == ALICE

    async def all_at_once() -> None:
        flood = [show(given, f"192.0.2.{i % peers}") for i, given in enumerate(forged)]
        await asyncio.gather(*flood, alice())

    asyncio.run(all_at_once())
    came, her_turn = counted
    assert her_turn - came <= peers + 1  # for one of each, and the one under way
    assert refused.count(Busy) > 20
    assert len(pairings) <= A_SECOND * (time.monotonic() - began + 1) + 1


def test_who_has_shown_a_good_token_before_waits_for_no_stranger(
    admit: Admitting, bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit(token(), "198.51.100.1")
    say(bus, has_key(ALICE, 99))
    until(lambda: known_refused(admit, token()))
    asked: list[str] = []
    submit = admit.admission._familiar.submit
    monkeypatch.setattr(
        admit.admission._familiar, "submit", lambda peer, work: asked.append(peer) or submit(peer, work)
    )
    assert admit(token(ALICE, 99), "198.51.100.1").name == ALICE
    with pytest.raises(BadToken):
        admit(token(ALICE, 98), "192.0.2.1")
    assert asked == ["198.51.100.1"]


def test_of_many_that_show_one_token_at_once_it_is_verified_once(
    admit: Admitting, pairings: list[int]
) -> None:
    given = token()

    async def all_at_once() -> list[Sender]:
        return await asyncio.gather(
            *(admit.admission.admit(f"Bearer {given}", "192.0.2.1") for _ in range(4 * OF_PEER))
        )

    assert {sender.name for sender in asyncio.run(all_at_once())} == {ALICE}
    assert len(pairings) == 1


def test_what_is_remembered_is_bounded(admit: Admitting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admit.admission._known, "_most", 3)
    monkeypatch.setattr(admit.admission._peers, "_most", 3)
    given = [token(expires=NOW + 1000 + i) for i in range(6)]
    for i, each in enumerate(given):
        admit(each, f"192.0.2.{i}")
        admit(given[0], "192.0.2.0")  # which is used, and so stays
    assert list(admit.admission._known._kept) == [given[4], given[5], given[0]]
    assert list(admit.admission._peers._kept) == [f"192.0.2.{i}" for i in (3, 4, 5)]
    assert admit.admission._verifying == {}


def test_a_twin_that_is_no_point_is_refused_like_any_other(admit: Admitting) -> None:
    claims, _, signature = token().removeprefix(tokens.PREFIX).partition(".")
    said = msgspec.json.decode(tokens._octets(claims))
    said["key"] = "0x" + "ff" * 128
    forged = tokens._text(msgspec.json.encode(said, order="sorted"))
    admit.refuses(f"{tokens.PREFIX}{forged}.{signature}", "has not signed")

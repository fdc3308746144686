"""Whom tokens admit: the Operator whose key it is now, whom nektar.yaml names, nobody else, and cheaply."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from indexer import admission as module
from indexer.admission import A_PEER, FRESH_SECONDS, Admission, Busy, Sender
from nektar import bus as buses
from nektar import registered, tokens
from nektar.bus.port import Bus, partition_of
from nektar.config import Agent, Config, NetworkConfig, Telemetry
from nektar.evidence import bls
from nektar.evidence.canonical import Octets
from nektar.rows import Change, OperatorRow
from nektar.tokens import BadToken, Claims, Role

ALICE, BOB = "0x" + "a1" * 20, "0x" + "b0" * 20
SECRETS = {ALICE: 11, BOB: 12, "gateway": 13, "eye": 14}
AGENTS: dict[str, Any] = {
    "gateway": Agent("aggregator", "0x" + bls.public_keys(13)[0].hex()),
    "eye": Agent("observer", "0x" + bls.public_keys(14)[0].hex()),
}
NETWORK = NetworkConfig("home", 31337, ("p",), {})
NOW = 1_800_000_000


class Clock:
    """Both clocks."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    with buses.open(f"sqlite://{tmp_path / 'bus'}") as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(bus: Bus, clock: Clock) -> Admission:
    config = Config({}, (NETWORK,), telemetry=Telemetry(audience="here", agents=AGENTS))
    for operator in (ALICE, BOB):
        say(bus, operator, SECRETS[operator])
    return Admission(config, bus, lambda network: network.generation, now=clock, clock=clock)


def say(bus: Bus, operator: str, secret: int | None, deregistered: int = 0) -> None:
    """As the fold `operators` does."""
    address, row = bytes.fromhex(operator[2:]), None
    if secret:
        row = OperatorRow(address, bls.public_keys(secret)[0], "eu", 1, 0, True, 1, deregistered)
    known = OperatorRow(address, bytes(64), "eu", 1, 0, True, 1, 0)
    with bus.writer("folds", partition_of("home", bus.partitions)) as writer:
        writer.transaction(registered.messages("home", 1, Change(known, row)))


def token(sender: str = ALICE, role: Role = Role.OPERATOR, secret: int | None = None, /, **other: Any) -> str:
    secret = secret or SECRETS[sender]
    twin = Octets(bls.public_keys(secret)[1])
    claims = Claims("home", 31337, "here", role, sender, NOW + 3600, twin)
    return tokens.mint(secret, msgspec.structs.replace(claims, **other))


@pytest.mark.parametrize(
    ("sender", "role"),
    [(ALICE, Role.OPERATOR), (BOB, Role.OPERATOR), ("gateway", Role.AGGREGATOR), ("eye", Role.OBSERVER)],
)
def test_whoever_has_the_key_of_the_sender_is_admitted(admission: Admission, sender: str, role: Role) -> None:
    made = token(sender, role)
    assert admission.known(made) is None
    assert admission.admit(made, "peer") == Sender(sender, role, "home")
    assert admission.known(made) == Sender(sender, role, "home")


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (token(ALICE, Role.OPERATOR, 12), "has not signed"),  # Bob's key for Alice
        (token(network="away"), "another network"),
        (token(chain_id=1), "another network"),
        (token(audience="there"), "another one"),
        (token(expires=NOW), "expired"),
        (token(expires=NOW + tokens.MAX_SECONDS + 1), "for longer"),
        (token("0x" + "cc" * 20, Role.OPERATOR, 5), "knows no such one"),
        (token("gateway", Role.OBSERVER), "knows no such one"),
        (token("stranger", Role.OBSERVER, 5), "knows no such one"),
        (token("eye", Role.OBSERVER, 5), "has not signed"),
        ("nektar1.", "CLAIMS"),
        (token()[:-4], "base64url|has not signed"),
        ("Bearer", "nektar1"),
    ],
)
def test_whoever_has_not_is_refused(admission: Admission, made: str, why: str) -> None:
    with pytest.raises(BadToken, match=why) as refused:
        admission.admit(made, "peer")
    assert made[10:] not in str(refused.value) or len(made) < 12
    assert admission.known(made) is None


def test_a_token_of_another_key_is_no_ones_though_its_claims_name_the_right_one(admission: Admission) -> None:
    """The signature is Bob's, the key that is shown Alice's."""
    alice, bob = token(), token(BOB, sender=ALICE)
    head, _, _ = alice.rpartition(".")
    with pytest.raises(BadToken, match="has not signed"):
        admission.admit(f"{head}.{bob.rpartition('.')[2]}", "peer")


def test_a_deregistered_operator_is_refused_within_a_second(
    admission: Admission, bus: Bus, clock: Clock
) -> None:
    made = token()
    admission.admit(made, "peer")
    say(bus, ALICE, SECRETS[ALICE], deregistered=77)
    clock.now += FRESH_SECONDS + 0.01
    assert admission.known(made) is None
    with pytest.raises(BadToken, match="no more"):
        admission.admit(made, "peer")
    say(bus, ALICE, SECRETS[ALICE])  # it registers again
    assert admission.admit(made, "peer").name == ALICE
    say(bus, ALICE, None)  # a reorg takes all of that back
    clock.now += FRESH_SECONDS + 0.01
    with pytest.raises(BadToken):
        admission.admit(made, "peer")


def test_a_key_that_was_changed_ends_its_tokens_and_begins_those_of_the_new_one(
    admission: Admission, bus: Bus, clock: Clock
) -> None:
    old, new = token(), token(ALICE, Role.OPERATOR, 99)
    admission.admit(old, "peer")
    say(bus, ALICE, 99)
    clock.now += FRESH_SECONDS + 0.01
    with pytest.raises(BadToken, match="has not signed"):
        admission.admit(old, "peer")
    assert admission.admit(new, "peer").name == ALICE


def test_a_token_that_expires_is_known_no_more(admission: Admission, clock: Clock) -> None:
    made = token(expires=NOW + 1)
    admission.admit(made, "peer")
    clock.now += 1
    with pytest.raises(BadToken, match="expired"):
        admission.known(made)


def test_a_flood_of_bad_tokens_costs_its_peer_and_no_one_else(
    admission: Admission, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    pairings = []
    keys_match = bls.keys_match
    monkeypatch.setattr(bls, "keys_match", lambda *keys: pairings.append(1) or keys_match(*keys))
    busy = 0
    for i in range(200):
        try:
            admission.admit(token(ALICE, Role.OPERATOR, 12, expires=NOW + 100 + i), "flood")
        except Busy:
            busy += 1
        except BadToken:
            pass
    assert (len(pairings), busy) == (A_PEER, 200 - A_PEER)
    assert admission.admit(token(), "another").name == ALICE
    clock.now += 1
    assert admission.admit(token(BOB), "flood").name == BOB


@pytest.mark.parametrize("now", [99, None], ids=["rotated", "gone"])
def test_whoever_was_admitted_once_pays_like_anybody_when_the_key_is_another(
    admission: Admission, bus: Bus, clock: Clock, now: int | None
) -> None:
    made, refused, busy = token(), 0, 0
    admission.admit(made, "peer")
    say(bus, ALICE, now)
    clock.now += FRESH_SECONDS + 0.01
    for _ in range(100):
        try:
            admission.admit(made, "peer")
        except Busy:
            busy += 1
        except BadToken:
            refused += 1
    assert refused <= A_PEER + 1
    assert refused + busy == 100


def test_what_is_remembered_is_bounded(admission: Admission, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN", 3)
    for i in range(8):
        admission.admit(token(expires=NOW + 100 + i), f"peer {i}")
    assert len(admission._known) == 3

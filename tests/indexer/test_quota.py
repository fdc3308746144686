"""Quotas: nobody sends more for long than it may, and each is told when it may again."""

from __future__ import annotations

import pytest

from indexer import quota as module
from indexer.clients import Client, client
from indexer.quota import LEAST, Quotas
from indexer.refusals import Refused
from nektar.config import Quota
from nektar.senders import OWN, UNAUTHENTICATED, Sender
from tests.nektar.test_health import Clock
from tests.spans import Counted

A, B = Client(Sender("a")), Client(Sender("b", "operator", "home"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quotas(clock: Clock) -> Quotas:
    return Quotas(Quota(bytes_per_second=2_000, items_per_second=10, burst=5), clock)


def wait(quotas: Quotas, of: Client) -> float:
    """Seconds until it may send; 0: now."""
    try:
        quotas.check(of)
    except Refused as refused:
        return refused.after or -1
    return 0


def test_what_is_owed_is_waited_for_by_its_sender_alone(
    quotas: Quotas, clock: Clock, counted: Counted
) -> None:
    quotas.spend(A, 10_000, 50)  # all at once
    assert wait(quotas, A) == 0
    quotas.spend(A, 6_000, 0)  # however large it is
    assert wait(quotas, A) == 3
    assert wait(quotas, B) == 0
    clock.now += 2
    assert wait(quotas, A) == pytest.approx(1)
    clock.now += 0.99
    assert wait(quotas, A) == LEAST
    clock.now += LEAST
    assert wait(quotas, A) == 0
    assert counted("nektar.collector.over_quota") == {("named",): 3}


def test_items_are_counted_beside_bytes(quotas: Quotas, clock: Clock, counted: Counted) -> None:
    quotas.spend(B, 0, 100)
    assert wait(quotas, B) == 5
    quotas.spend(B, 0, -60)  # what was not written after all
    assert wait(quotas, B) == 0
    quotas.spend(B, 0, 20)
    with pytest.raises(Refused, match=r"at most 2000 bytes and 10 spans.*telemetry\.quota"):
        quotas.check(B)
    assert counted("nektar.collector.over_quota") == {("operator",): 2}


def test_a_sender_that_is_silent_saves_no_more_than_a_burst(quotas: Quotas, clock: Clock) -> None:
    quotas.spend(A, 1, 0)
    clock.now += 1_000_000
    assert wait(quotas, A) == 0
    quotas.spend(A, 12_000, 0)
    assert wait(quotas, A) == 1


def test_who_comes_from_ever_other_addresses_grows_nothing(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLIENTS", 10)
    quotas = Quotas(Quota(), clock)
    for i in range(50):
        quotas.check(client(UNAUTHENTICATED, f"10.0.0.{i}"))
    assert len(quotas._of) == 10


@pytest.mark.parametrize(
    ("sender", "peer", "place", "kind"),
    [
        (Sender("a"), "10.0.0.1", "", "named"),
        (Sender("0xa1", "operator", "home"), "10.0.0.1", "", "operator"),
        (OWN, "10.0.0.1", "", "named"),
        (UNAUTHENTICATED, "10.0.0.1", "10.0.0.1", "unauthenticated"),
        (UNAUTHENTICATED, "::ffff:10.0.0.1", "10.0.0.1", "unauthenticated"),
        (UNAUTHENTICATED, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", "unauthenticated"),
        (UNAUTHENTICATED, "", "", "unauthenticated"),
        (UNAUTHENTICATED, "x" * 1_000, "x" * 64, "unauthenticated"),
    ],
)
def test_whose_quota_it_is(sender: Sender, peer: str, place: str, kind: str) -> None:
    of = client(sender, peer)
    assert (of.sender, of.place, of.kind) == (sender, place, kind)

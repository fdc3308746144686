"""What of telemetry with impossible times is kept: enough to see why, and never much."""

from __future__ import annotations

from typing import Any

import pytest

from indexer import letters as module
from indexer import otlp as cut
from indexer.clients import Client
from indexer.letters import HOUR, OF_ALL, OF_ONE, Letters
from indexer.otlp import BACK, SAMPLE_BYTES, Sample, refuse
from nektar.log import DEAD
from nektar.otlp import LOGS, METRICS, SIGNALS, SPANS, groups
from nektar.senders import Sender
from tests import otlp
from tests.nektar.test_health import Clock

NOW = 1_790_000_000 * 10**9
A = Client(Sender("a"))


def sampled(signal: Any, request: Any) -> tuple[int, Sample]:
    """How many were refused for their time, and those that are kept of them."""
    sample = Sample(signal)
    return refuse(signal, request, NOW, sample)[cut.FAR], sample


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_what_is_out_of_time_is_kept_as_it_came(signal: Any) -> None:
    request = otlp.some(signal, 6, NOW - BACK - 10**12)
    whole = signal.request.FromString(request.SerializeToString())
    refused, sample = sampled(signal, request)
    assert (refused, sample.count, sample.request) == (6, 6, whole)
    letter = Letters(Clock()).about(signal, Client(Sender("0xa1", "operator", "home")), refused, sample)
    assert letter is not None
    assert (letter.stream, letter.key) == (DEAD, f"collector {signal.stream} operator/0xa1".encode())
    assert letter.value == whole.SerializeToString()
    assert letter.headers == {
        "reason": f"6 {signal.items}: {cut.FAR}".encode(),
        "network": b"home",
        "sender": b"0xa1",
        "sender-role": b"operator",
        "sender-network": b"home",
    }


def test_what_is_refused_for_another_reason_or_not_at_all_is_not_kept() -> None:
    request = otlp.spans(3, NOW)
    spans = request.resource_spans[0].scope_spans[0].spans
    spans[0].span_id, spans[1].start_time_unix_nano = b"", 0
    refused, sample = sampled(SPANS, request)
    assert (refused, sample.count) == (1, 1)
    ((kept,),) = [group.items for group in groups(SPANS, sample.request)]
    assert kept.name == "step 1"


@pytest.mark.parametrize("text", [10, 1_000, 20_000])
def test_of_many_the_first_are_kept_in_few_bytes(text: int) -> None:
    request = otlp.points(2_000, 10**10, attributes=[("t", "x" * text)])
    refused, sample = sampled(METRICS, request)
    assert refused == 2_000
    assert sample.request.ByteSize() <= SAMPLE_BYTES
    assert (sample.count > 20) == (text == 10)
    assert (sample.count == 0) == (text == 20_000)
    assert sum(len(group.items) for group in groups(METRICS, sample.request)) == sample.count


def test_a_flood_is_so_many_letters_an_hour_and_the_next_one_says_how_many_more() -> None:
    clock = Clock()
    letters = Letters(clock)

    def send(of: Client) -> Any:
        return letters.about(LOGS, of, *sampled(LOGS, otlp.records(5, 1)))

    found = [send(A) for _ in range(100)]
    assert [letter is not None for letter in found] == [True] * OF_ONE + [False] * (100 - OF_ONE)
    assert send(Client(Sender("b"))) is not None
    clock.now += HOUR / OF_ONE
    assert send(A).headers["reason"].endswith(b"; %d more since the last letter" % (5 * (100 - OF_ONE)))
    clock.now += HOUR
    assert send(A).headers["reason"].endswith(b"clock")


def test_all_together_are_so_many_letters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENTS", 50)
    letters, senders = Letters(Clock()), [Client(Sender(f"{i}")) for i in range(200)]
    found = [letters.about(LOGS, each, *sampled(LOGS, otlp.records(1, 1))) for each in senders]
    assert sum(letter is not None for letter in found) == OF_ALL
    assert len(letters._of) == 50
    letters.give_back(A)  # of one that was not written
    assert letters.about(LOGS, A, *sampled(LOGS, otlp.records(1, 1))) is not None

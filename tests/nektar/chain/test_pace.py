"""The pace on random lives, and against a server that takes so many calls a second and no more."""

from __future__ import annotations

import heapq
import random

from hypothesis import given
from hypothesis import strategies as st

from nektar.chain.faults import Fault, Kind
from nektar.chain.pace import CUT, SLOWEST, Pace, Sent
from nektar.config import Limits

LIMITED, HICCUP = Fault(Kind.RATE), Fault(Kind.TRANSIENT)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


limits = st.builds(
    Limits, requests_per_second=st.floats(0.1, 100_000), in_flight=st.integers(1, 64), timeout=st.just(20.0)
)
faults = st.one_of(
    st.none(), st.builds(Fault, st.sampled_from(Kind), st.floats(0, 60), st.just(None)), st.just(LIMITED)
)
lives = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 40), faults, st.booleans()), max_size=120)


@given(limits, lives)
def test_the_configured_limits_hold_and_whoever_waits_comes_to_ask(
    limits: Limits, life: list[tuple[float, int, Fault | None, bool]]
) -> None:
    clock = Clock()
    pace = Pace(limits, clock)
    under_way: list[Sent] = []
    last: tuple[float, int] | None = None  # when the last request was sent, and of how many calls
    slowest = min(SLOWEST, limits.requests_per_second)
    for passed, calls, fault, over in life:
        clock.now += passed
        wait = pace.wait()
        if wait is None:
            assert under_way, "nobody could ask, and nothing was under way that would change it"
        else:
            # the longest that a provider may ask for, and a whole batch at the slowest pace
            assert 0 <= wait <= 60 + 40 / slowest + 1e-6
            clock.now += wait
            if last is not None:
                spread = last[1] / limits.requests_per_second
                assert clock.now - last[0] >= spread * (1 - 1e-9) - 1e-6
            last = clock.now, calls
            under_way.append(pace.sent(calls))
            assert len(under_way) <= pace.window <= limits.in_flight
        if over or wait is None:
            pace.done(under_way.pop(0), fault)
        assert pace.window >= 1
        assert slowest <= pace.rate <= limits.requests_per_second


@given(st.lists(st.sampled_from([LIMITED, HICCUP]), max_size=9), st.integers(1, 16), st.floats(1, 100))
def test_after_any_faults_both_bounds_come_back(faults: list[Fault], in_flight: int, rate: float) -> None:
    clock = Clock()
    pace = Pace(Limits(requests_per_second=rate, in_flight=in_flight), clock)

    def ask(fault: Fault | None) -> None:
        clock.now += (pace.wait() or 0) + 0.001
        pace.done(pace.sent(1), fault)

    for fault in faults:
        ask(fault)
    for _ in range(20_000):
        if pace.window == in_flight and pace.rate == rate:
            break
        ask(None)
    assert (pace.window, pace.rate) == (in_flight, rate)


def test_requests_that_were_under_way_together_cut_once() -> None:
    clock = Clock()
    pace = Pace(Limits(in_flight=8), clock)
    together = [pace.sent(1) for _ in range(8)]
    clock.now += 0.1
    for sent in together:
        pace.done(sent, LIMITED)
    assert (pace.window, pace.rate) == (8 * CUT, max(SLOWEST, 8 * CUT))
    for after, window in ((0.5, 4), (1.1, 2)):
        clock.now += after
        pace.done(pace.sent(1), LIMITED)
        assert pace.window == window


def test_a_transient_fault_is_no_reason_to_send_fewer_calls_a_second() -> None:
    pace = Pace(Limits(in_flight=8, requests_per_second=50), Clock())
    pace.done(pace.sent(1), HICCUP)
    assert (pace.window, pace.rate) == (4, 50)


def test_a_refusal_and_a_range_limit_are_answers() -> None:
    pace = Pace(Limits(in_flight=8, requests_per_second=50), Clock())
    for kind in (Kind.REFUSED, Kind.RANGE, Kind.BATCH):
        pace.done(pace.sent(1), Fault(kind))
    assert (pace.window, pace.rate) == (8, 50)


def test_nobody_asks_for_as_long_as_the_provider_says() -> None:
    clock = Clock()
    pace = Pace(Limits(), clock)
    pace.done(pace.sent(1), Fault(Kind.RATE, 7))
    assert pace.wait() == 7
    clock.now += 5
    assert pace.wait() == 2
    clock.now += 2
    assert pace.wait() == 0


def life_with(capacity: int, seconds: float, batch: int, seed: int) -> tuple[float, float, Pace]:
    """What a server that takes `capacity` calls in each second served a second, and which part it refused."""
    clock, rng = Clock(), random.Random(seed)
    pace = Pace(Limits(in_flight=16), clock)
    end = clock.now + seconds
    answers: list[tuple[float, int, Sent, Fault | None]] = []
    second, taken, served, refused = 0, 0, 0, 0
    for number in range(10_000_000):
        wait = pace.wait()
        if answers and (wait is None or answers[0][0] <= clock.now + wait):
            at, _, sent, fault = heapq.heappop(answers)
            clock.now = max(clock.now, at)
            pace.done(sent, fault)
            continue
        clock.now += wait or 0.0
        if clock.now >= end:
            break
        if int(clock.now) != second:
            second, taken = int(clock.now), 0
        taken += batch
        fine = taken <= capacity
        served, refused = served + batch * fine, refused + batch * (not fine)
        latency = rng.uniform(0.02, 0.08)
        heapq.heappush(answers, (clock.now + latency, number, pace.sent(batch), None if fine else LIMITED))
    return served / seconds, refused / (served + refused), pace


def test_a_server_that_takes_so_much_a_second_is_used_well_and_seldom_asked_too_much() -> None:
    for capacity, batch in ((10, 1), (25, 2), (50, 1), (300, 3), (2000, 8)):
        used, refused, _ = life_with(capacity, 120, batch, capacity)
        assert used >= 0.6 * capacity, f"{used:.0f} of {capacity} calls a second"
        assert refused <= 0.1, f"{refused:.1%} of the calls were refused, at {capacity} a second"


def test_a_server_with_no_limit_is_asked_as_hard_as_configured() -> None:
    used, refused, pace = life_with(10**9, 2, 1, 1)
    assert refused == 0
    assert pace.window == 16
    assert used > 250  # 16 in flight, 50 ms each

"""When a role is alive and when it is ready."""

from __future__ import annotations

import pytest

from nektar.errors import NektarError
from nektar.health import READY_SECONDS, STUCK_SECONDS, Health, words


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    health = Health(clock)
    health.opened("home")
    return health


def test_a_role_without_parts_is_alive_and_not_ready(clock: Clock) -> None:
    health = Health(clock)
    assert (health.stuck(), health.behind(), health.lags()) == ([], ["it is starting"], {})


def test_a_part_is_behind_until_it_is_level(health: Health, clock: Clock) -> None:
    clock.now += 5
    assert health.behind() == ["home: catching up, for 5 s"]
    health.level("home", clock.now - 2)
    assert (health.behind(), health.lags()) == ([], {"home": 2.0})


def test_lag_is_the_time_since_all_there_was_is_dealt_with(health: Health, clock: Clock) -> None:
    health.level("home", clock.now)
    clock.now += READY_SECONDS + 1
    health.moved("home")
    assert health.behind() == ["home: 31 s behind"]
    health.level("home", clock.now - READY_SECONDS - 10)
    assert health.behind() == ["home: 40 s behind"]


def test_what_moves_or_waits_is_alive_however_far_behind(health: Health, clock: Clock) -> None:
    for _ in range(10):
        clock.now += STUCK_SECONDS
        health.moved("home")
        assert health.stuck() == []
    health.waits("home", "provider a: can't connect")
    clock.now += STUCK_SECONDS
    assert health.stuck() == []
    assert health.behind() == ["home: catching up, for 660 s: provider a: can't connect"]
    health.moved("home")
    assert health.behind() == ["home: catching up, for 660 s"]


def test_what_does_not_know_how_far_behind_it_is_is_alive_and_lags_on(health: Health, clock: Clock) -> None:
    for _ in range(3):
        clock.now += STUCK_SECONDS
        health.level("home", None)
    assert (health.stuck(), health.behind()) == ([], ["home: catching up, for 180 s"])
    health.level("home", clock.now - 1)
    health.level("home", None)
    assert health.lags() == {"home": 1.0}


def test_what_says_nothing_is_stuck_and_a_word_of_it_mends_that(health: Health, clock: Clock) -> None:
    clock.now += STUCK_SECONDS + 1
    assert health.stuck() == ["home: has neither moved nor been level for 61 s"]
    health.moved("home")
    assert health.stuck() == []


def test_a_part_that_ended_keeps_the_role_from_being_ready_and_not_alive(
    health: Health, clock: Clock
) -> None:
    health.opened("away")
    health.ends("", {"home": "a reorg below finality"})
    clock.now += STUCK_SECONDS + 1
    health.level("away", clock.now)
    assert (health.stuck(), health.behind()) == ([], ["home: ended: a reorg below finality"])


def test_a_clock_that_is_set_back_makes_no_negative_lag(health: Health, clock: Clock) -> None:
    health.level("home", clock.now + 100)
    assert health.lags() == {"home": 0.0}


def test_a_part_that_is_no_longer_among_the_ended_is_forgotten(health: Health) -> None:
    health.level("home", 1_000.0)
    health.ends("tasks, ", {"home/1": "broken", "away/1": "broken"})
    health.ends("other, ", {"home/1": "broken"})
    health.ends("tasks, ", {"away/1": "broken"})
    assert sorted(health.behind()) == ["other, home/1: ended: broken", "tasks, away/1: ended: broken"]
    health.ends("tasks, ", {})
    health.ends("other, ", {})
    assert health.behind() == []


def test_a_source_that_has_not_been_heard_yet_was_not_level_in_1970(health: Health, clock: Clock) -> None:
    health.opened("home")
    clock.now += 3
    health.level("home", None)
    assert health.behind() == ["home: catching up, for 3 s"]
    assert health.lags() == {"home": 3.0}
    assert health.silence("home") == 0.0


def test_the_lag_of_a_part_that_ended_grows_while_it_is_said_to_have(health: Health, clock: Clock) -> None:
    for _ in range(10):
        health.ends("tasks, ", {"home/1": "broken"})
        clock.now += 1
    assert health.lags()["tasks, home/1"] == 10.0


def test_a_part_may_be_allowed_more_lag_than_others(clock: Clock) -> None:
    health = Health(clock)
    health.opened("slow chain", 90)
    health.level("slow chain", clock.now - 80)
    assert health.behind() == []
    clock.now += 11
    assert health.behind() == ["slow chain: 91 s behind"]


def test_of_a_bug_a_page_says_no_more_than_its_kind() -> None:
    assert words(NektarError("expected 1; got 2")) == "expected 1; got 2"
    assert words(ValueError("https://user:secret@node")) == "a bug (ValueError); see the log"

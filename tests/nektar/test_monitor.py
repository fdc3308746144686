"""What a role's process shows of itself, and to whom it sends its spans."""

from __future__ import annotations

import json
import socket
import stat
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from nektar.config import Config, ConfigError, Listen, Telemetry
from nektar.health import Health
from nektar.http import CantListen
from nektar.monitor import Monitor, _Exporter, address, own_token
from nektar.role import ROLES


def config(directory: Path, **telemetry: Any) -> Config:
    listen = Listen(otlp=telemetry.pop("otlp", "127.0.0.1:4318"), metrics="127.0.0.1:0")
    return Config(
        providers={}, networks=(), data_dir=str(directory), listen=listen, telemetry=Telemetry(**telemetry)
    )


def page(monitor: Monitor, name: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{monitor.address}/{name}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_pages_say_what_the_parts_say(tmp_path: Path) -> None:
    now = [1_000.0]
    health = Health(lambda: now[0])
    with Monitor("store", config(tmp_path, own=False), health) as monitor:
        assert page(monitor, "readyz")[0] == 503
        assert page(monitor, "healthz")[0] == 200
        health.opened("networks")
        now[0] += 61
        status, said = page(monitor, "healthz")
        assert (status, json.loads(said)) == (
            503,
            {
                "role": "store",
                "ok": False,
                "wrong": ["networks: has neither moved nor been level for 61 s"],
                "lag_seconds": {"networks": 61.0},
            },
        )
        health.level("networks", now[0] - 2.5)
        assert [page(monitor, name)[0] for name in ("healthz", "readyz")] == [200, 200]
        assert 'nektar_lag_seconds{part="networks"} 2.5' in page(monitor, "metrics")[1]


def test_each_role_has_the_port_of_its_place_and_a_taken_one_says_whose_it_is(tmp_path: Path) -> None:
    listen = Listen(metrics="127.0.0.1:9464")
    at = [address(role, Config(providers={}, networks=(), listen=listen)) for role in ROLES]
    assert at == [f"127.0.0.1:{9464 + i}" for i in range(len(ROLES))]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listen = Listen(metrics=f"127.0.0.1:{port - 4}")
        with pytest.raises(
            CantListen, match=rf"listen.metrics \(of the store: .* and 4 more\).*:{port}: .*in use"
        ):
            Monitor("store", Config(providers={}, networks=(), listen=listen), Health())


def test_the_roles_own_token_is_one_secret_that_senders_tokens_do_not_give_away(tmp_path: Path) -> None:
    of = config(tmp_path / "data")
    token = own_token(of)
    assert own_token(of) == token
    assert len(token) >= 32
    assert own_token(config(tmp_path / "other")) != token
    assert stat.S_IMODE((tmp_path / "data" / "own.token").stat().st_mode) == 0o600
    assert [each.name for each in (tmp_path / "data").iterdir()] == ["own.token"]
    assert own_token(config(tmp_path, own_token="one for all the hosts")) == "one for all the hosts"
    assert own_token(config(tmp_path, unauthenticated=True)) == ""


@pytest.mark.parametrize("own", [False, "https://collector.example.com"])
def test_where_no_role_sends_spans_to_our_collector_no_token_is_made(tmp_path: Path, own: bool | str) -> None:
    assert own_token(config(tmp_path / "data", own=own)) == ""
    assert not (tmp_path / "data").exists()


def test_of_many_who_make_the_token_at_once_all_have_the_same(tmp_path: Path) -> None:
    of, tokens = config(tmp_path), list[str]()
    together = threading.Barrier(8)

    def make() -> None:
        together.wait()
        tokens.append(own_token(of))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 8
    assert len({*tokens}) == 1


def test_a_token_that_can_not_be_kept_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"own\.token: the roles' own token can't be kept there"):
        own_token(config(tmp_path / "file"))


def test_our_token_goes_to_our_collector_alone_and_past_every_proxy(tmp_path: Path) -> None:
    ours = _Exporter(config(tmp_path))
    assert ours._client._headers["authorization"] == f"Bearer {own_token(config(tmp_path))}"
    assert ours._client._transport._session.trust_env is False
    theirs = _Exporter(config(tmp_path, own="https://collector.example.com/"))
    assert "authorization" not in {name.lower() for name in theirs._client._headers}
    assert theirs._endpoint == "https://collector.example.com/v1/traces"


def test_a_role_that_ends_does_not_wait_for_a_collector_that_says_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        of = config(tmp_path, otlp=f"127.0.0.1:{silent.getsockname()[1]}")
        monitor = Monitor("store", of, Health())
        monitor._spans.get_tracer("test").start_span("work").end()
        ending = threading.Thread(target=monitor.close)
        ending.start()
        connection, _ = silent.accept()  # it is being told, and does not answer
        with connection:
            ending.join(20)
            assert not ending.is_alive()

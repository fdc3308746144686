"""nektar.yaml: mistakes are caught at the start, and say where, what was expected and what came."""

from __future__ import annotations

from pathlib import Path

import pytest

from nektar.config import ConfigError, Quota, find, load, parse

GOOD = """
providers: {mine: {url: "http://127.0.0.1:8545"}}
networks:
  - name: one
    chain_id: 31337
    rpc: [mine]
    contracts: {task_manager: "0x00000000000000000000000000000000000000aa"}
"""


def test_defaults_are_embedded_and_under_the_data_directory(tmp_path: Path) -> None:
    config = parse(GOOD, base=tmp_path)
    assert config.bus_url == f"sqlite://{tmp_path / 'nektar-data' / 'bus'}"
    assert config.store_url == f"chdb://{tmp_path / 'nektar-data' / 'store'}"
    assert config.network().name == "one"
    assert config.network().objective == 0.99


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("chain_id: 31337", "chain_id: 31337\n    colour: red"), "colour"),
        (("chain_id: 31337", "chain_id: zero"), "chain_id"),
        (("rpc: [mine]", "rpc: [yours]"), "expected a name under providers"),
        (("rpc: [mine]", "rpc: []"), "rpc"),
        (("00aa", "00"), "contracts"),
        (("providers:", "provider:"), "provider"),
        (("name: one", "name: One Network"), "name"),
        (("chain_id: 31337", "chain_id: 31337\n    objective: 1"), "objective"),
        (("chain_id: 31337", "chain_id: 31337\n    objective: 99"), "objective"),
        (("chain_id: 31337", "chain_id: 31337\n    objective: 0"), "objective"),
        (("providers: {", "providers: {{"), "not YAML"),
        (("http://127.0.0.1:8545", "${NEKTAR_TEST_UNSET}"), "NEKTAR_TEST_UNSET is not set"),
        (("http://127.0.0.1:8545", "file:/no/such/file"), "can't be read"),
    ],
)
def test_a_mistake_is_named(change: tuple[str, str], says: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(ConfigError, match=says) as caught:
        parse(GOOD.replace(*change), "here.yaml")
    assert "here.yaml" in str(caught.value)


def test_telemetry_comes_over_grpc_unless_that_is_turned_off() -> None:
    assert parse(GOOD).listen.otlp_grpc == "127.0.0.1:4317"
    assert parse(GOOD + 'listen: {otlp_grpc: ""}').listen.otlp_grpc == ""
    with pytest.raises(ConfigError, match=r"listen\.otlp_grpc"):
        parse(GOOD + "listen: {otlp_grpc: somewhere}")
    with pytest.raises(ConfigError, match=r"listen\.otlp_grpc is 9466"):
        parse(GOOD + "listen: {otlp_grpc: ':9466'}")


@pytest.mark.parametrize(
    ("quota", "says"),
    [
        ("{bytes_per_second: 0}", "bytes_per_second"),
        ("{bytes_per_second: 100}", "bytes_per_second"),  # less than a span
        ("{items_per_second: 0}", "items_per_second"),
        ("{items_per_second: -1}", "items_per_second"),
        ("{items_per_second: 0.5}", "items_per_second"),
        ("{burst: 0}", "burst"),
        ("{burst: .inf}", "burst"),
        ("{burst: .nan}", "burst"),
        ("{bytes: 5}", "expected one of bytes_per_second, items_per_second, burst"),
    ],
)
def test_a_quota_that_takes_nothing_or_all_is_refused(quota: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse(f"{GOOD}telemetry: {{quota: {quota}}}")


def test_a_quota_is_generous_unless_something_is_said() -> None:
    assert parse(GOOD).telemetry.quota == Quota(32 << 20, 50_000, 10)
    assert parse(GOOD + "telemetry: {quota: {items_per_second: 7}}").telemetry.quota == Quota(32 << 20, 7, 10)


THREE = GOOD.replace(
    'providers: {mine: {url: "http://127.0.0.1:8545"}}',
    "providers: {mine: {url: http://a}, b: {url: http://b}, c: {url: http://c}, twin: {url: http://b}}",
).replace("rpc: [mine]", "rpc: [mine, b, c]\n    anchor: quorum 2/3\n    from_block: 10")
PIN = "0x" + "ab" * 32


@pytest.mark.parametrize("anchor", ["single", "quorum 2/3", "quorum 3", f"pinned 10 {PIN}"])
def test_an_anchor_is_one_of_three_kinds(anchor: str) -> None:
    assert parse(THREE.replace("quorum 2/3", anchor)).network().anchor == anchor


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("quorum 2/3", "most"), r"one\.anchor: expected `single`, `quorum M`, .* got 'most'"),
        (("quorum 2/3", "quorum 1/3"), "expected more than half of the 3 providers in rpc"),
        (("[mine, b, c]", "[mine, b]"), "expected 2 after the `/`"),
        (("[mine, b, c]", "[mine, b, b]"), r"one\.rpc: expected each provider once; got mine, b, b"),
        (("[mine, b, c]", "[mine, b, twin]"), "two of mine, b, twin have one url"),
        (("quorum 2/3", f"pinned 9 {PIN}"), "expected a pinned block at or above from_block, 10, .* got 9"),
    ],
)
def test_an_anchor_that_would_hold_less_than_it_says_is_refused(change: tuple[str, str], says: str) -> None:
    assert change[0] in THREE
    with pytest.raises(ConfigError, match=says):
        parse(THREE.replace(*change))


def test_a_network_says_which_part_of_shared_contracts_it_is() -> None:
    told = 'selector: {avs: "0xaa", operator_set: "3"}\n    terms: {veto_period: 259200}'
    (network,) = parse(GOOD.replace("chain_id: 31337", f"chain_id: 31337\n    {told}")).networks
    assert network.selector == {"avs": "0xaa", "operator_set": "3"}
    assert network.terms == {"veto_period": 259200}


KEY = "0x" + "11" * 64


@pytest.mark.parametrize(
    ("telemetry", "says"),
    [
        ("{audience: us, agents: {nektar: {role: observer, key: KEY}}}", "agents: nektar is the pipeline's"),
        ("{audience: us, agents: {chain: {role: observer, key: KEY}}}", "agents: chain is the pipeline's"),
        ("{audience: us, agents: {'0xa1': {role: observer, key: KEY}}}", "no Operator's address; got '0xa1'"),
        (
            "{audience: us, agents: {eye: {role: observer, key: KEY, networks: [home]}}}",
            "agents.eye.networks: expected names of one; got 'home'",
        ),
        ("{agents: {eye: {role: observer, key: KEY}}}", "telemetry.audience: expected"),
        ("{audience: us, unauthenticated: true}", "keep one"),
        ("{proxies: [gateway]}", "proxies: expected addresses and networks, .* got 'gateway'"),
        ("{proxies: [10.0.0.7/8]}", "got '10.0.0.7/8'"),
        ("{senders: {eye: 0123456789abcdef}}", "expected one of audience, agents, unauthenticated"),
    ],
)
def test_one_sender_is_never_taken_for_another_or_for_nobody(telemetry: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse(GOOD + f"telemetry: {telemetry.replace('KEY', repr(KEY))}")


def test_two_networks_of_one_name_are_refused() -> None:
    twice = GOOD + GOOD.split("networks:\n")[1]
    with pytest.raises(ConfigError, match="share a name"):
        parse(twice)


def test_secrets_come_from_the_environment_and_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEKTAR_TEST_URL", "http://a.example/key")
    config = parse(GOOD.replace("http://127.0.0.1:8545", "${NEKTAR_TEST_URL}"))
    assert config.providers["mine"].url == "http://a.example/key"
    (tmp_path / "url").write_text("http://b.example/key\n")
    config = parse(GOOD.replace("http://127.0.0.1:8545", f"file:{tmp_path / 'url'}"))
    assert config.providers["mine"].url == "http://b.example/key"


def test_a_missing_file_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nektar init"):
        load(tmp_path / "nektar.yaml")


def test_the_option_comes_before_the_directory_and_that_before_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NEKTAR_CONFIG", "from-environment.yaml")
    assert find(Path("a.yaml"), Path("d")) == Path("a.yaml")
    assert find(None, Path("d")) == Path("d/nektar.yaml")
    assert find(None, None) == Path("from-environment.yaml")
    monkeypatch.delenv("NEKTAR_CONFIG")
    assert find(None, None) == Path("nektar.yaml")

"""`nektar token`: what it prints is a header that a collector takes, and mistakes are one line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from nektar.evidence import bls
from nektar.tokens import is_signed, read

OPERATOR = "0x" + "A1" * 20
KEY = "0x" + bls.public_keys(42)[0].hex()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    config = {
        "data_dir": ".",
        "providers": {"p": {"url": "http://127.0.0.1:1"}},
        "telemetry": {
            "audience": "here",
            "agents": {"gateway": {"role": "aggregator", "key": KEY, "networks": ["home"]}},
        },
        "networks": [
            {"name": name, "chain_id": 31337, "rpc": ["p"], "contracts": {}} for name in ("home", "den")
        ],
    }
    (tmp_path / "nektar.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "key").write_text("0x2a\n")
    return tmp_path


def nektar(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", "token", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "K": "2a", "OTHER": "2b"}
    )


@pytest.mark.parametrize("key", ["file", "variable"])
@pytest.mark.parametrize("told", [True, False], ids=["by options", "by nektar.yaml"])
def test_what_it_prints_is_the_header_that_exporters_send(home: Path, key: str, told: bool) -> None:
    given = f"file:{home / 'key'}" if key == "file" else "${K}"
    options: tuple[object, ...] = ("--dir", home)
    if told:
        options = ("--chain-id", 31337, "--audience", "here")
    options += ("--network", "home")
    done = nektar(OPERATOR, "--key", given, "--days", 3, *options)
    assert (done.returncode, done.stderr) == (0, "")
    name, _, value = done.stdout.strip().partition("=")
    assert (name, value.isascii(), " " in value) == ("authorization", True, False)
    scheme, _, token = unquote(value).partition(" ")
    claims, signature = read(token)
    assert scheme == "Bearer"
    assert is_signed(claims, signature)
    assert (claims.network, claims.chain_id, claims.audience) == ("home", 31337, "here")
    assert (claims.role, claims.sender, claims.key) == ("operator", OPERATOR.lower(), bls.public_keys(42)[1])
    assert abs(claims.expires - time.time() - 3 * 24 * 3600) < 60


@pytest.mark.parametrize("told", [True, False], ids=["by options", "by nektar.yaml"])
def test_an_agent_mints_in_its_own_role(home: Path, told: bool) -> None:
    options = ("--chain-id", 31337, "--audience", "here") if told else ("--dir", home)
    done = nektar("gateway", "--role", "aggregator", "--key", "${K}", "--network", "home", *options)
    assert (done.returncode, done.stderr) == (0, "")
    claims, signature = read(unquote(done.stdout).strip().partition("Bearer ")[2])
    assert (claims.role, claims.sender, is_signed(claims, signature)) == ("aggregator", "gateway", True)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((OPERATOR, "--key", "0x2a"), "arguments are for all to see"),
        ((OPERATOR, "--key", "${NO_SUCH}"), "NO_SUCH"),
        (("operator-1", "--key", "${K}"), "an Operator's address"),
        ((OPERATOR, "--key", "${HOME}"), "BN254 secret"),
        (("gateway", "--role", "owner", "--key", "${K}"), "owner"),
        (("gateway", "--key", "${K}"), "--role: gateway is an aggregator in telemetry.agents"),
        (("gateway", "--role", "observer", "--key", "${K}"), "--role: gateway is an aggregator"),
        (("stranger", "--role", "observer", "--key", "${K}"), "expected one of telemetry.agents (gateway)"),
        ((OPERATOR, "--role", "observer", "--key", "${K}"), "--role operator for an address"),
        (("Gateway", "--role", "aggregator", "--key", "${K}"), "of a-z, 0-9, _ and -"),
        (("gateway", "--role", "aggregator", "--key", "${OTHER}"), "another key for gateway"),
        ((OPERATOR, "--key", "${K}", "--network", "away"), "expected one of home, den; got 'away'"),
        (("gateway", "--role", "aggregator", "--key", "${K}", "--network", "den"), "gateway is of home in"),
        (
            (OPERATOR, "--key", "${K}", "--network", "home", "--audience", "x" * 129),
            "audience: expected 1 to 128",
        ),
        ((OPERATOR, "--key", "${K}", "--network", "home", "--audience", "a\tb"), "printable"),
        ((OPERATOR, "--key", "${K}", "--network", "home", "--chain-id", str(2**53)), "chain-id"),
        ((OPERATOR, "--key", "${K}", "--days", "401"), "400"),
    ],
)
def test_a_mistake_is_one_line_without_the_secret(home: Path, arguments: tuple[str, ...], why: str) -> None:
    network = () if "--network" in arguments else ("--network", "home")
    done = nektar(*arguments, *network, "--dir", home)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert why in line
    assert os.environ["HOME"] not in line

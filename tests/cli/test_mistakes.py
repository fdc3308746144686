"""What goes wrong on real machines gets one clear line and a non-zero exit, and loses nothing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devnet.chain import Chain
from nektar import bus as buses
from nektar.bus.port import Message, partition_of
from nektar.config import load
from nektar.log import NETWORK, key
from tests.cli.command import CONTRACT, MISTAKE, ROOT, SECRET, Done, nektar, ours, refused, up, write

ELSEWHERE = "0x00000000000000000000000000000000000000bb"


@contextmanager
def taken() -> Iterator[str]:
    """An address at which something listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


# --- nektar.yaml ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lisen: {}", "unknown field `lisen`; expected one of providers, networks, data_dir"),
        ("listen: {sq: x}", "unknown field `sq` - at `$.listen`; expected one of sql"),
        ("providers: {a: {url: x, limit: 1}}", "unknown field `limit`"),
        (": {[ no", "not YAML"),
        ("- 1", "expected keys and values"),
        ("\udcff", "expected text in UTF-8; got the byte 0xff"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "nektar.yaml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(nektar("check", "--config", path), says, code=MISTAKE)


@pytest.mark.parametrize("command", ["check", "up", "migrate", "sql x", "tasks", "replay", "dead"])
def test_no_command_goes_without_a_file_that_is_right(tmp_path: Path, command: str) -> None:
    refused(nektar(*command.split(), cwd=tmp_path), "nektar.yaml: no such file", "nektar init", code=MISTAKE)


def test_no_role_starts_with_an_unknown_key(tmp_path: Path) -> None:
    refused(nektar("up", "--config", write(tmp_path, lisen={})), "unknown field `lisen`", code=MISTAKE)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"adapter": "unheard-of"}, "expected one of nektar"),
        ({"bus": f"redis://me:{SECRET}@there"}, "expected sqlite:///DIRECTORY"),
        ({"store": "drawer://left"}, "expected chdb:///PATH or clickhouse://"),
    ],
)
def test_a_place_that_can_not_be(tmp_path: Path, change: dict[str, object], says: str) -> None:
    refused(nektar("up", "store", "--config", write(tmp_path, **change)), says)


def test_a_data_dir_that_is_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, data_dir="nektar.yaml")
    for command in ("up", "up indexer", "migrate", "replay", "dead", "sql x"):
        refused(nektar(*command.split(), "--config", path), str(path))


# --- the chain --------------------------------------------------------------------------------------


def test_a_provider_that_does_not_answer(tmp_path: Path) -> None:
    refused(nektar("check", "--config", write(tmp_path)), "provider mine", "can't connect", "check its url")


@pytest.mark.real
def test_a_chain_of_another_id(tmp_path: Path, chain: Chain) -> None:
    path = write(tmp_path, chain.url, chain_id=1)
    refused(nektar("check", "--config", path), "expected chain 1", "31337", code=MISTAKE)
    refused(nektar("up", "indexer", "--config", path), "expected chain 1", "31337", code=MISTAKE)


@pytest.mark.real
def test_no_contract_at_an_address(tmp_path: Path, chain: Chain) -> None:
    path = write(tmp_path, chain.url, contracts={"task_manager": ELSEWHERE, "delegation": CONTRACT})
    for command in (["check"], ["up", "indexer"]):
        says = "networks.one.contracts", f"chain 31337 has none at task_manager {ELSEWHERE} (asked: mine)"
        refused(nektar(*command, "--config", path), *says, code=MISTAKE)


@pytest.mark.parametrize(
    ("contracts", "says"),
    [
        ({"task_boss": CONTRACT}, "contracts.task_boss: expected one of burner"),
        ({"task_manager": CONTRACT, "delegation": CONTRACT}, "is named twice"),
        ({"task_manager": "0x" + "00" * 20}, "expected the address of your contract; got the zero address"),
    ],
)
def test_contracts_that_can_not_be(tmp_path: Path, contracts: dict[str, str], says: str) -> None:
    path = write(tmp_path, contracts=contracts)
    refused(nektar("check", "--config", path), "networks.one.contracts.", says, code=MISTAKE)


# --- SQL --------------------------------------------------------------------------------------------


def test_sql_that_is_wrong_where_no_store_role_runs(tmp_path: Path) -> None:
    path = write(tmp_path)
    for command in ("sql x", "tasks", "operators", "findings"):
        refused(nektar(*command.split(), "--config", path), "there is none yet", "nektar up")
    assert nektar("migrate", "--config", path).returncode == 0
    refused(nektar("sql", "SELEC 1", "--config", path), "Syntax error", code=MISTAKE)
    refused(nektar("sql", "DROP TABLE duties_rows", "--config", path), "Expected SELECT", code=MISTAKE)
    assert nektar("sql", "SELECT count() FROM duties", "--config", path, "--format", "CSV").stdout == "0\n"


# --- the machine ------------------------------------------------------------------------------------


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with taken() as listen:
        path = write(tmp_path, listen={"sql": listen})
        refused(nektar("up", "store", "--config", path), listen, "in use", "another port", code=MISTAKE)


def test_a_directory_that_no_demo_has_made_is_never_deleted(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "precious").write_text("keep me")
    refused(nektar("demo", "--keep", tmp_path), "no demo has made", "empty directory")
    assert (tmp_path / "precious").read_text() == "keep me"


@pytest.mark.parametrize("command", ["demo --keep here", "devnet --out here"])
def test_a_missing_anvil_names_node_and_npm(tmp_path: Path, command: str) -> None:
    done = nektar(*command.split(), cwd=tmp_path, NEKTAR_ANVIL=str(tmp_path / "nothing"))
    refused(done, "NEKTAR_ANVIL")


@pytest.mark.parametrize(
    ("target", "tools", "says"),
    [
        (
            ".venv/ready",
            {"python3": "#!/bin/sh\necho Python 3.9.1\nexit 1\n"},
            "expected Python 3.11, 3.12 or 3.13",
        ),
        ("node_modules/ready", {}, "expected Node 20 or newer"),
        ("node_modules/ready", {"node": "#!/bin/sh\necho v18.0.0\nexit 1\n"}, "found v18.0.0"),
    ],
)
def test_make_without_a_fitting_python_or_node(
    tmp_path: Path, target: str, tools: dict[str, str], says: str
) -> None:
    for name in ("Makefile", "pyproject.toml", "package.json", "package-lock.json"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    path = tmp_path / "bin"
    path.mkdir()
    for name in ("make", "bash", "sh", "echo"):
        if found := shutil.which(name):
            (path / name).symlink_to(found)
    for name, script in tools.items():
        (path / name).write_text(script)
        (path / name).chmod(0o755)
    done: Done = subprocess.run(
        ["make", target], cwd=tmp_path, env={"PATH": str(path)}, capture_output=True, text=True, check=False
    )
    refused(done, says)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_to_a_full_disk() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "cli.main", "--help"]
        done: Done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("nektar: output: No space left on device")
    assert done.stderr.count("\n") == 1


# --- the log ----------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A nektar.yaml whose Network's log begins with bytes that are no record."""
    path = write(tmp_path)
    with (
        buses.open(load(path).bus_url) as bus,
        bus.writer("somebody", partition_of("one", bus.partitions)) as writer,
    ):
        writer.transaction([Message(NETWORK, key("one", 1), b"this is no record")])
    return path


def test_a_broken_record_stops_the_roles_and_stays_where_it_is(broken: Path) -> None:
    partition = partition_of("one", 8)
    for command in ("up processors", "up indexer", "replay"):
        done = nektar(*command.split(), "--config", broken)
        refused(done, NETWORK, f"partition {partition}", "offset 0", "expected a log record")
    with buses.open(load(broken).bus_url) as bus:
        assert [m.value for m in bus.read(NETWORK, partition)] == [b"this is no record"]


def test_a_broken_record_is_a_dead_letter_of_the_store_and_does_not_stop_it(broken: Path) -> None:
    with up("store", "--config", broken) as store:
        said = store.until("is a dead letter")
        assert "expected a log record" in said
        assert b"this is no record".hex() in nektar("dead", "--json", "--config", broken).stdout
        assert nektar("sql", "SELECT count() FROM blocks FORMAT CSV", "--config", broken).stdout == "0\n"
        store.process.terminate()
        assert store.end() == 0
        assert ours(store.said) == []

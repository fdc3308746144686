"""What goes wrong with `nektar up` gets clear lines, no secret in them, and an exit code that fits."""

from __future__ import annotations

import json
import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from devnet.anvil import find_anvil, free_port
from devnet.chain import DevnetError
from nektar.role import ROLES, ends_with_parent
from tests.seeds import thorough

CHAIN_ID = 31337
SECRET = "api-key-that-nobody-may-see"
NOBODY = "0x00000000000000000000000000000000000000aa"
MISTAKE = 2
PATIENCE = 60.0
# Which role says where its pages are.
PAGES = re.compile(r" ([a-z]+) I nektar\.monitor: /metrics.* at (http://\S+)")


def page(url: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def write(directory: Path, rpc_port: int, **changes: object) -> Path:
    network = {"name": "one", "chain_id": CHAIN_ID, "rpc": ["a"], "contracts": {"task_manager": NOBODY}}
    config = {
        "data_dir": "data",
        "providers": {"a": {"url": f"http://127.0.0.1:{rpc_port}/?key={SECRET}"}},
        "networks": [network],
        "listen": {name: f"127.0.0.1:{free_port()}" for name in ("sql", "otlp", "otlp_grpc")}
        | {"metrics": "127.0.0.1:0"},
        **changes,
    }
    path = directory / "nektar.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def nektar(*arguments: object) -> tuple[int, list[str], str]:
    """Exit code, our own lines, and all that was said."""
    command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert SECRET not in said
    return done.returncode, ours(done.stderr.splitlines()), said


def ours(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("nektar: ")]


class Running:
    """`nektar up`, listened to."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "cli.main", "up", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, preexec_fn=ends_with_parent()
        )
        self.lines: list[str] = []
        self._coming: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as said:
            for line in said:
                self.lines.append(line)
                self._coming.put(line)

    def until(self, words: str) -> str:
        """The next line that says this."""
        deadline = time.monotonic() + PATIENCE
        while words not in (line := self._coming.get(timeout=max(0.01, deadline - time.monotonic()))):
            pass
        return line

    def end(self) -> int:
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        said = "".join(self.lines)
        assert "Traceback" not in said
        assert SECRET not in said
        return code


@contextmanager
def up(*arguments: object) -> Iterator[Running]:
    running = Running(*arguments)
    try:
        yield running
    finally:
        running.process.terminate()
        running.end()


@thorough
def test_a_second_up_on_one_data_dir_says_so_and_leaves_the_first_alone(tmp_path: Path) -> None:
    """Also: SQL mistakes while the store role runs, whose own line is as clear as without it."""
    path = write(tmp_path, rpc_port=1)
    with up("--config", path) as first:
        first.until("SQL at http://")
        code, lines, _ = nektar("up", "--config", path)
        assert (code, len(lines)) == (1, 1)
        assert "another `nektar up` runs it" in lines[0]
        for statement, says in (
            ("SELEC 1", "Syntax error"),
            ("SELECT * FROM nothing", "nothing"),
            ("DROP TABLE duties_rows", "Expected SELECT"),
            ("INSERT INTO duties_rows SELECT * FROM duties_rows", "Expected SELECT"),
        ):
            code, lines, _ = nektar("sql", statement, "--config", path)
            assert code != 0
            assert len(lines) == 1
            assert says in lines[0]
        assert nektar("sql", "SELECT 1, 2 FORMAT CSV", "--config", path) == (0, [], "1,2\n")
        assert first.process.poll() is None
        assert ours(first.lines) == []


def test_each_role_says_whether_it_is_alive_how_far_behind_and_what_it_counts(tmp_path: Path) -> None:
    """Of a provider that is not there the indexer waits: it is alive and not ready."""
    path = write(tmp_path, rpc_port=1)
    with up("--config", path) as running:
        while len(pages := dict(PAGES.findall("".join(running.lines)))) < len(ROLES):
            running.until("/metrics")
        for role in ROLES:
            at = pages[role]
            status, said = page(f"{at}/readyz")
            deadline = time.monotonic() + PATIENCE
            while "starting" in said or (role != "indexer" and status != 200):
                assert time.monotonic() < deadline, said
                status, said = page(f"{at}/readyz")
            if role == "indexer":
                assert status == 503
                assert json.loads(said)["wrong"][0].startswith("one: catching up")
            assert page(f"{at}/healthz")[0] == 200
            status, said = page(f"{at}/metrics")
            assert status == 200
            ready = page(f"{at}/readyz")[1]
            assert SECRET not in said + ready
            parts = json.loads(ready)["lag_seconds"]
            assert parts
            for part in parts:
                assert f'nektar_lag_seconds{{part="{part}"}}' in said
            assert f'service_name="nektar-{role}"' in said
            assert "process_resident_memory_bytes" in said


@pytest.mark.real
@pytest.mark.parametrize(
    ("serves", "says"),
    [
        (["--chain-id", "5"], "expected chain 31337, as chain_id says; it serves chain 5"),
        (["--chain-id", "31337", "--block-time", "1"], f"chain 31337 has none at task_manager {NOBODY}"),
    ],
)
def test_a_provider_may_come_late_but_not_with_another_chain_or_without_the_contracts(
    tmp_path: Path, serves: list[str], says: str
) -> None:
    try:
        anvil = find_anvil()
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")
    port = free_port()
    with up("indexer", "--config", write(tmp_path, port)) as indexer:
        indexer.until("can't connect (Connection refused); check its url")
        indexer.until("indexer.follow")  # it goes on trying
        assert indexer.process.poll() is None
        chain = subprocess.Popen(
            [anvil, "--port", str(port), "--silent", *serves], preexec_fn=ends_with_parent()
        )
        try:
            assert indexer.end() == MISTAKE
        finally:
            chain.terminate()
            chain.wait()
        (line,) = ours(indexer.lines)
        assert says in line


def test_up_ends_at_once_with_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        free = {name: f"127.0.0.1:{free_port()}" for name in ("otlp", "otlp_grpc")}
        path = write(tmp_path, rpc_port=1, listen={"sql": listen, **free, "metrics": "127.0.0.1:0"})
        code, lines, _ = nektar("up", "--config", path)
    assert code == MISTAKE
    assert [listen in line for line in lines] == [True, False]
    assert "store: stopped" in lines[1]


def test_a_data_dir_that_is_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, rpc_port=1, data_dir="nektar.yaml")
    for command in (["up"], ["up", "indexer"], ["migrate"], ["replay"], ["dead"], ["sql", "SELECT 1"]):
        code, lines, _ = nektar(*command, "--config", path)
        assert code != 0
        assert len(lines) == 1
        assert str(path) in lines[0]


def test_a_bus_url_that_is_wrong_is_not_shown_with_its_password(tmp_path: Path) -> None:
    path = write(tmp_path, rpc_port=1, bus=f"redis://me:{SECRET}@there")
    code, lines, _ = nektar("up", "processors", "--config", path)
    assert code != 0
    assert len(lines) == 1
    assert "bus: expected" in lines[0]


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
    code, lines, _ = nektar("check", "--config", path)
    assert code == MISTAKE
    assert len(lines) == 1
    assert says in lines[0]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_to_a_full_disk() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "cli.main", "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("nektar: output: No space left on device")
    assert done.stderr.count("\n") == 1

"""A query that the engine can't end, or by which it has failed, takes SQL from nobody for long."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml

from cli.up import STOP_SECONDS
from devnet.anvil import free_port
from nektar.role import ends_with_parent
from nektar.store.serve import RUNNING
from tests.seeds import thorough

# One function of one row, which takes minutes: the engine looks at nothing else meanwhile.
ENDLESS = "SELECT length(arrayLevenshteinDistance(range(900000), range(900000))::String)"
SHOWN = "'SELECT length(arrayLevenshteinDistance("
PATIENCE = 60.0
# `nektar`, with so many seconds for a query, and so many beyond them.
SHORT = """
import sys
from nektar.store import readonly, serve
serve.LATE_SECONDS = float(sys.argv.pop())
readonly.LIMITS = serve.LIMITS = {**readonly.LIMITS, "max_execution_time": int(sys.argv.pop())}
from cli.main import main
main()
"""
# So many seconds until the end of its input, or it ends by itself.
STOPPED = """
import os, sys
from nektar.store import serve
serve.SLICE_SECONDS = 0.05
with serve.within(float(sys.argv[1]), lambda: os._exit(1)):
    print("began", flush=True)
    sys.stdin.read()
"""


class Up:
    """`nektar up`, of which the store role answers SQL."""

    def __init__(self, directory: Path, roles: list[str], seconds: tuple[int, float] | None = None) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._directory = directory
        config = {
            "data_dir": "data",
            "providers": {"a": {"url": "http://127.0.0.1:1"}},
            "networks": [{"name": "one", "chain_id": 1, "rpc": ["a"], "contracts": {}}],
            "listen": {"sql": self.address, "metrics": "127.0.0.1:0"},
        }
        (directory / "nektar.yaml").write_text(yaml.safe_dump(config))
        command = [sys.executable, *(["-c", SHORT] if seconds else ["-m", "cli.main"])]
        command += ["up", *roles, "--config", str(directory / "nektar.yaml"), *map(str, seconds or ())]
        with (directory / "log").open("w") as log:
            self.process = subprocess.Popen(command, stderr=log, preexec_fn=ends_with_parent())

    @property
    def log(self) -> str:
        return (self._directory / "log").read_text()

    @property
    def store(self) -> int:
        """The store role's process, where it has a supervisor."""
        return int((self._directory / "data" / "run" / "store.pid").read_text())

    def answers(self) -> bool:
        """Whether it answers a query at once."""
        try:
            with urlopen(Request(f"http://{self.address}/", b"SELECT 1"), timeout=1) as answer:
                return bool(answer.read() == b"1\n")
        except (OSError, HTTPException):
            return False

    def until(self, answers: bool) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.answers() != answers:
            assert time.monotonic() < deadline, self.log

    @contextmanager
    def asked(self, sql: str = ENDLESS) -> Iterator[None]:
        """By as many clients as are answered at once: nobody else is meanwhile."""
        host, port = self.address.split(":")
        with ExitStack() as clients:
            for _ in range(RUNNING):
                client = clients.enter_context(socket.create_connection((host, int(port))))
                head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(sql)}\r\n\r\n"
                client.sendall(f"{head}{sql}".encode())
            self.until(answers=False)
            with urlopen(f"http://{self.address}/ping", timeout=PATIENCE):  # the endpoint has seen them all
                yield

    def ends(self, code: int, within: float = PATIENCE / 2) -> None:
        assert self.process.wait(within) == code, self.log


@contextmanager
def up(directory: Path, roles: list[str], seconds: tuple[int, float] | None = None) -> Iterator[Up]:
    running = Up(directory, roles, seconds)
    try:
        running.until(answers=True)
        yield running
    finally:
        running.process.terminate()
        try:
            running.process.wait(PATIENCE / 2)
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait()


def test_a_query_that_does_not_end_in_its_time_ends_the_role(tmp_path: Path) -> None:
    with up(tmp_path, ["store"], (2, 1)) as role, role.asked():
        role.ends(1)
        assert f"a query does not end, 3 s after it began; running: {SHOWN}" in role.log


def test_time_for_which_a_process_is_stopped_is_not_a_querys() -> None:
    command = [sys.executable, "-c", STOPPED, "2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == b"began\n"
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        time.sleep(2.1)
        process.send_signal(signal.SIGCONT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def test_a_query_that_does_not_end_though_its_client_has_gone_ends_the_role(tmp_path: Path) -> None:
    with up(tmp_path, ["store"], (30, 1)) as role:
        with role.asked():
            pass
        role.ends(1)
        assert f"a query does not end, 1 s after its client had gone; running: {SHOWN}" in role.log


def test_a_role_that_is_told_to_stop_waits_for_no_query_that_does_not_end(tmp_path: Path) -> None:
    with up(tmp_path, ["store"], (30, 1)) as role, role.asked():
        role.process.terminate()
        role.ends(1)
        assert "a query does not end, 1 s after the endpoint was to close; running: " in role.log
        assert role.log.count(SHOWN) == RUNNING


@thorough
def test_a_role_that_is_told_to_stop_ends_queries_that_can_be_ended(tmp_path: Path) -> None:
    endless = "SELECT sum(cityHash64(number)) FROM numbers(1000000000000)"
    with up(tmp_path, ["store"]) as role, role.asked(endless):
        role.process.terminate()
        role.ends(0, within=STOP_SECONDS)
        assert "does not end" not in role.log


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and tgkill")
def test_an_engine_that_has_failed_ends_the_role_with_the_next_query(tmp_path: Path) -> None:
    with up(tmp_path, ["store"]) as role:
        pid = role.process.pid
        threads = {int(t.name): (t / "comm").read_text() for t in Path(f"/proc/{pid}/task").iterdir()}
        (one, *_) = (thread for thread, name in threads.items() if name == "BgSchPool\n")
        # One of the engine's own. It catches that, never goes on, and answers nothing from then on.
        ctypes.CDLL(None).tgkill(pid, one, signal.SIGSEGV)
        deadline = time.monotonic() + PATIENCE
        while role.process.poll() is None and time.monotonic() < deadline:
            role.answers()
        role.ends(1)
        assert "the engine has failed (The server is shutting down due to a fatal error" in role.log


@thorough
def test_a_role_that_gave_up_is_started_again_and_answers(tmp_path: Path) -> None:
    with up(tmp_path, ["store", "watchers"]) as running:
        before = running.store
        with running.asked():
            pass
        running.until(answers=True)
        assert running.store != before
        assert "(exit code 1); starting it again" in running.log
        running.process.terminate()
        running.ends(0)

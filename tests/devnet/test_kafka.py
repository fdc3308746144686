"""Brokers on this machine: their URL on a line of its own, and none left behind, however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import nektar.bus
from devnet.chain import DevnetError
from devnet.kafka import copied
from nektar.bus.port import Message


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "devnet.kafka", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
    )


def answers(url: str) -> bool:
    host, _, port = url.removeprefix("kafka://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def gone(url: str) -> bool:
    deadline = time.monotonic() + 30
    while answers(url) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not answers(url)


@pytest.fixture
def java_and_maven() -> None:
    try:
        copied()
    except DevnetError as error:
        pytest.skip(f"needs kafka: {error}")


@pytest.mark.real
@pytest.mark.usefixtures("java_and_maven")
def test_a_broker_keeps_its_data_where_it_is_told_and_ends_with_whoever_started_it(tmp_path: Path) -> None:
    for number, (last, ends_with) in enumerate(((signal.SIGINT, 0), (signal.SIGKILL, -signal.SIGKILL))):
        process = start("--dir", tmp_path / "kafka")
        try:
            assert process.stdout
            url = process.stdout.readline().rstrip("\n")
            with closing(nektar.bus.open(f"{url}?partitions=1")) as bus, bus.writer("w", 0) as writer:
                assert len(bus.read("s", 0)) == number
                writer.transaction([Message("s", b"k", b"v")])
            process.send_signal(last)
            assert process.wait(60) == ends_with
        finally:
            process.kill()
            process.communicate()
        assert gone(url)


@pytest.mark.parametrize(("there", "says"), [((), "Java 17"), (("java",), "Maven")])
def test_what_is_missing_is_said_in_one_line(there: tuple[str, ...], says: str, tmp_path: Path) -> None:
    for name in there:
        found: Any = shutil.which(name)
        if found is None:
            pytest.skip(f"needs kafka: no {name} on the PATH")
        (tmp_path / name).symlink_to(found)
    code = (
        "import sys; from pathlib import Path; from devnet import kafka; "
        f"kafka.BUILD = Path({str(tmp_path / 'build')!r}); sys.argv[1:] = []; kafka.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert says in line
    assert line.startswith("nektar: ")

"""The command as a person runs it, and a nektar.yaml to run it with."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from devnet.anvil import free_port
from nektar.role import ends_with_parent

ROOT = Path(__file__).parent.parent.parent
CHAIN_ID = 31337
CONTRACT = "0x00000000000000000000000000000000000000aa"  # the fixture `chain` has code there
SECRET = "api-key-that-nobody-may-see"
NOBODY = "http://127.0.0.1:1"  # tcpmux: nothing listens there
MISTAKE, INTERRUPTED = 2, 130
PATIENCE = 60.0

Done = subprocess.CompletedProcess[str]


def write(directory: Path, url: str = NOBODY, **changes: object) -> Path:
    """A nektar.yaml of one Network in `directory`, with these top-level keys or the Network's own changed."""
    network = {"name": "one", "chain_id": CHAIN_ID, "rpc": ["mine"], "contracts": {"task_manager": CONTRACT}}
    config: dict[str, object] = {
        "data_dir": "data",
        "providers": {"mine": {"url": f"{url}/?key={SECRET}"}},
        "networks": [network],
        "listen": {"sql": f"127.0.0.1:{free_port()}"},
    }
    for name, value in changes.items():
        (network if name in ("chain_id", "contracts", "adapter", "from_block") else config)[name] = value
    path = directory / "nektar.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "cli.main", *map(str, arguments)]


def nektar(*arguments: object, cwd: Path | None = None, **environment: str) -> Done:
    """The command, run to its end. No traceback and no secret is ever in what it says."""
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        timeout=PATIENCE,
        check=False,
    )
    fit_to_be_seen(done.stdout + done.stderr)
    return done


def fit_to_be_seen(said: str) -> None:
    assert "Traceback" not in said, said
    assert SECRET not in said, said


def ours(said: str) -> list[str]:
    """Our own lines among all that was said."""
    return [line for line in said.splitlines() if line.startswith("nektar: ")]


def refused(done: Done, *says: str, code: int | None = None) -> None:
    """It failed, and its one line of ours says this."""
    lines = ours(done.stderr)
    assert done.returncode > 0, done.stdout
    assert code in (None, done.returncode), done.stderr
    assert len(lines) == 1, done.stderr
    for words in says:
        assert words in lines[0]


class Running:
    """A `nektar up`, listened to."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            command("up", *arguments),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that Ctrl-C can be sent to it and its children alone
            preexec_fn=ends_with_parent(),
        )
        self._lines: list[str] = []
        self._coming: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as said:
            for line in said:
                self._lines.append(line)
                self._coming.put(line)

    @property
    def said(self) -> str:
        return "".join(self._lines)

    def until(self, words: str) -> str:
        """The next line that says this."""
        deadline = time.monotonic() + PATIENCE
        while words not in (line := self._coming.get(timeout=max(0.01, deadline - time.monotonic()))):
            pass
        return line

    def end(self) -> int:
        """Its exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        fit_to_be_seen(self.said)
        return code


@contextmanager
def up(*arguments: object) -> Iterator[Running]:
    running = Running(*arguments)
    try:
        yield running
    finally:
        running.process.terminate()
        running.end()

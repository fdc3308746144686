"""The devnet's processes and the barrier between them: each says on standard output how far it is."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from devnet.chain import DevnetError
from nektar.role import ends_with_parent

# An agent acts on a block in milliseconds; on a machine that is busy with everything else, in seconds.
BARRIER_SECONDS = 120.0
STOP_SECONDS = 5.0
LAST_WORDS = 20


class Child:
    """A process of the devnet that reports in JSON lines. Ends when its context does."""

    def __init__(self, name: str, module: str, *arguments: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the driver, which ends its children itself
            preexec_fn=ends_with_parent(),
        )
        self._changed = threading.Condition()
        self._newest: dict[str, Any] = {}
        self._errors: deque[str] = deque(maxlen=LAST_WORDS)
        self._readers = [
            threading.Thread(target=self._read_reports, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def wait_for(self, key: str, value: object) -> None:
        """Until its last report of `key` is `value`. Raises DevnetError if the process ends before."""
        deadline = time.monotonic() + BARRIER_SECONDS
        with self._changed:
            while self._newest.get(key) != value:
                left = deadline - time.monotonic()
                if self._process.poll() is not None:
                    self._readers[1].join(STOP_SECONDS)
                    words = " ".join(self._errors).strip()[-400:] or "no words on stderr"
                    raise DevnetError(f"{self.name} ended with exit code {self._process.returncode}: {words}")
                if left <= 0:
                    raise DevnetError(
                        f"{self.name}: expected {key} = {value} within {BARRIER_SECONDS:.0f} s; "
                        f"it is at {self._newest}"
                    )
                self._changed.wait(min(left, 0.5))

    def tell(self, order: dict[str, Any]) -> dict[str, Any]:
        """Give it an order, wait until it has answered that it holds, and return what it reported last."""
        assert self._process.stdin is not None  # noqa: S101  opened as a pipe above
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        for key, value in order.items():
            self.wait_for(key, value)
        return self._newest

    def finish(self) -> dict[str, Any]:
        """Close its input, wait for its end, and return what it has reported last of everything."""
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.close()
        self._process.wait(STOP_SECONDS)
        self._readers[0].join(STOP_SECONDS)
        return self._newest

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that is not enough."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _read_reports(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        for line in self._process.stdout:
            with self._changed:
                self._newest = {**self._newest, **json.loads(line)}
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None  # noqa: S101
        for line in self._process.stderr:
            self._errors.append(line.rstrip())


def write_private(path: Path, content: bytes) -> Path:
    """A file that its owner alone may read: it holds keys."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path

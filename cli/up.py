"""`nektar up`: one process a role, and a supervisor that restarts what dies.

With one role named, this process is that role. With several or none it is their supervisor: it starts each as
a process of its own, writes `run/ROLE.pid` under the data directory, and ends them all when it ends.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from cli.settings import adapters, conditions, folds, read_config
from nektar.config import Config, ConfigError
from nektar.errors import NektarError
from nektar.role import ROLES, ends_with_parent, log_to_stderr, stop_on_signals

# A role that dies is back at once; one that dies at once each time is given time, then up.
FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0
SETTLED_SECONDS = 10.0
QUICK_DEATHS = 5
# What a role may take to finish its transaction when told to stop.
STOP_SECONDS = 15.0


class RoleError(NektarError):
    """A role does not stay up."""


def supervised(data_dir: Path) -> list[str]:
    """The roles that a `nektar up` runs on this data directory now."""
    held = []
    for path in sorted((data_dir / "run").glob("*.lock")):
        with path.open("r") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(path.stem)
    return held


def run(roles: Sequence[str], config_path: Path | None, directory: Path | None) -> None:
    """The command. Returns when told to stop; raises NektarError."""
    for role in roles:
        if role not in ROLES:
            raise ConfigError(f"role: expected one of {', '.join(ROLES)}; got {role!r}")
    config, path = read_config(config_path, directory)
    if len(roles) == 1:
        be(roles[0], config)
        return
    stop = stop_on_signals()
    Supervisor(roles or ROLES, config, path).run(stop)


def be(role: str, config: Config) -> None:
    """Be this role until SIGTERM."""
    from nektar import bus as buses
    from nektar.health import Health
    from nektar.monitor import Monitor

    log_to_stderr(role)
    stop = stop_on_signals()
    health = Health()
    bus = buses.open(config.bus_url)
    with closing(bus), Monitor(role, config, health) as monitor:
        monitor.install()
        if role == "indexer":
            from indexer import role as indexer

            indexer.run(config, adapters(config), bus, stop, health)
        elif role == "collector":
            from indexer import collector

            collector.run(config, bus, stop, health)
        elif role == "processors":
            from processors import runner

            runner.run(config, folds(), adapters(config), bus, stop, health)
        elif role == "prosecutor":
            from processors import prosecutor

            prosecutor.run(config, conditions(), adapters(config), bus, stop, health)
        elif role == "store":
            from processors import sink

            sink.run(config, adapters(config), bus, stop, health, {fold.name for fold in folds()})
        else:
            from processors import watchers

            watchers.run(config, bus, stop, health)


class Supervisor:
    """Keeps one process a role alive."""

    def __init__(self, roles: Sequence[str], config: Config, path: Path) -> None:
        self._roles = tuple(dict.fromkeys(roles))
        self._path = path
        self._run_dir = Path(config.data_dir) / "run"
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        self._deaths: dict[str, int] = dict.fromkeys(roles, 0)

    def run(self, stop: threading.Event) -> None:
        """Until `stop`. Raises RoleError for a role that does not stay up, ConfigError for one that can't,
        having ended the others."""
        self._run_dir.mkdir(parents=True, exist_ok=True)
        with ExitStack() as claims:
            for role in self._roles:
                self._claim(role, claims)
            self._supervise(stop)

    def _supervise(self, stop: threading.Event) -> None:
        try:
            for role in self._roles:
                self._start(role)
            due: dict[str, float] = {}
            while not stop.wait(0.02):
                for role in self._roles:
                    if role in due:
                        if time.monotonic() >= due[role]:
                            del due[role]
                            self._start(role)
                    elif (status := self._children[role].poll()) is not None:
                        due[role] = time.monotonic() + self._delay(role, status)
        finally:
            self._end()

    def _claim(self, role: str, claims: ExitStack) -> None:
        """Be the role's only supervisor on this data directory: two would fence each other's for ever."""
        lock = claims.enter_context((self._run_dir / f"{role}.lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RoleError(
                f"{role}: another `nektar up` runs it on {self._run_dir.parent}; stop that first, or name "
                "another data_dir"
            ) from None

    def _start(self, role: str) -> None:
        command = [sys.executable, "-m", "cli.main", "up", role, "--config", str(self._path)]
        self._children[role] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, preexec_fn=_ended_by_supervisor()
        )
        self._started[role] = time.monotonic()
        pid_file = self._run_dir / f"{role}.pid"
        fresh = pid_file.with_suffix(".new")
        try:
            fresh.write_text(f"{self._children[role].pid}\n")
            os.replace(fresh, pid_file)
        except OSError as error:
            raise RoleError(f"{pid_file}: can't be written: {error.strerror}; free space") from error

    def _delay(self, role: str, status: int) -> float:
        """Seconds until the role is started again. Raises RoleError where that makes no sense."""
        lived = time.monotonic() - self._started[role]
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"
        if status == ConfigError.exit_code:
            raise ConfigError(f"{role}: stopped ({how}); its own line above says what to mend")
        if lived >= SETTLED_SECONDS or status < 0:  # a kill says nothing against the role
            self._deaths[role] = 0
        self._deaths[role] += 1
        if self._deaths[role] >= QUICK_DEATHS:
            raise RoleError(
                f"{role}: died {QUICK_DEATHS} times in a row ({how}); its own line above says what to mend"
            )
        delay = min(
            LONGEST_DELAY, FIRST_DELAY * 2 ** (self._deaths[role] - 1) if status >= 0 else FIRST_DELAY
        )
        print(
            f"nektar: {role} ended after {lived:.1f} s ({how}); starting it again",
            file=sys.stderr,
            flush=True,
        )
        return delay

    def _end(self) -> None:
        end_all(self._children)
        for role in self._roles:
            (self._run_dir / f"{role}.pid").unlink(missing_ok=True)


def _ended_by_supervisor() -> Callable[[], None]:
    """What a role's process runs before it is one. Ctrl-C on a terminal reaches it too, and would end it with
    a traceback while it is still starting: so it is deaf to that until it listens for itself."""
    ends = ends_with_parent()

    def preexec() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if ends:
            ends()

    return preexec


def end_all(children: Mapping[str, subprocess.Popen[bytes]], seconds: float = STOP_SECONDS) -> None:
    """SIGTERM to each that lives, and SIGKILL to what has not ended in time."""
    for child in children.values():
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + seconds
    for child in children.values():
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

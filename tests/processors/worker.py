"""The role `processors` in a process of its own, to be killed: worker.py DIRECTORY BATCH [POINT N].

With POINT and N it kills itself (SIGKILL) when it passes that point for the N-th time.
"""

from __future__ import annotations

import functools
import os
import signal
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

from nektar.config import Config, NetworkConfig, Provider
from nektar.health import Health
from processors import following, runner
from tests.nektar.logs import NETWORK, Gossip, Plain
from tests.processors.dying import DyingBus, DyingConnection
from tests.processors.logs_on_bus import open_bus


def kill_myself() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def main(directory: str, batch: str, point: str = "", n: str = "0") -> None:
    setattr(runner, "BATCH", int(batch))  # noqa: B010
    setattr(following, "CHECKPOINT_MARKS", 3)  # noqa: B010
    connect: Any = functools.partial(sqlite3.connect, factory=DyingConnection)
    sqlite3.connect = connect
    bus: Any = DyingBus(open_bus(Path(directory)), point, int(n), kill_myself)
    config = Config(
        providers={"p": Provider("http://localhost")},
        networks=(NetworkConfig(NETWORK.name, NETWORK.chain_id, ("p",), {}),),
    )
    print("ready", flush=True)
    runner.run(config, [Gossip()], {NETWORK.name: Plain()}, bus, threading.Event(), Health())


if __name__ == "__main__":
    main(*sys.argv[1:])

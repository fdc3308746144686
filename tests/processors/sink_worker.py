"""The sink in a process of its own, killed in mid insert: sink_worker.py BUS STORE INSERT MILLISECONDS.

It kills itself (SIGKILL) that many milliseconds after its INSERT-th insert has begun; with INSERT 0 it lives.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from nektar.store.client import open_store
from nektar.store.migrate import abi_tables
from tests.nektar.store.things import Things
from tests.processors.logs_on_bus import open_bus
from tests.processors.sunk import drain


class Dying:
    """`store`, until the n-th insert."""

    def __init__(self, store: Any, n: int, delay: float) -> None:
        self._store, self._left, self._delay = store, n, delay
        self.rows = store.rows

    def insert(self, *insert: Any) -> None:
        self._left -= 1
        if self._left == 0:
            threading.Timer(self._delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        self._store.insert(*insert)


def main(bus: str, store: str, n: str, milliseconds: str) -> None:
    with open_bus(Path(bus)) as opened, open_store(f"chdb://{store}") as real:
        real.command("SYSTEM STOP MERGES")  # a row that is stored twice stays two
        dying: Any = Dying(real, int(n), float(milliseconds) / 1000)
        drain(opened, dying, abi_tables([Things()]))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The roles on disks that fill up under them, and again when there is room: `python full_disk.py DIR`.

DIR/data, with the store, and DIR/bus are small disks of their own. Prints how each run ended, as JSON.
"""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from devnet.anvil import anvil, free_port
from devnet.chain import Chain

CHAIN_ID = 31337
NOBODY = "0x00000000000000000000000000000000000000aa"
PATIENCE = 60.0
STORED = "SELECT count(), max(number) FROM blocks FORMAT CSV"

Ending = tuple[int, str]
"""Exit code, and all that was said."""


class Roles:
    """What a person does with `nektar`, in DIR."""

    def __init__(self, directory: Path, url: str) -> None:
        self._directory = directory
        self._sql = f"127.0.0.1:{free_port()}"
        network = {"name": "one", "chain_id": CHAIN_ID, "rpc": ["a"], "contracts": {"task_manager": NOBODY}}
        config = {
            "data_dir": "data",
            "bus": f"sqlite://{directory}/bus",
            "providers": {"a": {"url": url}},
            "networks": [network],
            "listen": {"sql": self._sql, "metrics": "127.0.0.1:0"},
        }
        (directory / "nektar.yaml").write_text(yaml.safe_dump(config))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "cli.main", *arguments, "--dir", str(self._directory)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def stored(self) -> str:
        """What the running store role answers."""
        with suppress(OSError), urlopen(f"http://{self._sql}/?{urlencode({'query': STORED})}") as answer:
            return str(answer.read().decode().strip())
        return ""


def ended(process: subprocess.Popen[str]) -> Ending:
    said, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, said


def stopped(process: subprocess.Popen[str]) -> Ending:
    process.send_signal(signal.SIGTERM)
    return ended(process)


def wait_until(there: Callable[[], bool], *running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not there():
        for process in running:
            assert process.poll() is None, ended(process)
        assert time.monotonic() < deadline, f"waited {PATIENCE} s"
        time.sleep(0.1)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("ab", buffering=0) as ballast:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    ballast.write(bytes(size))
            except OSError as full:
                if full.errno != errno.ENOSPC:
                    raise


def play(directory: Path, chain: Chain) -> dict[str, Ending]:
    data, bus = directory / "data", directory / "bus"
    chain.rpc("anvil_setCode", NOBODY, "0x00")
    roles = Roles(directory, chain.url)
    seen: dict[str, Ending] = {}

    chain.mine(10)
    indexer, store = roles.start("up", "indexer"), roles.start("up", "store")
    wait_until(lambda: roles.stored() == "11,10", indexer, store)
    fill(data)
    chain.mine(10)
    seen["store that ran"] = ended(store)
    seen["store that starts"] = ended(roles.start("up", "store"))
    seen["reader"] = ended(roles.start("sql", STORED))
    fill(bus)
    for _ in range(10):  # one by one, as a chain grows
        chain.mine()
    seen["indexer that ran"] = ended(indexer)
    fill(bus)  # what it gave back when it ended
    seen["indexer that starts"] = ended(roles.start("up", "indexer"))

    (data / "ballast").unlink()
    (bus / "ballast").unlink()
    indexer, store = roles.start("up", "indexer"), roles.start("up", "store")
    wait_until(lambda: roles.stored() == "31,30", indexer, store)
    seen["indexer with room"], seen["store with room"] = stopped(indexer), stopped(store)
    return seen


if __name__ == "__main__":
    with anvil(chain_id=CHAIN_ID, slots=2) as chain:
        print(json.dumps(play(Path(sys.argv[1]), chain)))

"""The role `indexer` in a process of its own, to be killed: worker.py CONFIG (a `Config` as JSON)."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import msgspec

from indexer import role
from nektar import bus as buses
from nektar.config import Config
from nektar.health import Health
from tests.indexer.test_role import OneContract


def main(file: str) -> None:
    config = msgspec.json.decode(Path(file).read_bytes(), type=Config)
    bus = buses.open(config.bus_url)
    print("ready", flush=True)
    adapters = {network.name: OneContract() for network in config.networks}
    role.run(config, adapters, bus, threading.Event(), Health())


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The role `indexer` in a process of its own, to be killed: worker.py CONFIG [ABIS].

CONFIG is a `Config` as JSON, ABIS {contract: ABI}.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from indexer import role
from nektar import bus as buses
from nektar.config import Config
from nektar.health import Health
from tests.indexer.test_role import OneContract


class Given(OneContract):
    def __init__(self, abis: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self.abis = abis

    def abi(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        return self.abis


def main(file: str, abis: str = "") -> None:
    config = msgspec.json.decode(Path(file).read_bytes(), type=Config)
    adapter = Given(msgspec.json.decode(Path(abis).read_bytes())) if abis else OneContract()
    bus = buses.open(config.bus_url)
    print("ready", flush=True)
    adapters = {network.name: adapter for network in config.networks}
    role.run(config, adapters, bus, threading.Event(), Health())


if __name__ == "__main__":
    main(*sys.argv[1:])

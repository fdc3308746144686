"""The role `processors` on Kafka in a process of its own, to be killed: kafka_worker.py URL NETWORK…"""

from __future__ import annotations

import sys

from nektar import bus as buses
from nektar.config import Config, NetworkConfig, Provider
from nektar.health import Health
from nektar.role import log_to_stderr, stop_on_signals
from processors import following, runner
from tests.nektar.logs import NETWORK, Gossip, Plain


def main(url: str, *networks: str) -> None:
    setattr(following, "CHECKPOINT_MARKS", 3)  # noqa: B010
    log_to_stderr("processors")
    config = Config(
        providers={"p": Provider("http://localhost")},
        networks=tuple(NetworkConfig(name, NETWORK.chain_id, ("p",), {}) for name in networks),
    )
    stop = stop_on_signals()
    bus = buses.open(url)
    print("ready", flush=True)
    runner.run(config, [Gossip()], dict.fromkeys(networks, Plain()), bus, stop, Health())


if __name__ == "__main__":
    main(*sys.argv[1:])

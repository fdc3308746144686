"""From a subscriber's own `newHeads` to the block's row answering SQL in another process.

    python -m bench.latency [--blocks N] [--block-time S] [--bus URL] [--backfill BLOCKS]

A devnet with its operators, `nektar up` with every role, and the demo's probe. With `--backfill` the chain
has so many blocks before it begins, and a second Network of it reads them all the while, as fast as lasts
until the end.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench.index import compiled
from cli.demo_bus import own
from cli.latency import latencies
from devnet.anvil import free_port
from devnet.processes import Child
from nektar.config import parse
from nektar.role import ends_with_parent

OUT = Path("build/bench/latency.json")
BEHIND = "behind"
PATIENCE = 300.0  # seconds for anything to come
STARTING = 30.0  # … that pass with starting, while a backfill runs already


@contextmanager
def running(*arguments: str) -> Iterator[None]:
    """The command, told to stop at the end."""
    command = [sys.executable, "-m", "cli.main", *arguments]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=compiled(),
        preexec_fn=ends_with_parent(),
    ) as child:
        try:
            yield
        finally:
            child.send_signal(signal.SIGINT)
            child.wait(60)


def until(claim: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := claim()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return found


def rpc(url: str, method: str, *params: object) -> Any:
    asked = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url, asked, {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request))["result"]


def sql(address: str, statement: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{address}/?query={urllib.parse.quote(statement)}") as answer:
            return str(answer.read().decode().strip())
    except OSError:  # not open yet
        return ""


class Live(NamedTuple):
    """A devnet and the roles that watch it."""

    path: Path  # of nektar.yaml
    config: dict[str, Any]  # which it holds
    ws: str  # of the chain

    @property
    def network(self) -> str:
        return str(self.config["networks"][0]["name"])

    def sql(self, statement: str) -> str:
        return sql(self.config["listen"]["sql"], statement)

    @contextmanager
    def probed(self) -> Iterator[dict[str, Any]]:
        """What is filled with {hop: {p50, p99, n}}, as of `cli.latency`, of the blocks until the end."""
        found: dict[str, Any] = {}
        probe = Child("probe", "devnet.probe", self.ws, f"http://{self.config['listen']['sql']}")
        try:
            yield found
            moments = probe.finish()
        finally:
            probe.stop()
        parsed = parse(self.path.read_text(), base=self.path.parent)
        found |= latencies(parsed, moments["seen"], self.network)


@contextmanager
def live(
    directory: Path,
    block_time: float,
    bus: str = "",
    history: int = 0,
    change: Callable[[dict[str, Any]], None] = lambda config: None,
) -> Iterator[Live]:
    """A devnet with its operators and `nektar up` with every role, once it has settled. `change` changes the
    configuration before that."""
    path = directory / "nektar.yaml"
    devnet = ["devnet", "--block-time", str(block_time), "--history", str(history), "--out", str(directory)]
    with running(*devnet):
        config = yaml.safe_load(until(lambda: path.exists() and path.read_text()))
        (provider,) = config["providers"].values()
        provider["ws"] = ws = provider["url"].replace("http", "ws")
        config["listen"] = {name: f"127.0.0.1:{free_port()}" for name in ("sql", "otlp", "otlp_grpc")}
        config["listen"]["metrics"] = "127.0.0.1:0"
        if bus:
            config["bus"] = own(bus)
        change(config)
        path.write_text(yaml.safe_dump(config))
        made = Live(path, config, ws)
        with running("up", "--config", str(path)):
            stored = f"SELECT count() FROM blocks WHERE network = '{made.network}'"
            until(lambda: made.sql(stored) not in ("", "0"))
            time.sleep(5)  # what starting costs is not what is measured
            yield made


def measure(directory: Path, blocks: int, block_time: float, bus: str, backfill: int) -> dict[str, Any]:
    """{hop: {p50, p99, n}}, as of `cli.latency`."""

    def beside_a_backfill(config: dict[str, Any]) -> None:
        (home,) = config["networks"]
        (provider,) = config["providers"].values()
        home["from_block"] = int(rpc(provider["url"], "eth_blockNumber"), 16)
        config["networks"].append(home | {"name": BEHIND, "rpc": [BEHIND], "from_block": 0})
        pace = 2 * backfill / (blocks * block_time + STARTING)  # two requests a block
        config["providers"][BEHIND] = provider | {"limits": {"requests_per_second": pace}}

    change = beside_a_backfill if backfill else lambda config: None
    with live(directory, block_time, bus, backfill, change) as made:
        with made.probed() as found:
            time.sleep(blocks * block_time)
            behind = made.sql(f"SELECT max(number) FROM blocks WHERE network = '{BEHIND}'")
        if backfill:
            found["backfilled"] = int(behind)
            assert found["backfilled"] < backfill, "the backfill was over before; give it more blocks"
    return found


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="bench latency")
    parser.add_argument("--blocks", type=int, default=300)
    parser.add_argument("--block-time", type=float, default=0.3)
    parser.add_argument("--bus", default="")
    parser.add_argument("--backfill", type=int, default=0)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        found = measure(Path(directory), chosen.blocks, chosen.block_time, chosen.bus, chosen.backfill)
    name = " ".join([chosen.bus.partition(":")[0] or "sqlite", *(["backfill"] if chosen.backfill else [])])
    OUT.parent.mkdir(parents=True, exist_ok=True)
    whole = json.loads(OUT.read_text()) if OUT.exists() else {}
    OUT.write_text(json.dumps(whole | {name: found}, indent=1) + "\n")
    print(json.dumps({name: found}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])

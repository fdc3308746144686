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
from typing import Any

import yaml

from bench.index import compiled
from cli.demo_bus import own
from cli.latency import latencies
from devnet.anvil import free_port
from devnet.processes import Child
from nektar.config import parse

OUT = Path("build/bench/latency.json")
BEHIND = "behind"
PATIENCE = 300.0  # seconds for anything to come
STARTING = 30.0  # … that pass with starting, while a backfill runs already


@contextmanager
def running(*arguments: str) -> Iterator[None]:
    """The command, told to stop at the end."""
    command = [sys.executable, "-m", "cli.main", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=compiled()
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


def measure(directory: Path, blocks: int, block_time: float, bus: str, backfill: int) -> dict[str, Any]:
    """{hop: {p50, p99, n}}, as of `cli.latency`."""
    path = directory / "nektar.yaml"
    devnet = ["devnet", "--block-time", str(block_time), "--history", str(backfill), "--out", str(directory)]
    with running(*devnet):
        config = yaml.safe_load(until(lambda: path.exists() and path.read_text()))
        (provider,) = config["providers"].values()
        (home,) = config["networks"]
        if backfill:
            home["from_block"] = int(rpc(provider["url"], "eth_blockNumber"), 16)
            config["networks"].append(home | {"name": BEHIND, "rpc": [BEHIND], "from_block": 0})
            pace = 2 * backfill / (blocks * block_time + STARTING)  # two requests a block
            config["providers"][BEHIND] = provider | {"limits": {"requests_per_second": pace}}
        provider["ws"] = ws = provider["url"].replace("http", "ws")
        config["listen"] = {name: f"127.0.0.1:{free_port()}" for name in ("sql", "otlp", "otlp_grpc")}
        config["listen"]["metrics"] = "127.0.0.1:0"
        if bus:
            config["bus"] = own(bus)
        path.write_text(yaml.safe_dump(config))
        address, name = config["listen"]["sql"], home["name"]
        with running("up", "--config", str(path)):
            until(
                lambda: sql(address, f"SELECT count() FROM blocks WHERE network = '{name}'") not in ("", "0")
            )
            time.sleep(5)  # what starting costs is not what is measured
            probe = Child("probe", "devnet.probe", ws, f"http://{address}")
            try:
                time.sleep(blocks * block_time)
                behind = sql(address, f"SELECT max(number) FROM blocks WHERE network = '{BEHIND}'")
                moments = probe.finish()
            finally:
                probe.stop()
        parsed = parse(path.read_text(), base=directory)
        found: dict[str, Any] = dict(latencies(parsed, moments["seen"], name))
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

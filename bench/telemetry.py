"""Telemetry beside a Network: what spans take from a client to the store, and what the head waits for them.

    python -m bench.telemetry [--rate SPANS] [--seconds N] [--block-time S] [--bus URL]

A devnet with its operators and `nektar up` with every role, as `bench.latency` has them: first alone, then
with `bench.exporter` sending so many spans a second, by a token. Of both it says how long blocks took to the
store; of the spans how many were taken and how many are stored, both counted; of each process what it used.
The store's role is two: `sink`, its main thread, which reads the bus and makes rows, and `store`, all other
threads of it, which insert, merge and answer. `machine` is everything that ran, so that it can be seen
whether all of it was this: where it is busy though nothing comes, the figures are somebody else's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.exporter import SERVICE
from bench.index import compiled
from bench.latency import Live, live, until
from nektar import tokens
from nektar.evidence import bls
from nektar.evidence.canonical import Octets
from nektar.role import ends_with_parent
from nektar.tokens import Claims, Role

OUT = Path("build/bench/telemetry.json")
NAME, SECRET = "bench", 0x5EC2E7


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="bench telemetry")
    parser.add_argument("--rate", type=float, default=20_000.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--block-time", type=float, default=0.5)
    parser.add_argument("--bus", default="")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="nektar-bench-") as directory:
        found = measure(Path(directory), chosen.rate, chosen.seconds, chosen.block_time, chosen.bus)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def measure(directory: Path, rate: float, seconds: float, block_time: float, bus: str) -> dict[str, Any]:
    """The head alone and beside the load, and what became of the load."""

    def admit(config: dict[str, Any]) -> None:
        key, _ = bls.public_keys(SECRET)
        config["telemetry"]["agents"][NAME] = {"role": "observer", "key": f"0x{key.hex()}"}

    with live(directory, block_time, bus, change=admit) as made:
        alone = head(made, seconds)
        print(json.dumps(alone), flush=True)
        return {"alone": alone, "loaded": beside(made, rate, seconds)}


def head(made: Live, seconds: float) -> dict[str, Any]:
    """How long blocks take while nobody else sends anything."""
    with made.probed() as blocks, used(made) as cores:
        time.sleep(seconds)
    return {"blocks_ms": dict(blocks), "cores": cores}


def beside(made: Live, rate: float, seconds: float) -> dict[str, Any]:
    """The same while spans come, and they."""
    with made.probed() as blocks, used(made) as cores:
        with exporting(made, rate, seconds) as exporter:
            time.sleep(seconds / 4)  # until it goes its way
            since, before = time.monotonic(), stored(made)
            sent = json.loads(exporter.communicate()[0])
        ended, after = time.monotonic(), stored(made)
        until(lambda: stored(made) >= sent["spans"])
        behind = time.monotonic() - ended
    cores["exporter"] = round(sent["cpu"] / sent["seconds"], 2)
    return {
        "blocks_ms": dict(blocks),
        "answers": sent["answers"],
        "acknowledged_a_second": round(sent["spans"] / sent["seconds"]),
        "stored_a_second": round((after - before) / (ended - since)),
        "acknowledged": sent["spans"],
        "stored": stored(made),
        "behind_s": round(behind, 1),
        "cores": cores,
        "most_memory_mb": {role: memory(pid) for role, pid in roles(made).items()},
    }


def exporting(made: Live, rate: float, seconds: float) -> subprocess.Popen[bytes]:
    """`bench.exporter`, which sends, and says in the end what became of it."""
    (network, *_) = made.config["networks"]
    claims = Claims(
        network=network["name"],
        chain_id=network["chain_id"],
        audience=made.config["telemetry"]["audience"],
        role=Role.OBSERVER,
        sender=NAME,
        expires=int(time.time()) + 86_400,
        key=Octets(bls.public_keys(SECRET)[1]),
    )
    token = {"AUTHORIZATION": f"Bearer {tokens.mint(SECRET, claims)}"}
    command = [sys.executable, "-m", "bench.exporter", made.config["listen"]["otlp"]]
    rated = ["--rate", str(rate), "--seconds", str(seconds)]
    return subprocess.Popen(
        [*command, *rated], stdout=subprocess.PIPE, env={**compiled(), **token}, preexec_fn=ends_with_parent()
    )


def stored(made: Live) -> int:
    """How many of its spans the store has; each has an id of its own."""
    asked = f"SELECT count() FROM otel_traces WHERE ServiceName = '{SERVICE}'"
    return int(made.sql(asked) or 0)


@contextmanager
def used(made: Live) -> Iterator[dict[str, float]]:
    """What is filled with how many cores each role used meanwhile."""
    found: dict[str, float] = {}
    pids, began = roles(made), time.monotonic()
    before = {role: processor(pid) for role, pid in pids.items()}
    sink = processor(pids["store"], pids["store"])
    machine = busy()
    yield found
    seconds = time.monotonic() - began
    found |= {role: (processor(pid) - before[role]) / seconds for role, pid in pids.items()}
    found["sink"] = (processor(pids["store"], pids["store"]) - sink) / seconds
    found["store"] -= found["sink"]
    found["machine"] = (busy() - machine) / seconds
    found |= {role: round(cores, 2) for role, cores in found.items()}


def busy() -> float:
    """Seconds that all processors have been busy, whoever with."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def roles(made: Live) -> dict[str, int]:
    """Role → its process."""
    return {path.stem: int(path.read_text()) for path in (made.path.parent / "run").glob("*.pid")}


def memory(pid: int) -> int:
    """The most that it had resident, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def processor(pid: int, thread: int | None = None) -> float:
    """Seconds that a process, or one thread of it, has used."""
    of = f"/proc/{pid}/task/{thread}/stat" if thread else f"/proc/{pid}/stat"
    fields = Path(of).read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(sys.argv[1:])

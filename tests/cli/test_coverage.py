"""`nektar coverage` on the store that a log has filled: what is missing, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec

from nektar import bus as buses
from nektar.bus.port import Message
from nektar.config import load
from nektar.log import FINDINGS, NETWORK, Gap, New, encode, key
from nektar.model import Block, Hash32, Level, Network
from nektar.rows import Finding
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from processors.outputs import cloud_event
from processors.sink import Sink

YAML = """
data_dir: .
providers: {p: {url: "http://127.0.0.1:1"}}
listen: {sql: "127.0.0.1:1"}
networks: [{name: one, chain_id: 1, rpc: [p], contracts: {}}]
"""
BLOCK = Block(7, Hash32(b"\x01" * 32), Hash32(b"\x02" * 32), 1_700_000_000, Level.PROVED, "p", "single:p")
FINDING = Finding(
    id=b"\x01" * 32,
    condition="missed_duty",
    operator=b"\x02" * 20,
    task_hash=b"\x03" * 32,
    task_number=1,
    task_input="15",
    block_number=BLOCK.number,
    block_hash=BLOCK.hash,
    block_time=BLOCK.time,
    level="proved",
    anchor="single:p",
    facts="{}",
)


def coverage(directory: Path, *records: Gap | New, finding: Finding) -> subprocess.CompletedProcess[str]:
    """What the command says of a store that this log and this finding have filled."""
    (directory / "nektar.yaml").write_text(YAML)
    config = load(directory / "nektar.yaml")
    said = cloud_event(Network("one", 1, {}), finding, 1)
    messages = [Message(NETWORK, key("one", 1), encode(record)) for record in records]
    with buses.open(config.bus_url) as bus, open_store(config.store_url) as store:
        with bus.writer("test", 0) as writer:
            writer.transaction([*messages, Message(FINDINGS, b"one", said, {"generation": b"1"})])
        migrate(store, [])
        with Sink(store, bus, {}) as sink:
            while sink.turn(0.0):
                pass
    command = [sys.executable, "-m", "cli.main", "coverage", "--dir", str(directory), "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def stretches(done: subprocess.CompletedProcess[str]) -> list[tuple[str, int, int]]:
    found = map(json.loads, done.stdout.splitlines())
    return [(each["level"], each["first"], each["last"]) for each in found]


def test_it_fails_where_findings_rest_on_blocks_after_a_gap_at_the_logs_beginning(tmp_path: Path) -> None:
    gap = Gap(0, 6, BLOCK.parent, "no provider serves these blocks")
    done = coverage(tmp_path, gap, New((BLOCK,), {}), finding=FINDING)
    assert done.returncode == 1
    assert "findings of one rest on blocks after 0 to 6, which nobody served" in done.stderr
    assert done.stderr.count("\n") == 1
    assert stretches(done) == [("gap", 0, 6), ("proved", 7, 7)]


def test_it_is_content_where_a_gap_is_above_all_that_findings_rest_on(tmp_path: Path) -> None:
    later = msgspec.structs.replace(BLOCK, number=12, hash=Hash32(b"\x04" * 32), parent=Hash32(b"\x03" * 32))
    gap = Gap(8, 11, later.parent, "no provider serves these blocks")
    done = coverage(tmp_path, New((BLOCK,), {}), gap, New((later,), {}), finding=FINDING)
    assert (done.returncode, done.stderr) == (0, "")
    assert stretches(done) == [("proved", 7, 7), ("gap", 8, 11), ("proved", 12, 12)]

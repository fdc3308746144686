"""The devnet's chain: an anvil of npm's, started for one run and gone with whoever started it."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from devnet.chain import Chain, DevnetError
from nektar.role import ends_with_parent

# Pinned, so that a newer anvil gives the same headers and the same gas.
HARDFORK = "prague"
# Room for the attestations of a thousand operators in one block, and so for a base fee that never rises.
BLOCK_GAS = 1_000_000_000
BLOCK_SECONDS = 12
# 2026-01-01T00:00:00Z: a run's block times, like all else in it, don't depend on when it is run.
GENESIS_TIME = 1_767_225_600

# Connections are given ports from 32,768 on by Linux, from 49,152 on by macOS.
PORTS = range(15_000, 32_768)

_START_SECONDS = 30.0
_STOP_SECONDS = 5.0
_ATTEMPTS = 3


def find_anvil() -> Path:
    """The anvil to start: `NEKTAR_ANVIL`, else npm's under the project or here, else the PATH's.

    `node_modules/.bin/anvil` is a wrapper whose child outlives it, so the binary itself is looked for.
    Raises DevnetError where there is none.
    """
    if named := os.environ.get("NEKTAR_ANVIL"):
        if os.access(named, os.X_OK):
            return Path(named)
        raise DevnetError(f"NEKTAR_ANVIL: expected an anvil that can be run; got {named!r}")
    machine = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}.get(
        platform.machine(), platform.machine()
    )
    package = f"anvil-{sys.platform}-{machine}"
    for root in (Path(__file__).parent.parent, Path.cwd()):
        binary = root / "node_modules" / "@foundry-rs" / package / "bin" / "anvil"
        if os.access(binary, os.X_OK):
            return binary
    if found := shutil.which("anvil"):
        return Path(found)
    raise DevnetError(
        "the devnet's chain needs anvil, which comes from npm: install Node 20 or newer and run "
        "`npm install --no-save` in the project, or name an anvil in NEKTAR_ANVIL"
    )


@contextmanager
def anvil(*, chain_id: int, slots: int, genesis_time: int = GENESIS_TIME) -> Iterator[Chain]:
    """A chain that mines when it is told to, with 12 seconds between blocks; ends with the context.

    `safe` is `slots` blocks behind the head, `finalized` twice as many. On Linux it ends with its parent
    also where that is killed. Raises DevnetError where anvil can't be found or doesn't start.
    """
    # Anvil keeps older states on the disk, and leaves them there where it does not end by itself.
    with tempfile.TemporaryDirectory(prefix="nektar-anvil-", ignore_cleanup_errors=True) as states:
        process, chain = _start(find_anvil(), chain_id, slots, genesis_time, states)
        try:
            chain.rpc("anvil_setBlockTimestampInterval", BLOCK_SECONDS)
            yield chain
        finally:
            chain.close()
            _stop(process)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now, and below those that connections are given by chance:
    one of these is taken, now and then, before whoever is told of it listens."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _start(
    binary: Path, chain_id: int, slots: int, genesis_time: int, states: str
) -> tuple[subprocess.Popen[bytes], Chain]:
    said = ""
    for _ in range(_ATTEMPTS):  # another process may take the port first
        port = free_port()
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [
                    str(binary),
                    *("--host", "127.0.0.1", "--port", str(port), "--chain-id", str(chain_id)),
                    *("--timestamp", str(genesis_time), "--slots-in-an-epoch", str(slots)),
                    *("--hardfork", HARDFORK, "--gas-limit", str(BLOCK_GAS), "--accounts", "1"),
                    *("--no-mining", "--order", "fifo", "--silent", "--cache-path", states),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for the driver, which ends its children itself
                preexec_fn=ends_with_parent(signal.SIGKILL),
            )
            chain = Chain(f"http://127.0.0.1:{port}")
            if _answers(process, chain, chain_id):
                return process, chain
            _stop(process)
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().replace("\n", " ")
    raise DevnetError(f"{binary} did not start: {said or 'no word on stderr'}")


def _answers(process: subprocess.Popen[bytes], chain: Chain, chain_id: int) -> bool:
    """Whether it comes to answer as the chain that was asked for."""
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            return int(chain.rpc("eth_chainId"), 16) == chain_id and process.poll() is None
        except DevnetError:
            time.sleep(0.01)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

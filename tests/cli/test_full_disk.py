"""On a disk that really is full each role ends with one clear line; when there is room it goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from devnet.anvil import find_anvil
from devnet.chain import DevnetError
from tests.seeds import thorough

pytestmark = pytest.mark.real
SCENE = Path(__file__).with_name("full_disk.py")
ROOT = SCENE.parent.parent.parent


def endings(directory: Path) -> dict[str, tuple[int, str]]:
    """How each run ended, on small disks in a mount namespace of the test's own."""
    try:
        find_anvil()
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")
    probe = ["unshare", "-Urm", "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("needs a tmpfs: mount namespaces are not allowed here")
    for disk in ("data", "bus"):
        (directory / disk).mkdir()
    inside = (
        'mount -t tmpfs -o size=64m full "$1/data" && mount -t tmpfs -o size=8m full "$1/bus" && '
        'exec "$2" "$3" "$1"'
    )
    command = ["unshare", "-Urm", "sh", "-c", inside, "sh", str(directory), sys.executable, str(SCENE)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return {name: (code, said) for name, (code, said) in json.loads(done.stdout).items()}


@thorough
def test_a_full_disk_ends_each_role_with_one_line_and_loses_nothing(tmp_path: Path) -> None:
    ended = endings(tmp_path)
    assert not any("Traceback" in said for _, said in ended.values())
    for run in ("store that ran", "store that starts", "indexer that ran", "indexer that starts"):
        code, said = ended[run]
        ours = [line for line in said.splitlines() if line.startswith("nektar: ")]
        assert (code, len(ours)) == (1, 1), said
        assert "the disk is full" in ours[0]
    assert ended["reader"] == (0, "11,10\n")
    # With room again they have gone on until the store answered with all 31 blocks, each once.
    assert [ended[f"{role} with room"][0] for role in ("indexer", "store")] == [0, 0]

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

pytestmark = pytest.mark.real
SCENE = Path(__file__).with_name("full_disk.py")


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """How each run ended, on small disks in a mount namespace of the test's own."""
    try:
        find_anvil()
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")
    probe = ["unshare", "-Urm", "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("needs a tmpfs: mount namespaces are not allowed here")
    directory = tmp_path_factory.mktemp("disks")
    for disk in ("data", "bus"):
        (directory / disk).mkdir()
    inside = (
        'mount -t tmpfs -o size=64m full "$1/data" && mount -t tmpfs -o size=8m full "$1/bus" && '
        'exec "$2" "$3" "$1"'
    )
    command = ["unshare", "-Urm", "sh", "-c", inside, "sh", str(directory), sys.executable, str(SCENE)]
    root = SCENE.parent.parent.parent
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    return {name: (code, said) for name, (code, said) in json.loads(done.stdout).items()}


@pytest.mark.parametrize(
    "run", ["store that ran", "store that starts", "indexer that ran", "indexer that starts"]
)
def test_a_full_disk_ends_a_role_with_one_line(endings: dict[str, tuple[int, str]], run: str) -> None:
    code, said = endings[run]
    ours = [line for line in said.splitlines() if line.startswith("nektar: ")]
    assert code == 1
    assert len(ours) == 1, said
    assert "the disk is full" in ours[0]
    assert "Traceback" not in said


def test_what_was_stored_can_be_read_while_the_disk_is_full(endings: dict[str, tuple[int, str]]) -> None:
    assert endings["reader"] == (0, "11,10\n")


def test_with_room_again_every_block_is_there_once(endings: dict[str, tuple[int, str]]) -> None:
    # The scene itself waits until the store answers with all 31 blocks.
    for role in ("indexer", "store"):
        code, said = endings[f"{role} with room"]
        assert code == 0, said
        assert "Traceback" not in said

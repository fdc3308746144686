"""Contracts that a test writes itself."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from devnet.anvil import find_anvil
from devnet.chain import DevnetError
from devnet.compile import HERE, SETTINGS


def solc(source: str) -> Any:
    """Name of each contract in `source` → what solc says of it."""
    request = {"language": "Solidity", "sources": {"it.sol": {"content": source}}, "settings": SETTINGS}
    try:
        find_anvil()
        done = subprocess.run(
            ["node", str(HERE / "compile.cjs")],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError, DevnetError) as error:
        pytest.skip(f"needs node, solc and anvil: {error}")
    return json.loads(done.stdout)["contracts"]["it.sol"]

"""Programs in Go that tests run: the module in tests/go."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

MODULE = Path(__file__).parent / "go"


def go(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run it in the module, with these variables in its environment."""
    # Some distributions turn off that an older Go fetches the one that go.mod names.
    return run(arguments, {"GOTOOLCHAIN": "auto", **os.environ, **more})


def run(arguments: tuple[str, ...], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=MODULE, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )


def build(program: Path, *command: str) -> Path:
    """`program`, made by this command of Go's, as `build ./export`. Go's own cache makes the second time
    quick. Skips the test where there is no Go."""
    if shutil.which("go") is None:
        pytest.skip("needs go: install Go 1.21 or newer (it fetches the toolchain that go.mod names)")
    had = go("go", "mod", "download")
    if had.returncode:
        pytest.skip(f"needs go: the modules of {MODULE.name} can't be had: {had.stderr.strip()[-500:]}")
    verb, *rest = command
    built = go("go", verb, "-o", str(program), *rest)
    assert built.returncode == 0, built.stderr
    return program

"""Programs in Go and Java that tests run: the modules in tests/go and tests/otelcol, and tests/java."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

MODULE = Path(__file__).parent / "go"
# Apart from it: what the Collector is made of is ten times as much.
OTELCOL = Path(__file__).parent / "otelcol"
JAVA = Path(__file__).parent / "java"


def go(*arguments: str, module: Path = MODULE, **more: str) -> subprocess.CompletedProcess[str]:
    """Run it in the module, with these variables in its environment."""
    # Some distributions turn off that an older Go fetches the one that go.mod names.
    return run(arguments, module, {"GOTOOLCHAIN": "auto", **os.environ, **more})


def run(
    arguments: Sequence[str | Path], directory: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=directory, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )


def build(program: Path, *command: str, module: Path = MODULE) -> Path:
    """`program`, made by this command of Go's, as `build ./export`. Go's own cache makes the second time
    quick. Skips the test where there is no Go."""
    if shutil.which("go") is None:
        pytest.skip("needs go: install Go 1.21 or newer (it fetches the toolchain that go.mod names)")
    had = go("go", "mod", "download", module=module)
    if had.returncode:
        pytest.skip(f"needs go: the modules of {module.name} can't be had: {had.stderr.strip()[-500:]}")
    verb, *rest = command
    built = go("go", verb, "-o", str(program), *rest, module=module)
    assert built.returncode == 0, built.stderr
    return program


def compiled(program: str, directory: Path) -> list[str | Path]:
    """The command that runs this program of tests/java, which is compiled into `directory`, where Maven puts
    what it needs as well. Skips the test where there is no JDK or no Maven."""
    if shutil.which("javac") is None or shutil.which("mvn") is None:
        pytest.skip("needs java: install a JDK of Java 17 or newer, and Maven")
    libs = directory / "libs"
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"]
    had = run([*command, f"-DoutputDirectory={libs}"], JAVA)
    if had.returncode:
        pytest.skip(f"needs java: Maven can't get what it needs: {(had.stdout + had.stderr).strip()[-500:]}")
    path = ["-cp", f"{directory}:{libs}/*"]
    built = run(["javac", "-encoding", "UTF-8", "-d", directory, *path, f"{program}.java"], JAVA)
    assert built.returncode == 0, built.stderr
    # Soon there: the compiler's last stage costs more than it gives in a second.
    return ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *path, program]

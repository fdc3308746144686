"""pyarrow does not look for pandas, and still finds it when asked to."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = """
import sys
from nektar.arrow import pa
table = pa.Table.from_pylist([{"a": 1, "b": b"x"}])
assert pa.array([1, None, 3]).null_count == 1 and pa.scalar(1, pa.uint8()).as_py() == 1
assert "pandas" not in sys.modules, "pandas was imported"
"""
STILL_THERE = (
    WITHOUT
    + """
assert table.to_pandas().shape == (1, 2)
"""
)


@pytest.mark.parametrize("script", [WITHOUT, STILL_THERE], ids=["not looked for", "still there"])
def test_pandas(script: str) -> None:
    pytest.importorskip("pandas")
    subprocess.run([sys.executable, "-c", script], check=True)


def test_every_module_has_it_from_here() -> None:
    modules = "cli.index, processors.runner, processors.sink, indexer.role"
    script = (
        f"import sys, {modules}; from pyarrow import array; array([1]); assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)

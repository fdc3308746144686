from __future__ import annotations

import subprocess
import sys

import pyarrow as pa

from nektar.chain.table import read_table, values, write_table
from nektar.chain.types import field, parse


def batch() -> pa.RecordBatch:
    wide = parse("int256", "")
    minus = (-5).to_bytes(32, "little", signed=True)
    pairs = parse("tuple[]", "", [{"type": "uint128", "name": "a"}, {"type": "bytes32", "name": "b"}])
    schema = pa.schema(
        [
            pa.field("when", pa.timestamp("s", "UTC")),
            field("n", wide).with_nullable(True),
            field("pairs", pairs),
            field("raw", parse("bytes32", "")),
        ]
    )
    five = (5).to_bytes(32, "little")
    columns = [
        pa.array([1_700_000_000, 0], schema.field("when").type),
        pa.array([minus, None], wide.arrow),
        pa.array([[{"a": five, "b": minus}], []], pairs.arrow),
        pa.array([minus, five], pa.binary(32)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def test_values_are_what_python_calls_them() -> None:
    minus = (-5).to_bytes(32, "little", signed=True)
    assert values(write_table(batch())) == [
        {"when": 1_700_000_000, "n": -5, "pairs": [{"a": 5, "b": minus}], "raw": minus},
        {"when": 0, "n": None, "pairs": [], "raw": (5).to_bytes(32, "little")},
    ]


def test_a_table_comes_back_with_its_metadata() -> None:
    table = read_table(write_table(batch()))
    assert table.schema.equals(batch().schema, check_metadata=True)
    assert table.to_batches() == [batch()]


def test_equal_batches_give_equal_bytes() -> None:
    assert write_table(batch()) == write_table(batch())


def test_reading_rows_does_not_load_pandas() -> None:
    """It takes a second and 50 MB of every role, and pyarrow loads it where it can."""
    code = (
        "import sys; from nektar.chain.table import values;"
        "values(bytes.fromhex(sys.stdin.read())); assert 'pandas' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], input=write_table(batch()).hex(), text=True, check=True, timeout=60
    )

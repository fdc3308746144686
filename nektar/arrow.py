"""pyarrow as it is imported here: it does not look for pandas.

The first time that pyarrow is given a list it imports pandas, to know one of its objects when it sees one.
chDB brings pandas along and nothing here uses it: in each process that would be 50 MB, and up to a second.
Whoever does use it beside us still can, `to_pandas` too.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from typing import Any

import pyarrow as pa

__all__ = ["pa"]


class _WithoutPandas:
    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name == "pandas":
            raise ImportError(name=name)
        return None


sys.meta_path.insert(0, _WithoutPandas)
try:
    pa.array([0])  # it looks once, here
finally:
    sys.meta_path.remove(_WithoutPandas)

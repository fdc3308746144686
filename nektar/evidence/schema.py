"""The JSON Schema of bundles (docs/evidence.schema.json), of the types that read and write them.

python -m nektar.evidence.schema        writes it to stdout
"""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from nektar.evidence.bundle import FORMAT, Bundle
from nektar.evidence.canonical import Octets


def schema() -> dict[str, Any]:
    """What it admits is what has the shape of a bundle; which text it must be written in, it can't say."""
    said: dict[str, Any] = _without_null(msgspec.json.schema(Bundle, schema_hook=_octets))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": f"{FORMAT}: see EVIDENCE.md beside this file, which says what else a bundle must be",
        **said,
    }


def text() -> str:
    """The file."""
    return json.dumps(schema(), indent=2) + "\n"


def _octets(kind: type) -> dict[str, Any]:
    if kind is not Octets:
        raise NotImplementedError(f"no schema of a {kind.__name__}")
    return {"type": "string", "pattern": "^0x([0-9a-f]{2})*$"}


def _without_null(node: Any) -> Any:
    """Nothing that is left out is written as null (`canonical`)."""
    if isinstance(node, list):
        return [_without_null(each) for each in node]
    if not isinstance(node, dict):
        return node
    node = {name: _without_null(each) for name, each in node.items() if (name, each) != ("default", None)}
    others = [each for each in node.get("anyOf", ()) if each != {"type": "null"}]
    return others[0] if len(others) == 1 else node


if __name__ == "__main__":
    sys.stdout.write(text())

"""`nektar index` that kills itself (SIGKILL) before a write to its store: dying_index.py WRITES ROWS index ….

It does so many writes before, and inserts so many rows at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cli.index
from cli.main import main
from indexer import bulk
from nektar.store.client import open_store
from tests.indexer.dying import Dying


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _opened(url: str) -> Iterator[Any]:
    with open_store(url) as store:
        yield Dying(store, int(writes), _die)


if __name__ == "__main__":
    _, writes, rows, *arguments = sys.argv
    bulk.ROWS_AN_INSERT = int(rows)
    cli.index.open_store = _opened
    sys.argv[1:] = arguments
    main()

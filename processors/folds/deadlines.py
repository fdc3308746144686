"""Deadlines in blocks, the one unit that folds count yet."""

from __future__ import annotations

from nektar.errors import NektarError
from nektar.model import Task


class UnsupportedDeadline(NektarError):
    """Folds count deadlines in blocks; this Network's are in another unit."""


def require_blocks(task: Task) -> None:
    """Raises UnsupportedDeadline for a Task whose deadline is not a block."""
    if task.deadline.unit != "block":
        raise UnsupportedDeadline(
            f"task {task.number} (0x{task.hash.hex()}): expected a deadline in blocks; got one in "
            f"{task.deadline.unit}s, which folds do not count yet"
        )

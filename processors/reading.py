"""Messages of the bus as whole records, and where each began: an offset is never committed within one."""

from __future__ import annotations

from nektar.bus.port import Delivered
from nektar.log import Joiner


class Reading:
    """The messages of one key or partition, as whole records."""

    def __init__(self) -> None:
        self._join = Joiner()
        self.began: int | None = None  # offset of a record's first part, until its last has come

    @property
    def half(self) -> bool:
        """Whether a record's first parts have come and not its last."""
        return self.began is not None

    def __call__(self, delivered: Delivered) -> tuple[int, bytes] | None:
        """(offset of its first part, the record) with its last part. Raises BrokenLog."""
        began = delivered.offset if self.began is None else self.began
        value = self._join(delivered.value, dict(delivered.headers))
        self.began = began if value is None else None
        return None if value is None else (began, value)

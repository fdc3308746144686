"""What providers said that can't be, kept until it is recorded for the store (table `dissent`).

Nobody honest is to stand there. So what only another provider contradicts is no reason: which of the two is
wrong, or whether a reorg came between, can't be told.

The same is said once: who is asked again about a block, and lies again, has told nothing new.
"""

from __future__ import annotations

import time

from indexer.prove import Unnamed
from nektar.coverage import DissentRow

# What it served contradicts a header, itself, or a pin; or it has another block than m of n have as a final
# one, or than it had called final itself.
CONTRADICTION, NOT_FINAL = "contradiction", "other final block"
# What is kept to be recorded, and what is remembered of that. More, at once, is said by what was first.
MOST = 256
# Characters kept of why.
MOST_WHY = 400

_NOTHING = bytes(32)


class Dissents:
    """What was said and is to be recorded."""

    def __init__(self, filter_: bytes = _NOTHING) -> None:
        """`filter_` is that of the contracts which were read in bulk, as their coverage has it."""
        self._filter = filter_
        self._said: set[tuple[str, str, int, bytes]] = set()
        self._new: list[DissentRow] = []

    def add(
        self, provider: str, lie: str, number: int, why: str, said: bytes = _NOTHING, against: str = ""
    ) -> None:
        """`number` is the block that was asked about; `said` the hash that it has for the provider, where
        that is what can't be, and `against` who has another."""
        key = provider, lie, number, said
        if key in self._said or len(self._new) == MOST:
            return
        if len(self._said) == MOST:
            self._said.clear()
        self._said.add(key)
        self._new.append(
            DissentRow(
                lie=lie,
                block_number=number,
                block_hash=said,
                log_index=-1,
                filter=self._filter,
                provider=provider,
                proved_by=against,
                found=int(time.time()),
                why=why[:MOST_WHY],
            )
        )

    def contradiction(self, provider: str, number: int, error: Exception) -> None:
        """What it said of the block at `number`, or of some from that on, contradicts a header, or itself."""
        if not isinstance(error, Unnamed):
            self.add(provider, CONTRADICTION, number, str(error))

    def take(self) -> list[DissentRow]:
        """What is new since this was last asked."""
        new, self._new = self._new, []
        return new

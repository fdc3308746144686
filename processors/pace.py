"""About when a moment of the chain is: of one in blocks it follows from the mean time of the last of them."""

from __future__ import annotations

from nektar.model import Block, Moment

PACE = 32
_LAST_TIME = 2**32 - 1  # that a column of times holds

Pace = tuple[tuple[int, int], ...]
"""(number, time) of the last `PACE` blocks."""


def after(pace: Pace, block: Block) -> Pace:
    """With this block, too."""
    return (*pace, (block.number, block.time))[-PACE:]


def about(pace: Pace, moment: Moment | None) -> int:
    """About when this is, in seconds since 1970; exact where its unit is a timestamp; 0: not known, as of an
    epoch."""
    if moment is None or moment.unit == "epoch":
        return 0
    time = moment.value
    if moment.unit == "block":
        (first, began), (number, now) = pace[0], pace[-1]
        if first == number:
            return 0
        time = now + (moment.value - number) * (now - began) // (number - first)
    return time if 0 < time <= _LAST_TIME else 0

"""Dead letters: what could not be read, whole, with the reason."""

from __future__ import annotations

from nektar.bus.port import Delivered, Message
from nektar.errors import NektarError
from nektar.log import DEAD, split

# Of an error's text: enough to see what was wrong with what.
MAX_REASON = 1000


def where(message: Delivered) -> str:
    """Where the message lies on the bus."""
    return f"{message.stream}/{message.partition}/{message.offset}"


def letter_key(message: Delivered, by: str = "store") -> bytes:
    """The key of the letter about `message`: one message has one of each who reads it."""
    return f"{by} {where(message)}".encode()


def letter(
    message: Delivered, value: bytes, error: NektarError, network: bytes = b"", by: str = "store"
) -> list[Message]:
    """The letter, in parts where it is long. `value` is the record, whose last part `message` may be."""
    headers = {"reason": str(error).encode()[:MAX_REASON], "network": network}
    key = letter_key(message, by)
    return [Message(DEAD, key, part, headers | numbered) for part, numbered in split(value)]

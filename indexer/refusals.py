"""Requests that are refused, whichever way they came: why, and whether they are to be sent again.

Codes are those of google.rpc, by which gRPC answers; OTLP over HTTP has a status for each (`otlp_http.py`).
Clients drop what is wrong and send again what has to wait.
"""

from __future__ import annotations

from google.rpc import code_pb2

# Seconds after which a request that has to wait is to be sent again, where nothing tells them better.
AFTER = 1.0


class Refused(Exception):
    """A request that is not taken. `after`: in so many seconds it is to be sent again; None: never."""

    def __init__(self, code: int, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.code = code
        self.after = after


def bad(why: str) -> Refused:
    """It is not what it should be."""
    return Refused(code_pb2.INVALID_ARGUMENT, why)


def unknown(why: str) -> Refused:
    """Nobody knows who sends it."""
    return Refused(code_pb2.UNAUTHENTICATED, why)


def large(most: int) -> Refused:
    """It is of more than `most` bytes."""
    return Refused(
        code_pb2.RESOURCE_EXHAUSTED,
        f"expected a body of at most {most} bytes, packed or not; send smaller batches",
    )


def busy(why: str, after: float = AFTER) -> Refused:
    """Its sender has had its share."""
    return Refused(code_pb2.RESOURCE_EXHAUSTED, f"{why}; send it again", after)


def later(why: str, after: float = AFTER) -> Refused:
    """It can't be taken now, whoever sends it."""
    return Refused(code_pb2.UNAVAILABLE, f"{why}; send it again", after)

"""The place where the SQL endpoint listens: taken first, since all else is in vain without it."""

from __future__ import annotations

import socket

from nektar.store.port import StoreError


class CantListen(StoreError):
    """`listen.sql` is taken, or is no place to listen at."""

    exit_code = 2


def bind(listen: str) -> socket.socket:
    """A socket that listens at HOST:PORT. Raises CantListen."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named TCP, since asyncio sets TCP_NODELAY only then; without it kept connections wait 40 ms an answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise CantListen(
            f"listen.sql: {listen}: {why}; stop what listens there or choose another port in nektar.yaml"
        ) from None
    return listener

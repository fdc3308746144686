"""A small HTTP server of a role: an ASGI application, answered in a thread of its own."""

from __future__ import annotations

import socket
import threading
from typing import Any, Self

import uvicorn

from nektar.errors import NektarError

# Connections beyond these get 503 at once: each is a file, and a process may have 1,024 by default.
MAX_CONNECTIONS = 512
# What a request under way may still take once the role is told to stop.
GRACE_SECONDS = 2


class CantListen(NektarError):
    """An address under `listen` is taken, or is no place to listen at."""

    exit_code = 2


class Server:
    """`app`, listening until closed. `with Server(app, bind("127.0.0.1:4318", "listen.otlp")): …`"""

    def __init__(self, app: Any, listening: socket.socket, max_head: int | None = None) -> None:
        """`max_head`: bytes that a request's URL and headers may have; uvicorn's 64 KiB where it is None."""
        host, port = listening.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._socket = listening
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=GRACE_SECONDS,
            h11_max_incomplete_event_size=max_head,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name=f"http {self.address}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and let the requests under way end."""
        self._server.should_exit = True
        self._thread.join(timeout=2 * GRACE_SECONDS + 1)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def bind(listen: str, key: str) -> socket.socket:
    """A socket that listens at HOST:PORT, which stands at `key` in nektar.yaml. Raises CantListen."""
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
            f"{key}: {listen}: {why}; stop what listens there or choose another port in nektar.yaml"
        ) from None
    return listener

"""A small HTTP server of a role: an ASGI application, answered in a thread of its own.

Whoever connects and asks nothing keeps nobody else out: a client has its time to send a whole request, and
where many connections wait for their clients, the oldest give way.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from nektar.errors import NektarError

# Further ones get 503: each is a file, and a process may have 1,024 by default. At most half of them wait for
# their clients, and beyond that the oldest of these are dropped.
MAX_CONNECTIONS = 512
# Seconds from connecting, or from the last answer, until a whole request has come. A role may have less
# patience with a body.
REQUEST_SECONDS = 20.0
# Seconds that a connection is kept after an answer while nothing comes.
KEEP_ALIVE_SECONDS = 5
# What a request under way may still take once the role is told to stop.
GRACE_SECONDS = 2


class CantListen(NektarError):
    """An address under `listen` is taken, or is no place to listen at."""

    exit_code = 2


class Server:
    """`app`, listening until closed. `with Server(app, bind("127.0.0.1:4318", "listen.otlp")): …`"""

    def __init__(
        self, app: Any, listening: socket.socket, max_head: int | None = None, proxies: Sequence[str] = ()
    ) -> None:
        """`max_head`: bytes that a request's URL and headers may have; uvicorn's 64 KiB where it is None.
        `proxies`: addresses and networks from which `X-Forwarded-For` is believed; by default from none."""
        host, port = listening.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._socket = listening
        config = uvicorn.Config(
            app,
            http=_Connection,
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=[*proxies],
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
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


class _Connection(H11Protocol):
    """A connection. It is dropped, whatever is not sent of the last answer, where its client lets it wait."""

    _waiting: asyncio.TimerHandle | None = None  # for the client; None: the client waits for us

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # The limit is one of connections. uvicorn holds all requests to it, too, and those of connections
        # that were dropped end a moment later: so each sees its own alone.
        self.tasks = set()
        self._wait()
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle and not self.cycle.more_body and not self.cycle.response_complete:
            self._wait_no_more()

    def on_response_complete(self) -> None:
        self._wait()
        super().on_response_complete()  # which takes the next request, where it has come already

    def _wait(self) -> None:
        self._wait_no_more()
        self._waiting = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _wait_no_more(self) -> None:
        if self._waiting:
            self._waiting.cancel()
            self._waiting = None

    def _make_room(self) -> None:
        """Drop the one that has waited longest for its client, where too many do."""
        waiting = {
            each: each._waiting.when()
            for each in self.connections
            if isinstance(each, _Connection) and each._waiting
        }
        if len(waiting) > MAX_CONNECTIONS // 2:
            oldest = min(waiting, key=waiting.__getitem__)
            oldest._wait_no_more()
            oldest.transport.abort()


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

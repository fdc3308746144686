"""What brokers are asked beside reading and writing: topics, settings, groups, transactions.

The client asks one broker, once, and remembers which of them to ask, also when that one has gone. Here the
question is put again, by a new client. Whether the first one was answered is not known then, so what is asked
here must be such that it can be asked twice: what has just been made is there, what has just been deleted is
unknown, and whoever asks takes that for done.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from kafka import KafkaAdminClient

from nektar.bus.servers import PATIENCE_SECONDS, UNANSWERED, Servers

LOOK_AGAIN = 0.05


class Admin:
    """The admin's client for the brokers at `servers`, from any thread. Raises BusError."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._lock = threading.Lock()
        self._closed = False
        with servers.told():
            self._client: Any = KafkaAdminClient(**servers.admin())

    def ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        """What the client's `method` answers, asked again while no broker does. Raises BusError where none
        has for PATIENCE_SECONDS."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self._lock, self._servers.told():
            try:
                while True:
                    try:
                        if self._client is None:
                            self._client = KafkaAdminClient(**self._servers.admin())
                        return getattr(self._client, method)(*arguments, **named)
                    except UNANSWERED:
                        if self._closed or time.monotonic() > deadline:
                            raise
                        self._leave()
                        time.sleep(LOOK_AGAIN)
            finally:
                if self._closed:  # meanwhile, while there may have been no client to close
                    self._leave()

    def close(self) -> None:
        self._closed = True
        self._leave()

    def _leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

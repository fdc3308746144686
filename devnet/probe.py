"""How long a block takes from a subscriber's own `newHeads` until its row answers SQL in this other process.
`python -m devnet.probe WS_URL SQL_URL`: when standard input closes, one JSON object on standard output with
both moments of every block, and with the first one of blocks that never came.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from urllib.parse import urlsplit

# Between an answer without the block and the next question: with what asking takes, the measurement's grain,
# all of which counts as the store's. Waiting longer where asking takes longer would double what a busy
# machine adds.
ASK_SECONDS = 0.01
# A block that a reorg replaced before anyone read it never comes.
GIVE_UP_SECONDS = 60.0


class Probe:
    """Notes when heads were announced, and when they were there."""

    def __init__(self, sql: str) -> None:
        self._lock = threading.Lock()
        self.announcements: dict[str, float] = {}  # hash → when announced, seconds since 1970
        self._awaited: dict[str, tuple[int, float]] = {}  # hash → (number, when announced)
        self._seen: dict[str, tuple[float, float]] = {}  # hash → (announced, there), seconds since 1970
        self._sql = urlsplit(sql)
        self._connection: http.client.HTTPConnection | None = None

    def announced(self, number: int, block_hash: str) -> None:
        now = time.time()
        with self._lock:
            self.announcements.setdefault(block_hash, now)
            self._awaited.setdefault(block_hash, (number, now))

    def ask(self) -> None:
        """One look at the store for all blocks that are awaited."""
        with self._lock:
            lowest = min((number for number, _ in self._awaited.values()), default=None)
        if lowest is None:
            return
        there = self._hashes(lowest)
        now = time.time()
        with self._lock:
            for block_hash, (_, since) in list(self._awaited.items()):
                if block_hash in there:
                    self._seen[block_hash] = (since, now)
                elif now - since < GIVE_UP_SECONDS:
                    continue
                del self._awaited[block_hash]

    def _hashes(self, lowest: int) -> set[str]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(
                self._sql.hostname or "127.0.0.1", self._sql.port, timeout=10
            )
        statement = f"SELECT hash FROM blocks WHERE number >= {lowest:d}"  # noqa: S608  an int
        try:
            self._connection.request("POST", "/?default_format=TabSeparated", statement)
            response = self._connection.getresponse()
            body = response.read().decode()
        except (OSError, http.client.HTTPException):  # the store is being restarted
            self._connection.close()
            self._connection = None
            return set()
        return set(body.split()) if response.status == 200 else set()

    @property
    def seen(self) -> dict[str, tuple[float, float]]:
        """Block hash → (when it was announced, when SQL had it), in seconds since 1970."""
        return self._seen


def main(ws: str, sql: str) -> None:
    """Subscribe, measure, and report when standard input closes."""
    from websockets.sync.client import connect

    probe = Probe(sql)
    stop = threading.Event()

    def until_closed() -> None:
        sys.stdin.read()
        stop.set()

    def listen() -> None:
        with connect(ws, max_size=1 << 20) as socket:
            socket.send(
                json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]})
            )
            for message in socket:
                params = json.loads(message).get("params")
                if params:
                    head = params["result"]
                    probe.announced(int(head["number"], 16), head["hash"])

    threading.Thread(target=until_closed, daemon=True).start()
    threading.Thread(target=listen, daemon=True).start()
    while not stop.wait(ASK_SECONDS):
        probe.ask()
    print(json.dumps({"announced": probe.announcements, "seen": probe.seen}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

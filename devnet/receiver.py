"""A watcher's receiver: verifies what it is sent and keeps it. `python -m devnet.receiver PORT SECRET_FILE`.

It stands apart from the pipeline: it knows the secret, and Standard Webhooks' own library says what holds.
Orders come as JSON lines on standard input. `{"fail": ["500", "slow", …]}`, answered by the same line: it
treats so many of the next requests so, one after the other. `{"report": N}`: the answer says what has come.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import standardwebhooks
from aiohttp import web

MAX_BODY = 2 * 1024 * 1024
# Requests that are kept; a demo makes some dozens.
MAX_KEPT = 100_000
# Long beside what tests give a receiver, short beside what people do.
SLOW_SECONDS = 1.0
MAX_FIELD = 200
# What is kept of a finding, as its event's data names it, in the order of Delivery's fields.
SAID = ("condition", "operator", "task_input", "status", "block_hash")


class Delivery(msgspec.Struct, frozen=True):
    """A request that came. What its event says is empty where its signature does not hold."""

    id: str  # webhook-id
    verified: bool
    when: float  # seconds since 1970 at which that was known
    source: str = ""
    type: str = ""
    finding: str = ""
    condition: str = ""
    operator: str = ""
    task_input: str = ""
    status: str = ""
    block_hash: str = ""


class Receiver:
    """Answers webhooks."""

    def __init__(self, secret: str) -> None:
        self._signer = standardwebhooks.Webhook(secret)
        self._faults: deque[str] = deque()
        self.requests = 0
        self.kept: list[Delivery] = []  # in the order in which they came

    def fail(self, faults: list[str]) -> None:
        """Treat the next requests so: `500` or any other status; `slow`: taken, and answered too late; `cut`:
        taken, and the answer breaks off; `drop`: not taken, and no answer."""
        self._faults.extend(faults)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        fault = self._faults.popleft() if self._faults else ""
        if fault.isdigit():
            return web.Response(status=int(fault), headers={"location": "/elsewhere"})
        if fault == "drop":
            return _broken_off(request, web.Response())
        delivery = self.verified(request.headers, await request.read())
        if len(self.kept) < MAX_KEPT:
            self.kept.append(delivery)
        if not delivery.verified:
            return web.Response(status=401)
        if fault == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        if fault == "cut":
            response = web.StreamResponse(headers={"content-length": "100"})
            await response.prepare(request)
            await response.write(b"well re")
            return _broken_off(request, response)
        return web.Response(status=204)

    def verified(self, headers: Mapping[str, str], body: bytes) -> Delivery:
        """What came, with what it says where its signature holds."""
        id_ = headers.get("webhook-id", "")
        try:
            event = self._signer.verify(body, dict(headers))
        except (standardwebhooks.WebhookVerificationError, ValueError):  # base64 that is none, among others
            return Delivery(id_, False, time.time())
        when = time.time()
        data = event.get("data", {})
        about = [event.get("source"), event.get("type"), data.get("id", ""), *map(data.get, SAID)]
        return Delivery(id_, True, when, *(str(each)[:MAX_FIELD] for each in about))

    def report(self) -> dict[str, Any]:
        return {"requests": self.requests, "deliveries": msgspec.to_builtins(self.kept)}


def _broken_off(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """The connection ends here."""
    if request.transport is not None:
        request.transport.close()
    return response


async def listen(receiver: Receiver, port: int) -> web.AppRunner:
    """Answer on loopback until the runner is cleaned up."""
    app = web.Application(client_max_size=MAX_BODY)
    app.router.add_post("/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SLOW_SECONDS)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner


async def serve(port: int, secret: str) -> None:
    """Serve until SIGTERM; say so once requests are answered."""
    receiver = Receiver(secret)
    runner = await listen(receiver, port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def obey() -> None:
        line = sys.stdin.readline()
        if not line:
            loop.remove_reader(sys.stdin)
            return
        order = json.loads(line)
        receiver.fail(order.get("fail", []))
        report = receiver.report() if "report" in order else {}
        print(json.dumps(order | report), flush=True)  # noqa: T201  the answer

    loop.add_reader(sys.stdin, obey)
    print(json.dumps({"listening": port}), flush=True)  # noqa: T201
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2]).read_text().strip()))

"""A JSON-RPC proxy with faults, between the pipeline and the chain: `python -m devnet.proxy UPSTREAM PORT`.

It withholds the receipts of block ranges, as a node that has pruned them does, and tells lies
(`devnet/liar.py`). Orders come as JSON lines on standard input, each answered by a line on standard output
once it holds: `{"withhold": [first, last]}`, `{"lie": "omitted log", "seed": 7, "chance": 0.5}`, and
`{"lie": ""}` for the truth. Agents and the scenario's driver talk to the chain itself.
"""

from __future__ import annotations

import asyncio
import io
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

from devnet.anvil import free_port
from devnet.liar import Liar, Refusal
from devnet.processes import Child

MAX_BODY = 16 * 1024 * 1024
# As geth words it for a block whose receipts it does not have.
NOT_HERE = {"code": -32000, "message": "missing receipts: pruned"}


class Faults:
    """What is withheld."""

    def __init__(self) -> None:
        self._ranges: list[range] = []

    def withhold(self, first: int, last: int) -> None:
        self._ranges.append(range(first, last + 1))

    def withheld(self, number: int) -> bool:
        return any(number in r for r in self._ranges)

    @property
    def any(self) -> bool:
        return bool(self._ranges)


class Proxy:
    """Passes requests on, and answers in the upstream's place where a fault says so."""

    def __init__(self, upstream: str, faults: Faults) -> None:
        self._upstream = upstream
        self._faults = faults
        self._session: ClientSession | None = None
        self.liar = Liar(self._ask)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        if not self.liar.is_honest:
            asked = msgspec.json.decode(body)
            batch = isinstance(asked, list)
            sent = await self.liar.answer(asked if batch else [asked], batch)
            await asyncio.sleep(sent.after)
            return web.Response(body=sent.body, status=sent.status, content_type="application/json")
        answer = await self._post(body)
        if self._faults.any and b"Receipt" in body:
            answer = await self._with_faults(msgspec.json.decode(body), msgspec.json.decode(answer))
        return web.Response(body=answer, content_type="application/json")

    async def _post(self, body: bytes) -> bytes:
        if self._session is None:
            self._session = ClientSession(
                timeout=ClientTimeout(total=30), connector=TCPConnector(limit=32), json_serialize=json.dumps
            )
        headers = {"content-type": "application/json"}
        async with self._session.post(self._upstream, data=body, headers=headers) as response:
            return await response.read()

    async def _ask(self, method: str, *params: Any) -> Any:
        """The upstream's result of one call. Raises Refusal."""
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = msgspec.json.decode(await self._post(msgspec.json.encode(call)))
        if (error := answer.get("error")) is not None:
            raise Refusal(error["code"], error["message"])
        return answer["result"]

    async def _with_faults(self, asked: Any, answered: Any) -> bytes:
        batch = isinstance(asked, list)
        answers = {a["id"]: a for a in (answered if batch else [answered])}
        out = []
        for call in asked if batch else [asked]:
            answer = answers[call["id"]]
            if "Receipt" in call["method"] and await self._is_withheld(call, answer):
                answer = {"jsonrpc": "2.0", "id": call["id"], "error": NOT_HERE}
            out.append(answer)
        return msgspec.json.encode(out if batch else out[0])

    async def _is_withheld(self, call: dict[str, Any], answer: dict[str, Any]) -> bool:
        result = answer.get("result")
        receipt = result[0] if isinstance(result, list) and result else result
        if isinstance(receipt, dict):
            return self._faults.withheld(int(receipt["blockNumber"], 16))
        which = call["params"][0] if call.get("params") else None
        if call["method"] != "eth_getBlockReceipts" or not isinstance(which, str):
            return False
        if len(which) < 66 and which.startswith("0x"):
            return self._faults.withheld(int(which, 16))
        if len(which) == 66:  # an empty block, asked for by its hash
            block = await self._ask("eth_getBlockByHash", which, False)
            return block is not None and self._faults.withheld(int(block["number"], 16))
        return False

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


@contextmanager
def proxied(upstream: str) -> Iterator[tuple[Child, str]]:
    """A proxy in a process of its own, which takes orders, and its URL. Raises DevnetError."""
    port = free_port()
    proxy = Child("proxy", "devnet.proxy", upstream, str(port))
    try:
        proxy.wait_for("listening", port)
        yield proxy, f"http://127.0.0.1:{port}"
    finally:
        proxy.stop()


async def serve(upstream: str, port: int) -> None:
    """Serve on loopback until SIGTERM; say so on standard output once requests are answered."""
    faults = Faults()
    proxy = Proxy(upstream, faults)
    app = web.Application(client_max_size=MAX_BODY)
    app.router.add_post("/", proxy.handle)
    # Whoever waits for an answer that never comes is not waited for in turn.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    # Without a buffer, in which a second order would wait for a third.
    orders = io.FileIO(0, closefd=False)

    def order() -> None:
        line = orders.readline()
        if not line:
            loop.remove_reader(orders)
            return
        told = json.loads(line)
        if "withhold" in told:
            faults.withhold(*told["withhold"])
        else:
            proxy.liar.tell(**told)
        print(line.decode().strip(), flush=True)  # noqa: T201  the answer

    loop.add_reader(orders, order)
    print(json.dumps({"listening": port}), flush=True)  # noqa: T201
    await stop.wait()
    await proxy.close()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))

"""Announcements over real sockets, that come, end and come back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import WSCloseCode, web

from nektar.chain import announced
from nektar.chain.announced import Announced, announces

SECRET = "s3cr3t-k3y"


class Server:
    """A node's WebSocket, which does what a test tells it to."""

    def __init__(self) -> None:
        self.sockets: list[web.WebSocketResponse] = []
        self.refuses = False
        self.opened = 0

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.opened += 1
        async for message in socket:
            asked = msgspec.json.decode(message.data)
            assert (asked["method"], asked["params"]) == ("eth_subscribe", ["newHeads"])
            if self.refuses:
                error = {"code": -32601, "message": "no such method"}
                await self.say(socket, {"id": asked["id"], "error": error})
            else:
                await self.say(socket, {"id": asked["id"], "result": "0xcd"})
                self.sockets.append(socket)
        return socket

    async def say(self, socket: web.WebSocketResponse, what: Any) -> None:
        await socket.send_str(msgspec.json.encode(what).decode())

    async def announce(self, header: Any) -> None:
        for socket in self.sockets:
            params = {"subscription": "0xcd", "result": header}
            await self.say(socket, {"jsonrpc": "2.0", "method": "eth_subscription", "params": params})

    async def hang_up(self) -> None:
        sockets, self.sockets = self.sockets, []
        for socket in sockets:
            await socket.close(code=WSCloseCode.GOING_AWAY)


@asynccontextmanager
async def heard(server: Server) -> AsyncIterator[Announced]:
    app = web.Application()
    app.router.add_get("/{key}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    told = Announced({"mine": f"ws://127.0.0.1:{runner.addresses[0][1]}/{SECRET}"})
    listening = asyncio.create_task(told.listen())
    try:
        yield told
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await runner.cleanup()


def with_server(use: Callable[[Server, Announced], Awaitable[None]]) -> None:
    async def go() -> None:
        server = Server()
        async with asyncio.timeout(20), heard(server) as told:
            await use(server, told)

    asyncio.run(go())


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announced, "FIRST_PAUSE", 0.01)


def test_a_head_that_is_announced_ends_the_wait_for_it() -> None:
    async def use(server: Server, told: Announced) -> None:
        assert not told.live
        await told.wait(60)  # the subscription itself: a head may have come before it
        assert told.live
        waiting = asyncio.create_task(told.wait(60))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await server.announce({"number": "0x10"})
        await waiting
        assert told.newest == 16
        await server.announce({"number": "0x11"})
        await until(lambda: told.newest == 17)
        await told.wait(60)  # one that came while nobody waited
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await told.wait(60)

    with_server(use)


def test_without_an_announcement_the_wait_ends_in_its_time() -> None:
    async def use(server: Server, told: Announced) -> None:
        await until(lambda: told.live)
        await told.wait(0)
        began = asyncio.get_running_loop().time()
        await told.wait(0.05)
        assert asyncio.get_running_loop().time() - began >= 0.045

    with_server(use)


@pytest.mark.parametrize("nonsense", [None, {"number": "many"}, {"number": "0x"}, []])
def test_a_socket_that_is_lost_or_talks_nonsense_is_opened_again(
    nonsense: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(server: Server, told: Announced) -> None:
        for opened in (1, 2, 3):
            await until(lambda: told.live)
            assert server.opened == opened
            if nonsense is None:
                await server.hang_up()
            else:
                await server.announce(nonsense)
                server.sockets.clear()
            await until(lambda: not told.live)
        await until(lambda: told.live)
        await server.announce({"number": "0x1"})
        await until(lambda: told.newest == 1)

    with_server(use)
    assert "provider mine: its WebSocket announces nothing (" in caplog.text
    assert SECRET not in caplog.text


def test_a_provider_that_announces_nothing_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def use(server: Server, told: Announced) -> None:
        server.refuses = True
        await until(lambda: server.opened == 4)
        assert not told.live

    with_server(use)
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "expected a subscription to newHeads; got " in line.message


def test_nobody_that_listens_is_tried_again_without_its_url_being_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def go() -> None:
        told = Announced({"mine": f"ws://127.0.0.1:1/{SECRET}"})
        listening = asyncio.create_task(told.listen())
        await until(lambda: "announces nothing" in caplog.text)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    asyncio.run(go())
    assert SECRET not in caplog.text


def test_whether_a_provider_announces_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announced, "OPEN_SECONDS", 0.3)

    async def use(server: Server, told: Announced) -> None:
        ((name, url),) = told._sockets.items()
        assert await announces(name, url)
        server.refuses = True
        assert not await announces(name, url)

    with_server(use)


def test_where_none_is_configured_the_wait_is_a_pause() -> None:
    async def go() -> None:
        told = Announced({})
        await told.listen()
        await told.wait(0.01)
        assert not told.live

    asyncio.run(go())

"""New heads as providers announce them over a WebSocket: `eth_subscribe newHeads` (as geth's pubsub has it).

An announcement is a reason to look, and nothing that it says is believed. Where no socket is open, because
none is configured or it is lost, whoever follows looks as often as it would without; a lost one is opened
again, with longer pauses while that fails.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec

from nektar.chain.jsonrpc import Malformed, quantity

logger = logging.getLogger(__name__)

# Seconds before a lost socket is opened again; doubles while that fails.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
# A socket that answers no ping within so many seconds is lost.
HEARTBEAT = 10.0
OPEN_SECONDS = 10.0
# An announcement is one header.
MAX_MESSAGE_BYTES = 1024 * 1024


class _Lost(Exception):
    """Why a socket announces nothing any more."""


class _Params(msgspec.Struct):
    result: Any = None


class _Message(msgspec.Struct):
    id: int | str | None = None
    result: Any = None
    error: Any = None
    params: _Params | None = None


_messages = msgspec.json.Decoder(_Message)


class Announced:
    """What several providers announce."""

    def __init__(self, sockets: Mapping[str, str]) -> None:
        """`sockets`: providers' names → their WebSockets' URLs, which are never shown."""
        self._sockets = dict(sockets)
        self._open: set[str] = set()
        self._heard = asyncio.Event()
        self.newest = -1  # the number last announced

    @property
    def live(self) -> bool:
        """Whether any provider announces its heads now."""
        return bool(self._open)

    async def wait(self, seconds: float) -> None:
        """Until a head is announced that nobody waited for yet, or `seconds` have passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._heard.wait()
        self._heard.clear()

    async def listen(self) -> None:
        """Keep the sockets open and hear what they announce, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, url in self._sockets.items():
                group.create_task(self._keep_open(name, url))

    async def _keep_open(self, name: str, url: str) -> None:
        pause, said = FIRST_PAUSE, ""
        while True:
            try:
                await self._hear(name, url)
            except (_Lost, Malformed, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                why = str(error)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                why = type(error).__name__  # its words may show the URL
            if name in self._open:
                self._open.discard(name)
                pause, said = FIRST_PAUSE, ""
                self._heard.set()  # what is announced from now on is missed: look at once, and poll
            level = logging.DEBUG if why == said else logging.WARNING
            logger.log(level, "provider %s: its WebSocket announces nothing (%s): polling", name, why)
            said = why
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _hear(self, name: str, url: str) -> None:
        """Open a socket, and hear until it is lost. Raises what says why."""
        async with aiohttp.ClientSession() as session:
            async with asyncio.timeout(OPEN_SECONDS):
                socket = await session.ws_connect(url, heartbeat=HEARTBEAT, max_msg_size=MAX_MESSAGE_BYTES)
                subscribe = {"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}
                await socket.send_str(msgspec.json.encode(subscribe).decode())
            async with socket:
                async for frame in socket:
                    if frame.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                        continue
                    message = _messages.decode(frame.data)
                    if message.params is not None:
                        self._announce(message.params.result)
                    elif message.error is not None:
                        raise _Lost(f"expected a subscription to newHeads; got {str(message.error)[:200]}")
                    elif message.id == 1:
                        self._open.add(name)
                        self._heard.set()  # what came before it
                        logger.info("provider %s announces its heads", name)
                raise _Lost(f"closed, code {socket.close_code}")

    def _announce(self, header: Any) -> None:
        if not isinstance(header, Mapping):
            raise Malformed(f"expected a header; got {str(header)[:60]!r}")
        self.newest = quantity(header, "number")
        self._heard.set()


async def announces(name: str, url: str) -> bool:
    """Whether this provider takes a subscription to its heads; where it does not, a line says why."""
    told = Announced({name: url})
    listening = asyncio.create_task(told.listen())
    try:
        await told.wait(OPEN_SECONDS)
        return told.live
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

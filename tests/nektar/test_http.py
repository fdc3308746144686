"""The roles' HTTP server: who connects and asks nothing is let go, and keeps nobody out."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from nektar import http
from nektar.http import Server, bind

HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n"
ASKS_NOTHING = [b"", HEAD[:20], HEAD, HEAD + b"ab"]


class App:
    """Answers what it got: at `/` at once, at `/slow` when it may."""

    def __init__(self) -> None:
        self.may, self.asked = threading.Event(), 0
        self.app = Starlette(
            routes=[Route("/", self._answer, methods=["POST"]), Route("/slow", self._slow, methods=["POST"])]
        )

    async def _answer(self, request: Request) -> Response:
        try:
            return Response(await request.body())
        except ClientDisconnect:
            return Response(status_code=400)

    async def _slow(self, request: Request) -> Response:
        answer = await self._answer(request)
        self.asked += 1
        await asyncio.to_thread(self.may.wait, 60)
        return answer


@contextmanager
def serving(app: App) -> Iterator[tuple[str, int]]:
    with Server(app.app, bind("127.0.0.1:0", "x")) as server:
        host, port = server.address.split(":")
        try:
            yield host, int(port)
        finally:
            app.may.set()


@pytest.mark.parametrize(
    ("proxies", "seen"),
    [
        ((), "127.0.0.1"),
        (("127.0.0.1",), "192.0.2.7"),
        (("127.0.0.0/8", "192.0.2.0/24"), "198.51.100.7"),
        (("10.0.0.0/8",), "127.0.0.1"),
    ],
)
def test_a_client_is_who_connects_where_no_proxy_is_believed(proxies: tuple[str, ...], seen: str) -> None:
    async def whose(request: Request) -> Response:
        return Response(request.client.host if request.client else "")

    app = Starlette(routes=[Route("/", whose)])
    with Server(app, bind("127.0.0.1:0", "x"), proxies=proxies) as server:
        said = {"X-Forwarded-For": "203.0.113.7, 198.51.100.7, 192.0.2.7"}
        asked = urllib.request.Request(f"http://{server.address}/", headers=said)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert answer.read().decode() == seen


def post(address: tuple[str, int]) -> int:
    try:
        with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/", b"abc", timeout=60) as answer:
            assert answer.read() == b"abc"
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def ask_slowly(app: App, address: tuple[str, int]) -> socket.socket:
    """A connection whose request is whole, and waits for its answer."""
    before, deadline = app.asked, time.monotonic() + 30
    connection = socket.create_connection(address, timeout=30)
    connection.sendall(HEAD.replace(b"/", b"/slow", 1) + b"abc")
    while app.asked == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return connection


def closed(connection: socket.socket) -> bool:
    """Whether the server closes it, with no answer more."""
    connection.settimeout(30)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("sent", ASKS_NOTHING)
def test_a_connection_without_a_whole_request_is_closed_in_time(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.2)
    with serving(App()) as address, socket.create_connection(address) as connection:
        connection.sendall(sent)
        assert closed(connection)


def test_one_byte_after_the_other_gains_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.3)
    with (
        serving(App()) as address,
        socket.create_connection(address) as connection,
        suppress(ConnectionError),
    ):
        for each in HEAD[:-2] + b"x: " + b"y" * 3_000:
            connection.sendall(bytes([each]))
            time.sleep(0.01)
        pytest.fail("it was let go on")


@pytest.mark.parametrize("then", [b"", b"P"])
def test_after_an_answer_a_connection_is_kept_for_a_moment(
    then: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(http, "KEEP_ALIVE_SECONDS", 0.1)
    with serving(App()) as address, socket.create_connection(address) as connection:
        for _ in range(2):
            connection.sendall(HEAD + b"abc")
            answer = b""
            while not answer.endswith(b"abc"):
                answer += connection.recv(1_000)
            assert answer.startswith(b"HTTP/1.1 200 OK")
        connection.sendall(then)
        assert closed(connection)


def test_whoever_waits_for_an_answer_is_not_hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.1)
    app = App()
    with serving(app) as address, ask_slowly(app, address) as connection:
        time.sleep(0.5)
        app.may.set()
        assert connection.recv(1_000).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("sent", ASKS_NOTHING)
def test_connections_that_ask_nothing_keep_nobody_out(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 8)
    app = App()
    with serving(app) as address:
        asking = ask_slowly(app, address)
        idle = [socket.create_connection(address) for _ in range(20)]
        for each in idle:
            with suppress(ConnectionError):
                each.sendall(sent)
        assert [post(address) for _ in range(3)] == [200] * 3
        assert all(closed(each) for each in idle[:16])  # oldest first
        app.may.set()
        assert asking.recv(1_000).startswith(b"HTTP/1.1 200 OK")
        for each in (asking, *idle):
            each.close()


def test_where_all_wait_for_us_another_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 4)
    app = App()
    with serving(app) as address:
        asking = [ask_slowly(app, address) for _ in range(3)]
        assert post(address) == 503
        app.may.set()
        for each in asking:
            assert each.recv(1_000).startswith(b"HTTP/1.1 200 OK")
            each.close()


def test_requests_whose_connections_are_gone_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 4)
    app = App()
    with serving(app) as address:
        for _ in range(4):  # which are under way until the end
            ask_slowly(app, address).close()
        deadline = time.monotonic() + 10  # until the server has seen that they are gone
        while post(address) == 503:
            assert time.monotonic() < deadline
            time.sleep(0.01)

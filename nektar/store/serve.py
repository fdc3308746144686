"""The SQL endpoint: ClickHouse's HTTP interface over the store, for reading.

Enough of it for clickhouse-connect, curl and `nektar sql`: the query in the URL or the body, `database`,
`default_format`, `param_*` and settings in the URL, `/ping`, errors as ClickHouse words them. What may be
asked is in `readonly`. It runs in a thread of the store role; queries run in a few threads more.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from nektar.store.listen import bind
from nektar.store.port import STORE_HEADER, Store, StoreError, identity
from nektar.store.readonly import MAX_QUERY_BYTES

log = logging.getLogger(__name__)

# Queries that run, or whose answers are on their way, at once. The store's process has no memory for more:
# see `readonly.LIMITS`.
RUNNING = 2
# Queries that may wait for them: so many texts are held.
WAITING = 64
# Seconds in which a client has to take its answer, as a query has them to run; others wait.
SEND_SECONDS = 30.0
# An answer is sent in pieces, since what is handed over at once is copied at once.
PIECE_BYTES = 256 * 1024

# What HTTP itself is asked for in the query string: no settings of the engine.
_HTTP_ONLY = frozenset(
    re.findall(
        r"\w+",
        """
        query database default_format query_id session_id session_timeout session_check user password
        quota_key role wait_end_of_query buffer_size decompress client_protocol_version
        enable_http_compression http_zlib_compression_level send_progress_in_http_headers
        http_headers_progress_interval_ms add_http_cors_header http_write_exception_in_output_format
        network_compression_method compress
        """,
    )
)
# HTTP status of ClickHouse error codes, as its own server maps them; 500 for the rest.
_STATUS = {
    **dict.fromkeys((6, 26, 27, 38, 41, 53, 62, 70, 72, 73, 117, 131, 223, 457), 400),
    **dict.fromkeys((46, 47, 50, 56, 60, 81, 115), 404),
    **dict.fromkeys((164, 497), 403),
    159: 408,
    202: 503,
    307: 413,
}
_TYPES = {
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "Native": "application/octet-stream",
    "Arrow": "application/octet-stream",
    "ArrowStream": "application/octet-stream",
    "Parquet": "application/octet-stream",
    "RowBinary": "application/octet-stream",
    "RowBinaryWithNamesAndTypes": "application/octet-stream",
}
_TEXT = "text/tab-separated-values; charset=UTF-8"
_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)


class Endpoint:
    """A running SQL endpoint. `with serve(store, "127.0.0.1:8123"): …`"""

    def __init__(self, store: Store, listener: socket.socket) -> None:
        """Answer at `listener`, which is closed with this."""
        host, port = listener.getsockname()[:2]
        self.address = f"{host}:{port}"
        self._store = store
        self._listener = listener
        self._threads = ThreadPoolExecutor(RUNNING, "sql")
        self._slots = asyncio.Semaphore(RUNNING)
        self._asked = 0  # those that have a slot, and those that wait for one
        routes = [
            Route("/ping", self._ping, methods=["GET"]),
            Route("/", self._answer, methods=["GET", "POST"]),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=MAX_QUERY_BYTES,  # a query may stand in the URL
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="sql-endpoint", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening, let running queries end, drop those that wait."""
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._threads.shutdown(cancel_futures=True)
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def _ping(self, request: Request) -> Response:
        return Response("Ok.\n", headers=self._headers("ping"))

    async def _answer(self, request: Request) -> Response:
        params = dict(request.query_params)
        query_id = params.get("query_id") or str(uuid.uuid4())
        headers = self._headers(query_id)
        try:
            sql = await _query(request)
            if not sql.strip():
                return Response("Ok.\n", headers=headers)
            fmt = _wanted_format(request, sql)
            body = await self._run(sql, fmt, params)
        except StoreError as error:
            headers["X-ClickHouse-Exception-Code"] = str(error.code)
            return Response(f"{error.text}\n", _STATUS.get(error.code, 500), headers, "text/plain")
        headers["X-ClickHouse-Format"] = fmt
        return _Answer(body, headers, _TYPES.get(fmt, _TEXT), self._leave)

    async def _run(self, sql: str, fmt: str, params: Mapping[str, str]) -> bytes:
        """What the query answers; then its slot is held until `_leave`. Raises StoreError."""
        if params.get("compress") == "1":
            raise _error(48, "compress=1 is not supported here; use plain HTTP")
        values = {k[6:]: v for k, v in params.items() if k.startswith("param_")}
        settings = {
            k: v
            for k, v in params.items()
            if k not in _HTTP_ONLY and k != "compress" and not k.startswith("param_")
        }
        if self._asked >= RUNNING + WAITING:
            raise _error(202, f"Too many simultaneous queries. Maximum: {RUNNING + WAITING}")
        self._asked += 1
        await self._slots.acquire()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._store.read, sql, fmt, values, settings, params.get("database")
            )
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        self._slots.release()
        self._asked -= 1

    def _headers(self, query_id: str) -> dict[str, str]:
        return {
            "X-ClickHouse-Server-Display-Name": "nektar",
            "X-ClickHouse-Query-Id": re.sub(r"[^\w.:-]", "", query_id)[:100],
            "X-ClickHouse-Timezone": "UTC",
            STORE_HEADER: identity(self._store.url),
        }


class _Answer(Response):
    """An answer that is sent as fast as the client takes it, and given up where that is not fast enough."""

    def __init__(
        self, body: bytes, headers: Mapping[str, str], media_type: str, sent: Callable[[], None]
    ) -> None:
        super().__init__(body, headers=headers, media_type=media_type)
        self._sent = sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await send(
                    {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                )
                for start in range(0, len(self.body), PIECE_BYTES):
                    piece = self.body[start : start + PIECE_BYTES]
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            log.warning("a client has not taken its answer of %d bytes in time", len(self.body))
        finally:
            self._sent()


def serve(store: Store, listen: str) -> Endpoint:
    """Answer SQL at `listen` (HOST:PORT; port 0 takes a free one) until closed.

    Raises CantListen.
    """
    return Endpoint(store, bind(listen))


async def _query(request: Request) -> str:
    """The statement: the `query` parameter, then the body. Raises StoreError where it is too long."""
    parts = [request.query_params.get("query", "").encode()]
    size = len(parts[0])
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_QUERY_BYTES:
                raise _error(307, f"Max query size exceeded: expected at most {MAX_QUERY_BYTES} bytes")
            parts.append(chunk)
    except ClientDisconnect:
        raise _error(210, "The client has gone") from None
    try:
        return (b"\n" if parts[0] else b"").join([parts[0], b"".join(parts[1:])]).decode()
    except UnicodeDecodeError:
        raise _error(62, "Syntax error: the query is not UTF-8") from None


def _wanted_format(request: Request, sql: str) -> str:
    if match := _FORMAT.search(sql.encode()):
        return match[1].decode()
    asked = request.query_params.get("default_format") or request.headers.get("X-ClickHouse-Format")
    return asked or "TabSeparated"


def _error(code: int, why: str) -> StoreError:
    return StoreError(why, f"Code: {code}. DB::Exception: {why}", code)

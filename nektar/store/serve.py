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
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from nektar.store.port import STORE_HEADER, Store, StoreError, identity
from nektar.store.readonly import MAX_QUERY_BYTES

log = logging.getLogger(__name__)

# Queries that run at once, and those that may wait for them; each may take `readonly.LIMITS` of memory.
RUNNING = 4
WAITING = 64

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


class CantListen(StoreError):
    """`listen.sql` is taken, or is no place to listen at."""

    exit_code = 2


class Endpoint:
    """A running SQL endpoint. `with serve(store, "127.0.0.1:8123"): …`"""

    def __init__(self, store: Store, sockets: list[socket.socket]) -> None:
        host, port = sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        self._store = store
        self._sockets = sockets
        self._queries = ThreadPoolExecutor(RUNNING, "sql")
        self._asked = 0
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
            target=self._server.run, args=(sockets,), name="sql-endpoint", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening, let running queries end, drop those that wait."""
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self._queries.shutdown(cancel_futures=True)
        for each in self._sockets:
            each.close()

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
        return Response(body, headers=headers, media_type=_TYPES.get(fmt, _TEXT))

    async def _run(self, sql: str, fmt: str, params: Mapping[str, str]) -> bytes:
        if params.get("compress") == "1":
            raise _error(48, "compress=1 is not supported here; use plain HTTP")
        if self._asked >= RUNNING + WAITING:
            raise _error(202, f"Too many simultaneous queries. Maximum: {RUNNING + WAITING}")
        values = {k[6:]: v for k, v in params.items() if k.startswith("param_")}
        settings = {
            k: v
            for k, v in params.items()
            if k not in _HTTP_ONLY and k != "compress" and not k.startswith("param_")
        }
        self._asked += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._queries, self._store.read, sql, fmt, values, settings, params.get("database")
            )
        finally:
            self._asked -= 1

    def _headers(self, query_id: str) -> dict[str, str]:
        return {
            "X-ClickHouse-Server-Display-Name": "nektar",
            "X-ClickHouse-Query-Id": re.sub(r"[^\w.:-]", "", query_id)[:100],
            "X-ClickHouse-Timezone": "UTC",
            STORE_HEADER: identity(self._store.url),
        }


def serve(store: Store, listen: str) -> Endpoint:
    """Answer SQL at `listen` (HOST:PORT; port 0 takes a free one) until closed.

    Raises CantListen.
    """
    return Endpoint(store, [bind(listen)])


def bind(listen: str) -> socket.socket:
    """A socket that listens at HOST:PORT. Raises CantListen."""
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
            f"listen.sql: {listen}: {why}; stop what listens there or choose another port in nektar.yaml"
        ) from None
    return listener


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

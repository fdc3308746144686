"""The SQL endpoint: ClickHouse's HTTP interface over the store, for reading.

Enough of it for clickhouse-connect, clickhouse-go (hence Grafana's ClickHouse plugin), curl and `nektar sql`:
the query in the URL or the body, `database`, `default_format`, `param_*` and settings in the URL, gzip both
ways, `/ping`, errors as ClickHouse words them. What may be asked is in `readonly`. It runs in a thread of the
store role; queries run in a few threads more, and one whose client goes is ended, since it holds a place. The
engine looks at that, and at a query's time, between two blocks of rows alone, and one function of one row may
take it for minutes: beyond `LATE_SECONDS` nothing in this process can end it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Self

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from nektar.http import Server, bind
from nektar.store import native
from nektar.store.coding import WORTH_PACKING, BadGzip, Body, TooLong, gzipped, wants_gzip
from nektar.store.port import ABORTED, STORE_HEADER, Store, StoreError, identity
from nektar.store.readonly import LIMITS, MAX_QUERY_BYTES, UTC, Code

log = logging.getLogger(__name__)

# What the endpoint calls itself; ClickHouse would tell the machine's name.
NAME = "nektar"
# Queries that run, or whose answers are on their way, at once. The store's process has no memory for more:
# see `readonly.LIMITS`.
RUNNING = 2
# Queries that may wait for them: so many texts are held.
WAITING = 64
# Characters of a query that the log shows.
SHOWN = 200
# Seconds in which a client has to take its answer, as a query has them to run; others wait.
SEND_SECONDS = 30.0
# An answer is sent in pieces, since what is handed over at once is copied at once.
PIECE_BYTES = 256 * 1024
# Seconds until a query whose client has gone is told to end again: what is told between the two steps of
# one (see DriverStore.read) is heard by neither.
END_AGAIN = 0.2
# Seconds that a query may take beyond its time, or once it was told to end. A role that is told to stop has
# 15 in all.
LATE_SECONDS = 10.0
SLICE_SECONDS = 1.0

# What HTTP itself is asked for in the query string: no settings of the engine.
_HTTP_ONLY = frozenset(
    re.findall(
        r"\w+",
        """
        query database default_format query_id session_id session_timeout session_check user password
        quota_key role wait_end_of_query buffer_size decompress client_protocol_version
        enable_http_compression http_zlib_compression_level send_progress_in_http_headers
        http_headers_progress_interval_ms add_http_cors_header http_write_exception_in_output_format
        network_compression_method network_zstd_compression_level compress
        """,
    )
)
# HTTP status of ClickHouse error codes, as its own server maps them; 500 for the rest.
_STATUS = {
    **dict.fromkeys((6, 26, 27, 38, 41, 53, 62, 70, 72, 73, 89, 117, 131, 223, 354, 457), 400),
    **dict.fromkeys((46, 47, 50, 56, 60, 81, 115), 404),
    **dict.fromkeys((164, 497), 403),
    48: 501,
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
_GONE = 210, "The client has gone"
_TEXT = "text/tab-separated-values; charset=UTF-8"
# Without what may follow: a pattern that skips white space up to an end is tried anew from each space.
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)$", re.IGNORECASE | re.ASCII)


class Endpoint:
    """A running SQL endpoint. `with serve(store, "127.0.0.1:8123"): …`"""

    def __init__(
        self, store: Store, listening: socket.socket, on_stuck: Callable[[], None] | None = None
    ) -> None:
        self._store = store
        self._on_stuck = on_stuck
        self._queries = ThreadPoolExecutor(RUNNING, "sql")
        self._running: dict[str, str] = {}  # id → query
        self._places = asyncio.Semaphore(RUNNING)
        self._asked = 0  # those that have a place, and those that wait for one
        routes = [
            Route("/ping", self._ping, methods=["GET"]),
            Route("/", self._answer, methods=["GET", "POST"]),
        ]
        # A query may stand in the URL.
        self._server = Server(Starlette(routes=routes), listening, MAX_QUERY_BYTES)
        self.address = self._server.address

    def close(self) -> None:
        """Stop listening, drop queries that wait, end those that run."""
        with self._in_time(LATE_SECONDS, "the endpoint was to close"):
            self._server.close()
            self._queries.shutdown(wait=False, cancel_futures=True)
            while self._running:
                for query_id in list(self._running):
                    with contextlib.suppress(StoreError):
                        self._store.end(query_id)
                time.sleep(END_AGAIN)
            self._queries.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def _ping(self, request: Request) -> Response:
        return Response("Ok.\n", headers=self._headers("ping"))

    async def _answer(self, request: Request) -> Response:
        params = dict(request.query_params)
        headers = self._headers(params.get("query_id") or str(uuid.uuid4()))
        try:
            sql = await _query(request)
            if not sql.strip():
                return Response("Ok.\n", headers=headers)
            fmt = _wanted_format(request, sql)
            body = await self._body(request, sql, fmt, params)
        except StoreError as error:
            if error.code == ABORTED:
                self._stuck(str(error))
            headers["X-ClickHouse-Exception-Code"] = str(error.code)
            return Response(f"{error.text}\n", _STATUS.get(error.code, 500), headers, "text/plain")
        try:
            headers["X-ClickHouse-Format"] = fmt
            packed = len(body) >= WORTH_PACKING and _gzip_wanted(request)
            return _Answer(body, headers, _TYPES.get(fmt, _TEXT), packed, self._leave)
        except BaseException:
            self._leave()  # there is no answer whose sending would
            raise

    async def _body(self, request: Request, sql: str, fmt: str, params: Mapping[str, str]) -> bytes:
        """What the query answers; then its place is held until `_leave`. Raises StoreError."""
        if "1" in (params.get("compress"), params.get("decompress")):
            raise _error(48, "compress=1 and decompress=1 (LZ4, ZSTD) are not supported; use gzip or none")
        values = {k[6:]: v for k, v in params.items() if k.startswith("param_")}
        settings = {k: v for k, v in params.items() if k not in _HTTP_ONLY and not k.startswith("param_")}
        database = params.get("database") or request.headers.get("X-ClickHouse-Database")
        revision = _revision(params) if fmt == "Native" and sql.strip() == native.GREETING else 0
        query_id = uuid.uuid4().hex  # not the client's own: nobody may end another's query by naming his so
        gone = asyncio.ensure_future(request.receive())  # the body has been read: only the end is left
        try:
            await self._enter(gone)
            try:
                if revision:
                    asking = partial(self._greeting, settings, database, revision)
                else:
                    asking = partial(self._store.read, sql, fmt, values, settings, database, query_id)
                answer = self._queries.submit(self._run, query_id, sql, asking)
                return await self._unless_gone(gone, answer, query_id)
            except BaseException:
                self._leave()
                raise
        finally:
            gone.cancel()

    async def _enter(self, gone: asyncio.Future[Any]) -> None:
        """Wait for a place to run in. Raises StoreError where too many wait, or the client goes."""
        if self._asked >= RUNNING + WAITING:
            raise _error(202, f"Too many simultaneous queries. Maximum: {RUNNING + WAITING}")
        self._asked += 1
        place = asyncio.ensure_future(self._places.acquire())
        await asyncio.wait({place, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not place.done():
            place.cancel()
            self._asked -= 1
            raise _error(*_GONE)

    def _leave(self) -> None:
        """Give the place to the next one."""
        self._places.release()
        self._asked -= 1

    def _run(self, query_id: str, sql: str, asking: Callable[[], bytes]) -> bytes:
        """What the query answers, in a thread of its own."""
        self._running[query_id] = sql
        try:
            with self._in_time(LIMITS["max_execution_time"] + LATE_SECONDS, "it began", query_id):
                return asking()
        finally:
            del self._running[query_id]

    def _in_time(self, seconds: float, since: str, query_id: str = "") -> AbstractContextManager[None]:
        """Have no query, or this one, run on for so long."""
        why = f"a query does not end, {seconds:.0f} s after {since}"
        return within(seconds, partial(self._stuck, why, query_id))

    def _stuck(self, why: str, query_id: str = "") -> None:
        """Say so, with what runs of this query, or of all. Then it is for whoever has opened the endpoint."""
        running = [sql for each, sql in list(self._running.items()) if query_id in ("", each)]
        log.error("%s; running: %s", why, ", ".join(f"{sql[:SHOWN]!r}" for sql in running) or "nothing")
        if self._on_stuck:
            self._on_stuck()

    def _greeting(self, settings: Mapping[str, str], database: str | None, revision: int) -> bytes:
        """The answer to clickhouse-go's first query; it fails where the next one would."""
        self._store.read("SELECT 1", settings=settings, database=database)
        version = self._store.read("SELECT version()").decode().strip()
        return native.greeting(NAME, version, settings.get("session_timezone") or UTC, revision)

    async def _unless_gone(self, gone: asyncio.Future[Any], query: Future[bytes], query_id: str) -> bytes:
        """What `query` answers, unless its client goes before: then it is ended."""
        answer = asyncio.wrap_future(query)
        either: set[asyncio.Future[Any]] = {answer, gone}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        query.cancel()  # where it has not begun
        with self._in_time(LATE_SECONDS, "its client had gone", query_id):
            while not answer.done():
                with contextlib.suppress(StoreError):
                    await asyncio.to_thread(self._store.end, query_id)
                await asyncio.wait({answer}, timeout=END_AGAIN)
        if not answer.cancelled():
            answer.exception()  # nobody is left to be told
        raise _error(*_GONE)

    def _headers(self, query_id: str) -> dict[str, str]:
        return {
            "X-ClickHouse-Server-Display-Name": NAME,
            "X-ClickHouse-Query-Id": re.sub(r"[^A-Za-z0-9_.:-]", "", query_id)[:100],
            "X-ClickHouse-Timezone": UTC,
            STORE_HEADER: identity(self._store.url),
        }


class _Answer(Response):
    """An answer that is sent as fast as the client takes it, and given up where that is not fast enough."""

    def __init__(
        self,
        body: bytes,
        headers: Mapping[str, str],
        media_type: str,
        packed: bool,
        sent: Callable[[], None],
    ) -> None:
        super().__init__(body, headers=headers, media_type=media_type)
        self._packed = packed
        self._sent = sent
        if packed:  # piece by piece, so that nobody knows yet how long it is
            del self.headers["Content-Length"]
            self.headers["Content-Encoding"] = "gzip"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await send(start)
                async for piece in self._pieces():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            log.warning("a client has not taken its answer of %d bytes in time", len(self.body))
        finally:
            self._sent()

    async def _pieces(self) -> AsyncIterator[bytes]:
        plain = (bytes(self.body[at : at + PIECE_BYTES]) for at in range(0, len(self.body), PIECE_BYTES))
        packed = gzipped(plain) if self._packed else plain
        while piece := await asyncio.to_thread(next, packed, b"") if self._packed else next(packed, b""):
            yield piece


@contextlib.contextmanager
def within(seconds: float, late: Callable[[], None]) -> Iterator[None]:
    """Call `late`, in a thread, where what is done here takes longer.

    The seconds are counted in slices, each as one however long it took: a process that was stopped, or its
    machine suspended, goes on where it was, and has not been late.
    """
    ended = threading.Event()

    def count() -> None:
        for each in (SLICE_SECONDS,) * int(seconds / SLICE_SECONDS) + (seconds % SLICE_SECONDS,):
            if ended.wait(each):
                return
        late()

    counting = threading.Thread(target=count, name="deadline", daemon=True)
    counting.start()
    try:
        yield
    finally:
        ended.set()
        counting.join()


def serve(store: Store, listen: str, on_stuck: Callable[[], None] | None = None) -> Endpoint:
    """Answer SQL at `listen` (HOST:PORT; port 0 takes a free one) until closed.

    `on_stuck` is called, in any thread, where the engine does not end a query or has failed: what is left
    then is to end the process. Without it, that is logged, and the query waited for. Raises CantListen.
    """
    return Endpoint(store, bind(listen, "listen.sql"), on_stuck)


async def _query(request: Request) -> str:
    """The statement: the `query` parameter, then the body. Raises StoreError where it is none."""
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise _error(89, f"Unknown compression method {encoding[:40]}; expected gzip or none")
    if request.headers.get("Content-Type", "").startswith("multipart/"):
        raise _error(48, "External tables are not supported; expected the query alone as the body")
    in_url = request.query_params.get("query", "").encode()
    body = Body(MAX_QUERY_BYTES - len(in_url), packed=encoding == "gzip")
    try:
        body.feed(b"")
        async for chunk in request.stream():
            body.feed(chunk)
        rest = body.whole()
    except TooLong:
        raise _error(307, f"Max query size exceeded: expected at most {MAX_QUERY_BYTES} bytes") from None
    except BadGzip:
        raise _error(354, "The request's body is not one whole gzip stream") from None
    except ClientDisconnect:
        raise _error(*_GONE) from None
    try:
        return (b"\n" if in_url else b"").join([in_url, rest]).decode()
    except UnicodeDecodeError:
        if in_url:  # the body is rows for it
            raise _error(
                Code.READONLY, "Expected a query that reads; got one with data. The store is read-only"
            ) from None
        raise _error(62, "Syntax error: the query is not UTF-8") from None


def _wanted_format(request: Request, sql: str) -> str:
    if match := _FORMAT.search(sql.rstrip().removesuffix(";").rstrip()):
        return match[1]
    asked = request.query_params.get("default_format") or request.headers.get("X-ClickHouse-Format")
    return asked or "TabSeparated"


def _gzip_wanted(request: Request) -> bool:
    """As ClickHouse has it: whoever accepts gzip gets it, unless `enable_http_compression=0` says not."""
    asked = request.query_params.get("enable_http_compression", "1")
    return asked != "0" and wants_gzip(request.headers.get("Accept-Encoding", ""))


def _revision(params: Mapping[str, str]) -> int:
    """The protocol revision that the client reads Native at; 0 where it names none."""
    named = params.get("client_protocol_version", "")
    return int(named) if re.fullmatch(r"[0-9]{1,9}", named) else 0


def _error(code: int, why: str) -> StoreError:
    return StoreError(why, f"Code: {code}. DB::Exception: {why}", code)

"""OTLP over HTTP, as its specification says: what a request's body is, and what its client is answered.

    POST /v1/traces, /v1/logs, /v1/metrics      protobuf or JSON, plain, gzip or zstd

A refusal is a google.rpc.Status in the request's own content type.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from google.protobuf import json_format
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from indexer.intake import MAX_BODY_BYTES, READ_SECONDS, Body, Intake, answered
from indexer.refusals import Refused, large
from indexer.room import Share
from indexer.unpack import ENCODINGS
from nektar.otlp import SIGNALS, Signal

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

# Of a body that is refused before it has come: read and dropped, or the client would find the connection
# broken in place of the answer.
MAX_DROPPED_BYTES = 4 * MAX_BODY_BYTES

_STATUSES = {
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.UNAUTHENTICATED: 401,
    code_pb2.UNAVAILABLE: 503,
}


class _NotRead(Refused):
    """A content type or an encoding that is not read here."""

    def __init__(self, why: str) -> None:
        super().__init__(code_pb2.INVALID_ARGUMENT, why)


def application(intake: Intake) -> Starlette:
    """What answers by `intake`, as an ASGI application."""
    return Starlette(routes=[Route(f"/v1/{s.name}", _endpoint(intake, s), methods=["POST"]) for s in SIGNALS])


def _endpoint(intake: Intake, signal: Signal) -> Any:
    async def answer(request: Request) -> Response:
        began = time.monotonic()
        kind = _kind(request)

        async def read(share: Share) -> Body:
            if kind not in (PROTOBUF, JSON):
                raise _NotRead(f"content type: expected {PROTOBUF} or {JSON}; got {kind[:80]!r}")
            encoding = _encoding(request)
            return Body(await _read(request, share), encoding, kind == JSON)

        try:
            given = request.headers.get("authorization", "")
            peer = request.client.host if request.client else ""
            return _answer(kind, 200, await intake.take(signal, given, peer, read))
        except Refused as refused:
            await _drop(request, began + READ_SECONDS - time.monotonic())
            return _error(kind, refused)
        except ClientDisconnect:
            return Response(status_code=400)

    async def counted(request: Request) -> Response:
        response = await answer(request)
        answered.add(1, {"protocol": "http", "signal": signal.name, "status": response.status_code})
        return response

    return counted


async def _read(request: Request, share: Share) -> bytes:
    """The body as it came. Raises Refused.

    Room is taken for all of it before any has come, where its length is said: of many that come at once some
    are then taken, and not none.
    """
    said = int(request.headers.get("content-length") or 0)
    if said > MAX_BODY_BYTES:
        raise large(MAX_BODY_BYTES)
    share.take(said)
    chunks = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise large(MAX_BODY_BYTES)
        if size > said:
            share.take(len(chunk))
        chunks.append(chunk)
    return b"".join(chunks)


async def _drop(request: Request, seconds: float) -> None:
    """Read what is left of the body, for nobody and for so long at most."""
    dropped = 0
    with suppress(TimeoutError, ClientDisconnect, RuntimeError):  # the last: there was none left
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                dropped += len(chunk)
                if dropped > MAX_DROPPED_BYTES:
                    return


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _encoding(request: Request) -> str:
    """How the body is packed; empty: it is not. Raises Refused."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", *ENCODINGS):
        known = ", ".join(ENCODINGS)
        raise _NotRead(f"content encoding: expected one of {known}, or none; got {encoding[:80]!r}")
    return "" if encoding == "identity" else encoding


def _error(kind: str, refused: Refused) -> Response:
    status = _STATUSES.get(refused.code) or (413 if refused.after is None else 429)
    headers = {}
    if isinstance(refused, _NotRead):
        status = 415
    if refused.after is not None:
        headers["Retry-After"] = str(math.ceil(refused.after))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _answer(kind, status, Status(code=refused.code, message=str(refused)), headers)


def _answer(kind: str, status: int, said: Any, headers: Mapping[str, str] | None = None) -> Response:
    """In the request's content type; in JSON where that is unknown."""
    if kind == PROTOBUF:
        return Response(said.SerializeToString(), status, headers, PROTOBUF)
    return Response(json_format.MessageToJson(said, indent=None), status, headers, JSON)

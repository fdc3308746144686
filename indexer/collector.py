"""The role `collector`: takes telemetry by OTLP over HTTP, and puts it onto the bus.

    POST /v1/traces, /v1/logs      protobuf or JSON, plain, gzip or zstd

A request answered 200 is on the bus: its signed responses on their Networks' logs first (`signatures.py`),
then its spans or records on `otlp_spans` or `otlp_logs`. Killed in between, it has answered nothing, and the
client sends again: the same bytes are the same rows, and the same signature changes nothing.

Nothing that is sent is believed (`otlp.py`) or can take more than its share: bodies are bounded before and
after they are unpacked, and what all requests under way hold together is bounded, too. Answers are those of
the OTLP specification, by which clients send again what got a 503 and drop what got a 4xx.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple, Self

from google.protobuf import json_format
from google.rpc.status_pb2 import Status
from opentelemetry import metrics
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from indexer import otlp, otlp_json
from indexer.admission import Admission, Busy
from indexer.lanes import Lane
from indexer.signatures import Found, Fresh, Signatures, records
from indexer.unpack import ENCODINGS, NotPacked, TooLarge, unpacked
from nektar import trace
from nektar.bus.port import Bus, BusError, Message, partition_of, partition_of_key
from nektar.config import Config, NetworkConfig
from nektar.generations import Standing
from nektar.health import Health
from nektar.http import Server, bind
from nektar.log import OTLP_SPANS, BrokenLog
from nektar.monitor import own_token
from nektar.otlp import SIGNALS, BadRequest, Signal, check_size, parse
from nektar.telemetry import OWN, UNAUTHENTICATED
from nektar.tokens import PREFIX, BadToken

log = logging.getLogger(__name__)

PART = "otlp"  # of the role, in its health
_requests = metrics.get_meter("nektar").create_counter(
    "nektar.collector.requests", "{request}", "Requests answered, by signal and status"
)
_items = metrics.get_meter("nektar").create_counter(
    "nektar.collector.items", "{item}", "Spans and log records put onto the bus"
)

# Of one request, packed or not: what a stock exporter sends at once is far below.
MAX_BODY_BYTES = 4 * 1024 * 1024
# Of all requests under way together, as they came and as they were unpacked. A sender holds at most as much
# as it leaves, so that others are taken whatever one of them does.
MAX_HELD_BYTES = 32 * 1024 * 1024
# Seconds that a client may take to send a body, that it waits for its turn to be unpacked, and that the bus
# may take to commit it; stock exporters wait ten in all.
READ_SECONDS = 10.0
TURN_SECONDS = 5.0
COMMIT_SECONDS = 8.0
# Of a body that is refused before it has come: read and dropped, or the client would find the connection
# broken in place of the answer.
MAX_DROPPED_BYTES = 4 * MAX_BODY_BYTES
RETRY_AFTER = "1"
# Seconds between two questions to the bus, while nothing is written, by which to see that it is there.
ASK_EVERY = 1.0
# Seconds between two looks at `stop`, which another thread or a signal sets.
LOOK_AT_STOP = 0.05

PROTOBUF = "application/x-protobuf"
JSON = "application/json"


class Refused(Exception):
    """A request that gets another answer than 200. `code` is google.rpc's."""

    def __init__(self, status: int, code: int, why: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})


def _bad(why: str) -> Refused:
    return Refused(400, 3, why)


def _unknown(why: str) -> Refused:
    return Refused(401, 16, why, {"WWW-Authenticate": "Bearer"})


def _large() -> Refused:
    return Refused(
        413, 8, f"expected a body of at most {MAX_BODY_BYTES} bytes, packed or not; send smaller batches"
    )


def _later(why: str) -> Refused:
    return Refused(503, 14, f"{why}; send it again", {"Retry-After": RETRY_AFTER})


def run(config: Config, bus: Bus, stop: threading.Event, health: Health) -> None:
    """Take telemetry until `stop`. Raises CantListen; Fenced, Broken as `Collector.check` does."""
    health.opened(PART)
    listening = bind(config.listen.otlp, "listen.otlp")
    with Collector(config, bus) as collector, Server(collector.app, listening) as server:
        log.info("OTLP over HTTP at http://%s; takes it from %s", server.address, config.telemetry.taken_from)
        said = 0.0
        while not stop.wait(LOOK_AT_STOP):
            collector.check()
            if (at := collector.level_at) > said:  # a bus that takes nothing leaves it where it was
                health.level(PART, said := at)


class _Taken(NamedTuple):
    """What is to be written of a request, and what the client is told about the rest."""

    signed: Fresh
    messages: list[Message]
    items: int
    rejected: int
    why: str


class Collector:
    """The ASGI application, and the lanes that it writes by."""

    def __init__(self, config: Config, bus: Bus) -> None:
        self._bus = bus
        tokens = config.telemetry.senders
        self._is_open = config.telemetry.is_open
        # Roles bring their own spans by a token that no sender has.
        self._senders = [
            (name, _hashed(token)) for name, token in [*tokens.items(), (OWN, own_token(config))] if token
        ]
        self._signatures = Signatures(config.networks)
        self._standing = Standing(bus, config.networks)
        self._standing.look()
        self._room = _Room(MAX_HELD_BYTES)
        # One thread, since requests are unpacked and checked under one interpreter lock anyhow: so only one
        # is in memory in its largest form.
        self._unpacking = ThreadPoolExecutor(1, "otlp")
        # One request of each sender waits for it, and they take turns: whoever has many waits for himself.
        self._turn = asyncio.Lock()
        self._turns = defaultdict[str, asyncio.Lock](asyncio.Lock)
        self._admission = Admission(config, bus, self._standing) if config.telemetry.audience else None
        # Of its own: whoever is admitted need not wait for those who are not.
        self._admitting = ThreadPoolExecutor(1, "admission")
        self._opened = ExitStack()
        try:
            self._lanes = {p: self._lane(f"collector/{p}", p) for p in range(bus.partitions)}
            self._logs = {
                network.name: self._lane(
                    f"collector/log/{network.name}", partition_of(network.name, bus.partitions)
                )
                for network in config.networks
            }
        except BaseException:
            self._opened.close()
            raise
        self._answered_at = time.time()
        self._closing = threading.Event()
        # Of its own, since nobody waits for it: a bus that is gone may let it wait for a minute.
        self._asking = threading.Thread(target=self._ask, name="collector asks", daemon=True)
        self._asking.start()
        self.app = Starlette(
            routes=[
                *(Route(f"/v1/{s.name}", self._endpoint(s), methods=["POST"]) for s in SIGNALS),
                Route("/v1/metrics", self._no_metrics, methods=["POST"]),
            ]
        )

    @property
    def level_at(self) -> float:
        """All that was taken before is on the bus, which was there; in seconds since 1970."""
        return self._waiting_since or self._answered_at

    @property
    def _waiting_since(self) -> float | None:
        return min((at for lane in self._all_lanes if (at := lane.since)), default=None)

    def _ask(self) -> None:
        """See now and then that the bus is there, while no write tells."""
        while not self._closing.wait(ASK_EVERY):
            began = time.time()
            try:
                self._standing.look()
                if self._waiting_since is None:
                    self._bus.end(OTLP_SPANS, 0)
                    self._answered_at = began
            except (BusError, BrokenLog):
                pass  # it is not there: as of when it was, `level_at` says
            except Exception:  # whatever it is, nobody else would ask from then on
                log.exception("the bus could not be asked")

    @property
    def _all_lanes(self) -> list[Lane]:
        return [*self._lanes.values(), *self._logs.values()]

    def check(self) -> None:
        """Raises Fenced where another collector writes by our lanes, Broken where we can't any more."""
        for lane in self._all_lanes:
            if lane.over:
                raise lane.over

    def close(self) -> None:
        """Write what was taken, then end."""
        self._closing.set()
        self._asking.join(LOOK_AT_STOP)
        self._unpacking.shutdown(cancel_futures=True)
        self._admitting.shutdown(cancel_futures=True)
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _lane(self, transactional_id: str, partition: int) -> Lane:
        return self._opened.enter_context(Lane(self._bus, transactional_id, partition))

    # --- one request --------------------------------------------------------------------------------

    def _endpoint(self, signal: Signal) -> Any:
        async def answer(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            room: _Share | None = None
            try:
                sender = await self._sender(request)
                room = _Share(self._room, sender)
                if kind not in (PROTOBUF, JSON):
                    raise Refused(415, 3, f"content type: expected {PROTOBUF} or {JSON}; got {kind[:80]!r}")
                encoding = _encoding(request)
                async with asyncio.timeout(READ_SECONDS):
                    body = await _read(request, room)
                async with asyncio.timeout(TURN_SECONDS) as waiting, self._turns[sender], self._turn:
                    waiting.reschedule(None)  # what is unpacked can't be given up, and takes room
                    taken = await asyncio.get_running_loop().run_in_executor(
                        self._unpacking, self._take, signal, kind, encoding, body, sender, room
                    )
                del body
                async with asyncio.timeout(COMMIT_SECONDS):
                    await self._write(taken, sender)
            except Refused as refused:
                await _drop(request)
                return _error(kind, refused)
            except BadRequest as error:
                return _error(kind, _bad(str(error)))
            except TimeoutError:
                return _error(kind, _later("it took too long"))
            except BusError as error:
                log.error("%s", error)
                return _error(kind, _later("the bus does not take it now"))
            except ClientDisconnect:
                return Response(status_code=400)
            finally:
                if room:
                    room.free()
            said = signal.response()
            if taken.rejected:
                setattr(said.partial_success, f"rejected_{signal.items}", taken.rejected)
                said.partial_success.error_message = taken.why
            _items.add(taken.items, {"signal": signal.name})
            return _answer(kind, 200, said)

        async def counted(request: Request) -> Response:
            response = await answer(request)
            _requests.add(1, {"signal": signal.name, "status": response.status_code})
            return response

        return counted

    async def _no_metrics(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        return _error(kind, Refused(404, 12, "metrics are not taken here; export traces and logs"))

    async def _sender(self, request: Request) -> str:
        """Whose token it is. Raises Refused, BusError.

        Those of nektar.yaml are all compared, each in a time that tells nothing."""
        if self._is_open:
            return UNAUTHENTICATED
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
        if self._admission and token.startswith(PREFIX):
            return await self._admitted(self._admission, token, request.client.host if request.client else "")
        given = _hashed(token)
        names = [name for name, known in self._senders if hmac.compare_digest(given, known)]
        if not names:
            known = " or one of `nektar token`" if self._admission else ""
            raise _unknown(f"expected `Authorization: Bearer TOKEN` with a token of telemetry.senders{known}")
        return names[0]

    async def _admitted(self, admission: Admission, token: str, peer: str) -> str:
        """Whom a token names that is signed. Raises Refused, BusError."""
        try:
            if (sender := admission.known(token)) is None:
                sender = await asyncio.get_running_loop().run_in_executor(
                    self._admitting, admission.admit, token, peer
                )
        except BadToken as error:
            raise _unknown(str(error)) from error
        except Busy as error:
            raise Refused(429, 8, f"{error}; send it again", {"Retry-After": RETRY_AFTER}) from error
        return sender.name

    def _take(
        self, signal: Signal, kind: str, encoding: str, body: bytes, sender: str, room: _Share
    ) -> _Taken:
        """Unpack and check a request, in a thread. Raises Refused, BadRequest."""
        if encoding:
            try:
                body = unpacked(body, encoding, MAX_BODY_BYTES)
            except NotPacked as error:
                raise _bad(str(error)) from error
            except TooLarge as error:
                raise _large() from error
            room.take(len(body))
        request = parse(signal, body) if kind == PROTOBUF else otlp_json.parse(signal, body)
        check_size(signal, request)
        reasons = otlp.refuse(signal, request, time.time_ns())
        why = "; ".join(f"{n} {signal.items}: {reason}" for reason, n in reasons.most_common(5))
        left = otlp.count(signal, request)
        if reasons and not left:
            raise _bad(why)
        if otlp.drop_empty(signal, request) or kind == JSON or reasons:
            body = request.SerializeToString(deterministic=True)
        headers = {"sender": sender.encode()}
        messages = otlp.messages(signal, request, body, headers) if left else []
        # Last of all: others wait for what begins here.
        signed = self._signatures.fresh(signal, request, body, sender)
        return _Taken(signed, messages, left, reasons.total(), why)

    async def _write(self, taken: _Taken, sender: str) -> None:
        """Commit it: signatures first, so that no span is there whose signature is not. Raises BusError."""
        # Who gives up waiting for another's write does not end it.
        others = [asyncio.shield(asyncio.wrap_future(other)) for other in taken.signed.others]
        signed = records(taken.signed.to_write, self._standing)
        await asyncio.gather(*(self._log(*each, sender) for each in signed), *others)
        of: dict[int, list[Message]] = {}
        for message in taken.messages:
            of.setdefault(partition_of_key(message.key, self._bus.partitions), []).append(message)
        await _all([self._lanes[partition].write(messages) for partition, messages in of.items()])

    async def _log(
        self, network: NetworkConfig, found: Sequence[Found], message: Message, sender: str
    ) -> None:
        """Append signed responses to the Network's log, which begins a trace."""

        def ended(writing: Future[None]) -> None:
            # Not when its request ends: that may give up before a commit which succeeds after all.
            failed = writing.cancelled() or writing.exception()
            self._signatures.end(found, sender, written=not failed)

        said = {trace.NETWORK: network.name, trace.RECORDS: ["signed"]}
        with trace.root("collect", trace.carried(message.headers), time.time_ns(), said):
            writing = self._logs[network.name].write([message])
            writing.add_done_callback(ended)
            await asyncio.wrap_future(writing)


async def _all(writes: Sequence[Any]) -> None:
    await asyncio.gather(*map(asyncio.wrap_future, writes))


class _Room:
    """What all requests under way may hold in memory together. Shared between threads."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._held: Counter[str] = Counter()  # by sender
        self._lock = threading.Lock()

    def take(self, size: int, sender: str) -> None:
        """Raises Refused."""
        with self._lock:
            if size > self._left:
                raise _later("too many requests are under way")
            if self._held[sender] + size > self._left - size:
                raise _later("too many requests of this sender are under way")
            self._left -= size
            self._held[sender] += size

    def free(self, size: int, sender: str) -> None:
        with self._lock:
            self._left += size
            self._held[sender] -= size


class _Share:
    """One request's part of it."""

    def __init__(self, room: _Room, sender: str) -> None:
        self._room = room
        self._sender = sender
        self._taken = 0

    def take(self, size: int) -> None:
        """Raises Refused."""
        self._room.take(size, self._sender)
        self._taken += size

    def free(self) -> None:
        self._room.free(self._taken, self._sender)
        self._taken = 0


async def _read(request: Request, room: _Share) -> bytes:
    """The body as it came. Raises Refused.

    Room is taken for all of it before any has come, where its length is said: of many that come at once some
    are then taken, and not none.
    """
    said = int(request.headers.get("content-length") or 0)
    if said > MAX_BODY_BYTES:
        raise _large()
    room.take(said)
    chunks = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise _large()
        if size > said:
            room.take(len(chunk))
        chunks.append(chunk)
    return b"".join(chunks)


async def _drop(request: Request) -> None:
    """Read what is left of the body, for nobody."""
    dropped = 0
    with suppress(TimeoutError, ClientDisconnect, RuntimeError):  # the last: there was none left
        async with asyncio.timeout(READ_SECONDS):
            async for chunk in request.stream():
                dropped += len(chunk)
                if dropped > MAX_DROPPED_BYTES:
                    return


def _encoding(request: Request) -> str:
    """How the body is packed; empty: it is not. Raises Refused."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", *ENCODINGS):
        known = ", ".join(ENCODINGS)
        raise Refused(415, 3, f"content encoding: expected one of {known}, or none; got {encoding[:80]!r}")
    return "" if encoding == "identity" else encoding


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _error(kind: str, refused: Refused) -> Response:
    said = Status(code=refused.code, message=str(refused))
    return _answer(kind, refused.status, said, refused.headers)


def _answer(kind: str, status: int, said: Any, headers: Mapping[str, str] | None = None) -> Response:
    """In the request's content type; in JSON where that is unknown."""
    if kind == PROTOBUF:
        return Response(said.SerializeToString(), status, headers, PROTOBUF)
    return Response(json_format.MessageToJson(said, indent=None), status, headers, JSON)

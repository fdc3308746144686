"""OTLP over gRPC, as its specification says: the services' one method, `Export`, and what it answers.

    opentelemetry.proto.collector.{trace,logs,metrics}.v1.{Trace,Logs,Metrics}Service/Export    plain or gzip

gRPC reads a whole message before it asks anybody, and unpacks it however large it becomes. So the method is
served as one that takes a stream, of which a stock client sends one message: it is asked for when its sender
is known and there is room for it, and comes as it was packed.

What is to be sent again says when: a `RetryInfo` in the status's details, without which a client drops what
was RESOURCE_EXHAUSTED; and, since Python's exporter looks there, in metadata of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from concurrent.futures import Future
from typing import Any, Self
from urllib.parse import unquote

# What strangers send wrong would each be a line of gRPC's own, which asks this when it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc import aio

from indexer.budget import Recent
from indexer.clients import Client
from indexer.intake import MAX_BODY_BYTES, Body, Intake, answered
from indexer.quota import CLIENTS
from indexer.refusals import Refused, bad
from indexer.room import Share
from nektar.http import CantListen, bind
from nektar.otlp import SIGNALS, Signal

log = logging.getLogger(__name__)

# Of a message that nobody has asked for yet so much is taken, and held.
WINDOW_BYTES = 64 * 1024
# Messages that are read at once, each of up to MAX_BODY_BYTES, and one of each client: these are held beside
# what all requests hold together.
READ_AT_ONCE = 8
# Further connections are refused. Each is a file, and with those of HTTP they are less than the 1,024 that a
# process may have by default. A stock exporter has one.
MAX_CONNECTIONS = 256
# Of a connection at once. Stock exporters have one, a Collector between them and us some ten.
MAX_STREAMS = 32
# Seconds from connecting until a client speaks HTTP/2, and until one that asks nothing is let go: it connects
# again with its next request.
HANDSHAKE_SECONDS = 20
IDLE_SECONDS = 300
# What a request under way may still take once the role is told to stop.
GRACE_SECONDS = 2.0

_OPTIONS = [
    ("grpc.so_reuseport", 0),  # or a second collector would take a part of the first one's requests
    ("grpc.max_receive_message_length", MAX_BODY_BYTES),
    ("grpc.per_message_decompression", 0),
    ("grpc.compression_enabled_algorithms_bitset", 0b101),  # none and gzip; not deflate
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ("grpc.http2.bdp_probe", 0),  # which makes windows larger
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
    ("grpc.max_connection_idle_ms", IDLE_SECONDS * 1000),
]

# No message of protobuf begins so: it would be a field of a wire type that there is not.
_GZIP = b"\x1f\x8b"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Server:
    """The services, answered by `intake` in a thread of its own until closed."""

    def __init__(self, intake: Intake, listen: str) -> None:
        """Listens at HOST:PORT. Raises CantListen."""
        with bind(listen, "listen.otlp_grpc") as probe:  # which says what is wrong with it; gRPC does not
            host = probe.getsockname()[0]
        at = f"[{host}]" if ":" in host else host
        started: Future[int] = Future()
        serving = self._serve(intake, f"{at}:{listen.rpartition(':')[2]}", started)
        self._thread = threading.Thread(
            target=asyncio.run, args=(serving,), name=f"grpc {listen}", daemon=True
        )
        self._thread.start()
        self.address = f"{at}:{started.result()}"

    async def _serve(self, intake: Intake, at: str, started: Future[int]) -> None:
        """Answer until closed. `started` is the port, or raises CantListen."""
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        server = aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers(_services(intake))
        try:
            port = server.add_insecure_port(at)
            await server.start()
        except Exception as error:  # gRPC has no kind of its own for what its port lacks
            started.set_exception(CantListen(f"listen.otlp_grpc: {error}"))
            return
        started.set_result(port)
        await self._closing.wait()
        await server.stop(GRACE_SECONDS)

    def close(self) -> None:
        """Stop listening, and let the requests under way end."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _services(intake: Intake) -> list[Any]:
    """The service of each signal."""
    reading = _Reading()
    return [
        grpc.method_handlers_generic_handler(
            service.full_name,
            {"Export": grpc.stream_unary_rpc_method_handler(_export(intake, signal, reading))},
        )
        for signal in SIGNALS
        for service in signal.request.DESCRIPTOR.file.services_by_name.values()
    ]


class _Reading:
    """Whose message is read: of each client one at a time, and so many at once."""

    def __init__(self) -> None:
        self._of = Recent[Client, asyncio.Lock](CLIENTS, asyncio.Lock)
        self._all = asyncio.Semaphore(READ_AT_ONCE)

    async def read(self, context: Any, share: Share) -> bytes:
        """The message of this request. Raises Refused."""
        share.take(WINDOW_BYTES)
        async with self._of[share.client], self._all:
            message: Any = await context.read()
        if message is aio.EOF:
            raise bad("expected one message; got none")
        share.take(max(0, len(message) - WINDOW_BYTES))
        return bytes(message)


def _export(intake: Intake, signal: Signal, reading: _Reading) -> Any:
    async def export(_: Any, context: Any) -> Any:
        async def read(share: Share) -> Body:
            message = await reading.read(context, share)
            return Body(message, "gzip" if message.startswith(_GZIP) else "")

        status = grpc.StatusCode.CANCELLED
        try:
            said = await intake.take(signal, _authorization(context), _host(context.peer()), read)
            status = grpc.StatusCode.OK
            return said.SerializeToString()
        except Refused as refused:
            status = _CODES[refused.code]
            await context.abort(status, str(refused), _details(refused))
        except Exception:  # gRPC would tell the client what it says
            log.exception("a request could not be answered")
            status = grpc.StatusCode.INTERNAL
            await context.abort(status, "a bug; the collector's log says more")
        finally:
            answered.add(1, {"protocol": "grpc", "signal": signal.name, "status": status.name})

    return export


def _authorization(context: Any) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            return str(value)
    return ""


def _host(peer: str) -> str:
    """The network address of a peer, which gRPC calls `ipv4:HOST:PORT` or `ipv6:%5BHOST%5D:PORT`."""
    return unquote(peer.partition(":")[2].rpartition(":")[0]).strip("[]")


def _details(refused: Refused) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata of a refusal."""
    status = Status(code=refused.code, message=str(refused))
    if refused.after is None:
        return (("grpc-status-details-bin", status.SerializeToString()),)
    info = RetryInfo()
    info.retry_delay.FromNanoseconds(int(refused.after * 10**9))
    status.details.add().Pack(info)
    return (
        ("grpc-status-details-bin", status.SerializeToString()),
        ("google.rpc.retryinfo-bin", info.SerializeToString()),
    )

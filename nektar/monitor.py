"""What a role's process shows of itself to whoever runs it: `/metrics`, `/healthz`, `/readyz`, and its spans.

    GET /metrics     Prometheus's text format: what the role counts, its lag by part, memory, CPU
    GET /healthz     200 while the role is alive, else 503; /readyz the same of being level (`health.py`)

The parts of a role make spans and count by OpenTelemetry's API; here the SDK is put under it. Spans go where
`telemetry.own` says: to our own collector, as any agent's do, by a token that no sender has where senders
have tokens. What can't be sent is dropped and counted, and a role never waits for it.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Self

import prometheus_client
import requests
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nektar.config import Config, ConfigError, reached_at
from nektar.health import Health
from nektar.http import Server, bind
from nektar.role import ROLES
from nektar.trace import root_ids

log = logging.getLogger(__name__)

# Seconds that a request with spans may take, retries included.
SEND_SECONDS = 5.0
# What a role that is told to stop gives its last spans: the collector may have stopped before it.
FLUSH_SECONDS = 1.0

_dropped = metrics.get_meter("nektar").create_counter(
    "nektar.spans.dropped", "{span}", "Own spans that the collector did not take"
)


class Monitor:
    """The process's, of one role: a process has one. A context; listening and sending end with it."""

    def __init__(self, role: str, config: Config, health: Health) -> None:
        """Raises CantListen."""
        resource = Resource.create(
            {
                "service.namespace": "nektar",
                "service.name": f"nektar-{role}",
                "service.instance.id": f"{os.uname().nodename}:{os.getpid()}",
            }
        )
        key = f"listen.metrics (of the {role}: the port there and {ROLES.index(role)} more)"
        self._server = Server(application(role, health), bind(address(role, config), key))
        self._meters = MeterProvider([PrometheusMetricReader(scope_info_enabled=False)], resource)
        self._observe(health)
        self._spans = TracerProvider(resource=resource, id_generator=LogIds(), shutdown_on_exit=False)
        self._sends = bool(config.telemetry.own)
        if self._sends:
            self._spans.add_span_processor(BatchSpanProcessor(_Exporter(config)))
        log.info("/metrics, /healthz and /readyz at http://%s", self._server.address)

    def install(self) -> None:
        """Let all parts of this process count and make spans by it. A process can do so once."""
        metrics.set_meter_provider(self._meters)
        if self._sends:
            trace.set_tracer_provider(self._spans)

    @property
    def address(self) -> str:
        return self._server.address

    def close(self) -> None:
        if self._sends:
            # The SDK would wait for half a minute, and longer for a request under way.
            ending = threading.Thread(target=self._spans.shutdown, daemon=True)
            ending.start()
            ending.join(FLUSH_SECONDS)
        self._meters.shutdown()
        self._server.close()

    def _observe(self, health: Health) -> None:
        def lags(options: CallbackOptions) -> Iterable[Observation]:
            return [Observation(lag, {"part": part}) for part, lag in health.lags().items()]

        self._meters.get_meter("nektar").create_observable_gauge(
            "nektar.lag", [lags], unit="s", description="Time since the part was level with its source"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def address(role: str, config: Config) -> str:
    """Where the role listens: `listen.metrics` is the first role's, each next one's port is one higher.
    Port 0 is any that is free."""
    host, _, port = config.listen.metrics.rpartition(":")
    return f"{host}:{int(port) + ROLES.index(role) if int(port) else 0}"


def own_token(config: Config) -> str:
    """The bearer token by which the collector knows roles' own spans: `telemetry.own_token`, else a secret
    under the data directory, made by the first role that needs it. Empty where nobody is asked for one,
    and where no role sends spans there.

    Raises ConfigError where it can be neither read nor written.
    """
    of = config.telemetry
    if of.own_token or of.unauthenticated or of.own is not True:
        return of.own_token
    path = Path(config.data_dir) / "own.token"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=".own.token-") as made:  # its owner alone reads it
            made.write(secrets.token_urlsafe(32).encode())
            made.flush()
            with suppress(FileExistsError):  # whole, or not there
                os.link(made.name, path)
        return path.read_text("ascii")
    except OSError as error:
        raise ConfigError(f"{path}: the roles' own token can't be kept there: {error.strerror}") from error


def application(role: str, health: Health) -> Starlette:
    """The three pages, as an ASGI application."""

    def judged(wrong: Sequence[str]) -> Response:
        lags = {part: round(lag, 3) for part, lag in health.lags().items()}
        body = {"role": role, "ok": not wrong, "wrong": list(wrong), "lag_seconds": lags}
        return JSONResponse(body, 503 if wrong else 200)

    async def healthz(request: Request) -> Response:
        return judged(health.stuck())

    async def readyz(request: Request) -> Response:
        return judged(health.behind())

    def scrape(request: Request) -> Response:
        return Response(prometheus_client.generate_latest(), media_type=prometheus_client.CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", scrape)])


class LogIds(RandomIdGenerator):
    """Random ids, but for the root of a trace whose ids follow from the log."""

    def generate_trace_id(self) -> int:
        ids = root_ids.get()
        return ids[0] if ids else super().generate_trace_id()

    def generate_span_id(self) -> int:
        ids = root_ids.get()
        return ids[1] if ids else super().generate_span_id()

    def is_trace_id_random(self) -> bool:
        return root_ids.get() is None


class _Exporter(OTLPSpanExporter):
    """The stock exporter, which says once that it can't send and once that it can again.

    Our own collector gets our own token, whatever proxies the environment names. Another one gets what the
    environment says (OTEL_EXPORTER_OTLP_HEADERS), and never the token.
    """

    def __init__(self, config: Config) -> None:
        """Raises ConfigError."""
        own, session, headers = config.telemetry.own, requests.Session(), None
        if isinstance(own, str):
            base = own.rstrip("/")
        else:
            base = f"http://{reached_at(config.listen.otlp)}"
            session.trust_env = False
            token = own_token(config)
            headers = {"authorization": f"Bearer {token}"} if token else {}
        super().__init__(
            f"{base}/v1/traces",
            headers=headers,
            timeout=SEND_SECONDS,
            compression=Compression.Gzip,
            session=session,
        )
        self._failing = False
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it says so each time

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed:
            _dropped.add(len(spans))
        if failed and not self._failing:
            log.info("own spans are dropped until the collector of telemetry.own takes them")
        elif self._failing and not failed:
            log.info("own spans are taken again")
        self._failing = failed
        return result

"""The role `collector`: takes telemetry by OTLP over HTTP and gRPC (`otlp_http.py`, `otlp_grpc.py`), and puts
it onto the bus (`intake.py`)."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack

from indexer import otlp_grpc, otlp_http
from indexer.intake import Intake
from nektar.bus.port import Bus
from nektar.config import Config
from nektar.health import Health
from nektar.http import Server, bind

log = logging.getLogger(__name__)

PART = "otlp"  # of the role, in its health
# Seconds between two looks at `stop`, which another thread or a signal sets.
LOOK_AT_STOP = 0.05


def run(config: Config, bus: Bus, stop: threading.Event, health: Health) -> None:
    """Take telemetry until `stop`. Raises CantListen; Fenced, Broken as `Intake.check` does."""
    health.opened(PART)
    with ExitStack() as opened:
        listening = opened.enter_context(bind(config.listen.otlp, "listen.otlp"))
        intake = opened.enter_context(Intake(config, bus))
        proxies = config.telemetry.proxies
        http = opened.enter_context(Server(otlp_http.application(intake), listening, proxies=proxies))
        log.info("OTLP over HTTP at http://%s; takes it from %s", http.address, config.telemetry.taken_from)
        if config.listen.otlp_grpc:
            grpc = opened.enter_context(otlp_grpc.Server(intake, config.listen.otlp_grpc))
            log.info("OTLP over gRPC at %s", grpc.address)
        said = 0.0
        while not stop.wait(LOOK_AT_STOP):
            intake.check()
            if (at := intake.level_at) > said:  # a bus that takes nothing leaves it where it was
                health.level(PART, said := at)

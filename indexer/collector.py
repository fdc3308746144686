"""The role `collector`: takes telemetry by OTLP (`otlp_http.py`), and puts it onto the bus (`intake.py`)."""

from __future__ import annotations

import logging
import threading

from indexer import otlp_http
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
    listening = bind(config.listen.otlp, "listen.otlp")
    with Intake(config, bus) as intake, Server(otlp_http.application(intake), listening) as server:
        log.info("OTLP over HTTP at http://%s; takes it from %s", server.address, config.telemetry.taken_from)
        said = 0.0
        while not stop.wait(LOOK_AT_STOP):
            intake.check()
            if (at := intake.level_at) > said:  # a bus that takes nothing leaves it where it was
                health.level(PART, said := at)

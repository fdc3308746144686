"""The bus of one demo: its own, wherever it lies, so that no earlier run's records are on it."""

from __future__ import annotations

import secrets
import shutil
from contextlib import closing
from pathlib import Path

from devnet.processes import write_private
from nektar import bus as buses
from nektar.bus.port import BusError

NAME = "demo-"
NOTE = "bus-of-the-run"


def own(url: str) -> str:
    """The URL of a bus of this run's own at `url`: streams of a prefix on a Kafka, else a directory there.

    It is opened, so that what is wrong is said before anything starts. Raises BusError.
    """
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    name = f"{NAME}{secrets.token_hex(4)}"
    options = dict(option.partition("=")[::2] for option in query.split("&") if option)
    if scheme == "kafka":
        options["prefix"] = f"{options.get('prefix', '')}{name}."
    else:
        place = f"{place.rstrip('/')}/{name}"
    of_run = f"{scheme}://{place}"
    if options:
        of_run += "?" + "&".join(f"{key}={value}" for key, value in options.items())
    buses.open(of_run).close()
    return of_run


def note(keep: Path, url: str) -> None:
    """Leave word in the run's directory of what `own` made, so that it can be deleted with it."""
    write_private(keep / NOTE, url.encode())


def delete(keep: Path) -> None:
    """Delete the bus of the run that was left in `keep`, if it had one of its own. Raises BusError."""
    try:
        url = (keep / NOTE).read_text()
    except FileNotFoundError:
        return
    scheme, _, rest = url.partition("://")
    if NAME not in rest:
        raise BusError(f"{keep / NOTE}: expected the bus of a demo; got {buses.shown(url)}")
    if scheme == "kafka":
        from nektar.bus.kafka import KafkaBus

        with closing(buses.open(url)) as bus:
            assert isinstance(bus, KafkaBus)  # noqa: S101  by its scheme
            bus.delete()
    else:
        shutil.rmtree(Path(rest.partition("?")[0]), ignore_errors=True)
    (keep / NOTE).unlink()

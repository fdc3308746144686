"""One interface, two buses: `sqlite:///DIR` (embedded) and, later, `kafka://HOST:PORT`."""

from __future__ import annotations

from nektar.bus.port import Bus, BusError


def open(url: str) -> Bus:
    """The bus at `url`, created where it does not exist yet. Raises BusError for a URL it can't read."""
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        from nektar.bus.sqlite import SqliteBus

        return SqliteBus(rest)
    raise BusError(f"bus: expected sqlite:///DIRECTORY; got {url!r}")

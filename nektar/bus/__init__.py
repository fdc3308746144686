"""One interface, two buses: `sqlite:///DIR` (embedded) and, later, `kafka://HOST:PORT`."""

from __future__ import annotations

import re

from nektar.bus.port import Bus, BusError


def open(url: str) -> Bus:
    """The bus at `url`, created where it does not exist yet. Raises BusError for a URL it can't read.

    Options follow a `?`: `lease` (seconds without a sign of life after which a consumer's partitions move)
    and `partitions` (their number, where the bus is created).
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        from nektar.bus.sqlite import LEASE, SqliteBus

        place, _, query = rest.partition("?")
        place = re.sub("^//+", "/", place)  # `sqlite:////DIR`, as others write it
        options = dict(option.partition("=")[::2] for option in query.split("&") if option)
        try:
            lease = float(options.pop("lease", LEASE))
            partitions = int(options.pop("partitions", 0)) or None
        except ValueError as error:
            raise BusError(
                f"bus: expected numbers after lease= and partitions= in {url!r}; {error}"
            ) from None
        if options:
            raise BusError(f"bus: expected the options lease and partitions; got {', '.join(options)}")
        return SqliteBus(place, lease=lease, partitions=partitions)
    # The scheme alone: the rest may hold a password.
    raise BusError(f"bus: expected sqlite:///DIRECTORY; got {scheme[:20]}://…")

"""One interface, two buses: `sqlite:///DIR` (embedded) and `kafka://HOST:PORT`."""

from __future__ import annotations

import re

from nektar.bus.port import Bus, BusError


def open(url: str) -> Bus:
    """The bus at `url`, created where it does not exist yet. Raises BusError, which shows no password.

    Options follow a `?`: `lease` (seconds without a sign of life after which a consumer's partitions move)
    and `partitions` (their number, where the bus is created). On Kafka also `prefix` (of the names of its
    topics and groups, so that one Kafka holds several buses), `tls=1`, `ca` (a file of certificates) and
    `sasl` (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512; user and password stand before the hosts).
    """
    scheme, _, rest = url.partition("://")
    if scheme not in ("sqlite", "kafka"):
        # The scheme alone: the rest may hold a password.
        raise BusError(f"bus: expected sqlite:///DIRECTORY or kafka://HOST:PORT; got {scheme[:20]}://…")
    place, _, query = rest.partition("?")
    options = dict(option.partition("=")[::2] for option in query.split("&") if option)
    known = ("lease", "partitions", *(("prefix", "tls", "ca", "sasl") if scheme == "kafka" else ()))
    if unknown := options.keys() - set(known):
        raise BusError(f"bus: expected the options {', '.join(known)}; got {', '.join(sorted(unknown))}")
    try:
        lease = float(options["lease"]) if "lease" in options else None
        partitions = int(options["partitions"]) if "partitions" in options else None
    except ValueError as error:
        raise BusError(f"bus: expected numbers after lease= and partitions=; {error}") from None
    if scheme == "kafka":
        from nektar.bus import kafka
        from nektar.bus.servers import servers

        return kafka.KafkaBus(
            servers(place, options),
            prefix=options.get("prefix", ""),
            lease=kafka.LEASE if lease is None else lease,
            partitions=partitions,
        )
    from nektar.bus import sqlite

    place = re.sub("^//+", "/", place)  # `sqlite:////DIR`, as others write it
    return sqlite.SqliteBus(place, lease=sqlite.LEASE if lease is None else lease, partitions=partitions)


def shown(url: str) -> str:
    """The URL without user and password."""
    scheme, mark, rest = url.partition("://")
    return scheme + mark + rest.rpartition("@")[2] if scheme == "kafka" else url

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
    scheme, mark, rest = url.partition("://")
    if scheme not in ("sqlite", "kafka"):
        # The scheme alone, where it is one: the rest may hold a password.
        got = f"{scheme}://…" if mark and re.fullmatch("[a-z0-9+]{1,20}", scheme) else "something else"
        raise BusError(f"bus: expected sqlite:///DIRECTORY or kafka://HOST:PORT; got {got}")
    login = ""
    if scheme == "kafka":  # a password may hold anything, also what would end it: the last @ does
        login, at, rest = rest.rpartition("@")
        login += at
    place, _, query = rest.partition("?")
    options = dict(option.partition("=")[::2] for option in query.split("&") if option)
    known = ("lease", "partitions", *(("prefix", "tls", "ca", "sasl") if scheme == "kafka" else ()))
    if unknown := options.keys() - set(known):
        got = ", ".join(sorted(name if re.fullmatch("[a-z_]{1,20}", name) else "another" for name in unknown))
        raise BusError(f"bus: expected the options {', '.join(known)}; got {got}")
    try:
        lease = float(options["lease"]) if "lease" in options else None
        partitions = int(options["partitions"]) if "partitions" in options else None
    except ValueError:
        raise BusError("bus: expected numbers after lease= and partitions=; got something else") from None
    if scheme == "kafka":
        from nektar.bus import kafka
        from nektar.bus.servers import servers

        return kafka.KafkaBus(
            servers(login + place, options),
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

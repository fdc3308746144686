"""The brokers of a Kafka: their addresses, how to talk to them, and what their errors mean to a person."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
from kafka import errors

from nektar.bus.port import BusError, Fenced

# How long a broker may take to be there when a bus is opened, and, once it was, for anything asked of it: a
# broker that is restarted is back by then, and whoever waited goes on.
OPEN_SECONDS = 10.0
PATIENCE_SECONDS = 60.0
# Of these, a part after which a request that is not answered gives its connection up and is asked again:
# whoever hangs is left for another broker, or found again, while there is patience left.
ASKED_AGAIN = 0.5

# The client waits so long before it asks again, and asks again in the middle of every transaction that
# follows upon another (CONCURRENT_TRANSACTIONS): its default of 100 ms would be each one's latency.
RETRY_MS = 2
# A broker that comes back is found within this.
RECONNECT_MS = 500

# A host's name or address, with or without a port.
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,9})?")

SASL = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

_FENCED = (
    errors.ProducerFencedError,
    errors.InvalidProducerEpochError,
    errors.CommitFailedError,
    errors.RebalanceInProgressError,
    errors.IllegalGenerationError,
    errors.UnknownMemberIdError,
)
# No broker has answered, or the one that was asked has gone before it did.
UNANSWERED = (
    errors.KafkaTimeoutError,
    errors.KafkaConnectionError,
    errors.RequestTimedOutError,
    errors.NodeNotReadyError,
    errors.UnknownBrokerIdError,
)


class Servers(msgspec.Struct, frozen=True):
    """Where brokers are and how to speak to them. Never shown whole: it may hold a password."""

    hosts: tuple[str, ...]
    user: str = ""
    password: str = ""
    sasl: str = "PLAIN"
    tls: bool = False
    ca: str = ""  # a file of certificates; the system's by default

    def client(self) -> dict[str, Any]:
        """The settings that producers and consumers share."""
        return {
            **self.admin(),
            "metrics_enabled": False,
            "allow_auto_create_topics": False,
        }

    def admin(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "bootstrap_servers": list(self.hosts),
            "bootstrap_timeout_ms": OPEN_SECONDS * 1000,
            "request_timeout_ms": int(PATIENCE_SECONDS * ASKED_AGAIN * 1000),
            "client_id": "nektar",
            "retry_backoff_ms": RETRY_MS,
            "reconnect_backoff_max_ms": RECONNECT_MS,
            "security_protocol": ("SASL_" if self.user else "") + ("SSL" if self.tls else "PLAINTEXT"),
        }
        if self.tls and self.ca:
            settings["ssl_cafile"] = self.ca
        if self.user:
            settings |= {
                "sasl_mechanism": self.sasl,
                "sasl_plain_username": self.user,
                "sasl_plain_password": self.password,
            }
        return settings

    @contextmanager
    def told(self) -> Iterator[None]:
        """Errors of the client and of the brokers as a BusError that says what to do."""
        try:
            yield
        except errors.KafkaError as error:
            raise self.in_words(error) from error

    def in_words(self, error: BaseException, topic: str = "of the bus") -> BusError:
        where = f"kafka {','.join(self.hosts)}"
        said = _line(error)
        if isinstance(error, _FENCED):
            return Fenced(f"{where}: another process has taken over ({said}); stop this one")
        if isinstance(error, errors.SaslAuthenticationFailedError):
            return BusError(f"{where}: the brokers refuse the user {self.user!r}; see the bus's URL ({said})")
        if isinstance(error, UNANSWERED):
            return BusError(
                f"{where}: no broker answers; see that one runs and that the bus's URL names it ({said})"
            )
        if isinstance(error, errors.OffsetOutOfRangeError):
            return BusError(
                f"{where}: messages that were on the bus are gone; set retention.ms=-1 on its topics "
                f"(`nektar check` names them) and index again ({said})"
            )
        if isinstance(error, errors.UnsupportedCodecError):
            return BusError(
                f"{where}: topic {topic}: expected messages that are compressed by gzip, lz4, zstd or not at "
                f"all; {said}: set that where they are sent, and `pip install python-snappy` for those that "
                "are there"
            )
        return BusError(f"{where}: {said}")


def servers(address: str, options: Mapping[str, str]) -> Servers:
    """Brokers from `[USER:PASSWORD@]HOST:PORT[,HOST:PORT]` and the options tls, ca and sasl.

    Raises BusError, which repeats nothing that may be a part of a password.
    """
    login, _, hosts = address.rpartition("@")
    user, _, password = login.partition(":")
    named = tuple(host for host in hosts.split(",") if host)
    wrong = [host for host in named if not _is_host_and_port(host)]
    if wrong or not named:
        got = (wrong[0] if _HOST.fullmatch(wrong[0]) else "what is none") if wrong else "no host"
        raise BusError(f"bus: expected kafka://HOST:PORT[,HOST:PORT]; got {got}")
    sasl, ca = options.get("sasl", "PLAIN"), options.get("ca", "")
    if sasl not in SASL:
        got = sasl if re.fullmatch("[A-Z0-9-]{1,40}", sasl) else "another"
        raise BusError(f"bus: expected sasl={'|'.join(SASL)}; got {got}")
    if options.get("tls", "0") not in ("0", "1"):
        raise BusError("bus: expected tls=0 or tls=1; got another")
    if ca and not Path(ca).is_file():
        raise BusError(f"bus: expected ca=FILE with certificates; there is no {ca[:200]}")
    tls = bool(ca) or options.get("tls") == "1"
    return Servers(named, unquote(user), unquote(password), sasl, tls, ca)


def _is_host_and_port(host: str) -> bool:
    name, _, port = host.rpartition(":")
    return bool(name) and "/" not in name and port.isascii() and port.isdigit() and 0 < int(port) < 65536


def _line(error: BaseException) -> str:
    """What the client says, on one line, and its kind where that says more."""
    words = " ".join(str(error).split())[:300]
    kind = type(error).__name__
    return words if kind in words else f"{kind}: {words}" if words else kind

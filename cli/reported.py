"""What the demo's agents report, and whether all of it stands in the store: who may report, and the count."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from devnet.anvil import free_port
from devnet.home import Home

Ask = Callable[[str], list[dict[str, Any]]]


class Reporters(NamedTuple):
    """Where agents report, and the token by which each is known there."""

    address: str
    tokens: Mapping[str, str]

    @classmethod
    def of(cls, operators: int) -> Reporters:
        tokens = {name: secrets.token_urlsafe(24) for name in Home.agent_names(operators)}
        return cls(f"127.0.0.1:{free_port()}", tokens)

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def stored(self, ask: Ask) -> int:
        """How many of their spans the store has."""
        names = ", ".join(f"'{name}'" for name in self.tokens)
        sql = f"SELECT count() AS n FROM otel_traces WHERE ResourceAttributes['nektar.sender'] IN ({names})"  # noqa: S608
        return int(rows[0]["n"]) if (rows := ask(sql)) else 0


def wrong(spans: Mapping[str, int]) -> str | None:
    """What is wrong about {sent, stored, refused}: all that was taken is to be stored once, none refused."""
    if spans["stored"] != spans["sent"]:
        return f"{spans['sent']} were answered 200, and {spans['stored']} are stored"
    if spans["refused"]:
        return f"{spans['refused']} were refused, of which none should have been"
    return None if spans["sent"] else "none was sent"

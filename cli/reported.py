"""What the demo's agents report, and whether all of it stands in the store: who may report, and the count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import requests

from devnet.agent import Reports
from devnet.home import Home
from devnet.plan import Plan
from devnet.scenes import SceneKind

Ask = Callable[[str], list[dict[str, Any]]]

# What a devnet's collector is called, and its one sender that no contract knows.
AUDIENCE, AGGREGATOR = "devnet", "aggregator"


def telemetry(home: Home) -> dict[str, Any]:
    """`telemetry` in nektar.yaml, by which the home's agents may report."""
    key = "0x" + home.aggregator_key.hex()
    return {"audience": AUDIENCE, "agents": {AGGREGATOR: {"role": "aggregator", "key": key}}}


class _Attempt(NamedTuple):
    """That an agent shows a token of its first key, or of its second, and what the collector must answer."""

    agent: str
    key: int
    status: int


class Reporters:
    """A home's agents, as its plan has them come, change their keys and leave."""

    def __init__(self, home: Home, plan: Plan, reports: Reports) -> None:
        self._home = home
        self._url = f"{reports.url}/v1/traces"
        self._operators = {f"operator-{i}": each.address for i, each in enumerate(home.operators)}
        self._rotated = {
            f"operator-{scene.operator}" for scene in plan.scenes if scene.kind is SceneKind.ROTATED
        }
        self._left = {
            f"operator-{scene.operator}" for scene in plan.scenes if scene.kind is SceneKind.DEREGISTERED
        }
        self._session = requests.Session()
        self._session.trust_env = False
        self._answered = set[_Attempt]()  # as it must be

    def are_admitted(self) -> bool:
        """Whether the collector takes what each sends, before anybody has changed its key or left."""
        return self._answers([_Attempt(agent, 0, 200) for agent in (AGGREGATOR, *self._operators)])

    def are_known(self) -> bool:
        """Whether it does in the end from all who have not left, by the newest key alone."""
        attempts = [_Attempt(agent, 0, 401) for agent in self._rotated]
        for agent in (AGGREGATOR, *self._operators):
            status = 401 if agent in self._left else 200
            attempts.append(_Attempt(agent, int(agent in self._rotated), status))
        return self._answers(attempts)

    def _answers(self, attempts: Sequence[_Attempt]) -> bool:
        """Whether each has been answered as it must be, now or before."""
        for each in attempts:
            if each not in self._answered and self._status(each) == each.status:
                self._answered.add(each)
        return self._answered.issuperset(attempts)

    def _status(self, attempt: _Attempt) -> int:
        """The answer to a request of nothing; 0 where nobody answers."""
        known_by = self._home.bearer(attempt.agent, attempt.key)
        kind = {"content-type": "application/x-protobuf"}
        try:
            return self._session.post(self._url, b"", headers=kind, auth=known_by, timeout=10).status_code
        except requests.RequestException:
            return 0

    def stored(self, ask: Ask) -> int:
        """How many of their spans the store has."""
        names = ", ".join(f"'{name}'" for name in (AGGREGATOR, *self._operators.values()))
        sql = f"SELECT count() AS n FROM otel_traces WHERE ResourceAttributes['nektar.sender'] IN ({names})"  # noqa: S608
        return int(rows[0]["n"]) if (rows := ask(sql)) else 0

    def counted(self, reported: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
        """What all together have `sent`, and had `refused`; how much of that they sent when they had left."""
        of = {key: sum(each[key] for each in reported.values()) for key in ("sent", "refused")}
        return of | {"refused_of_left": sum(reported[agent]["refused"] for agent in self._left)}


def wrong(spans: Mapping[str, int]) -> str | None:
    """What is wrong about {sent, stored, refused, refused_of_left}: all that was taken is to be stored once,
    and nothing refused but of Operators that have left."""
    if spans["stored"] != spans["sent"]:
        return f"{spans['sent']} were answered 200, and {spans['stored']} are stored"
    if others := spans["refused"] - spans["refused_of_left"]:
        return f"{others} were refused, of which none should have been"
    return None if spans["sent"] else "none was sent"

"""What an agent acts on is what the driver lets it see."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from devnet.agent import Agent, AgentConfig


class Growing:
    """A view of a chain that has a new head whenever somebody looks."""

    number = 0

    @property
    def head(self) -> tuple[int, str]:
        return self.number, f"0x{self.number}"

    def advance(self) -> bool:
        self.number += 1
        return True


def test_an_agent_that_is_held_looks_at_nothing_until_it_is_let_go(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    contracts = dict.fromkeys(("task_manager", "operator_registry"), "0x" + "11" * 20)
    agent = Agent(AgentConfig("one", "http://127.0.0.1:1", 31337, contracts, "22" * 32, aggregator=""))
    agent.view = Growing()  # type: ignore[assignment]
    seen: list[int] = []

    def look() -> bool:
        return agent._look(lambda: seen.append(agent.view.head[0]))

    def tell(order: dict[str, Any]) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(order) + "\n"))
        agent._obey()

    assert look()
    tell({"held": True})
    assert not look()
    tell({"held": False})
    assert look()
    assert seen == [1, 2]
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said == [{"head": "0x1"}, {"held": True}, {"held": False}, {"head": "0x2"}]

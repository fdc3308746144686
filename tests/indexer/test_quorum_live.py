"""The role with three real providers, of which one is on a chain of its own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from nektar.bus.sqlite import SqliteBus
from nektar.config import Config, Provider
from nektar.log import Mark
from tests.indexer.rules import records
from tests.indexer.test_role import assert_tells_the_truth, network, running, tip, until, world

pytestmark = pytest.mark.real


def test_two_of_three_decide_which_chain_is_final(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack:
        honest, other = stack.enter_context(world()), stack.enter_context(world())
        bus = stack.enter_context(SqliteBus(tmp_path / "bus"))
        assert honest.address == other.address
        other.chain.mine(3)
        for _ in range(12):
            other.say()
            honest.say(2)
        url = honest.chain.url
        config = Config(
            providers={
                "liar": Provider(other.chain.url),
                "b": Provider(url),
                "c": Provider(url.replace("127.0.0.1", "localhost")),
            },
            networks=(network("net", honest.address, rpc=("liar", "b", "c"), anchor="quorum 2/3"),),
        )
        with running(config, bus):
            until(lambda: tip(bus) == honest.chain.head()[1])
            for turn in range(6):
                other.say()
                honest.say()
                if turn % 2:
                    honest.reorg(2)
                until(lambda: tip(bus) == honest.chain.head()[1])
            number = honest.chain.head()[0] - 4
            until(
                lambda: any(isinstance(r, Mark) and r.finalized.number == number for r in records(bus, "net"))
            )
        reading = assert_tells_the_truth(bus, honest)
        assert {block.anchor for block in reading.blocks} == {"quorum 2/3"}
    assert "net: finalized block " in caplog.text
    assert "quorum 2/3 agree: b has 0x" in caplog.text

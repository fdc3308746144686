"""Chains whose providers call no block final: a depth instead, and what is held where there is none."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cli.setup import CheckFailed, _check_chains
from indexer import follow, known, role
from indexer.reconcile import ReorgBelowFinality
from indexer.resume import read_back
from nektar.bus.port import partition_of
from nektar.bus.sqlite import SqliteBus
from nektar.chain.rpc import Call, Refused
from nektar.config import Config, NetworkConfig, Provider
from nektar.health import Health
from nektar.log import Mark, key
from nektar.networks.nektar import NektarNetwork
from tests.indexer.rules import Reading, records
from tests.indexer.test_quorum import Indexer, Teller, hashes, invented, node
from tests.indexer.world import CHAIN_ID, CONTRACT, Chain, Node

pytestmark = pytest.mark.usefixtures("hurry")

DEPTH = 16
STEP = DEPTH // 8


@pytest.fixture
def chain() -> Chain:
    made = Chain(random.Random(1))
    made.mine(61)
    return made


def untagged(chain: Chain, name: str = "a", answers: str = "null") -> Teller:
    made = node(chain, name)
    made.untagged = answers
    return made


def deep(head: int) -> int:
    return (head - DEPTH) // STEP * STEP


@pytest.mark.parametrize("answers", ["null", "error"])
def test_where_no_block_is_called_final_those_are_that_lie_as_deep_as_configured(
    bus: SqliteBus, chain: Chain, answers: str
) -> None:
    with Indexer(bus, [untagged(chain, answers=answers)], "single", DEPTH) as indexer:
        indexer.look(2)
        assert indexer.finals[-1].number == deep(chain.head) == 44
        chain.reorg(DEPTH - 1, DEPTH + 4)
        indexer.look(3)
        assert indexer.hashes == hashes(chain)
        assert indexer.finals[-1].number == deep(chain.head)
        assert len(indexer.log.known.unfinal) <= DEPTH + STEP
        partition = partition_of("net", bus.partitions)
        again, _ = read_back(bus, partition, key("net", 1), 0)
        assert again == indexer.log.known, "a restart needs no more than the last mark"


def test_a_reorg_that_is_deeper_than_the_depth_ends_the_network(bus: SqliteBus, chain: Chain) -> None:
    with Indexer(bus, [untagged(chain)], "single", DEPTH) as indexer:
        indexer.look(2)
        chain.reorg(DEPTH + STEP + 1, DEPTH + 6)
        with pytest.raises(ReorgBelowFinality):
            indexer.look(follow.SIGHTINGS)


def test_a_chains_own_tags_count_and_the_depth_is_ignored_with_a_line(
    bus: SqliteBus, chain: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    provider = node(chain, "a")
    with Indexer(bus, [provider], "single", DEPTH * 2) as indexer:
        indexer.look(2)
        assert indexer.finals[-1].number == chain.finalized
        provider.untagged = "error"  # for a moment: it has said that the chain has them
        chain.mine(50)
        indexer.look(2)
        assert indexer.finals[-1].number == chain.finalized - 50
    ignored = [line for line in caplog.messages if "finality_depth is ignored" in line]
    assert ignored == ["net: finality_depth is ignored for provider a, which calls block 56 final"]


def test_under_a_quorum_the_depth_is_counted_on_what_it_agrees_on(bus: SqliteBus, chain: Chain) -> None:
    liar = untagged(invented(500), "liar")
    with Indexer(bus, [liar, untagged(chain, "b"), untagged(chain, "c")], "quorum 2/3", DEPTH) as indexer:
        indexer.look(6)
        assert indexer.hashes == hashes(chain)
        assert indexer.finals[-1].number == deep(chain.head)
        assert {ref.hash for ref in indexer.finals} <= set(hashes(chain))


def test_a_lone_providers_false_tag_does_not_end_the_depth_of_a_quorum(bus: SqliteBus, chain: Chain) -> None:
    liar = node(chain, "liar")
    liar.boasts = True
    with Indexer(bus, [liar, untagged(chain, "b"), untagged(chain, "c")], "quorum 2/3", DEPTH) as indexer:
        indexer.look(6)
        assert indexer.finals[-1].number == deep(chain.head)


@pytest.mark.parametrize(("most", "limit"), [("MOST_BLOCKS", 100), ("MOST_BYTES", 20_000)])
def test_without_tags_and_depth_that_is_said_and_no_more_is_held_than_may_be_until_blocks_are_final(
    bus: SqliteBus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, most: str, limit: int
) -> None:
    monkeypatch.setattr(known, most, limit)
    chain = Chain(random.Random(1))
    chain.mine(400)
    provider = untagged(chain)
    with Indexer(bus, [provider], "single") as indexer:
        indexer.look(4)
        held = len(indexer.log.known.unfinal)
        assert 64 <= held <= 100 + follow.BLOCKS_A_RECORD
        assert indexer.log.known.full
        assert f"{held} blocks are held that are not final (none ever was)" in str(indexer.health.behind())
        assert len([line for line in caplog.messages if "the Network has no finality_depth" in line]) == 1
        provider.untagged = ""
        indexer.look(6)
        assert indexer.hashes == hashes(chain)
        assert indexer.finals[-1].number == chain.finalized


def test_a_backfill_holds_no_more_than_may_be_while_too_few_witnesses_have_its_blocks(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Chain(random.Random(1))
    chain.mine(300)
    monkeypatch.setattr(known, "MOST_BLOCKS", 40)
    monkeypatch.setattr(follow, "SETTLED_DEPTH", 20)
    monkeypatch.setattr(follow, "BLOCKS_A_RECORD", 8)
    nodes = [node(chain, name) for name in "abc"]
    nodes[1].unpruned = nodes[2].unpruned = 280
    with Indexer(bus, nodes, "quorum 2/3") as indexer:
        indexer.look(5)
        assert 40 <= len(indexer.log.known.unfinal) <= 48
        assert "fewer providers than the anchor needs" in str(indexer.errors[-1])
        nodes[1].unpruned = 0
        indexer.look(5)
        assert indexer.hashes == hashes(chain)


@contextmanager
def served(provider: Node) -> Iterator[str]:
    """The URL at which it answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            calls = [
                Call(each["method"], tuple(each.get("params", ())))
                for each in (asked if isinstance(asked, list) else [asked])
            ]
            answers = [
                {"jsonrpc": "2.0", "id": each["id"], **_said(answer)}
                for each, answer in zip(
                    asked if isinstance(asked, list) else [asked],
                    asyncio.run(provider.batch(calls)),
                    strict=True,
                )
            ]
            body = json.dumps(answers if isinstance(asked, list) else answers[0]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        running = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        running.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            running.join()


def _said(answer: object) -> dict[str, object]:
    if isinstance(answer, Refused):
        return {"error": {"code": -39001, "message": "Unknown block"}}
    return {"result": answer}


def configured(url: str, depth: int) -> Config:
    contracts = {"task_manager": f"0x{CONTRACT.hex()}"}
    network = NetworkConfig("net", CHAIN_ID, ("p",), contracts, finality_depth=depth, poll=0.02)
    return Config({"p": Provider(url)}, (network,))


@pytest.mark.parametrize("answers", ["null", "error"])
def test_a_check_says_what_makes_blocks_final_or_what_is_missing(
    chain: Chain, capsys: pytest.CaptureFixture[str], answers: str
) -> None:
    provider = untagged(chain, answers=answers)
    with served(provider) as url:
        with pytest.raises(CheckFailed, match=r"networks\.net: expected 1 of .* finality_depth"):
            asyncio.run(_check_chains(configured(url, 0)))
        asyncio.run(_check_chains(configured(url, DEPTH)))
        assert "net: blocks 16 deep are final (finality_depth)" in capsys.readouterr().out
        provider.untagged = ""
        asyncio.run(_check_chains(configured(url, DEPTH)))
        assert "(p block 56); finality_depth is ignored" in capsys.readouterr().out


def test_the_role_counts_the_depth_that_nektar_yaml_names(bus: SqliteBus, chain: Chain) -> None:
    stop = threading.Event()
    with served(untagged(chain)) as url:
        config = configured(url, DEPTH)
        following = threading.Thread(
            target=role.run, args=(config, {"net": NektarNetwork()}, bus, stop, Health()), daemon=True
        )
        following.start()
        try:
            for _ in range(600):
                if any(isinstance(each, Mark) for each in records(bus, "net")):
                    break
                stop.wait(0.05)
        finally:
            stop.set()
            following.join(30)
    assert Reading(records(bus, "net")).finalized.number == deep(chain.head)

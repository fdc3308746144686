"""Heads that a real anvil announces over its WebSocket, followed by the role as `nektar up` runs it."""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from indexer import follow
from nektar.bus.sqlite import SqliteBus
from nektar.chain import announced
from nektar.config import Config, Provider
from tests.indexer.test_role import assert_tells_the_truth, network, running, tip, until, world

pytestmark = pytest.mark.real

LONG = 60.0  # seconds, more than a test has: what comes sooner was announced


class Relay:
    """TCP to a port of this machine, that a test can cut."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.is_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End what is connected, and let nobody in, until `is_cut` is false again."""
        self.is_cut = True
        for ends in self._pairs:
            for end in ends:
                with suppress(OSError):  # it has ended by itself
                    end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def close(self) -> None:
        self.cut()
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listening.accept()
            except OSError:
                return
            if self.is_cut:
                here.close()
                continue
            there = socket.create_connection(("127.0.0.1", self._to))
            self._pairs.append((here, there))
            threading.Thread(target=self._pass_on, args=(here, there), daemon=True).start()

    def _pass_on(self, here: socket.socket, there: socket.socket) -> None:
        with here, there:
            while True:
                for end in select.select([here, there], [], [])[0]:
                    try:
                        data = end.recv(65536)
                        (there if end is here else here).sendall(data)
                    except OSError:
                        return
                    if not data:
                        return


@contextmanager
def relay(url: str) -> Iterator[Relay]:
    made = Relay(int(url.rpartition(":")[2]))
    try:
        yield made
    finally:
        made.close()


def test_a_head_that_is_announced_is_followed_at_once_and_one_that_is_not_by_polling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(announced, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(follow, "QUIET", LONG)
    with world() as there, SqliteBus(tmp_path / "bus") as bus, relay(there.chain.url) as between:
        provider = Provider(there.chain.url, ws=f"ws://127.0.0.1:{between.port}")
        config = Config(providers={"net": provider}, networks=(network("net", there.address, poll=0.1),))

        def follows(blocks: int) -> None:
            for _ in range(blocks):
                there.say()
                until(lambda: tip(bus) == there.chain.head()[1])

        with caplog.at_level(logging.INFO), running(config, bus):
            until(lambda: "provider net announces its heads" in caplog.text)
            follows(5)
            there.reorg(2)
            until(lambda: tip(bus) == there.chain.head()[1])
            between.cut()
            follows(3)
            assert "its WebSocket announces nothing" in caplog.text
            caplog.clear()
            between.is_cut = False
            until(lambda: "provider net announces its heads" in caplog.text)
            follows(3)
            assert_tells_the_truth(bus, there)

"""A bus that holds what indexer and processors write, for the sink, and what the store must hold after it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from nektar.bus.port import Bus, Message
from nektar.log import NETWORK as LOG
from nektar.log import ROWS, Gap, Mark, New, Undo, key
from nektar.model import Block, Network
from nektar.rows import Change, DutyRow, Finding, FindingStatus, ProgressRow, Row
from nektar.store.port import Store
from processors.outputs import messages
from processors.sink import Sink
from tests.nektar.logs import NETWORK as HOME
from tests.nektar.logs import block, hash32
from tests.nektar.store.things import CALL, PLAIN_EVENT
from tests.processors.logs_on_bus import open_bus, write

AWAY = msgspec.structs.replace(HOME, name="away", generation=3)
BROKEN = b"no record"
UNKNOWN = "event_from_elsewhere_00000000"


def ipc(schema: Any, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as the indexer puts them into a record."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.Table.from_pylist(list(rows), schema=schema))
    return bytes(sink.getvalue())


def happened(made: Block, events: int, calls: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Rows of one block: table → rows. `n` and `input` are the log index and the transaction's."""
    place = {"block_number": made.number, "block_hash": made.hash, "block_time": made.time}
    place |= {"tx_hash": bytes(32), "address": b"\xaa" * 20}
    plain = [{**place, "tx_index": i, "log_index": i, "n": i} for i in range(events)]
    call = {"sender": b"\xbb" * 20, "value": bytes(32), "status": None, "revert": "quote ' and\nline"}
    submit = [
        {**place, **call, "tx_index": i, "input": i.to_bytes(32, "little"), "id": bytes(32)}
        for i in range(calls)
    ]
    return {name: rows for name, rows in ((PLAIN_EVENT.table, plain), (CALL.table, submit)) if rows}


def tables(of_blocks: Sequence[Mapping[str, list[dict[str, Any]]]]) -> dict[str, bytes]:
    """What happened in several blocks, as a record's tables."""
    joined: dict[str, list[dict[str, Any]]] = {}
    for each in of_blocks:
        for name, rows in each.items():
            joined.setdefault(name, []).extend(rows)
    return {
        name: ipc((PLAIN_EVENT if name == PLAIN_EVENT.table else CALL).schema, joined[name])
        for name in joined
    }


class Life:
    """One Network for some steps: blocks that come, go and return, and the rows that follow them."""

    def __init__(self, bus: Bus, network: Network, rng: random.Random) -> None:
        self.network = network
        self.chain: list[Block] = []
        self.rows: dict[tuple[Any, ...], Row] = {}
        self.said: list[Row] = []  # duties and findings, every version of them
        self.gone: list[tuple[list[Block], dict[str, bytes]]] = []
        self._happened: dict[bytes, dict[str, list[dict[str, Any]]]] = {}
        self._bus, self._rng = bus, rng
        self._writer = bus.writer(f"processors.{network.name}", 0)

    def step(self, i: int) -> None:
        match self._rng.choice("nnnnuurg"):
            case "u" if len(self.chain) > 3:
                self._undo(self._rng.randint(1, 3))
            case "r" if self.gone and self.gone[-1][0][0].parent == self.chain[-1].hash:
                blocks, brought = self.gone.pop()
                self._bring(blocks, brought)
            case "g":
                write(self._bus, self.network, [Gap(1, 1, None, "nobody has it")])
            case _:
                self._new(i)
        self._put_out(i)

    def _new(self, i: int, events: int | None = None) -> None:
        blocks: list[Block] = []
        for _ in range(self._rng.randint(1, 3)):
            head = (blocks or self.chain or [None])[-1]
            number, parent = (head.number + 1, head.hash) if head else (7, hash32("root"))
            blocks.append(block(number, parent, (i, self.network.name)))
            count = self._rng.randrange(4) if events is None else events
            self._happened[blocks[-1].hash] = happened(blocks[-1], count, self._rng.randrange(2))
        self._bring(blocks, tables([self._happened[b.hash] for b in blocks]))

    def big(self, i: int) -> None:
        """A record of some MB."""
        self._new(i, events=9000)
        self._put_out(i)

    def _bring(self, blocks: list[Block], brought: dict[str, bytes]) -> None:
        self.chain += blocks
        mark = Mark(blocks[0].ref, blocks[0].ref)
        write(self._bus, self.network, [New(tuple(blocks), brought), mark])

    def _undo(self, n: int) -> None:
        taken = self.chain[-n:]
        del self.chain[-n:]
        brought = tables([self._happened[b.hash] for b in taken])
        self.gone.append((taken, brought))
        write(self._bus, self.network, [Undo(tuple(reversed(taken)), brought)])

    def _put_out(self, i: int) -> None:
        """Duties and findings change, and `progress` says so: one transaction, as a processor's."""
        changes = []
        for _ in range(self._rng.randint(0, 3)):
            changes.append(self._change(_duty(self._rng.randrange(4), i), gone=self._rng.random() < 0.25))
        status = self._rng.choice(list(FindingStatus))
        changes.append(self._change(_finding(self._rng.randrange(3), i, status)))
        head = self.chain[-1]
        changes.append(self._change(ProgressRow("duties", i, head.hash)))
        seen: dict[Any, Change] = {}
        for change in changes:  # a record changes a row once
            seen.setdefault(_key(change.after or change.before), change)
        for name, change in seen.items():
            now = change.after
            row = now or change.before
            assert row is not None
            if now is None:
                self.rows.pop(name, None)
            else:
                self.rows[name] = now
            if isinstance(row, DutyRow | Finding):
                self.said.append(row)
        self._writer.transaction(messages(self.network, "duties", i, list(seen.values())))

    def _change(self, row: Row, gone: bool = False) -> Change:
        before = self.rows.get(_key(row))
        return Change(before, None) if gone and before else Change(before, row)

    # --- what the store must hold ---

    def events(self) -> list[tuple[int, bytes, int]]:
        rows = [row for b in self.chain for row in self._happened[b.hash].get(PLAIN_EVENT.table, ())]
        return sorted((row["block_number"], row["block_hash"], row["n"]) for row in rows)

    def calls(self) -> int:
        return sum(len(self._happened[b.hash].get(CALL.table, ())) for b in self.chain)


def _key(row: Row | None) -> tuple[Any, ...]:
    assert row is not None
    return (row.table, *(getattr(row, name) for name in row.key))


def _duty(which: int, i: int) -> DutyRow:
    state = ("pending", "signed", "missed")[i % 3]
    return DutyRow(hash32("task", which), bytes([which]) * 20, which, "it's\na", state, 9, 2, i)


def _finding(which: int, i: int, status: FindingStatus) -> Finding:
    return Finding(
        id=hashlib.sha256(bytes([which])).digest(),
        condition="gossip",
        operator=bytes([which]) * 20,
        task_hash=hash32("task", which),
        task_number=2**60,
        task_input="12",
        block_number=i,
        block_hash=hash32(i),
        block_time=1000 + i,
        level="proved",
        anchor="single:p",
        facts='{"a": "quo\\"te"}',
        status=status,
    )


def write_lives(directory: Path, seed: int, steps: int = 12, big: bool = False) -> list[Life]:
    """A bus in `directory` with two Networks in its one partition, and two records that nobody can store."""
    rng = random.Random(f"lives {seed}")
    with open_bus(directory) as bus:
        lives = [Life(bus, network, rng) for network in (HOME, AWAY)]
        for life in lives:
            life._new(0)
        for i in range(1, steps + 1):
            rng.choice(lives).step(i)
            if i == steps // 2:
                with bus.writer("junk", 0) as junk:
                    junk.transaction([Message(LOG, key(HOME.name, 1), BROKEN)])
                    headers = {"table": b"nobodys", "generation": b"1"}
                    junk.transaction([Message(ROWS, b"home", b"rows", headers)])
                if big:
                    lives[0].big(steps + 1)
        for life in lives:
            life._writer.close()
    return lives


class RowsFirst:
    """`bus`, giving rows before findings: between streams there is no order that a sink might rely on."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def consumer(self, group: str, streams: Sequence[str], **callbacks: Any) -> Any:
        consumer: Any = self._bus.consumer(group, streams, **callbacks)
        poll = consumer.poll
        consumer.poll = lambda timeout, most: sorted(poll(timeout, most), key=lambda m: m.stream != ROWS)
        return consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


def drain(bus: Any, store: Store, known: Mapping[str, Any]) -> None:
    """Be the sink until all that is on the bus has been taken."""
    with Sink(store, bus, known) as sink:
        while sink.turn(0.0):
            pass

"""Whatever bytes are sent, the collector gives one of the protocol's answers, comes to hold no more memory,
and puts nothing onto the bus that the store can't read."""

from __future__ import annotations

import gzip
import http.client
import json
import random
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from indexer.otlp_http import JSON, PROTOBUF
from nektar.bus.sqlite import SqliteBus
from nektar.config import Quota
from nektar.log import TELEMETRY
from nektar.otlp import SIGNALS, Signal, parse
from nektar.senders import Sender
from nektar.store.otel import tables
from tests import otlp
from tests.indexer.test_collector import serving
from tests.indexer.test_heard import HOME, attributes
from tests.nektar.bus.reading import everything
from tests.seeds import seeds

CASES = seeds(1_500, 100_000)
# Bytes by which the process may grow after its first cases: what it remembers is bounded, and full by then.
MOST_GROWTH = 24 << 20
UNLIMITED = Quota(items_per_second=2**31, bytes_per_second=2**40)


def spoiled(rng: random.Random, body: bytes, other: bytes) -> bytes:
    """`body` with some bytes changed, lost, doubled or put in from another one."""
    spoiled = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, size = rng.randrange(len(spoiled) + 1), rng.choice((1, 1, 2, 8, 100))
        match rng.randrange(5):
            case 0:
                spoiled[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del spoiled[at : at + size]
            case 2:
                spoiled[at:at] = spoiled[at : at + size] * rng.choice((1, 3))
            case 3:
                begin = rng.randrange(len(other))
                spoiled[at : at + size] = other[begin : begin + size]
            case 4:
                spoiled[at : at + size] = rng.randbytes(size)
    return bytes(spoiled)


def is_readable(signal: Signal, body: bytes, kind: str) -> bool:
    """Whether protobuf's, or Python's, own reader reads it."""
    try:
        signal.request().ParseFromString(body) if kind == PROTOBUF else json.loads(body)
    except (DecodeError, ValueError, RecursionError):
        return False
    return True


def resident() -> int:
    """Bytes that this process holds in memory."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


def test_spoiled_requests_are_answered_and_leave_nothing_behind_that_could_not_be_read(
    bus: SqliteBus,
) -> None:
    rng = random.Random("fuzz")
    bodies = {}
    for signal in SIGNALS:
        made = [
            otlp.some(signal, count, time.time_ns(), attributes=attributes(count)) for count in (1, 3, 20)
        ]
        bodies[signal, PROTOBUF] = [each.SerializeToString() for each in made]
        bodies[signal, JSON] = [otlp.to_json(each) for each in made]
    answers = Counter[int]()
    with serving(bus, networks=(HOME,), quota=UNLIMITED) as address:
        with closing(http.client.HTTPConnection(address)) as client:
            for case in range(CASES):
                signal, kind = rng.choice(SIGNALS), rng.choice((PROTOBUF, JSON))
                body = spoiled(rng, *rng.choices(bodies[signal, kind], k=2))
                headers, readable = {"content-type": kind}, is_readable(signal, body, kind)
                if rng.random() < 0.2:
                    headers["content-encoding"], body = "gzip", gzip.compress(body)
                    if rng.random() < 0.3:
                        body, readable = body[: rng.randrange(1, len(body))], False
                client.request("POST", f"/v1/{signal.name}", body, headers)
                answer = client.getresponse()
                said = answer.read()
                answers[answer.status] += 1
                assert answer.status in ((200, 400) if readable else (400,)), (case, answer.status, said)
                assert answer.headers["content-type"] == kind
                if answer.status == 400:
                    why = Status.FromString(said).message if kind == PROTOBUF else json.loads(said)["message"]
                    assert why
                    assert "\n" not in why
                if case == CASES // 5:
                    before = resident()
        assert resident() - before < MOST_GROWTH
    assert min(answers[200], answers[400]) > CASES // 10
    for signal, stream in zip(SIGNALS, TELEMETRY, strict=True):
        for partition in range(bus.partitions):
            for message in everything(bus, stream, partition):
                assert tables(signal, parse(signal, message.value), Sender("x"))

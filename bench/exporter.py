"""Sends spans to a collector as many exporters do, from bodies that are encoded beforehand.

    python -m bench.exporter HOST:PORT --rate SPANS --seconds N

A process of its own, so that what it takes of a processor is nobody else's. Each body is one of 512 spans,
what an Operator's services say of 64 Tasks; sent again it has other ids in the places of the old ones, which
makes nothing longer or shorter. A rate of 0 is as fast as they are taken. In the end one line of JSON says
what became of all.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import cycle
from typing import Any

import numpy as np

from nektar import telemetry
from nektar.otlp import SPAN_ID_BYTES, SPANS, TRACE_ID_BYTES
from nektar.telemetry import Step

TASKS = 64
# A trace of them has eight spans: four steps of the work, and what they call.
SPANS_A_TASK = 8
SPANS_A_BODY = TASKS * SPANS_A_TASK
BODIES = 16
CONNECTIONS = 8
SERVICE = "bench-operator"

Said = dict[str, str | int]

RESOURCE: Said = {
    "service.name": SERVICE,
    "service.version": "1.14.2",
    "service.instance.id": "operator-7c9f6d5b8-x2x7p",
    "deployment.environment.name": "production",
    "telemetry.sdk.name": "opentelemetry",
    "telemetry.sdk.language": "go",
    "telemetry.sdk.version": "1.38.0",
    "host.name": "ip-10-3-17-4.eu-west-1.compute.internal",
    "os.type": "linux",
    "process.pid": 1,
    "process.runtime.name": "go",
    "k8s.pod.name": "operator-7c9f6d5b8-x2x7p",
}


class Body:
    """A request, encoded, in which ids can be put in the place of others."""

    def __init__(self, seed: int) -> None:
        request, ids = _request(random.Random(seed), time.time_ns())
        encoded = request.SerializeToString()
        self._encoded = np.frombuffer(encoded, np.uint8).copy()
        # Of each byte of an id, wherever that stands: where in the request, and which of all ids' bytes.
        places, bytes_of, before = [], [], 0
        for each in ids:
            for at in _found(encoded, each):
                places += range(at, at + len(each))
                bytes_of += range(before, before + len(each))
            before += len(each)
        self._places, self._bytes_of, self._length = np.array(places), np.array(bytes_of), before

    def with_other_ids(self) -> bytes:
        """The same with ids that nothing else has."""
        ids = np.frombuffer(os.urandom(self._length), np.uint8)
        self._encoded[self._places] = ids[self._bytes_of]
        return self._encoded.tobytes()


def _found(encoded: bytes, part: bytes) -> Iterator[int]:
    """Where it begins, each time that it comes."""
    at = encoded.find(part)
    while at >= 0:
        yield at
        at = encoded.find(part, at + len(part))


def _request(rng: random.Random, now: int) -> tuple[Any, list[bytes]]:
    """What services say of some Tasks, and the ids of traces and spans in it."""
    request, ids = SPANS.request(), []
    group = request.resource_spans.add()
    _put(group.resource.attributes, RESOURCE)
    scope = group.scope_spans.add()
    scope.scope.name, scope.scope.version = "example.com/operator", "1.14.2"
    for _ in range(TASKS):
        trace_id = rng.randbytes(TRACE_ID_BYTES)
        ids.append(trace_id)
        parent = b""
        for i, (name, kind, said) in enumerate(_of_a_task(rng)):
            span = scope.spans.add(name=name, kind=kind, trace_id=trace_id, parent_span_id=parent)
            span.span_id = rng.randbytes(SPAN_ID_BYTES)
            ids.append(span.span_id)
            span.start_time_unix_nano = now - rng.randrange(10**9, 10**10)
            span.end_time_unix_nano = span.start_time_unix_nano + rng.randrange(10**5, 10**9)
            _put(span.attributes, said)
            if i == 0:
                parent = span.span_id
            if i == SPANS_A_TASK - 1:  # one in eight tells of a moment, too
                event = span.events.add(name="retry", time_unix_nano=span.start_time_unix_nano)
                _put(event.attributes, {"http.request.resend_count": 1, "error.type": "timeout"})
    return request, ids


def _of_a_task(rng: random.Random) -> Iterator[tuple[str, int, Said]]:
    """(name, kind, attributes) of each span: the steps as docs/TELEMETRY.md has them, of a chain that nobody
    follows, and what they call as OpenTelemetry's conventions have it."""
    internal, client, consumer = 1, 3, 5
    about: Said = {
        telemetry.CHAIN_ID: 424_242,
        telemetry.CONTRACT: "0x" + "c0" * 20,
        telemetry.OPERATOR: "0x" + "0a" * 20,
        telemetry.TASK_HASH: "0x" + rng.randbytes(32).hex(),
        telemetry.HEAD_BEGUN: rng.randrange(10**7, 10**8),
        telemetry.HEAD_ENDED: rng.randrange(10**7, 10**8),
    }
    response: Said = {
        telemetry.RESPONSE: "0x" + rng.randbytes(64).hex(),
        telemetry.RESPONSE_DIGEST: "0x" + rng.randbytes(32).hex(),
    }
    signature: Said = {
        telemetry.SIGNATURE: "0x" + rng.randbytes(64).hex(),
        telemetry.SIGNATURE_SCHEME: "bls-bn254",
    }
    yield "receive task", consumer, about | {telemetry.STEP: Step.RECEIVE}
    yield "execute task", internal, about | response | {telemetry.STEP: Step.EXECUTE}
    yield "sign response", internal, about | response | signature | {telemetry.STEP: Step.SIGN}
    yield "send response", client, about | response | signature | {telemetry.STEP: Step.SEND}
    for path in ("/eth", "/responses"):
        yield (
            f"POST {path}",
            client,
            {
                "http.request.method": "POST",
                "http.response.status_code": 200,
                "url.full": f"https://rpc.example.com{path}/v1/{rng.randbytes(6).hex()}",
                "server.address": "rpc.example.com",
                "server.port": 443,
                "network.protocol.version": "2",
                "network.peer.address": f"10.3.{rng.randrange(256)}.{rng.randrange(256)}",
                "user_agent.original": "operator/1.14.2 (linux; amd64) Go-http-client/2.0",
            },
        )
    yield (
        "SELECT operator.tasks",
        client,
        {
            "db.system.name": "postgresql",
            "db.namespace": "operator",
            "db.operation.name": "SELECT",
            "db.collection.name": "tasks",
            "db.query.text": "SELECT id, hash, deadline FROM tasks WHERE hash = $1 AND state = $2",
            "server.address": "postgres.internal",
            "server.port": 5432,
            "db.response.returned_rows": 1,
        },
    )
    yield (
        "prove",
        internal,
        {
            "thread.id": rng.randrange(64),
            "code.function.name": "operator/factor.(*Prover).Prove",
            "code.file.path": "/src/operator/factor/prover.go",
            "code.line.number": 214,
            "prover.rounds": rng.randrange(1000),
        },
    )


def _put(pairs: Any, said: Said) -> None:
    for key, value in said.items():
        pair = pairs.add(key=key)
        if isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.string_value = value


class Exporter:
    """Sends bodies, `rate` spans a second in all, by some connections at once."""

    def __init__(self, address: str, authorization: str, rate: float, seconds: float) -> None:
        self._address = address
        self._headers = {"content-type": "application/x-protobuf"}
        if authorization:
            self._headers["authorization"] = authorization
        self._every = SPANS_A_BODY / rate if rate else 0.0
        self._seconds = seconds
        self._lock = threading.Lock()
        self._sent = 0
        self.answers: Counter[int] = Counter()  # by status; 0: none

    def run(self) -> float:
        """Until the time is over; how many seconds that took, the last answers with them."""
        self._began = time.monotonic()
        threads = [threading.Thread(target=self._send, args=(number,)) for number in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - self._began

    def _send(self, number: int) -> None:
        bodies = cycle([Body(number * BODIES + i) for i in range(BODIES // CONNECTIONS)])
        with closing(http.client.HTTPConnection(self._address, timeout=60)) as connection:
            while (when := self._next()) < self._seconds:
                time.sleep(max(0.0, self._began + when - time.monotonic()))
                status = self._post(connection, next(bodies).with_other_ids())
                with self._lock:
                    self.answers[status] += 1

    def _next(self) -> float:
        """When the next request is due, in seconds since the beginning."""
        with self._lock:
            self._sent += 1
            return (self._sent - 1) * self._every or time.monotonic() - self._began

    def _post(self, connection: http.client.HTTPConnection, body: bytes) -> int:
        try:
            connection.request("POST", "/v1/traces", body, self._headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            connection.close()
            return 0


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="bench.exporter")
    parser.add_argument("address")
    parser.add_argument("--rate", type=float, default=20_000.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    chosen = parser.parse_args(arguments)
    authorization = os.environ.get("AUTHORIZATION", "")
    exporter = Exporter(chosen.address, authorization, chosen.rate, chosen.seconds)
    used = time.process_time()
    seconds = exporter.run()
    said = {
        "spans": SPANS_A_BODY * exporter.answers[200],
        "answers": dict(exporter.answers),
        "seconds": seconds,
        "cpu": time.process_time() - used,
    }
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

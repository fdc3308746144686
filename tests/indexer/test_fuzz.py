"""Whatever is sent, the collector gives the protocol's right answer and comes to hold no more memory, and
good requests are stored once meanwhile. `make fuzz` tries a hundred thousand; some are tried at every change.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import zstandard
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from indexer import otlp_grpc, otlp_http
from indexer.intake import MAX_BODY_BYTES
from indexer.otlp_http import JSON, PROTOBUF
from nektar.config import Quota
from nektar.http import Server, bind
from nektar.log import DEAD
from nektar.otlp import SIGNALS, SPANS, Signal
from nektar.store.client import open_store
from nektar.store.migrate import migrate
from processors.telemetry import Telemetry
from tests import otlp
from tests.indexer.senders import TOKENS, token
from tests.indexer.test_collector import taking
from tests.indexer.test_heard import HOME, attributes
from tests.nektar.bus.reading import everything
from tests.processors.logs_on_bus import open_bus

# Bytes by which the process may grow after the first fifth of all cases: what the collector remembers is
# bounded, and full or nearly so by then; bodies of 4 MiB come and go.
MOST_GROWTH = 48 << 20
# All comes from one sender, as fast as it is answered.
UNLIMITED = Quota(items_per_second=2**31, bytes_per_second=2**40)
# One request in so many is good.
GOOD_EVERY = 20
BUSES, PARTITIONS = ("open", "shut"), 2

PACKED = {
    "": bytes,
    "gzip": lambda body: gzip.compress(body, 1, mtime=0),
    "zstd": zstandard.ZstdCompressor().compress,
}


class Case(NamedTuple):
    """A request, and the statuses of which the collector must answer one."""

    signal: Signal
    body: bytes
    headers: Mapping[str, str]
    right: frozenset[int]
    method: str = "POST"
    path: str = ""  # the signal's own
    says_length: bool = True


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


# --- what is sent -----------------------------------------------------------------------------------


class Cases:
    """Requests of a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"fuzz {seed}")
        now = time.time_ns()
        self._true: dict[tuple[Signal, str], list[bytes]] = {}
        for signal in SIGNALS:
            made = [otlp.some(signal, count, now, attributes=attributes(count)) for count in (1, 3, 20)]
            self._true[signal, PROTOBUF] = [each.SerializeToString() for each in made]
            self._true[signal, JSON] = [otlp.to_json(each) for each in made]
        self._bombs = {
            name: pack(bytes(64 << 20) if name == "gzip" else bytes(256 << 20))
            for name, pack in PACKED.items()
            if name
        }

    def good(self, number: int) -> Any:
        """A sound request that nothing else is like."""
        return otlp.spans(self.rng.randrange(1, 4), time.time_ns(), seed=f"good {number}")

    def encoded(self, request: Any) -> Case:
        """A good one, in one way or another."""
        kind, encoding = self.rng.choice((PROTOBUF, JSON)), self.rng.choice(list(PACKED))
        body = request.SerializeToString() if kind == PROTOBUF else otlp.to_json(request)
        return self._case(SPANS, kind, PACKED[encoding](body), {200}, encoding)

    def true_token(self) -> str:
        return self.rng.choice(list(TOKENS.values()))

    def next(self) -> Case:
        makers = (self._spoiled, self._deep, self._packed, self._not_read, self._large, self._elsewhere)
        (make,) = self.rng.choices(makers, (80, 5, 8, 5, 1, 1))
        return make(self.rng.choice(SIGNALS), self.rng.choice((PROTOBUF, JSON)))

    def spoiled(self, signal: Signal, kind: str) -> bytes:
        """A true body in which something is changed, lost, doubled, put in from another or put elsewhere."""
        rng = self.rng
        body, other = map(bytearray, rng.choices(self._true[signal, kind], k=2))
        for _ in range(rng.choice((1, 1, 2, 5))):
            at, size = rng.randrange(len(body) + 1), rng.choice((1, 1, 2, 8, 100))
            begin = rng.randrange(len(other))
            match rng.randrange(7):
                case 0:
                    body[at : at + 1] = rng.randbytes(1)
                case 1:
                    del body[at : at + size]
                case 2:
                    body[at:at] = body[at : at + size] * rng.choice((1, 3))
                case 3:
                    body[at : at + size] = other[begin : begin + size]
                case 4:
                    body[at : at + size] = rng.randbytes(size)
                case 5:
                    body[at : at + size] = length(kind, rng)
                case 6:
                    del body[at:]
        return bytes(body)

    def _spoiled(self, signal: Signal, kind: str) -> Case:
        body = self.spoiled(signal, kind)
        right = {200, 400} if is_readable(signal, body, kind) else {400}
        encoding = self.rng.choice(("", "", "", *PACKED))
        return self._case(signal, kind, PACKED[encoding](body), right, encoding)

    def _deep(self, signal: Signal, kind: str) -> Case:
        """Values in values."""
        levels = self.rng.choice((1, 30, 90, 99, 100, 101, 300, 5_000))
        body = deep(signal, levels, kind)
        return self._case(
            signal, kind, body, {200} if levels <= 30 else {200, 400} if levels < 300 else {400}
        )

    def _packed(self, signal: Signal, kind: str) -> Case:
        """What is not packed as it is said to be, and what becomes larger than is taken."""
        encoding = self.rng.choice(("gzip", "zstd"))
        packed = PACKED[encoding](self.rng.choice((*self._true[signal, kind], bytes(3 << 20))))
        match self.rng.randrange(5):
            case 0:
                return self._case(signal, kind, self._bombs[encoding], {413}, encoding)
            case 1:
                return self._case(signal, kind, packed[: self.rng.randrange(1, len(packed))], {400}, encoding)
            case 2:
                return self._case(
                    signal, kind, self.rng.randbytes(self.rng.randrange(1, 200)), {400}, encoding
                )
            case 3:
                return self._case(signal, kind, PACKED[encoding](packed), {400}, encoding)
        at = self.rng.randrange(len(packed))
        body = packed[:at] + self.rng.randbytes(1) + packed[at + 1 :]
        return self._case(signal, kind, body, {200, 400, 413}, encoding)

    def _not_read(self, signal: Signal, kind: str) -> Case:
        """Another content type, or encoding, than is read."""
        body = self.rng.choice(self._true[signal, kind])
        if self.rng.random() < 0.5:
            kinds = (
                "",
                "text/plain",
                f"{kind}2",
                f"x{kind}",
                "application/grpc",
                kind.replace("/", " / "),
                "ä,;",
            )
            return self._case(signal, self.rng.choice(kinds), body, {415})
        encodings = ("br", "deflate", "gzip, gzip", "gzip;q=1", "x-gzip", "ä", "zstd " * 40)
        return self._case(signal, kind, body, {415}, self.rng.choice(encodings))

    def _large(self, signal: Signal, kind: str) -> Case:
        size = self.rng.choice((MAX_BODY_BYTES + 1, 2 * MAX_BODY_BYTES))
        case = self._case(signal, kind, b" " * size, {413}, self.rng.choice(list(PACKED)))
        return case._replace(says_length=self.rng.random() < 0.5)

    def _elsewhere(self, signal: Signal, kind: str) -> Case:
        case = self._case(signal, kind, self.spoiled(signal, kind), {404})
        if self.rng.random() < 0.5:
            return case._replace(
                method=self.rng.choice(("GET", "PUT", "DELETE", "X")), right=frozenset({405})
            )
        return case._replace(path=self.rng.choice(("/", "/v1", "/v1/trace", "/v2/traces", "/v1/traces/x")))

    def _case(self, signal: Signal, kind: str, body: bytes, right: set[int], encoding: str = "") -> Case:
        headers = {"content-type": kind} | ({"content-encoding": encoding} if encoding else {})
        return Case(signal, body, headers, frozenset(right))

    def authorization(self) -> str:
        """A header that names nobody: of another scheme, with a token that is spoiled, or of no such key."""
        rng, true = self.rng, self.true_token()
        match rng.randrange(6):
            case 0:
                return rng.choice(
                    ("x", "Bearer", "Bearer ", "Basic eDp5", "Bearer Bearer", "bearer nektar1.")
                )
            case 1:
                return f"Bearer {true[: rng.randrange(len(true))]}"
            case 2:
                return f"{rng.choice(('Basic', 'Token', ''))} {true}"
            case 3:
                return f"Bearer {rng.randbytes(rng.randrange(1, 3_000)).decode('latin-1')}"
            case 4:
                return f"Bearer {token('operator-1', rng.randrange(100, 110))}"
        at = rng.randrange(len(true))
        return f"Bearer {true[:at]}{rng.choice('aZ0-_.~é')}{true[at:]}"


def length(kind: str, rng: random.Random) -> bytes:
    """The beginning of something very long, or a very large number."""
    if kind == JSON:
        return rng.choice(
            (b"9" * 400, b"1e999", b'"' + b"\\ud800" * 3, b"[" * 50, b"-0", b"NaN", b"\xff\xfe")
        )
    number, varint = 1 << rng.randrange(70), bytearray()
    while number > 127:
        varint.append(number & 127 | 128)
        number >>= 7
    return bytes([rng.randrange(256), *varint, number])


def deep(signal: Signal, levels: int, kind: str) -> bytes:
    """A request whose resource has an attribute of so many lists in lists."""
    if kind == JSON:
        json_value = '{"arrayValue":{"values":[' * levels + "]}}" * levels
        first = "".join(part.title() if i else part for i, part in enumerate(signal.resources.split("_")))
        return (
            f'{{"{first}":[{{"resource":{{"attributes":[{{"key":"k","value":{json_value}}}]}}}}]}}'.encode()
        )
    value = b""
    for _ in range(levels):
        value = field(5, field(1, value))
    return field(1, field(1, field(1, field(1, b"k") + field(2, value))))


def field(number: int, content: bytes) -> bytes:
    """A field of protobuf's with a length."""
    size, varint = len(content), bytearray()
    while size > 127:
        varint.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *varint, size]) + content


def is_readable(signal: Signal, body: bytes, kind: str) -> bool:
    """Whether protobuf's, or Python's, own reader reads it."""
    try:
        signal.request().ParseFromString(body) if kind == PROTOBUF else json.loads(body)
    except (DecodeError, ValueError, RecursionError):
        return False
    return True


# --- what is answered -------------------------------------------------------------------------------


async def asked(application: Any, case: Case) -> Answer:
    """What an application of ASGI answers, as a server would ask it."""
    headers = {"host": "here", **case.headers}
    if case.says_length:
        headers["content-length"] = str(len(case.body))
    path = case.path or f"/v1/{case.signal.name}"
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": case.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 4318),
    }
    chunks = [case.body[i : i + 65_536] for i in range(0, len(case.body), 65_536)] or [b""]
    comes = iter([{"type": "http.request", "body": c, "more_body": True} for c in chunks])
    last = {"type": "http.request", "body": b"", "more_body": False}
    sent: list[Any] = []

    async def receive() -> Any:
        return next(comes, last)

    async def send(event: Any) -> None:
        sent.append(event)

    await application(scope, receive, send)
    said = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], said, b"".join(event.get("body", b"") for event in sent[1:]))


def check(case: Case, answer: Answer) -> None:
    """The status is right, and what is said is what the protocol says of it."""
    assert answer.status in case.right, (case, answer)
    if answer.status in (404, 405):
        return
    kind = case.headers["content-type"] if case.headers["content-type"] in (PROTOBUF, JSON) else JSON
    assert answer.headers["content-type"] == kind
    said: Any = case.signal.response() if answer.status == 200 else Status()
    if kind == PROTOBUF:
        said.ParseFromString(answer.body)
    else:
        json_format.Parse(answer.body, said)
    if answer.status != 200:
        assert said.message
        assert "\n" not in said.message
    assert ("www-authenticate" in answer.headers) == (answer.status == 401)
    assert "retry-after" not in answer.headers


# --- all of it --------------------------------------------------------------------------------------


class Doors:
    """The ways into two collectors, of which one asks for tokens; each with a bus of its own."""

    def __init__(self, opened: ExitStack, folder: Path) -> None:
        of_all, of_known = (opened.enter_context(open_bus(folder / name, PARTITIONS)) for name in BUSES)
        everyone = opened.enter_context(taking(of_all, networks=(HOME,), quota=UNLIMITED))
        known = opened.enter_context(taking(of_known, TOKENS, quota=UNLIMITED))
        self._runner = opened.enter_context(asyncio.Runner())
        self._open, self._shut = map(otlp_http.application, (everyone, known))
        listening = bind("127.0.0.1:0", "listen.otlp")
        http = opened.enter_context(Server(self._open, listening))
        self._connection = opened.enter_context(closing(HTTPConnection(http.address, timeout=60)))
        server = opened.enter_context(otlp_grpc.Server(everyone, "127.0.0.1:0"))
        channel = opened.enter_context(
            grpc.insecure_channel(server.address, [("grpc.max_send_message_length", -1)])
        )
        self._methods = {
            signal: channel.unary_unary(f"/{service.full_name}/Export")
            for signal in SIGNALS
            for service in signal.request.DESCRIPTOR.file.services_by_name.values()
        }

    def http(self, case: Case, authorization: str) -> Answer:
        """What is answered by who asks for no token, or with this header by who does."""
        if not authorization:
            return self._runner.run(asked(self._open, case))
        headers = {**case.headers, "authorization": authorization}
        return self._runner.run(asked(self._shut, case._replace(headers=headers)))

    def wire(self, case: Case) -> Answer:
        """What is answered by who asks for no token, through a server and a connection."""
        body: Any = case.body if case.says_length else iter([case.body])
        path, headers = case.path or f"/v1/{case.signal.name}", dict(case.headers)
        self._connection.request(case.method, path, body, headers, encode_chunked=not case.says_length)
        answer = self._connection.getresponse()
        said = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(answer.status, said, answer.read())

    def grpc(self, signal: Signal, body: bytes, gzipped: bool) -> StatusCode:
        compression = grpc.Compression.Gzip if gzipped else grpc.Compression.NoCompression
        try:
            self._methods[signal](body, timeout=60, compression=compression)
        except grpc.RpcError as error:
            code: StatusCode = error.code()
            return code
        return StatusCode.OK


def resident() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


@contextmanager
def patient() -> Iterator[None]:
    """Nobody is told to come again since the machine is busy, or since tokens are shown too quickly."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("READ_SECONDS", "TURN_SECONDS", "COMMIT_SECONDS"):
            patched.setattr(f"indexer.intake.{name}", 60.0)
        patched.setattr("indexer.admission.A_SECOND", 1e6)
        yield


def fuzzed(seed: int, count: int, folder: Path) -> tuple[Counter[object], int]:
    """Send so many, and see what becomes of all; how often each status was answered, and by how many bytes
    the process has grown.
    """
    cases, answers, sent = Cases(seed), Counter[object](), set[str]()
    rng, after = cases.rng, 0
    with ExitStack() as opened:
        opened.enter_context(patient())
        doors = Doors(opened, folder)
        for number in range(count):
            if number == count // 5:
                after = resident()
            (door,) = rng.choices(("open", "wire", "shut", "grpc"), (6, 2, 1, 1))
            if number % GOOD_EVERY == 0:
                request = cases.good(number)
                sent |= {span.span_id.hex() for span in request.resource_spans[0].scope_spans[0].spans}
                if door == "grpc":
                    assert doors.grpc(SPANS, request.SerializeToString(), rng.random() < 0.5) is StatusCode.OK
                else:
                    authorization = f"Bearer {cases.true_token()}" if door == "shut" else ""
                    case = cases.encoded(request)
                    check(case, doors.wire(case) if door == "wire" else doors.http(case, authorization))
            elif door == "grpc":
                signal = rng.choice(SIGNALS)
                body = cases.spoiled(signal, PROTOBUF)
                status = doors.grpc(signal, body, rng.random() < 0.5)
                right = {StatusCode.INVALID_ARGUMENT}
                right |= {StatusCode.OK} if is_readable(signal, body, PROTOBUF) else set()
                assert status in right, (seed, number)
                answers[status] += 1
            else:
                case, authorization = cases.next(), ""
                if door == "shut":
                    authorization = cases.authorization()
                    case = case._replace(right=case.right if case.right & {404, 405} else frozenset({401}))
                answer = doors.wire(case) if door == "wire" else doors.http(case, authorization)
                check(case, answer)
                answers[answer.status] += 1
        grown = resident() - after
        assert grown < MOST_GROWTH
    assert stored(folder, sent) == dict.fromkeys(sent, 1)
    return answers, grown


def stored(folder: Path, sent: set[str]) -> Counter[str]:
    """How often the store has each of these spans, once it has taken all that the collectors put out. It can,
    whatever that was.
    """
    with open_store(f"chdb://{folder / 'store'}") as store:
        migrate(store, [])
        for name in BUSES:
            with open_bus(folder / name, PARTITIONS) as bus:
                with Telemetry(store, bus) as telemetry:
                    while telemetry.turn() or telemetry.inserts:
                        pass
                letters = [m for p in range(PARTITIONS) for m in everything(bus, DEAD, p)]
                assert all(letter.key.startswith(b"collector ") for letter in letters)
        ids = store.rows("SELECT SpanId FROM otel_traces")
        return Counter(id_ for (id_,) in ids if id_ in sent)


def test_some_cases_are_answered_rightly_and_leave_nothing_behind(tmp_path: Path) -> None:
    answers, _ = fuzzed(0, 1_500, tmp_path)
    assert answers.keys() == {200, 400, 401, 404, 405, 413, 415, StatusCode.OK, StatusCode.INVALID_ARGUMENT}


@pytest.mark.slow
def test_a_hundred_thousand_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    answers, grown = fuzzed(1, 100_000, tmp_path)
    said = ", ".join(f"{count} × {status}" for status, count in answers.most_common())
    with capsys.disabled():
        print(f"\n{said}; {grown >> 20} MB more; {time.monotonic() - began:.0f} s", end="", flush=True)

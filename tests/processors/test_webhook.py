"""One webhook: what goes out holds for anybody's verifier, and what comes back can do no harm."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from hypothesis import given, settings
from hypothesis import strategies as st

from devnet.anvil import free_port
from devnet.receiver import Receiver
from nektar import trace
from nektar.config import ConfigError, Watcher
from nektar.log import key
from nektar.model import Network
from processors.outputs import cloud_event
from processors.webhook import MAX_ANSWER_BYTES, Answer, Outcome, Webhook, answer, webhook_id
from tests.corpora import corpus
from tests.processors.told import OTHER_SECRET, SECRET, Serving, finding, until

EVENT = cloud_event(Network("home", 1, {}), finding(7), 3)


def watcher(url: str = "http://127.0.0.1:9/", secret: str = SECRET, timeout: float = 5.0) -> Watcher:
    return Watcher("w", url, secret, timeout)


def send(to: Watcher, *events: bytes) -> list[Answer]:
    async def all_of_them() -> list[Answer]:
        async with Webhook(to) as webhook:
            return [await webhook.send(event) for event in events]

    return asyncio.run(all_of_them())


@contextmanager
def raw(*answers: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that treats each connection as it is told, after it has read a request; its URL."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def serve() -> None:
            for treat in answers:
                connection, _ = listening.accept()
                with connection:
                    heard(connection)
                    treat(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            thread.join(30)
            assert not thread.is_alive()


def heard(connection: socket.socket) -> None:
    """One request, whole: what is left unread when a connection is closed takes the answer with it."""
    request = b""
    while len(request) < len(request.partition(b"\r\n\r\n")[0]) + 4 + len(EVENT):
        if not (more := connection.recv(65536)):
            return
        request += more


def saying(*parts: bytes) -> Callable[[socket.socket], None]:
    def treat(connection: socket.socket) -> None:
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:
            pass  # it has heard enough

    return treat


# --- what goes out ----------------------------------------------------------------------------------


def test_the_signature_is_that_of_the_published_vectors() -> None:
    vectors = json.loads(corpus("webhooks/standard_webhooks_vectors.json").read_text())
    vector = vectors["sign_vector"]
    now = datetime.fromtimestamp(vector["timestamp"], UTC)
    webhook = Webhook(watcher(secret=vector["secret"]))
    assert webhook.signature(vector["id"], now, vector["payload"].encode()) == vector["signature"]
    for secret in vectors["empty_secret_must_error"]:
        with pytest.raises(ConfigError, match=r"watchers\.w\.secret"):
            Webhook(watcher(secret=secret))


def test_the_demos_receiver_takes_and_refuses_what_the_published_vectors_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = json.loads(corpus("webhooks/standard_webhooks_vectors.json").read_text())

    def at(now: float) -> Any:
        class Then(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime.fromtimestamp(now, tz)

        return Then

    for case in vectors["cases"]:
        monkeypatch.setattr("standardwebhooks.webhooks.datetime", at(case.get("now", vectors["now"])))
        receiver = Receiver(case.get("secret", vectors["secret"]))
        delivery = receiver.verified(case["headers"], vectors["payload"].encode())
        assert delivery.verified is case["ok"], case["name"]


def test_a_message_is_a_cloud_event_in_structured_mode_and_its_signature_holds() -> None:
    now = datetime.now(UTC)
    headers = Webhook(watcher()).headers(EVENT, now)
    standardwebhooks.Webhook(SECRET).verify(EVENT, headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(SECRET).verify(EVENT.replace(b"seen", b"safe"), headers)
    event = from_http_event(HTTPMessage(headers, EVENT))
    assert event.get_type() == "nektar.finding.seen"
    assert event.get_source() == "/networks/home"
    data: Any = event.get_data()
    assert (data["id"], data["task_number"]) == ("0x" + finding(7).id.hex(), str(2**60))
    listed = corpus("webhooks/cloudevents_http_protocol_binding.feature").read_text()
    assert f"| {headers['content-type']} " in listed


def test_an_id_is_of_one_event_whichever_network_and_generation_it_is_of() -> None:
    events = {
        cloud_event(
            *(Network(name, 1, {}, generation), finding(n, status), offset),
            trace.begin(key(name, generation), [b"what is appended"]),
        )
        for name in ("home", "away")
        for generation in (1, 2)
        for n in (1, 2)
        for status in ("seen", "final")
        for offset in (1, 2)
    }
    ids = {webhook_id(event) for event in events}
    assert len(ids) == len(events) == 2**5
    assert all(id_.replace("_", "").isalnum() and len(id_) < 64 for id_ in ids)
    assert webhook_id(EVENT) == webhook_id(bytes(EVENT))


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("http://:80/", SECRET),
        ("http://a:99999/pass-word", SECRET),
        ("http://[::1/pass-word", SECRET),
        ("http://example..invalid/pass-word", SECRET),
        (f"http://{'a' * 64}.example/pass-word", SECRET),
        ("http://user%3A:pass-word@host/", SECRET),
        ("http://user:пароль-pass-word@host/", SECRET),
        ("http://a/", "whsec_" + base64.b64encode(b"pass-word").decode()),
        ("http://a/", "whsec_" + "=" * 40),
        ("http://a/", "whsec_pass-word" + "A" * 40),
        ("http://a/", "whsec_" + base64.b64encode(bytes(65)).decode()),
    ],
)
def test_a_url_or_secret_that_cannot_be_right_is_a_mistake_that_shows_neither(url: str, secret: str) -> None:
    with pytest.raises(ConfigError, match=r"watchers\.w\.(url|secret): expected") as caught:
        Webhook(watcher(url, secret))
    assert "pass-word" not in str(caught.value)
    assert secret not in str(caught.value)


def test_the_readmes_receiver_takes_what_is_signed_and_tells_it_once() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    code = textwrap.dedent(readme[readme.index("    import os\n") : readme.index("It comes at least once")])
    port = free_port()
    assert "8080" in code
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code.replace("8080", str(port))],
        env={**os.environ, "NEKTAR_MY_TEAM_SECRET": SECRET},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as receiver:
        url = f"http://127.0.0.1:{port}/nektar"
        until(lambda: asyncio.run(Webhook(watcher(url)).reach()) == "")
        got = [*send(watcher(url), EVENT, EVENT), *send(watcher(url, OTHER_SECRET), EVENT)]
        receiver.terminate()
        assert receiver.stdout
        told = receiver.stdout.read()
    assert [each.words[:14] for each in got] == ["it answers 204", "it answers 204", "it answers 401"]
    assert told == f"nektar.finding.seen equivocation 0x{finding(7).operator.hex()}\n"


# --- what comes back --------------------------------------------------------------------------------


@given(st.integers(200, 599), st.text(max_size=30) | st.integers(0, 10**40).map(str))
def test_every_status_means_something_and_only_2xx_that_it_is_taken(status: int, after: str) -> None:
    outcome, words, wait = answer(status, {"retry-after": after})
    assert (outcome is Outcome.TAKEN) == (status < 300)
    assert (outcome is Outcome.GONE) == (status == 410)
    assert (outcome is Outcome.LATER) == (status >= 500 or status in (408, 425, 429))
    assert str(status) in words
    assert 0 <= wait <= 3600
    if outcome is Outcome.LATER and after.isascii() and after.isdigit():
        assert wait == min(int(after), 3600)


def test_an_answer_that_breaks_off_is_none_however_good_it_began() -> None:
    began = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345"
    for parts in (
        (),
        (began,),
        (began[:20],),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",),
    ):
        with raw(saying(*parts)) as url:
            (got,) = send(watcher(url), EVENT)
        assert got.outcome is Outcome.LATER


def test_an_answer_without_end_is_an_answer_and_is_not_read_on() -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    sent = []

    def flood(connection: socket.socket) -> None:
        try:
            connection.sendall(head)
            for _ in range(10_000):
                connection.sendall(b"x" * MAX_ANSWER_BYTES)
                sent.append(MAX_ANSWER_BYTES)
        except OSError:
            pass

    with raw(flood) as url:
        (got,) = send(watcher(url), EVENT)
    assert got.outcome is Outcome.TAKEN
    assert sum(sent) < 100_000_000


def test_a_receiver_that_drips_is_given_its_time_and_no_more() -> None:
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            while not ended.wait(0.02):
                connection.sendall(b"x")
        except OSError:
            pass

    with raw(drip) as url:
        (got,) = send(watcher(url, timeout=0.3), EVENT)
        ended.set()
    assert got == Answer(Outcome.LATER, "no answer within 0.3 s")


@settings(max_examples=30)
@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail))
def test_junk_for_an_answer_is_no_answer_and_nothing_worse(junk: bytes) -> None:
    with raw(saying(junk)) as url:
        (got,) = send(watcher(url, timeout=2), EVENT)
    assert isinstance(got, Answer)
    assert "127.0.0.1" not in got.words


def test_a_redirect_is_not_followed() -> None:
    with Serving() as elsewhere:
        moved = (
            f"HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:{elsewhere.port}/\r\ncontent-length: 0\r\n\r\n"
        )
        with raw(saying(moved.encode())) as url:
            (got,) = send(watcher(url), EVENT)
        assert (got.outcome, elsewhere.receiver.requests) == (Outcome.REFUSED, 0)


def test_a_connection_is_kept_and_one_that_was_closed_meanwhile_costs_no_attempt() -> None:
    well = b"HTTP/1.1 204 No Content\r\n\r\n"
    resting, closed = threading.Event(), threading.Event()

    def twice(connection: socket.socket) -> None:
        connection.sendall(well)
        heard(connection)
        connection.sendall(well)

    def then_closed(connection: socket.socket) -> None:
        twice(connection)
        resting.wait(10)
        connection.close()
        closed.set()

    async def three_and_a_pause(to: Watcher) -> list[Answer]:
        async with Webhook(to) as webhook:
            first = [await webhook.send(EVENT) for _ in range(2)]
            resting.set()
            closed.wait(10)  # as the role waits for the bus: nothing runs in the loop
            return [*first, *[await webhook.send(EVENT) for _ in range(2)]]

    with raw(then_closed, twice) as url:
        got = asyncio.run(three_and_a_pause(watcher(url)))
    assert [each.outcome for each in got] == [Outcome.TAKEN] * 4


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-days",
        "1",
    ]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    heard = []

    def handshake(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as inside:
                heard.append(inside.recv(65536))
        except OSError:
            pass

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def serve() -> None:
            for _ in range(2):
                connection, _ = listening.accept()
                handshake(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        to = watcher(f"https://localhost:{listening.getsockname()[1]}/")
        (got,) = send(to, EVENT)
        why = asyncio.run(Webhook(to).reach())
        thread.join(30)
    assert got == Answer(Outcome.LATER, "its certificate can't be verified; check its url")
    assert why == got.words
    assert heard == []


def test_whether_a_receiver_is_there_is_found_out_without_a_word() -> None:
    with Serving() as serving:
        assert asyncio.run(Webhook(serving.watcher()).reach()) == ""
        assert serving.receiver.requests == 0
    nobody = "can't connect (Connection refused); check its url, and that it runs"
    assert asyncio.run(Webhook(serving.watcher()).reach()) == nobody
    assert send(serving.watcher(), EVENT) == [Answer(Outcome.LATER, nobody)]
    nowhere = asyncio.run(Webhook(watcher("http://no-such-host.invalid/")).reach())
    assert nowhere == "can't connect (no such host); check its url, and that it runs"

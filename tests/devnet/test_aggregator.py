"""What is sent to the aggregator is read before it is kept: nothing in it can stop the aggregator later."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest

from devnet.aggregator import Inbox, _handler, forgeries
from devnet.view import OpenTask
from nektar.evidence import bls

TASK = OpenTask(b"t" * 32, (b"", 91, b"", b"", 18, 3, 5000, 5000, 1), 10, ())
SENT = {
    "task_hash": "0x" + TASK.hash.hex(),
    "operator": "0x" + "11" * 20,
    "p": "7",
    "q": "13",
    "signature": "0x" + "22" * 64,
}


@pytest.fixture
def served() -> Iterator[tuple[str, Inbox]]:
    inbox = Inbox()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(inbox)) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/responses", inbox
        server.shutdown()


def post(url: str, body: bytes) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_signed_response_is_kept(served: tuple[str, Inbox]) -> None:
    url, inbox = served
    assert post(url, json.dumps(SENT).encode()) == 200
    assert list(inbox.of(TASK)) == [SENT["operator"]]


@pytest.mark.parametrize(
    "changed",
    [
        {"p": str(1 << 256)},
        {"q": "-1"},
        {"p": "seven"},
        {"p": 7},
        {"signature": "0xzz"},
        {"p": "9" * 3000},
    ],
    ids=str,
)
def test_what_no_contract_could_read_is_refused(
    served: tuple[str, Inbox], changed: dict[str, object]
) -> None:
    url, inbox = served
    assert post(url, json.dumps(SENT | changed).encode()) == 400
    assert not inbox.of(TASK)


def test_forgeries_are_real_signatures_of_something_else_and_junk() -> None:
    secrets = {"0xvictim": 7, "0xother": 8}
    here, there, wrong = (name.ljust(32, b".") for name in (b"right, here", b"right, there", b"wrong, here"))
    sign = bls.sign
    stolen = {
        "0xvictim": {here: sign(7, here), there: sign(7, there)},
        "0xother": {here: sign(8, wrong), there: sign(8, there)},
    }
    forged = list(forgeries(stolen, here, "0xvictim", wrong))
    assert {sign(7, here), sign(7, there), sign(8, wrong)} < set(forged)
    assert sign(8, there) not in forged
    _, twin = bls.public_keys(secrets["0xvictim"])
    assert len(forged) == 5
    assert not any(bls.verify(twin, wrong, bls.G1(signature)) for signature in forged)

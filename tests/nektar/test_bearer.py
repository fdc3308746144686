"""A session's tokens: minted as they are needed, of whichever key the collector takes now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from nektar.bearer import SECONDS, Bearer
from nektar.evidence import bls
from nektar.http import Server, bind
from nektar.tokens import Claims, Role, is_signed, read

OPERATOR = "0x" + "a1" * 20
OLD, NEW = 11, 12
NOW = 1_800_000_000


class Collector:
    """Takes what comes by tokens of one key."""

    def __init__(self) -> None:
        self.takes = OLD
        self.asked: list[Claims] = []
        self.bodies: list[bytes] = []  # of what was taken

    async def answer(self, request: Request) -> Response:
        scheme, _, token = request.headers["authorization"].partition(" ")
        claims, signature = read(token)
        assert (scheme, is_signed(claims, signature)) == ("Bearer", True)
        self.asked.append(claims)
        body = await request.body()
        if claims.key != bls.public_keys(self.takes)[1]:
            return Response(status_code=401)
        self.bodies.append(body)
        return Response()


@contextmanager
def listening(collector: Collector) -> Iterator[str]:
    app = Starlette(routes=[Route("/", collector.answer, methods=["POST"])])
    with Server(app, bind("127.0.0.1:0", "x")) as server:
        yield f"http://{server.address}/"


def bearer(*secrets: int, now: float = NOW) -> Bearer:
    return Bearer("home", 31337, "here", Role.OPERATOR, OPERATOR, secrets, now=lambda: now)


def test_a_token_says_who_sends_to_whom_for_a_day() -> None:
    collector = Collector()
    with listening(collector) as url:
        assert requests.post(url, b"spans", auth=bearer(OLD), timeout=10).status_code == 200
    (claims,) = collector.asked
    assert claims == Claims("home", 31337, "here", Role.OPERATOR, OPERATOR, NOW + SECONDS, claims.key)
    assert collector.bodies == [b"spans"]


def test_what_one_key_is_refused_for_is_sent_again_by_the_other_which_is_first_from_then_on() -> None:
    collector, known_by = Collector(), bearer(OLD, NEW)
    with listening(collector) as url, requests.Session() as session:
        session.auth = known_by

        def sent() -> tuple[int, int]:
            collector.asked.clear()
            return session.post(url, b"spans", timeout=10).status_code, len(collector.asked)

        assert sent() == (200, 1)
        collector.takes = NEW
        assert [sent(), sent()] == [(200, 2), (200, 1)]
        collector.takes = OLD  # a reorg takes the change back
        assert [sent(), sent()] == [(200, 2), (200, 1)]
        collector.takes = 13  # of somebody else: the Operator has left
        assert sent() == (401, 3)
    assert collector.bodies == [b"spans"] * 5


def test_nothing_is_lost_where_another_request_has_put_the_new_key_first_meanwhile() -> None:
    collector, known_by = Collector(), bearer(OLD, NEW)
    with listening(collector) as url, requests.Session() as session:
        under_way = requests.Request("POST", url, data=b"spans", auth=known_by).prepare()
        collector.takes = NEW
        assert requests.post(url, b"records", auth=known_by, timeout=10).status_code == 200
        assert session.send(under_way, timeout=10).status_code == 200
    assert collector.bodies == [b"records", b"spans"]


def test_nothing_is_lost_where_the_key_changes_between_two_tries() -> None:
    class Changing(Collector):
        async def answer(self, request: Request) -> Response:
            response = await super().answer(request)
            self.takes = NEW
            return response

    collector = Changing()
    with listening(collector) as url:
        assert requests.post(url, b"spans", auth=bearer(NEW, OLD), timeout=10).status_code == 200
    assert collector.bodies == [b"spans"]


def test_a_token_is_used_for_half_of_its_time() -> None:
    collector, clock = Collector(), [float(NOW)]
    known_by = Bearer("home", 31337, "here", Role.OPERATOR, OPERATOR, [OLD], now=lambda: clock[0])
    with listening(collector) as url:
        for at in (0, SECONDS / 2, SECONDS / 2 + 1):
            clock[0] = NOW + at
            requests.post(url, auth=known_by, timeout=10)
    assert [each.expires - NOW for each in collector.asked] == [SECONDS, SECONDS, 3 * SECONDS // 2 + 1]


def test_what_no_token_may_say_is_told_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="an Operator's address"):
        Bearer("home", 31337, "here", Role.OPERATOR, "operator-1", [OLD])
    with pytest.raises(ValueError, match="secret"):
        bearer(0)

"""How a program sends telemetry by tokens that it mints itself: authentication of a `requests` session, and
so of the stock exporters over HTTP.

    session = requests.Session()
    session.auth = Bearer("home", 1, "our-collector", Role.OPERATOR, "0x…", [secret])
    OTLPSpanExporter("https://collector/v1/traces", session=session)

An Operator that changes its key gives both for that while. The collector takes the old one until it knows
that the chain has the new one, and the new one from then on; after a reorg the other way round. A request
that is refused by one is sent again by the other at once, so that nothing of it is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import requests
from requests.auth import AuthBase

from nektar.evidence import bls
from nektar.evidence.canonical import Octets
from nektar.tokens import Claims, Role, mint

# A token that leaked is of no use for long, and minting one takes some milliseconds.
SECONDS = 24 * 3600
UNKNOWN = 401


class Bearer(AuthBase):
    """Mints the tokens of one sender for one collector, each anew when half of its time is over."""

    def __init__(
        self,
        network: str,
        chain_id: int,
        audience: str,
        role: Role,
        sender: str,
        secrets: Sequence[int],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`secrets` are the sender's BN254 keys, of which one is in force. Raises ValueError for what no
        token may say."""
        said = partial(Claims, network, chain_id, audience, role, sender)
        self._minted = [_Minted(said, secret, now) for secret in secrets]

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._minted[0].token()}"
        request.register_hook("response", self._again)
        return request

    def _again(self, response: requests.Response, **how: Any) -> requests.Response:
        """Where the token of one key is refused, send the same by those of the others, and by the first once
        more: the keys may have changed, and another request may have put another first, in between."""
        minted = self._minted
        for other in (*minted, minted[0]):
            if response.status_code != UNKNOWN:
                break
            if response.request.headers["Authorization"] == f"Bearer {other.token()}":
                continue
            _ = response.content  # read to its end, so that the connection can be used again
            response.close()
            request = response.request.copy()
            request.headers["Authorization"] = f"Bearer {other.token()}"
            again: requests.Response = response.connection.send(request, **how)
            again.history.append(response)
            again.request = request
            if again.ok:
                self._minted = [other, *(each for each in minted if each is not other)]
            response = again
        return response


class _Minted:
    """The newest token of one key."""

    def __init__(self, said: Callable[[int, Octets], Claims], secret: int, now: Callable[[], float]) -> None:
        self._said = said
        self._secret = secret
        self._twin = Octets(bls.public_keys(secret)[1])
        self._now = now
        self._expires, self._token = 0, ""
        said(0, self._twin)  # what no token may say is told at once

    def token(self) -> str:
        now = self._now()
        if self._expires - now < SECONDS / 2:
            self._expires = int(now) + SECONDS
            self._token = mint(self._secret, self._said(self._expires, self._twin))
        return self._token

"""Who sends telemetry: whom its bearer token names, where the key that signed it is that sender's now.

A token (`nektar/tokens.py`) is for one Network and one collector and until some time. An Operator's key is
what the fold `operators` last said of it (`keys.py`), so that whoever deregisters or changes its key is
refused within a second; of aggregators and observers it is what `nektar.yaml` says. Roles bring their own
spans by a token that no sender has.

Whatever costs something is paid for: what a token says is read and looked up by anybody for next to nothing,
its signature is verified once, when the peer that shows it has its turn (`fair_queue.py`). Peers that have
shown a good one before have a queue of their own, since they are those who change keys: they wait for no
stranger.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

from indexer.clients import place
from indexer.fair_queue import FairQueue
from indexer.keys import Keys
from indexer.remembered import Remembered
from nektar import tokens
from nektar.bus.port import Bus
from nektar.config import Config, NetworkConfig
from nektar.evidence import bls
from nektar.model import G1, G2, Address
from nektar.monitor import own_token
from nektar.senders import OWN, UNAUTHENTICATED, Sender
from nektar.tokens import BadToken, Claims, Role

# Verifications a second, of strangers and of those who are known: four pairings each, some 10 ms.
A_SECOND = 10.0
# Tokens that are remembered, and peers: more than a Network has senders.
KNOWN, PEERS = 8_192, 8_192


class _Known(NamedTuple):
    """A token whose signature holds under this key."""

    claims: Claims
    key: G1


class Admission:
    """Whom tokens admit to the collector that is called `telemetry.audience`. Shared between event loops."""

    def __init__(
        self,
        config: Config,
        bus: Bus,
        standing: Callable[[NetworkConfig], int],
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ConfigError."""
        self._of = config.telemetry
        self._networks = {network.name: network for network in config.networks}
        own = own_token(config)
        self._own = _hashed(own) if own else None
        self._now = now
        self._keys = Keys(bus, config.networks if self._of.audience else (), standing, now, clock)
        self._strangers = FairQueue[None]("admission of strangers", A_SECOND, clock)
        self._familiar = FairQueue[None]("admission", A_SECOND, clock)
        self._known = Remembered[str, _Known](KNOWN)
        self._peers = Remembered[str, bool](PEERS)  # that have shown a good token
        self._verifying: dict[tuple[str, G1], Future[None]] = {}  # tokens whose turn has not come
        self._lock = threading.Lock()

    async def admit(self, authorization: str, address: str) -> Sender:
        """Who sends from this network address, by what the header `Authorization` says.

        Raises BadToken, Busy, NotKnown.
        """
        if self._of.unauthenticated:
            return UNAUTHENTICATED
        scheme, _, token = authorization.partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
        if self._own and hmac.compare_digest(_hashed(token), self._own):
            return OWN
        if not self._of.audience:
            raise BadToken("this collector takes telemetry from nobody: it has no audience that tokens name")
        if not token.startswith(tokens.PREFIX):
            raise BadToken("expected `Authorization: Bearer TOKEN` with a token of `nektar token`")
        if (known := self._known.get(token)) is None:
            known = await self._verified(token, place(address))
        self._check(known.claims)
        # A signature is of one key alone, so that whoever has another one now has not signed it with that.
        if self._key(known.claims) != known.key:
            raise _not_signed(known.claims)
        return Sender(known.claims.sender, known.claims.role, known.claims.network)

    def close(self, seconds: float) -> None:
        """Admit nobody any more. The bus, where it is being asked, is waited for so long."""
        self._strangers.close()
        self._familiar.close()
        self._keys.close(seconds)

    async def _verified(self, token: str, from_: str) -> _Known:
        """What a token says that its sender's key has signed. Of several that come at once with the same one
        all wait for one verification. Raises BadToken, Busy, NotKnown."""
        claims, signature = tokens.read(token)
        self._check(claims)
        key = self._key(claims)
        with self._lock:
            if (verifying := self._verifying.get((token, key))) is None:
                queue = self._familiar if self._peers.get(from_) else self._strangers
                verifying = queue.submit(from_, partial(_verify, claims, signature, key))
                self._verifying[token, key] = verifying
        try:
            await asyncio.shield(asyncio.wrap_future(verifying))
        finally:
            with self._lock:
                self._verifying.pop((token, key), None)
        self._peers.put(from_, True)
        self._known.put(token, known := _Known(claims, key))
        return known

    def _check(self, claims: Claims) -> None:
        """What is to be said of claims at no cost. Raises BadToken."""
        network = self._networks.get(claims.network)
        if network is None or network.chain_id != claims.chain_id:
            raise BadToken("expected a token for a Network of this collector; it is for another one")
        if claims.audience != self._of.audience:
            raise BadToken("expected a token for this collector's audience; it is for another one")
        left = claims.expires - self._now()
        if left <= 0:
            raise BadToken("the token is expired: mint another")
        if left > tokens.MAX_SECONDS + tokens.CLOCKS_APART:
            days = tokens.MAX_SECONDS // 86_400
            raise BadToken(f"expected a token that is valid for {days} days at most; it is for longer")

    def _key(self, claims: Claims) -> G1:
        """The key that speaks for the sender now. Raises BadToken, NotKnown."""
        if claims.role is Role.OPERATOR:
            operator = Address(bytes.fromhex(claims.sender[2:]))
            key = self._keys.key(self._networks[claims.network], operator)
        else:
            agent = self._of.agents.get(claims.sender)
            is_one = agent and Role(agent.role) is claims.role and agent.is_of(claims.network)
            key = G1(bytes.fromhex(agent.key[2:])) if agent and is_one else None
        if key is None:
            raise BadToken(f"{claims.role} {claims.sender}: the Network has no such one, or no more")
        return key


def _verify(claims: Claims, signature: G1, key: G1) -> None:
    """Raises BadToken."""
    if not (bls.keys_match(key, G2(claims.key)) and tokens.is_signed(claims, signature)):
        raise _not_signed(claims)


def _not_signed(claims: Claims) -> BadToken:
    return BadToken(f"{claims.role} {claims.sender}: its key has not signed this; mint another token")


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()

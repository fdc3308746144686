"""Who sends telemetry: whom its bearer token names, where the key that signed it is that sender's now.

A token (`nektar/tokens.py`) is for one Network and one collector and until some time. An Operator's key is
what the fold `operators` last said of it (`nektar/registered.py`), so that whoever deregisters or changes its
key is refused within a second; of aggregators and observers it is what `nektar.yaml` says.

Whatever costs something is paid for: of what was verified once only the key is looked at again, and of what
was not so many are verified a second, for each peer and for all, so that no flood of bad tokens takes more
than a fraction of a core.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from indexer.budget import Budget, Recent
from nektar import registered, tokens
from nektar.bus.port import Bus
from nektar.config import Config, NetworkConfig
from nektar.errors import NektarError
from nektar.evidence import bls
from nektar.model import G1, G2, Address
from nektar.senders import Sender
from nektar.tokens import BadToken, Claims, Role

# For how long a key is the sender's without looking again, in seconds.
FRESH_SECONDS = 1.0
# Verifications a second: four pairings each, some 10 ms.
A_PEER, ALL = 4, 20
# Tokens that are remembered, and peers: more than a Network has senders.
KNOWN, PEERS = 8_192, 8_192


class Busy(NektarError):
    """So many tokens are being verified that this one has to wait: send it again."""


class _Known(NamedTuple):
    """A token whose signature holds under this key."""

    claims: Claims
    key: G1
    looked: float  # when the key was last seen to be the sender's, by the monotonic clock


class Admission:
    """Whom tokens admit to the collector that is called `telemetry.audience`. Shared between threads."""

    def __init__(
        self,
        config: Config,
        bus: Bus,
        standing: Callable[[NetworkConfig], int],
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._audience = config.telemetry.audience
        self._networks = {network.name: network for network in config.networks}
        self._keys = {
            (name, Role(agent.role)): G1(bytes.fromhex(agent.key[2:]))
            for name, agent in config.telemetry.agents.items()
        }
        self._bus = bus
        self._standing = standing
        self._now = now
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._all = Budget(ALL, 1.0, clock())
        self._peers = Recent[str, Budget](PEERS, lambda: Budget(A_PEER, 1.0, clock()))

    def known(self, token: str) -> Sender | None:
        """Who sent it, where that was seen a moment ago; takes no time."""
        with self._lock:
            found = self._known.get(token)
        if found is None or self._clock() - found.looked > FRESH_SECONDS:
            return None
        self._check(found.claims)
        return _sender(found.claims)

    def admit(self, token: str, peer: str) -> Sender:
        """Who sent it, from this network address. Asks the bus, and may verify: not in an event loop, and by
        one thread at a time.

        Raises BadToken, Busy, BusError.
        """
        with self._lock:
            found = self._known.pop(token, None)  # so that whoever is refused pays for the next one
        claims, signature = tokens.read(token)
        self._check(claims)
        if found is None:
            self._pay(peer)
        key = self._key(claims)
        if key is None:
            raise BadToken(f"{claims.role} {claims.sender}: {claims.network} knows no such one, or no more")
        verified = found is not None and found.key == key
        if not verified and not (bls.keys_match(key, G2(claims.key)) and tokens.is_signed(claims, signature)):
            raise BadToken(f"{claims.role} {claims.sender}: its key has not signed this; mint another")
        with self._lock:
            self._known[token] = _Known(claims, key, self._clock())
            while len(self._known) > KNOWN:
                self._known.popitem(last=False)
        return _sender(claims)

    def _check(self, claims: Claims) -> None:
        """What is to be said of claims at no cost. Raises BadToken."""
        network = self._networks.get(claims.network)
        if network is None or network.chain_id != claims.chain_id:
            raise BadToken(f"expected a token for {', '.join(self._networks)}; it is for another network")
        if claims.audience != self._audience:
            raise BadToken(f"expected a token for the audience {self._audience!r}; it is for another one")
        left = claims.expires - self._now()
        if not 0 < left <= tokens.MAX_SECONDS:
            raise BadToken(
                f"expected a token that is valid for {tokens.MAX_SECONDS // 86_400} days at most; "
                + ("it is expired: mint another" if left <= 0 else "it is for longer")
            )

    def _key(self, claims: Claims) -> G1 | None:
        if claims.role is not Role.OPERATOR:
            return self._keys.get((claims.sender, claims.role))
        network = self._networks[claims.network]
        address = Address(bytes.fromhex(claims.sender[2:]))
        return registered.key_of(self._bus, network.name, self._standing(network), address)

    def _pay(self, peer: str) -> None:
        """For a verification. Raises Busy."""
        now = self._clock()
        with self._lock:
            if not (self._peers[peer].take(now) and self._all.take(now)):
                raise Busy("too many tokens are new here")


def _sender(claims: Claims) -> Sender:
    return Sender(claims.sender, claims.role, claims.network)

"""Who sends telemetry: not who it says that it is, but whose token brought it (`indexer/admission.py`).

It travels as headers of each message of telemetry, stands in the store as attributes of the resource, over
whatever that says itself, and in Networks' logs beside each signed response that it brought.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from nektar.telemetry import CHAIN, SENDER, SENDER_NETWORK, SENDER_ROLE

# Of a message, with the parts of a sender; what is empty is left out.
HEADERS = ("sender", "sender-role", "sender-network")
_OPERATORS = "operator/"


class Sender(NamedTuple):
    """Whom a token names. Where it has neither role nor Network it speaks as no one of any: roles of the
    pipeline, and everybody where nobody is asked for a token."""

    name: str  # of an Operator its address, in lower case; of others the name in nektar.yaml
    role: str = ""  # to the Network (`tokens.Role`)
    network: str = ""  # its name in nektar.yaml

    @property
    def headers(self) -> dict[str, bytes]:
        return {name: part.encode() for name, part in zip(HEADERS, self, strict=True) if part}

    @property
    def attributes(self) -> dict[str, str]:
        """All three always, so that nothing of them is ever what a body says."""
        return {SENDER: self.name, SENDER_ROLE: self.role, SENDER_NETWORK: self.network}

    @property
    def brought_by(self) -> str:
        """What names it in the log of its Network: no two of one Network are called alike."""
        return f"{self.role}/{self.name}" if self.role else self.name


UNAUTHENTICATED = Sender("unauthenticated")
# Of roles' own spans.
OWN = Sender("nektar")
# No sender in nektar.yaml may be called so.
RESERVED = (UNAUTHENTICATED.name, OWN.name, CHAIN)


def of(headers: Mapping[str, bytes]) -> Sender:
    """Who sent the message that has these headers. One without any was written by another than our collector,
    which asks nobody for a token."""
    name, role, network = (headers.get(each, b"").decode("utf-8", "replace") for each in HEADERS)
    return Sender(name, role, network) if name else UNAUTHENTICATED


def is_operators(brought_by: str) -> bool:
    """Whether it was an Operator, who brings what it signed itself: there may be many of them."""
    return brought_by.startswith(_OPERATORS)


def operator_of(brought_by: str) -> bytes | None:
    """The Operator's address; None: it was another."""
    return bytes.fromhex(brought_by.removeprefix(f"{_OPERATORS}0x")) if is_operators(brought_by) else None

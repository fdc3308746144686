"""Whose share of the collector a request takes."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from nektar.senders import UNAUTHENTICATED, Sender

# Whoever has an address of version 6 has as many as differ behind so many bits.
NETWORK_BITS = 64


class Client(NamedTuple):
    """A sender; where nobody is asked for a token, everybody at one network address."""

    sender: Sender
    place: str = ""

    @property
    def kind(self) -> str:
        """What it is to whoever counts: one of a few words."""
        return self.sender.role or ("unauthenticated" if self.sender == UNAUTHENTICATED else "named")

    def __str__(self) -> str:
        return f"{self.sender.brought_by} at {self.place}" if self.place else self.sender.brought_by


def client(sender: Sender, peer: str) -> Client:
    """Who sends, from this network address."""
    return Client(sender, place(peer) if sender == UNAUTHENTICATED else "")


def place(peer: str) -> str:
    """Whom a network address is counted as."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return peer[:64]  # a socket's file, or nothing
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((address, NETWORK_BITS), strict=False))
    return str(address)

"""Event and function types from a contract's ABI."""

from __future__ import annotations

import msgspec


class Abi(msgspec.Struct, frozen=True):
    """A contract's events and functions."""

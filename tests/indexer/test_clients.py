"""Whom an address is counted as."""

from __future__ import annotations

import pytest

from indexer.clients import place


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("a name" * 100, ("a name" * 100)[:64]),
    ],
)
def test_who_has_a_network_is_counted_as_one(address: str, counted_as: str) -> None:
    assert place(address) == counted_as

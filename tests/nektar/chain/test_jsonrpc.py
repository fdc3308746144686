from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nektar.chain.jsonrpc import Malformed, items, objects, octets, quantity


@given(st.integers(0, 2**256 - 1))
def test_a_quantity_is_what_hex_writes(number: int) -> None:
    assert quantity({"n": hex(number)}, "n") == number


@given(st.binary(max_size=80))
def test_octets_are_what_hex_writes(value: bytes) -> None:
    assert octets({"d": "0x" + value.hex()}, "d", len(value)) == value


@pytest.mark.parametrize(
    "value", [None, 5, "", "0x", "5", "-0x5", "0x-5", "0x5_0", "0x 5", "0xg", "0x1" + 64 * "0", ["0x1"], True]
)
def test_a_quantity_of_another_shape_is_refused_by_name(value: Any) -> None:
    with pytest.raises(Malformed, match=r"^gas: expected a number"):
        quantity({"gas": value}, "gas")


@pytest.mark.parametrize("value", [None, 5, "", "12", "0x1", "0x1g", "0x12 34", "0x1234567", {}, "0x12"])
def test_octets_of_another_shape_or_length_are_refused_by_name(value: Any) -> None:
    with pytest.raises(Malformed, match=r"^nonce: expected 2 bytes"):
        octets({"nonce": value}, "nonce", 2)


@pytest.mark.parametrize("value", [None, {}, "0x", 1])
def test_what_is_no_array_is_refused(value: Any) -> None:
    with pytest.raises(Malformed, match=r"^logs: expected an array"):
        items({"logs": value}, "logs")


def test_an_array_of_other_things_than_objects_is_refused() -> None:
    with pytest.raises(Malformed, match=r"^logs: expected an object; got '0x'"):
        objects({"logs": [{}, "0x"]}, "logs")


def test_an_error_shows_no_more_than_a_line_of_what_came() -> None:
    with pytest.raises(Malformed) as error:
        octets({"input": "0x" + 10_000 * "zz"}, "input")
    assert len(str(error.value)) < 120

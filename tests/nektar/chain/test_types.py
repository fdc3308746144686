from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from nektar.chain.types import MAX_HEAD, AbiError, column_names, field, parse, parse_parameter

POINT = [{"name": "x", "type": "uint256"}, {"name": "y", "type": "uint256"}]


@pytest.mark.parametrize(
    ("abi", "arrow"),
    [
        ("uint8", pa.uint8()),
        ("uint24", pa.uint32()),
        ("uint40", pa.uint64()),
        ("uint64", pa.uint64()),
        ("uint72", pa.binary(32)),
        ("int8", pa.int8()),
        ("int16", pa.int16()),
        ("int56", pa.int64()),
        ("int256", pa.binary(32)),
        ("address", pa.binary(20)),
        ("bytes4", pa.binary(4)),
        ("bool", pa.bool_()),
        ("bytes", pa.binary()),
        ("string", pa.string()),
        ("function", pa.binary(24)),
    ],
)
def test_the_arrow_type_is_the_one_in_the_design(abi: str, arrow: pa.DataType) -> None:
    assert parse(abi, "").arrow == arrow


def test_every_field_says_its_abi_type_nested_ones_too() -> None:
    found = field("set", parse("tuple[2][]", "", POINT))
    outer = found.type.value_field
    inner = outer.type.value_field
    assert [f.metadata[b"abi"].decode() for f in (found, outer, inner, inner.type.field("y"))] == [
        "(uint256,uint256)[2][]",
        "(uint256,uint256)[2]",
        "(uint256,uint256)",
        "uint256",
    ]
    assert not found.nullable


def test_uint_is_short_for_uint256() -> None:
    assert parse("uint", "").abi == "uint256"
    assert parse("int[]", "").abi == "int256[]"


@pytest.mark.parametrize(
    ("written", "components", "head", "dynamic"),
    [
        ("uint8", (), 32, False),
        ("uint8[3]", (), 96, False),
        ("uint8[3][2]", (), 192, False),
        ("uint8[]", (), 32, True),
        ("string[3]", (), 32, True),
        ("tuple", POINT, 64, False),
        ("tuple[2]", POINT, 128, False),
        ("tuple", [*POINT, {"name": "z", "type": "bytes"}], 32, True),
    ],
)
def test_a_head_is_an_offset_or_the_whole_value(
    written: str, components: list[dict[str, str]], head: int, dynamic: bool
) -> None:
    found = parse(written, "", components)
    assert (found.head, found.dynamic) == (head, dynamic)


@pytest.mark.parametrize(
    "written",
    ["uint7", "uint0", "uint264", "uint８", "bytes33", "bytes0", "fixed128x18", "tuple", "mapping(a=>b)", ""],
)
def test_other_types_are_refused_by_name(written: str) -> None:
    with pytest.raises(AbiError, match=r"^here: expected"):
        parse(written, "here")


@pytest.mark.parametrize("written", ["fixed", "ufixed", "fixed128x18", "ufixed8x1[]"])
def test_fixed_point_numbers_are_refused_as_what_they_are(written: str) -> None:
    with pytest.raises(AbiError, match=r"^here: expected a type that solc compiles; got u?fixed"):
        parse(written, "here")


@pytest.mark.parametrize("suffix", ["[0]", "[-1]", "[", "]", 20 * "[]", f"[{MAX_HEAD}]", "[99999][99999]"])
def test_arrays_of_no_items_or_too_many_or_too_deep_are_refused(suffix: str) -> None:
    with pytest.raises(AbiError, match=r"^here: expected"):
        parse("uint8" + suffix, "here")


@pytest.mark.parametrize("parameter", [None, "uint8", {}, {"type": 8}, {"type": "tuple", "components": 1}])
def test_what_is_no_parameter_is_refused(parameter: Any) -> None:
    with pytest.raises(AbiError, match=r"^here: expected"):
        parse_parameter(parameter, "here")


def test_columns_keep_their_names_until_one_is_taken() -> None:
    parameters = [{"name": "a"}, {}, {"name": "a"}, {"name": ""}, {"name": "network"}, {"name": "a_"}]
    assert column_names(parameters, "arg", {"network"}) == ("a", "arg1", "a_", "arg3", "network_", "a__")

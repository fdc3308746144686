"""Where contracts keep what evidence shows of their storage, as their compiler says."""

from __future__ import annotations

from typing import Any

import pytest
from eth_hash.auto import keccak

from devnet import compile as compiler
from devnet.compile import CONTRACTS, HERE, CompileError
from nektar.networks.encoding import BadEncoding, word
from nektar.networks.shown import VARIABLES, slot_of, value_of


@pytest.fixture(scope="module")
def layouts() -> dict[str, Any]:
    """Contract's name → its storage layout."""
    with pytest.MonkeyPatch.context() as patch:
        wanted = {"outputSelection": {"*": {"*": ["storageLayout"]}}}
        patch.setattr(compiler, "SETTINGS", compiler.SETTINGS | wanted)
        try:
            found = compiler.solc(HERE / "contracts")
        except CompileError as error:
            pytest.skip(f"needs solc: {error}")
    return {name: found[contract]["storageLayout"] for name, contract in CONTRACTS.items()}


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_stands_where_the_compiler_puts_it(name: str, layouts: dict[str, Any]) -> None:
    known = VARIABLES[name]
    layout = layouts[known.contract]
    label, *members = name.split(".")
    (variable,) = (each for each in layout["storage"] if each["label"] == label)
    type_, mappings = layout["types"][variable["type"]], 0
    while type_["encoding"] == "mapping":
        type_, mappings = layout["types"][type_["value"]], mappings + 1
    further, offset = 0, variable["offset"]
    for member in members:
        (part,) = (each for each in type_["members"] if each["label"] == member)
        type_, further, offset = layout["types"][part["type"]], further + int(part["slot"]), part["offset"]
    assert (int(variable["slot"]), mappings, further) == (known.slot, known.mappings, known.further)
    assert (offset, int(type_["numberOfBytes"])) == (0, known.size)


def test_a_slot_is_below_its_keys() -> None:
    key = bytes(range(32))
    assert slot_of("operator_registry", "setHash", ()) == word(2)
    first = int.from_bytes(keccak(key + word(5)))
    assert slot_of("operator_registry", "_keys.registration", (key,)) == word(first + 4)


def test_what_is_no_variable_or_has_other_keys_is_refused() -> None:
    for contract, name, keys in (
        ("operator_registry", "minimum", ()),
        ("delegation", "setHash", ()),
        ("operator_registry", "setHash", (bytes(32),)),
        ("delegation", "isUnderbonded", (bytes(20),)),
        ("delegation", "isUnderbonded", ()),
    ):
        with pytest.raises(BadEncoding):
            slot_of(contract, name, keys)


def test_a_value_is_the_lowest_bytes_of_its_word() -> None:
    assert value_of("isUnderbonded", 0xFF01) == 1
    assert value_of("_ends", (7 << 64) + 9) == 9
    assert value_of("setHash", 1 << 255) == 1 << 255

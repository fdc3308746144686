"""The ABIs and the bytecode that the package keeps are those of the sources beside them."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from devnet.compile import ABI_FILE, ARTIFACTS_FILE, CONTRACTS, HERE, CompileError, compile_contracts

pytestmark = pytest.mark.real

# EIP-170: a chain takes no contract whose code is longer.
CODE_LIMIT = 24_576


@pytest.fixture(scope="module")
def compiled():
    if shutil.which("node") is None or not (HERE.parent / "node_modules" / "solc").exists():
        pytest.skip("needs solc: Node and `npm install --no-save`")
    return compile_contracts()


def test_abis_and_bytecode_match_the_sources(compiled):
    stale = "run `make contracts`: the sources have changed since"
    assert compiled.abi == ABI_FILE.read_text(), stale
    assert compiled.artifacts == ARTIFACTS_FILE.read_text(), stale


def test_every_contract_fits_a_chain():
    for name, kept in json.loads(ARTIFACTS_FILE.read_text()).items():
        assert len(kept["bytecode"]) // 2 < CODE_LIMIT, name


def test_all_that_is_public_is_documented():
    declaration = re.compile(r"^    (?:event|error|function) \w+\(.*?[;{]", re.MULTILINE | re.DOTALL)
    for contract in CONTRACTS.values():
        source = (HERE / "contracts" / f"{contract}.sol").read_text()
        for match in declaration.finditer(source):
            if not re.search(r"\b(private|internal)\b", match.group()):
                before = source[: match.start()].rstrip("\n").rsplit("\n", 1)[-1]
                assert before.startswith("    ///"), f"{contract}: {match.group()}"


def test_a_source_that_does_not_compile_is_one_clear_error(tmp_path, compiled):
    (tmp_path / "Broken.sol").write_text("pragma solidity ^0.8.28; contract Broken { uint256 x = y; }")
    with pytest.raises(CompileError, match="Undeclared identifier"):
        compile_contracts(tmp_path)

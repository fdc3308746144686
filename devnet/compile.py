"""`python -m devnet.compile`: from `devnet/contracts` to the ABIs and the bytecode that the package keeps.

The compiler is npm's `solc` with pinned settings and without metadata in the bytecode, so that the same
sources give the same files anywhere; a test compiles again and compares.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from nektar.errors import NektarError

HERE = Path(__file__).parent
ABI_FILE = HERE.parent / "nektar" / "networks" / "nektar.abi.json"
ARTIFACTS_FILE = HERE / "artifacts.json"

# Name in nektar.yaml → contract.
CONTRACTS = {
    "network_registry": "NetworkRegistry",
    "operator_registry": "OperatorRegistry",
    "delegation": "Delegation",
    "task_manager": "TaskManager",
    "slashing_manager": "SlashingManager",
    "veto_committee": "VetoCommittee",
    "trusted_slasher": "TrustedSlasher",
    "burner": "Burner",
    "collateral_token": "CollateralToken",
}

SETTINGS = {
    "optimizer": {"enabled": True, "runs": 1000},
    "evmVersion": "cancun",
    "metadata": {"appendCBOR": False, "bytecodeHash": "none"},
    "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object"]}},
}


class CompileError(NektarError):
    """The contracts do not compile, or the compiler is not there."""


class Compiled(NamedTuple):
    """The text of `ABI_FILE` and of `ARTIFACTS_FILE`."""

    abi: str
    artifacts: str


def compile_contracts(sources: Path = HERE / "contracts") -> Compiled:
    """Compile the reference contracts. Raises CompileError with the compiler's first message."""
    found = solc(sources)
    compiled = {name: found[contract] for name, contract in CONTRACTS.items()}
    return Compiled(
        abi=_lines({name: each["abi"] for name, each in compiled.items()}),
        artifacts=json.dumps(
            {name: {"bytecode": "0x" + each["evm"]["bytecode"]["object"]} for name, each in compiled.items()},
            indent=1,
        )
        + "\n",
    )


def solc(sources: Path) -> dict[str, Any]:
    """Every contract in `sources` that has its file's name → what solc says of it. Raises CompileError."""
    files = {path.name: {"content": path.read_text()} for path in sorted(sources.glob("*.sol"))}
    request = {"language": "Solidity", "sources": files, "settings": SETTINGS}
    try:
        done = subprocess.run(
            ["node", str(HERE / "compile.cjs")],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError as error:
        raise CompileError("expected `node` on the PATH: install Node 20 or newer") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise CompileError(f"solc did not start ({last}): run `npm install --no-save`") from error
    result = json.loads(done.stdout)
    problems = sorted(result.get("errors", ()), key=lambda problem: problem["severity"] != "error")
    for problem in problems:
        # Warnings too, in our own sources: a reference has none.
        if problem["severity"] == "error" or problem.get("sourceLocation", {}).get("file") in files:
            raise CompileError(f"the contracts do not compile cleanly: {problem['formattedMessage'].strip()}")
    named = {name: Path(name).stem for name in files}
    return {
        contract: result["contracts"][name][contract]
        for name, contract in named.items()
        if contract in result["contracts"].get(name, {})
    }


def _lines(abis: dict[str, list[dict[str, Any]]]) -> str:
    """JSON with one ABI entry a line, so that a change reads as one."""
    contracts = []
    for name, entries in abis.items():
        body = ",\n".join("  " + json.dumps(entry, separators=(",", ":")) for entry in entries)
        contracts.append(f"{json.dumps(name)}: [\n{body}\n]")
    return "{" + ",\n".join(contracts) + "}\n"


def main() -> int:
    try:
        compiled = compile_contracts()
    except CompileError as error:
        sys.stderr.write(f"nektar: {error}\n")
        return 1
    ABI_FILE.write_text(compiled.abi)
    ARTIFACTS_FILE.write_text(compiled.artifacts)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The devnet's chain: it starts, obeys, reorganises into other blocks, and goes with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devnet.anvil import BLOCK_SECONDS, GENESIS_TIME, anvil, find_anvil
from devnet.chain import Account, Chain, Contract, DevnetError, Reverted

SOMEBODY = "0x" + "22" * 20
ALICE = Account(b"\x01" * 32)

ABI = [
    {"type": "constructor", "inputs": [{"name": "n", "type": "uint256"}]},
    {
        "type": "function",
        "name": "put",
        "inputs": [
            {
                "name": "pair",
                "type": "tuple",
                "components": [{"name": "a", "type": "uint8"}, {"type": "address"}],
            },
            {"name": "many", "type": "tuple[]", "components": [{"name": "b", "type": "bytes32"}]},
        ],
        "outputs": [{"type": "bool"}],
    },
    {"type": "error", "name": "Late", "inputs": [{"name": "block", "type": "uint64"}]},
]


@pytest.fixture(scope="module")
def chain():
    try:
        find_anvil()
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")
    with anvil(chain_id=31998, slots=2) as running:
        running.rpc("anvil_setBalance", ALICE.address, hex(10**24))
        running.mine()
        yield running


def values(chain, number):
    block = chain.rpc("eth_getBlockByNumber", hex(number), True)
    return [int(transaction["value"], 16) for transaction in block["transactions"]]


@pytest.mark.real
def test_a_block_is_mined_when_it_is_asked_for_and_time_is_the_chain_s_own(chain):
    number, _ = chain.head()
    sent = chain.send(ALICE, SOMEBODY, value=7)
    with pytest.raises(DevnetError, match="is not mined"):
        chain.receipt(sent)
    assert chain.head()[0] == number
    assert chain.mine(3)[0] == number + 3
    assert values(chain, number + 1) == [7]
    assert chain.receipt(sent)["status"] == "0x1"
    for n in (1, number + 2):
        block = chain.rpc("eth_getBlockByNumber", hex(n), False)
        assert int(block["timestamp"], 16) == GENESIS_TIME + n * BLOCK_SECONDS


@pytest.mark.real
def test_safe_and_finalized_follow_the_head(chain):
    head, _ = chain.mine(5)
    numbers = [chain.rpc("eth_getBlockByNumber", tag, False)["number"] for tag in ("safe", "finalized")]
    assert [int(number, 16) for number in numbers] == [head - 2, head - 4]


@pytest.mark.real
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_reorg_replaces_every_block_also_empty_by_empty(chain, depth):
    # The base fee of empty blocks falls to nothing, and then nothing else would tell them apart.
    height, _ = chain.mine(200)
    seen = {}
    for _ in range(4):
        for number in range(height - depth + 1, height + 1):
            block_hash = chain.rpc("eth_getBlockByNumber", hex(number), False)["hash"]
            assert block_hash not in seen.setdefault(number, set())
            seen[number].add(block_hash)
        assert chain.reorg(depth)[0] == height


@pytest.mark.real
def test_a_reorg_drops_transactions_and_puts_others_in_their_place(chain):
    start, _ = chain.mine()
    nonce = int(chain.rpc("eth_getTransactionCount", ALICE.address, "latest"), 16)
    chain.send(ALICE, SOMEBODY, value=1)
    chain.mine()
    chain.send(ALICE, SOMEBODY, value=2)
    chain.mine()
    others = [ALICE.sign(chain.chain_id, nonce + i, SOMEBODY, value=10 + i) for i in range(2)]
    assert chain.reorg(2, [(others[0], 1), (others[1], 1)])[0] == start + 2
    assert [values(chain, start + 1), values(chain, start + 2)] == [[], [10, 11]]
    chain.reorg(2)
    assert int(chain.rpc("eth_getTransactionCount", ALICE.address, "pending"), 16) == nonce


@pytest.mark.real
def test_a_run_gives_the_same_blocks_again():
    def play() -> str:
        with anvil(chain_id=31997, slots=2) as running:
            running.rpc("anvil_setBalance", ALICE.address, hex(10**24))
            running.send(ALICE, SOMEBODY, value=1)
            running.mine(3)
            running.reorg(1)
            return running.mine()[1]

    assert play() == play()


@pytest.mark.real
def test_a_refusal_says_why(chain):
    # PUSH4 selector of Late(uint64), the word 12 after it, REVERT
    late = Contract(ABI)
    selector = next(iter(late._errors))
    code = bytes.fromhex("63" + selector.hex() + "60e01b600052600c60045260246000fd")
    chain.rpc("anvil_setCode", SOMEBODY[:-1] + "3", "0x" + code.hex())
    with pytest.raises(Reverted) as reverted:
        chain.call(SOMEBODY[:-1] + "3", b"")
    assert late.error(reverted.value.data) == "Late(12)"
    assert late.error(b"\x01\x02") == "0x0102"


def ends_within(chain, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            chain.rpc("eth_blockNumber")
        except DevnetError:
            return True
    return False


@pytest.mark.real
def test_anvil_ends_when_its_parent_is_killed(chain):
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux ends a child with its parent")
    program = (
        "import sys; from devnet.anvil import anvil\n"
        "with anvil(chain_id=1, slots=2) as chain: print(chain.url, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        orphan = Chain(parent.stdout.readline().strip())
        assert orphan.chain_id == 1
        os.kill(parent.pid, signal.SIGKILL)
        assert ends_within(orphan, seconds=10)


def test_a_missing_anvil_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setenv("NEKTAR_ANVIL", str(tmp_path / "none"))
    with pytest.raises(DevnetError, match="NEKTAR_ANVIL: expected an anvil that can be run"):
        find_anvil()
    monkeypatch.delenv("NEKTAR_ANVIL")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("devnet.anvil.__file__", str(tmp_path / "devnet" / "anvil.py"))
    with pytest.raises(DevnetError, match="Node 20 or newer"):
        find_anvil()


def test_nobody_listening_is_one_clear_line():
    with pytest.raises(DevnetError, match="no answer to eth_chainId"):
        Chain("http://127.0.0.1:9").rpc("eth_chainId")
    with pytest.raises(DevnetError, match="expected http://host:port"):
        Chain("https://example.org")


@given(
    key=st.integers(1, 2**255),
    chain_id=st.integers(1, 2**40),
    nonce=st.integers(0, 2**32),
    value=st.integers(0, 2**128),
    data=st.binary(max_size=300),
    creates=st.booleans(),
)
def test_transactions_are_signed_as_eth_account_signs_them(key, chain_id, nonce, value, data, creates):
    import eth_account

    from devnet.chain import GAS_LIMIT, GAS_PRICE

    secret = key.to_bytes(32, "big")
    account, oracle = Account(secret), eth_account.Account.from_key(secret)
    assert account.address == oracle.address.lower()
    to = None if creates else SOMEBODY
    signed = oracle.sign_transaction(
        {
            "nonce": nonce,
            "gasPrice": GAS_PRICE,
            "gas": GAS_LIMIT,
            "to": b"" if to is None else to,
            "value": value,
            "data": data,
            "chainId": chain_id,
        }
    )
    assert account.sign(chain_id, nonce, to, data, value) == bytes(signed.raw_transaction)


@pytest.mark.parametrize("key", ["", "0x12", "zz" * 32, "00" * 32, "ff" * 32])
def test_a_bad_private_key_is_one_clear_line(key):
    with pytest.raises(DevnetError, match="private key: expected 32 bytes"):
        Account.from_key(key)


def test_calls_are_encoded_by_the_abi():
    contract = Contract(ABI)
    data = contract.encode("put", (3, SOMEBODY), [(b"\x01" * 32,), (b"\x02" * 32,)])
    from eth_utils.crypto import keccak

    assert data[:4] == keccak(b"put((uint8,address),(bytes32)[])")[:4]
    assert len(data) == 4 + 32 * 6
    assert contract.constructor(5) == (5).to_bytes(32, "big")
    assert contract.result("put", (1).to_bytes(32, "big")) is True


def test_a_call_that_does_not_fit_is_one_clear_line():
    contract = Contract(ABI)
    with pytest.raises(DevnetError, match="has no function take"):
        contract.encode("take")
    with pytest.raises(
        DevnetError, match=r"put: expected 2 arguments \(\(uint8,address\), \(bytes32\)\[\]\); got 1"
    ):
        contract.encode("put", 1)
    with pytest.raises(DevnetError, match="put"):
        contract.encode("put", (256, SOMEBODY), [])


def test_what_a_chain_keeps_on_the_disk_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with anvil(chain_id=31_337, slots=2) as chain:
        for _ in range(600):  # more than it keeps in memory
            chain.rpc("evm_mine")
        assert any(tmp_path.rglob("*.json"))
    assert not any(tmp_path.rglob("*.json"))

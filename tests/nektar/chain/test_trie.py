from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from eth_hash.auto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from devnet.anvil import anvil, find_anvil
from devnet.chain import DevnetError
from nektar.chain import rlp
from nektar.chain.header import encode_header, read_header
from nektar.chain.receipt import read_receipt
from nektar.chain.transaction import encode_transaction
from nektar.chain.trie import EMPTY_ROOT, BadProof, ordered_proof, ordered_root, value_at
from nektar.model import Hash32
from tests.nektar.chain.blocks import corpora
from tests.nektar.chain.tries import Reference


def slow_root(items: list[bytes]) -> bytes:
    return Reference({rlp.number(i): item for i, item in enumerate(items)}).root


def test_the_root_of_nothing_is_the_one_in_every_empty_block() -> None:
    assert EMPTY_ROOT.hex() == "56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"
    assert ordered_root([]) == EMPTY_ROOT


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=300))
def test_it_is_the_yellow_papers_root(items: list[bytes]) -> None:
    assert ordered_root(items) == slow_root(items)


def test_lengths_at_which_keys_grow_longer() -> None:
    for count in (1, 2, 16, 17, 127, 128, 129, 255, 256, 257):
        items = [bytes((i % 255 + 1,)) * 50 for i in range(count)]
        assert ordered_root(items) == slow_root(items), count


# --- proofs -------------------------------------------------------------------------------------------


def is_refused(root: bytes, key: bytes, nodes: Sequence[bytes]) -> bool:
    try:
        value_at(Hash32(root), key, nodes)
    except BadProof:
        return True
    return False


def altered(nodes: Sequence[bytes], rng: random.Random) -> Iterator[list[bytes]]:
    """Every node missing, twice, swapped with the next, with a byte more, less or changed; and one more."""
    for i, node in enumerate(nodes):
        before, after = list(nodes[:i]), list(nodes[i + 1 :])
        at = rng.randrange(len(node))
        other = node[:at] + bytes((node[at] ^ rng.randint(1, 255),)) + node[at + 1 :]
        yield before + after
        yield [*before, node, node, *after]
        for changed in (node + b"\0", node[:-1], b"", other):
            yield [*before, changed, *after]
        if after:
            yield [*before, after[0], node, *after[1:]]
    yield [*nodes, b"\x80"]
    yield [b"\x80", *nodes]


def test_every_real_receipt_and_transaction_is_proved_in_its_block_and_in_its_place_alone() -> None:
    rng = random.Random(1)
    for block in corpora():
        receipts = [read_receipt(receipt).raw for receipt in block.receipts]
        transactions = [encode_transaction(tx) for tx in block.block["transactions"]]
        for items, root in ((receipts, "receiptsRoot"), (transactions, "transactionsRoot")):
            top = Hash32(bytes.fromhex(block.block[root][2:]))
            for i in rng.sample(range(len(items)), min(len(items), 3)):
                proof = ordered_proof(items, i)
                assert value_at(top, rlp.number(i), proof) == items[i]
                assert all(is_refused(top, rlp.number(i), nodes) for nodes in altered(proof, rng))


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=300), st.data())
@settings(max_examples=50)
def test_ordered_proofs_are_the_yellow_papers(items: list[bytes], data: st.DataObject) -> None:
    trie = Reference({rlp.number(i): item for i, item in enumerate(items)})
    index = data.draw(st.integers(0, len(items) - 1))
    assert ordered_proof(items, index) == trie.proof(rlp.number(index))
    # No proof of a place says anything else of another one.
    other = data.draw(st.integers(0, len(items) + 20))
    if not is_refused(trie.root, rlp.number(other), ordered_proof(items, index)):
        found = value_at(Hash32(trie.root), rlp.number(other), ordered_proof(items, index))
        assert found == (items[other] if other < len(items) else None)


# Few distinct nibbles, so that tries are deep, and keys share much; short values, so that nodes are inline.
KEYS = st.binary(min_size=4, max_size=4) | st.lists(
    st.sampled_from(b"\x00\x01\x10\x11"), min_size=4, max_size=4
).map(bytes)


@given(
    st.dictionaries(KEYS, st.binary(min_size=1, max_size=40) | st.just(b"\1"), max_size=40),
    KEYS,
    st.randoms(),
)
@settings(max_examples=100)
def test_what_a_trie_holds_and_what_it_lacks_is_proved_and_nothing_else(
    pairs: dict[bytes, bytes], absent: bytes, rng: random.Random
) -> None:
    trie = Reference(pairs)
    for key in [*list(pairs)[:5], absent]:
        proof = trie.proof(key)
        assert value_at(Hash32(trie.root), key, proof) == pairs.get(key)
        assert all(is_refused(trie.root, key, nodes) for nodes in altered(proof, rng))


def test_nothing_is_in_an_empty_trie_and_that_takes_no_nodes() -> None:
    assert value_at(EMPTY_ROOT, b"any", ()) is None
    assert is_refused(EMPTY_ROOT, b"any", (b"\x80",))
    assert is_refused(bytes(32), b"any", ())


JUNK = st.recursive(st.binary(max_size=40), lambda inner: st.lists(inner, max_size=4), max_leaves=10)


@given(
    JUNK | st.lists(JUNK, min_size=17, max_size=17) | st.tuples(st.binary(max_size=5), JUNK).map(list),
    st.binary(max_size=4),
)
@settings(max_examples=100)
def test_a_root_of_anything_raises_nothing_but_bad_proof(node: Any, key: bytes) -> None:
    encoded = rlp.encode(node)
    is_refused(keccak(encoded), key, (encoded,))
    is_refused(keccak(encoded), key, (encoded, encoded))
    above = rlp.encode([b"\x00", keccak(encoded)])
    is_refused(keccak(above), key, (above, encoded))


@given(st.binary(max_size=32), st.binary(max_size=32), st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes_raise_nothing_but_bad_proof(root: bytes, key: bytes, nodes: list[bytes]) -> None:
    is_refused(root, key, nodes)
    is_refused(keccak(nodes[0]) if nodes else EMPTY_ROOT, key, nodes)


def test_a_node_that_hides_lists_is_not_read() -> None:
    """A forger's branch of its own root could else cost seconds, and thousands of them minutes."""
    hidden = rlp.encode([*([b""] * 15), [[]] * 1000, b"value"])
    with pytest.raises(BadProof, match="nested deeper"):
        value_at(Hash32(keccak(hidden)), b"", (hidden,))


@pytest.mark.real
def test_it_reads_the_account_proofs_of_a_real_node() -> None:
    """Accounts and slots that are there and that are not; an account whose storage is empty, too."""
    try:
        find_anvil()
    except DevnetError as error:
        pytest.skip(f"needs anvil: {error}")
    with anvil(chain_id=31_998, slots=8) as chain:
        rng = random.Random(2)
        for i in range(1, 40):
            chain.rpc("anvil_setBalance", f"0x{i:040x}", hex(i))
        full, empty = "0x" + "aa" * 20, "0x" + "01" * 20
        chain.rpc("anvil_setCode", full, "0x6001")
        for i in range(1, 30):
            chain.rpc("anvil_setStorageAt", full, f"0x{i:064x}", f"0x{i * 10 ** (i % 20):064x}")
        number, _ = chain.mine()
        header = read_header(encode_header(chain.rpc("eth_getBlockByNumber", hex(number), False)))
        for address in (full, empty, "0x" + "bb" * 20, f"0x{7:040x}"):
            slots = [f"0x{i:064x}" for i in (1, 7, 29, 30, 2**200)]
            said = chain.rpc("eth_getProof", address, slots, hex(number))
            nodes = [bytes.fromhex(node[2:]) for node in said["accountProof"]]
            key = keccak(bytes.fromhex(address[2:]))
            held = value_at(header.state_root, key, nodes)
            assert (held is None) is (address in (empty, "0x" + "bb" * 20))
            assert all(is_refused(header.state_root, key, other) for other in altered(nodes, rng))
            if held is None:
                continue
            account = rlp.decode(held)
            assert account[1] == rlp.decode(rlp.number(int(said["balance"], 16)))
            assert [account[2], account[3]] == [
                bytes.fromhex(said[n][2:]) for n in ("storageHash", "codeHash")
            ]
            for slot, storage in zip(slots, said["storageProof"], strict=True):
                nodes = [bytes.fromhex(node[2:]) for node in storage["proof"]]
                nodes = [] if nodes == [b"\x80"] else nodes
                value = value_at(Hash32(account[2]), keccak(bytes.fromhex(slot[2:])), nodes)
                word = rlp.decode(value) if value else b""
                assert int.from_bytes(word) == int(storage["value"], 16)
                if nodes:
                    assert all(
                        is_refused(account[2], keccak(bytes.fromhex(slot[2:])), other)
                        for other in altered(nodes, rng)
                    )

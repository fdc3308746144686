from __future__ import annotations

from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from nektar.chain import rlp
from nektar.chain.trie import EMPTY_ROOT, ordered_root


def slow_root(items: list[bytes]) -> bytes:
    """The trie of the yellow paper, appendix D, node by node over a dictionary of nibbles."""
    pairs = {rlp.number(i).hex(): item for i, item in enumerate(items)}

    def compact(nibbles: str, flag: int) -> bytes:
        odd = len(nibbles) % 2
        return bytes.fromhex(f"{flag + odd:x}" + ("" if odd else "0") + nibbles)

    def node(at: str) -> rlp.Item:
        under = {key: value for key, value in pairs.items() if key.startswith(at)}
        if not under:
            return b""
        if len(under) == 1:
            [(key, value)] = under.items()
            return [compact(key[len(at) :], 2), value]
        shared = at
        while len({key[: len(shared) + 1] for key in under}) == 1:
            shared = next(iter(under))[: len(shared) + 1]
        if shared != at:
            return [compact(shared[len(at) :], 0), reference(shared)]
        return [*(reference(at + digit) for digit in "0123456789abcdef"), b""]

    def reference(at: str) -> rlp.Item:
        found = node(at)
        encoded = rlp.encode(found)
        return found if len(encoded) < 32 or not found else keccak(encoded)

    return keccak(rlp.encode(node("")))


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

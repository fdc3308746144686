"""The root of a Merkle-Patricia trie over a list (yellow paper, appendix D): what `transactionsRoot`,
`receiptsRoot` and `withdrawalsRoot` are.

The keys are the RLP of each item's index. All keys are known at once, so the trie is never built: nodes are
hashed from the leaves up over the sorted keys: each once, where inserting one by one hashes many twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from nektar.chain import rlp
from nektar.chain.keccak import keccak
from nektar.model import Hash32

EMPTY_ROOT = Hash32(keccak(rlp.string(b"")))
_NOTHING = rlp.string(b"")

# Nibbles of a key, and the value that it leads to.
_Pair = tuple[bytes, bytes]


def ordered_root(items: Sequence[bytes]) -> Hash32:
    """The root over `items`, each the bytes that the trie holds for its place in the list."""
    if not items:
        return EMPTY_ROOT
    pairs = sorted((_nibbles(rlp.number(i)), item) for i, item in enumerate(items))
    return Hash32(keccak(_node(pairs, 0)))


def _node(pairs: Sequence[_Pair], depth: int) -> bytes:
    """The RLP of the node that holds `pairs`, which are sorted and agree in their first `depth` nibbles."""
    first, last = pairs[0][0], pairs[-1][0]
    if len(pairs) == 1:
        return rlp.sequence((rlp.string(_packed(first[depth:], leaf=True)), rlp.string(pairs[0][1])))
    # Sorted: what the first and the last key share, all share. No key is another's prefix, as RLP has none.
    shared = depth
    while first[shared] == last[shared]:
        shared += 1
    if shared > depth:
        branch = _reference(_node(pairs, shared))
        return rlp.sequence((rlp.string(_packed(first[depth:shared], leaf=False)), branch))
    children = [_NOTHING] * 17
    start = 0
    for end in range(1, len(pairs) + 1):
        nibble = pairs[start][0][depth]
        if end == len(pairs) or pairs[end][0][depth] != nibble:
            children[nibble] = _reference(_node(pairs[start:end], depth + 1))
            start = end
    return rlp.sequence(children)


def _reference(node: bytes) -> bytes:
    """How a parent holds a node: by its hash, or whole where it is shorter than one."""
    return node if len(node) < 32 else rlp.string(keccak(node))


def _nibbles(key: bytes) -> bytes:
    return bytes(nibble for byte in key for nibble in (byte >> 4, byte & 0x0F))


def _packed(nibbles: bytes, *, leaf: bool) -> bytes:
    """Hex-prefix encoding (appendix C): a flag nibble says leaf or extension, and odd or even."""
    flag = 2 * leaf + len(nibbles) % 2
    padded = bytes((flag,) if len(nibbles) % 2 else (flag, 0)) + nibbles
    return bytes(high << 4 | low for high, low in zip(padded[::2], padded[1::2], strict=True))

"""The root of a Merkle-Patricia trie over a list (yellow paper, appendix D): what `transactionsRoot`,
`receiptsRoot` and `withdrawalsRoot` are.

The keys are the RLP of each item's index. All are known at once, so the trie is never built: nodes are hashed
from the leaves up, each once, where inserting one by one hashes many twice. And its shape depends on nothing
but how many items there are, so that of a block's transactions is also that of its receipts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from nektar.chain import rlp
from nektar.chain.keccak import keccak
from nektar.model import Hash32

EMPTY_ROOT = Hash32(keccak(rlp.string(b"")))
_NOTHING = rlp.string(b"")
# Shapes that are kept, of some hundred bytes for each item.
_SHAPES = 64

# Nibbles of a key, and the item that it leads to.
_Pair = tuple[bytes, int]


class _Leaf(NamedTuple):
    path: bytes  # the RLP of what is left of the key
    item: int


class _Extension(NamedTuple):
    path: bytes
    below: _Branch


class _Branch(NamedTuple):
    children: tuple[_Shape | None, ...]  # sixteen


_Shape: TypeAlias = "_Leaf | _Extension | _Branch"


def ordered_root(items: Sequence[bytes]) -> Hash32:
    """The root over `items`, each the bytes that the trie holds for its place in the list."""
    return Hash32(keccak(_node(_shape(len(items)), items))) if items else EMPTY_ROOT


def _node(shape: _Shape, items: Sequence[bytes]) -> bytes:
    """The RLP of a node."""
    if isinstance(shape, _Leaf):
        return rlp.sequence((shape.path, rlp.string(items[shape.item])))
    if isinstance(shape, _Extension):
        return rlp.sequence((shape.path, _reference(_node(shape.below, items))))
    held = [_NOTHING if child is None else _reference(_node(child, items)) for child in shape.children]
    return rlp.sequence((*held, _NOTHING))


@lru_cache(_SHAPES)
def _shape(count: int) -> _Shape:
    """The trie of so many items."""
    return _over(sorted((_nibbles(rlp.number(i)), i) for i in range(count)), 0)


def _over(pairs: Sequence[_Pair], depth: int) -> _Shape:
    """The node that holds `pairs`, which are sorted and agree in their first `depth` nibbles."""
    first, last = pairs[0][0], pairs[-1][0]
    if len(pairs) == 1:
        return _Leaf(rlp.string(_packed(first[depth:], leaf=True)), pairs[0][1])
    # Sorted: what the first and the last key share, all share. No key is another's prefix, as RLP has none.
    shared = depth
    while first[shared] == last[shared]:
        shared += 1
    children: list[_Shape | None] = [None] * 16
    start = 0
    for end in range(1, len(pairs) + 1):
        nibble = pairs[start][0][shared]
        if end == len(pairs) or pairs[end][0][shared] != nibble:
            children[nibble] = _over(pairs[start:end], shared + 1)
            start = end
    branch = _Branch(tuple(children))
    return (
        branch
        if shared == depth
        else _Extension(rlp.string(_packed(first[depth:shared], leaf=False)), branch)
    )


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

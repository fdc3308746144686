"""The root of a Merkle-Patricia trie over a list (yellow paper, appendix D): what `transactionsRoot`,
`receiptsRoot` and `withdrawalsRoot` are; and proofs of what any such trie holds, an account's storage too.

The keys are the RLP of each item's index. All are known at once, so the trie is never built: nodes are hashed
from the leaves up, each once, where inserting one by one hashes many twice. And its shape depends on nothing
but how many items there are, so that of a block's transactions is also that of its receipts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from nektar.chain import rlp
from nektar.chain.keccak import keccak
from nektar.errors import NektarError
from nektar.model import Hash32

EMPTY_ROOT = Hash32(keccak(rlp.string(b"")))
_NOTHING = rlp.string(b"")
# Shapes that are kept, of some hundred bytes for each item.
_SHAPES = 64

# Keys are 32 bytes at most, so that no honest proof is longer than their nibbles.
_MAX_NODES = 65
# Sixteen hashes, no value, and the list's head: no node is longer that holds another, since a longer one is a
# leaf, of two strings. So nobody can hide lists in one that take long to read.
_MAX_BRANCH = 16 * 33 + 1 + 3


class BadProof(NektarError):
    """Nodes that are not the way from a root to a key."""


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


def ordered_proof(items: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The nodes from the root over `items` to the one at `index`, as `value_at` reads them under the key
    `rlp.number(index)`."""
    shape, depth, key = _shape(len(items)), 0, _nibbles(rlp.number(index))
    nodes: list[bytes] = []
    below: _Shape | None = shape
    while below is not None:
        encoded = _node(below, items)
        if not nodes or len(encoded) >= 32:
            nodes.append(encoded)
        if isinstance(below, _Leaf):
            break
        if isinstance(below, _Extension):
            path = _path(below.path)
            depth, below = depth + len(path), below.below
        else:
            depth, below = depth + 1, below.children[key[depth]]
    return tuple(nodes)


def value_at(root: Hash32, key: bytes, nodes: Sequence[bytes]) -> bytes | None:
    """What the trie of this root holds under `key`; None where `nodes` show that it holds nothing there.

    `nodes` are those from the root on, as `eth_getProof` (EIP-1186) gives them: none too few, too many or out
    of turn, and none in an encoding of its own. Raises BadProof.
    """
    if root == EMPTY_ROOT and not nodes:
        return None
    if not 0 < len(nodes) <= _MAX_NODES:
        raise BadProof(f"expected 1 to {_MAX_NODES} nodes of a trie; got {len(nodes)}")
    rest, turn = _nibbles(key), iter(nodes)
    item: rlp.Item = _next(turn, root)
    while True:
        if isinstance(item, bytes) or len(item) not in (2, 17):
            raise BadProof("expected a node of a trie, which is a list of 2 or of 17 items")
        if len(item) == 17:
            ends = not rest
            found, rest = item[16 if ends else rest[0]], rest[1:]
        else:
            path, leaf = _unpacked(item[0])
            if rest[: len(path)] != path or (leaf and len(path) != len(rest)):
                return _end(turn, None)
            found, rest, ends = item[1], rest[len(path) :], leaf
        if ends or found == b"":
            if not isinstance(found, bytes):
                raise BadProof("expected a value at a key's end; got a list")
            return _end(turn, found or None)
        item = _next(turn, found) if isinstance(found, bytes) else found


def _next(turn: Iterator[bytes], hashed: bytes) -> rlp.Item:
    node = next(turn, None)
    if node is None or keccak(node) != hashed:
        raise BadProof(f"expected the node 0x{hashed.hex()}; got {'none' if node is None else 'another'}")
    try:
        return rlp.decode(node, depth=1 if len(node) > _MAX_BRANCH else rlp.MAX_DEPTH)
    except rlp.BadRlp as error:
        raise BadProof(f"node 0x{hashed.hex()}: {error}") from error


def _end(turn: Iterator[bytes], value: bytes | None) -> bytes | None:
    if next(turn, None) is not None:
        raise BadProof("expected a proof that ends at its key; got nodes beyond it")
    return value


def _unpacked(path: rlp.Item) -> tuple[bytes, bool]:
    """(nibbles, whether of a leaf) of a hex-prefix encoding. Raises BadProof."""
    nibbles = _nibbles(path) if isinstance(path, bytes) else b""
    if not nibbles or nibbles[0] > 3 or (not nibbles[0] & 1 and nibbles[1]):
        raise BadProof("expected a path in hex-prefix encoding (yellow paper, appendix C)")
    return nibbles[1 if nibbles[0] & 1 else 2 :], nibbles[0] > 1


def _path(encoded: bytes) -> bytes:
    packed = rlp.decode(encoded)
    return _unpacked(packed)[0]


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

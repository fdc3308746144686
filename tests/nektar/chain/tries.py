"""The trie of the yellow paper, appendix D, node by node over a dictionary of nibbles: slow and plain."""

from __future__ import annotations

from collections.abc import Mapping

from eth_hash.auto import keccak

from nektar.chain import rlp


class Reference:
    """A trie over these pairs."""

    def __init__(self, pairs: Mapping[bytes, bytes]) -> None:
        self._pairs = {key.hex(): value for key, value in pairs.items()}

    @property
    def root(self) -> bytes:
        return keccak(rlp.encode(self._node("")))

    def proof(self, key: bytes) -> tuple[bytes, ...]:
        """The nodes on the way to a key, or to where it would be; none in a trie without nodes."""
        nibbles, at, found = key.hex(), "", []
        while node := self._node(at):
            encoded = rlp.encode(node)
            if not at or len(encoded) >= 32:
                found.append(encoded)
            shared = self._shared(at)
            under = self._under(at)
            if len(under) == 1 or not nibbles.startswith(shared) or len(nibbles) == len(shared):
                break
            at = shared if shared != at else nibbles[: len(at) + 1]
        return tuple(found)

    def _under(self, at: str) -> dict[str, bytes]:
        return {key: value for key, value in self._pairs.items() if key.startswith(at)}

    def _shared(self, at: str) -> str:
        """What all keys below `at` begin with."""
        under = self._under(at)
        while len(under) > 1 and len({key[: len(at) + 1] for key in under}) == 1:
            at = next(iter(under))[: len(at) + 1]
        return at

    def _node(self, at: str) -> rlp.Item:
        under = self._under(at)
        if not under:
            return b""
        if len(under) == 1:
            [(key, value)] = under.items()
            return [_compact(key[len(at) :], 2), value]
        shared = self._shared(at)
        if shared != at:
            return [_compact(shared[len(at) :], 0), self._reference(shared)]
        return [*(self._reference(at + digit) for digit in "0123456789abcdef"), b""]

    def _reference(self, at: str) -> rlp.Item:
        found = self._node(at)
        encoded = rlp.encode(found)
        return found if len(encoded) < 32 or not found else keccak(encoded)


def _compact(nibbles: str, flag: int) -> bytes:
    odd = len(nibbles) % 2
    return bytes.fromhex(f"{flag + odd:x}" + ("" if odd else "0") + nibbles)

"""What the roots and the header's hash cover of a block as JSON-RPC tells it, field by field; and
every change of one byte in it.

Named here apart from the code that encodes them, from the yellow paper and the EIPs: header 4.4.3, EIP-1559,
4895, 4844, 4788, 7685; transactions 4.2, EIP-2930, 1559, 4844, 7702; receipts 4.3.1, EIP-658, 2718.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.nektar.chain.blocks import Given, Path_, put, values_in


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


HEADER = _names(
    "parentHash sha3Uncles miner stateRoot transactionsRoot receiptsRoot logsBloom difficulty number "
    "gasLimit gasUsed timestamp extraData mixHash nonce baseFeePerGas withdrawalsRoot blobGasUsed "
    "excessBlobGas parentBeaconBlockRoot requestsHash"
)
SIGNED = _names("type nonce gas to value input r s")
LISTED = SIGNED | {"chainId", "yParity", "accessList"}
FEES = LISTED | {"maxPriorityFeePerGas", "maxFeePerGas"}
TRANSACTION = {
    0: SIGNED | {"gasPrice", "v"},
    1: LISTED | {"gasPrice"},
    2: FEES,
    3: FEES | {"maxFeePerBlobGas", "blobVersionedHashes"},
    4: FEES | {"authorizationList"},
}
RECEIPT = _names("type status root cumulativeGasUsed logsBloom logs")
LOG = _names("address topics data")
WITHDRAWAL = _names("index validatorIndex address amount")
LISTS = _names("transactions withdrawals")
QUANTITIES = _names(
    "difficulty number gasLimit gasUsed timestamp baseFeePerGas blobGasUsed excessBlobGas type gas "
    "value r s v chainId yParity gasPrice maxPriorityFeePerGas maxFeePerGas maxFeePerBlobGas status "
    "cumulativeGasUsed index validatorIndex amount"
)


def is_covered(given: Given, path: Path_) -> bool:
    """Whether a root covers what stands there."""
    match path:
        case ("block", str(name)):
            return name in HEADER | LISTS
        case ("block", "transactions", int(i), str(name), *_):
            return name in TRANSACTION[int(given.block["transactions"][i].get("type", "0x0"), 16)]
        case ("block", "withdrawals", int(_), str(name)):
            return name in WITHDRAWAL
        case ("receipts", int(_), "logs", int(_), str(name), *_):
            return name in LOG
        case ("receipts", int(_), str(name), *_):
            return name in RECEIPT
    return False


class Value(NamedTuple):
    """A value that a root covers; a number has the bytes that it takes, and at least one."""

    path: Path_
    value: str

    @property
    def is_number(self) -> bool:
        """`nonce` is a number in a transaction, and eight bytes in a header."""
        name = next(key for key in reversed(self.path) if isinstance(key, str))
        return name in QUANTITIES or (name == "nonce" and self.path[:2] != ("block", "nonce"))

    @property
    def size(self) -> int:
        if self.is_number:
            return max(1, (int(self.value, 16).bit_length() + 7) // 8)
        return (len(self.value) - 2) // 2

    def changed(self, index: int, rng: random.Random) -> str:
        """The value with another byte at `index`; of a number, counted from its lowest."""
        if self.is_number:
            return hex(int(self.value, 16) ^ rng.randint(1, 255) << 8 * index)
        at = 2 + 2 * index
        byte = int(self.value[at : at + 2], 16) ^ rng.randint(1, 255)
        return f"{self.value[:at]}{byte:02x}{self.value[at + 2 :]}"


def covered(given: Given) -> list[Value]:
    """Every value that a root covers."""
    return [
        Value(path, value)
        for path, value in values_in(given)
        if isinstance(value, str) and is_covered(given, path)
    ]


def changes(given: Given, share: float, rng: random.Random) -> Iterator[tuple[Path_, Given]]:
    """`given` with one byte changed, for this share of the bytes that a root covers (1: all)."""
    values = covered(given)
    total = sum(value.size for value in values)
    chosen = iter(sorted(rng.sample(range(total), round(share * total))))
    at = next(chosen, total)
    start = 0
    for value in values:
        end = start + value.size
        while at < end:
            yield value.path, put(given, value.path, value.changed(at - start, rng))
            at = next(chosen, total)
        start = end


def cuts(given: Given) -> Iterator[tuple[Path_, Given]]:
    """Every list and byte string that a root covers, made longer and shorter and told in another order."""
    for path, value in values_in(given):
        other: list[Any] = []
        if path == ("receipts",) or (isinstance(value, list) and is_covered(given, path)):
            for i in range(len(value)):
                other += [value[:i] + value[i + 1 :], [*value[: i + 1], *value[i:]]]
                if i and value[i - 1] != value[i]:
                    other.append([*value[: i - 1], value[i], value[i - 1], *value[i + 1 :]])
        elif isinstance(value, str) and is_covered(given, path) and not Value(path, value).is_number:
            other = [value + "00", value[:-2]] if len(value) > 2 else ["0x00"]
        elif value is None and path[-1] == "to" and is_covered(given, path):
            other = ["0x" + 40 * "0"]
        for each in other:
            yield path, put(given, path, each)

"""Makes a finding's bundle of what a provider serves. Nothing of that is believed: a bundle is worth
something once `verify` has been over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any

from nektar.chain.bloom import may_contain
from nektar.chain.header import Header, encode_header, read_header
from nektar.chain.jsonrpc import Malformed, objects, octets, parse_object, parse_objects, parse_octets
from nektar.chain.pool import Absent
from nektar.chain.receipt import Receipt, read_receipt
from nektar.chain.rpc import Call, Provider, Refused, RpcError
from nektar.chain.transaction import read_transaction
from nektar.chain.trie import ordered_proof, ordered_root
from nektar.evidence.bundle import (
    FORMAT,
    AbsenceClaim,
    Bundle,
    CallClaim,
    Claim,
    EventClaim,
    Part,
    StateClaim,
    Variable,
)
from nektar.evidence.canonical import Octets
from nektar.evidence.sets import Sets
from nektar.evidence.sought import (
    AbsenceSought,
    CallSought,
    EventSought,
    Sought,
    StateSought,
    VariableSought,
    pinned,
)
from nektar.evidence.verify import TASK_MANAGER, NotProved, Verdict, account_in, value_in, within
from nektar.model import Address, Network
from nektar.networks.shown import EVENTS, stands
from nektar.rows import Finding

# Headers asked for in one request.
HEADERS_A_REQUEST = 64


class Forgotten(RpcError):
    """A provider does not serve the state of a block, as most do of the newest alone."""


async def gather(
    provider: Provider,
    network: Network,
    finding: Finding,
    sought: Sought,
    kept: Bundle | None = None,
    sets: Sets | None = None,
) -> Bundle:
    """The bundle that the provider's answers make. State that it does not serve any more is taken from a
    bundle that was `kept`, and OperatorSets that are known already are not fetched again.

    Raises Absent where it does not have what is sought, or has another chain; Forgotten; NotProved where what
    it says contradicts a header of that chain; RpcError.
    """
    try:
        preimages = [await (sets or Sets()).of(provider, each) for each in sought.sets]
        return await _Gathering(provider, network, finding, sought, kept).bundle(preimages)
    except (Malformed, NotProved) as error:
        raise NotProved(f"provider {provider.name}: {error}") from error


def require_pinned(verdict: Verdict, finding: Finding, sought: Sought) -> None:
    """That what a bundle proves rests on blocks of the log's chain. Raises NotProved."""
    pins = pinned(sought, finding.block)
    for block in verdict.canonical:
        if block not in pins:
            raise NotProved(
                f"the bundle rests on block {block.number}, 0x{block.hash.hex()}; expected one that the "
                "finding names, since no other is known to be of its chain"
            )


class _Gathering:
    def __init__(
        self, provider: Provider, network: Network, finding: Finding, sought: Sought, kept: Bundle | None
    ) -> None:
        self._provider = provider
        self._network = network
        self._finding = finding
        self._sought = sought
        self._kept = kept
        self._pins = {ref.number: ref.hash for ref in pinned(sought, finding.block)}
        self._raw: dict[int, bytes] = {}
        self._headers: dict[int, Header] = {}
        self._receipts: dict[int, list[Receipt]] = {}
        self._shown: set[int] = set()  # blocks whose receipts are part of the bundle

    async def bundle(self, sets: Iterable[Octets]) -> Bundle:
        sought = self._sought
        claims: list[Claim] = []
        for each in sought.fetch:
            match each:
                case EventSought():
                    claims.append(await self._event(each))
                case CallSought():
                    claims.append(await self._call(each))
                case AbsenceSought():
                    claims.append(await self._absence(each))
                case StateSought():
                    claims.append(await self._state(each))
        names = {TASK_MANAGER, *(each.contract for each in sought.fetch)}
        return Bundle(
            format=FORMAT,
            condition=self._finding.condition,
            chain_id=self._network.chain_id,
            contracts={name: Octets(self._network.contract(name)) for name in sorted(names)},
            operator=Octets(self._finding.operator),
            subject=sought.subject,
            blocks=tuple(self._part(number) for number in sorted(self._headers)),
            sets=tuple(sorted(sets)),
            claims=(*claims, *sought.whole),
        )

    def _part(self, number: int) -> Part:
        receipts = None
        if number in self._shown:
            receipts = tuple(Octets(receipt.raw) for receipt in self._receipts[number])
        return Part(Octets(self._raw[number]), receipts)

    async def _event(self, sought: EventSought) -> EventClaim:
        place = sought.place
        receipts = await self._receipts_of(place.number)
        if place.transaction >= len(receipts):
            raise NotProved(f"block {place.number} has fewer transactions")
        before = sum(len(receipt.entries) for receipt in receipts[: place.transaction])
        raws = [receipt.raw for receipt in receipts]
        return EventClaim(
            contract=sought.contract,
            block=place.number,
            transaction=place.transaction,
            log=place.log - before,
            receipt=Octets(raws[place.transaction]),
            proof=_octets(ordered_proof(raws, place.transaction)),
        )

    async def _call(self, sought: CallSought) -> CallClaim:
        receipts = [receipt.raw for receipt in await self._receipts_of(sought.number)]
        answer = await self._provider.call("eth_getBlockByNumber", hex(sought.number), True)
        if answer is None:
            raise Absent(self._provider.name, f"it has no block {sought.number}")
        raws = [read_transaction(each).raw for each in objects(parse_object(answer, "block"), "transactions")]
        if ordered_root(raws) != self._headers[sought.number].transactions_root or sought.index >= len(raws):
            raise NotProved(f"the transactions are not those of block {sought.number}")
        return CallClaim(
            contract=sought.contract,
            block=sought.number,
            index=sought.index,
            transaction=Octets(raws[sought.index]),
            transaction_proof=_octets(ordered_proof(raws, sought.index)),
            receipt=Octets(receipts[sought.index]),
            receipt_proof=_octets(ordered_proof(receipts, sought.index)),
        )

    async def _absence(self, sought: AbsenceSought) -> AbsenceClaim:
        await self._fetch_headers(range(sought.first, sought.last + 1))
        items = within(EVENTS[sought.event], sought.task, sought.operator)
        address = self._network.contract(sought.contract)
        for number in range(sought.first, sought.last + 1):
            bloom = self._headers[number].bloom
            if all(may_contain(bloom, item) for item in (address, *(item for _, item in items))):
                await self._receipts_of(number)
                self._shown.add(number)
        return AbsenceClaim(
            sought.contract, sought.event, sought.first, sought.last, sought.task, sought.operator
        )

    async def _state(self, sought: StateSought) -> StateClaim:
        await self._fetch_headers([self._finding.block_number])
        try:
            return await self._state_now(sought)
        except RpcError as error:
            for claim in self._kept.claims if self._kept else ():
                if isinstance(claim, StateClaim) and self._shows(claim, sought):
                    return claim
            if isinstance(error, Refused):
                raise Forgotten(self._provider.name, str(error)) from error
            raise

    def _shows(self, claim: StateClaim, sought: StateSought) -> bool:
        """Whether a claim shows what is sought, of this chain and contract."""
        number, address = self._finding.block_number, self._network.contract(sought.contract)
        if (claim.contract, claim.block) != (sought.contract, number) or not all(
            each and wanted and _is_of(each, wanted)
            for each, wanted in zip_longest(claim.variables, sought.variables)
        ):
            return False
        try:
            account_in(self._headers[number].state_root, address, claim.account)
        except NotProved:
            return False
        return True

    async def _state_now(self, sought: StateSought) -> StateClaim:
        number = self._finding.block_number
        address = self._network.contract(sought.contract)
        account: tuple[Octets, ...] = ()
        variables: list[Variable] = []
        before = 0
        for each in sought.variables:
            keys = tuple(key or Octets(before.to_bytes(32)) for key in each.keys)
            slot = stands(sought.contract, each.name, keys).slot
            account, proof = await self._proof(address, slot, number)
            variable = Variable(each.name, keys, proof)
            root, _ = account_in(self._headers[number].state_root, address, account)
            before = value_in(root, sought.contract, variable)
            variables.append(variable)
        return StateClaim(sought.contract, number, account, tuple(variables))

    async def _proof(
        self, address: Address, slot: bytes, number: int
    ) -> tuple[tuple[Octets, ...], tuple[Octets, ...]]:
        """The way to the account, and in it to the slot."""
        answer = await self._provider.call(
            "eth_getProof", "0x" + address.hex(), ["0x" + slot.hex()], hex(number)
        )
        said = parse_object(answer, "proof")
        storage = parse_objects(said.get("storageProof"), "storageProof")
        if len(storage) != 1:
            raise NotProved(f"expected one slot; got {len(storage)}")
        return _nodes(said), _nodes(storage[0], "proof")

    async def _receipts_of(self, number: int) -> list[Receipt]:
        if number in self._receipts:
            return self._receipts[number]
        await self._fetch_headers([number])
        answer = await self._provider.call("eth_getBlockReceipts", hex(number))
        if answer is None:
            raise Absent(self._provider.name, f"it has no receipts of block {number}")
        receipts = [read_receipt(each) for each in parse_objects(answer, "receipts")]
        if ordered_root([receipt.raw for receipt in receipts]) != self._headers[number].receipts_root:
            raise NotProved(f"the receipts are not those of block {number}")
        self._receipts[number] = receipts
        return receipts

    async def _fetch_headers(self, numbers: Iterable[int]) -> None:
        wanted = [number for number in numbers if number not in self._headers]
        for i in range(0, len(wanted), HEADERS_A_REQUEST):
            part = wanted[i : i + HEADERS_A_REQUEST]
            answers = await self._provider.batch(
                [Call("eth_getBlockByNumber", (hex(number), False)) for number in part]
            )
            for number, answer in zip(part, answers, strict=True):
                self._take(number, answer)

    def _take(self, number: int, answer: Any) -> None:
        if answer is None:
            raise Absent(self._provider.name, f"it has no block {number}")
        raw = encode_header(parse_object(answer, "block"))
        header = read_header(raw)
        if header.number != number:
            raise NotProved(f"expected block {number}; got {header.number}")
        if header.hash != octets(answer, "hash", 32):
            raise NotProved(
                f"the header of its block {number} hashes to 0x{header.hash.hex()}, and not to what it says"
            )
        expected = self._pins.get(number)
        before, after = self._headers.get(number - 1), self._headers.get(number + 1)
        if (
            (expected is not None and header.hash != expected)
            or (before and header.parent != before.hash)
            or (after and after.parent != header.hash)
        ):
            raise Absent(self._provider.name, f"its block {number} is of another chain than the finding")
        self._raw[number], self._headers[number] = raw, header


def _is_of(variable: Variable, sought: VariableSought) -> bool:
    """Whether it is the variable that is sought, of which an empty key is any."""
    keys = zip_longest(variable.keys, sought.keys)
    return variable.name == sought.name and all(wanted in (b"", key) for key, wanted in keys)


def _nodes(said: Mapping[str, Any], name: str = "accountProof") -> tuple[Octets, ...]:
    """Nodes of a trie; where it is empty, some nodes write that as a node, and others as none."""
    given = said.get(name)
    if not isinstance(given, list):
        raise Malformed(f"{name}: expected a list of nodes; got {type(given).__name__}")
    nodes = tuple(Octets(parse_octets(each, name)) for each in given)
    return () if nodes == (b"\x80",) else nodes


def _octets(nodes: Iterable[bytes]) -> tuple[Octets, ...]:
    return tuple(map(Octets, nodes))

"""Checks evidence offline: every claim by itself, then, by its condition, what they add up to.

What is believed is the reader's own: which chain, which contracts at which addresses, with which code, on
which terms. Nothing that a bundle says of itself is. What no bundle can show is that its blocks are the
chain's: the verdict names those that must be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Protocol, TypeVar

import msgspec

from nektar.chain import rlp
from nektar.chain.bloom import mask
from nektar.chain.header import Header, read_header
from nektar.chain.keccak import keccak
from nektar.chain.receipt import Entry, decode_receipt
from nektar.chain.transaction import Unsigned, decode_transaction, sender
from nektar.chain.trie import BadProof, ordered_root, value_at
from nektar.errors import NektarError
from nektar.evidence import bls
from nektar.evidence.bundle import (
    AbsenceClaim,
    AggregateClaim,
    Bundle,
    CallClaim,
    Claim,
    EventClaim,
    ForgeryClaim,
    MemberClaim,
    NonMemberClaim,
    RefutationClaim,
    SetMemberClaim,
    SignatureClaim,
    StateClaim,
    Variable,
    finding_id,
)
from nektar.facts import Absent, Called, Fact, Forged, InSet, Member, NotMember, Refuted, Signed, Stored
from nektar.model import G1, G2, Address, BlockRef, Hash32, OperatorSet
from nektar.networks.answers import refutes, wrong_by_itself
from nektar.networks.encoding import (
    BadEncoding,
    answer_of,
    input_of,
    operator_set,
    set_hash_of,
)
from nektar.networks.shown import EVENTS, Kind, fact_of, stands

# What honest bundles stay far below. Work grows with these and with the bundle's bytes alone, so that a
# forger's costs some seconds at most.
LIMITS = {
    "claims": 4_096,
    "variables": 4_096,
    "signatures": 512,  # some 5 ms each: two pairings, and whether a key is in the subgroup
    "keys in sums": 16_384,  # 0.1 ms each
    "looks": 2_000_000,  # of an absence at a block, or at a log of one that its bloom does not exclude
}
T = TypeVar("T")
TASK_MANAGER = "task_manager"


class NotProved(NektarError):
    """Evidence does not establish what it says; the message names the first thing that is wrong."""


class TooMuch(NotProved):
    """Evidence asks for more work than any verifier does, whoever shows it."""


class Reader(msgspec.Struct, frozen=True):
    """What whoever checks evidence knows of the Network, from a source of its own."""

    chain_id: int
    contracts: Mapping[str, Address]
    code: Mapping[str, Hash32] = {}  # hash of a contract's code, where that is held against its account
    terms: Mapping[str, int] = {}  # what contracts hold in their code and no event says


class Accused(msgspec.Struct, frozen=True):
    """Whom evidence is about, and what of."""

    operator: Address
    subject: Hash32


class Predicate(Protocol):
    """Whether facts add up to a condition; detectors and verifiers call the same one."""

    def __call__(self, accused: Accused, facts: Sequence[Fact], terms: Mapping[str, int]) -> None:
        """Raises NotProved, naming what is missing."""


class Verdict(msgspec.Struct, frozen=True):
    """What a bundle proves, if these blocks are the chain's."""

    id: bytes  # of the finding
    condition: str
    accused: Accused
    canonical: tuple[BlockRef, ...]  # the newest of each stretch that is linked


def verify(bundle: Bundle, reader: Reader, holds: Callable[[str], Predicate]) -> Verdict:
    """What the bundle proves to this reader; `holds` is the predicate of a condition's name. Raises
    NotProved."""
    if bundle.chain_id != reader.chain_id:
        raise NotProved(f"chain: expected id {reader.chain_id}; the bundle is of {bundle.chain_id}")
    for name, address in bundle.contracts.items():
        known = reader.contracts.get(name)
        if known != bytes(address):
            raise NotProved(
                f"{name}: expected {'0x' + known.hex() if known else 'no such contract'}; "
                f"the bundle is about 0x{address.hex()}"
            )
    if len(bundle.operator) != 20 or len(bundle.subject) != 32:
        raise NotProved("bundle: expected an operator of 20 bytes, and a subject of 32")
    shown = _Shown(bundle, reader)
    manager = shown.address(TASK_MANAGER)
    shown.spend("claims", len(bundle.claims))
    facts = [fact for claim in bundle.claims for fact in shown.facts(claim)]
    shown.require_all_used()
    accused = Accused(Address(bundle.operator), Hash32(bundle.subject))
    holds(bundle.condition)(accused, facts, reader.terms)
    return Verdict(
        id=finding_id(bundle.condition, reader.chain_id, manager, accused.subject, accused.operator),
        condition=bundle.condition,
        accused=accused,
        canonical=shown.stretches(),
    )


class _Shown:
    """What a bundle shows, for its claims to rest on: blocks that are one chain's, OperatorSets."""

    def __init__(self, bundle: Bundle, reader: Reader) -> None:
        self._bundle = bundle
        self._reader = reader
        self._headers: dict[int, Header] = {}
        self._blooms: dict[int, int] = {}
        self._receipts: dict[int, tuple[bytes, ...]] = {}
        self._logs: dict[int, tuple[Entry, ...]] = {}
        self._left = dict(LIMITS)
        self._unused: set[tuple[str, object]] = set()
        self._sets: dict[Hash32, OperatorSet] = {}
        self._operators: dict[Hash32, frozenset[bytes]] = {}  # of sets, whose members are asked for
        newest = -1
        for part in bundle.blocks:
            header = _read("header", read_header, part.header)
            if header.number <= newest:
                raise NotProved(f"blocks: expected them by rising number; got {header.number} out of turn")
            before = self._headers.get(header.number - 1)
            if before and header.parent != before.hash:
                raise NotProved(f"blocks: {header.number} is no child of the {before.number} that is shown")
            newest = header.number
            self._headers[newest] = header
            self._blooms[newest] = int.from_bytes(header.bloom)
            self._unused.add(("block", header.number))
            if part.receipts is not None:
                self._receipts[header.number] = part.receipts
                self._unused.add(("receipts", header.number))
        if list(bundle.sets) != sorted({*bundle.sets}):
            raise NotProved("sets: expected each once, sorted")
        for preimage in bundle.sets:
            members = _read("set", operator_set, preimage)
            self._sets[members.hash] = members
            self._unused.add(("set", members.hash))
        self._unused |= {("contract", name) for name in bundle.contracts}

    def spend(self, what: str, count: int) -> None:
        """Count work before it is done. Raises TooMuch where it is more than there is in honest bundles."""
        self._left[what] -= count
        if self._left[what] < 0:
            raise TooMuch(f"bundle: expected at most {LIMITS[what]} {what}; its claims ask for more")

    def require_all_used(self) -> None:
        """What no claim needs is not there. Raises NotProved."""
        if self._unused:
            kind, name = min(self._unused, key=str)
            raise NotProved(f"bundle: expected what its claims need, and no more; {kind} {name!r} is beyond")

    def stretches(self) -> tuple[BlockRef, ...]:
        numbers = sorted(self._headers)
        tops = [low for low, high in pairwise([*numbers, -1]) if high != low + 1]
        return tuple(self._headers[number].ref for number in tops)

    def address(self, name: str) -> Address:
        """Where the contract stands for the reader, whom the bundle has told that it is about it."""
        if name not in self._bundle.contracts:
            raise NotProved(f"contracts: expected {name}, which a claim is about; it is missing")
        self._unused.discard(("contract", name))
        return self._reader.contracts[name]

    def facts(self, claim: Claim) -> Iterator[Fact]:
        """What a claim establishes, once it is checked. Raises NotProved."""
        match claim:
            case EventClaim():
                yield self._event(claim)
            case CallClaim():
                yield self._call(claim)
            case MemberClaim():
                yield self._member(claim.task, claim.index)
            case NonMemberClaim():
                yield self._non_member(claim)
            case SetMemberClaim():
                yield self._in_set(Hash32(claim.set), claim.index)
            case SignatureClaim():
                yield self._signature(claim)
            case AggregateClaim():
                yield from self._aggregate(claim)
            case ForgeryClaim():
                yield self._forgery(claim)
            case StateClaim():
                yield from self._state(claim)
            case AbsenceClaim():
                yield self._absence(claim)
            case RefutationClaim():
                yield _refutation(claim)

    # --- what a block's roots show ------------------------------------------------------------------

    def _header(self, number: int) -> Header:
        if number not in self._headers:
            raise NotProved(f"block {number}: expected it among the bundle's; it is missing")
        self._unused.discard(("block", number))
        return self._headers[number]

    def _event(self, claim: EventClaim) -> Fact:
        header = self._header(claim.block)
        _require_held("event", header.receipts_root, claim.transaction, claim.receipt, claim.proof)
        entries = _read("receipt", decode_receipt, claim.receipt).entries
        if claim.log >= len(entries):
            raise NotProved(f"event: the receipt has {len(entries)} logs; got {claim.log}")
        entry = entries[claim.log]
        if entry.address != self.address(claim.contract):
            raise NotProved(f"event: 0x{entry.address.hex()} made it, which is not {claim.contract}")
        try:
            return fact_of(claim.contract, entry, header.ref, (claim.transaction, claim.log), header.time)
        except BadEncoding as error:
            raise NotProved(f"event: {error}") from error

    def _call(self, claim: CallClaim) -> Called:
        header = self._header(claim.block)
        sent, got = (claim.transaction, claim.transaction_proof), (claim.receipt, claim.receipt_proof)
        _require_held("call", header.transactions_root, claim.index, *sent)
        _require_held("call", header.receipts_root, claim.index, *got)
        called = _read("call", decode_transaction, claim.transaction)
        if called.to != self.address(claim.contract):
            to = f"0x{called.to.hex()}" if called.to else "nobody"
            raise NotProved(f"call: it is to {to}, which is not {claim.contract}")
        return Called(
            contract=claim.contract,
            transaction=called.hash,
            sender=_read("call", lambda raw: sender(called), claim.transaction),
            input=called.input,
            succeeded=_read("receipt", decode_receipt, claim.receipt).status,
            at=header.ref,
        )

    def _state(self, claim: StateClaim) -> Iterator[Stored]:
        header, address = self._header(claim.block), self.address(claim.contract)
        root, code = account_in(header.state_root, address, claim.account)
        expected = self._reader.code.get(claim.contract)
        if expected is not None and code != expected:
            raise NotProved(
                f"state: expected {claim.contract} to have code 0x{expected.hex()}; it has 0x{code.hex()}"
            )
        self.spend("variables", len(claim.variables))
        for variable in claim.variables:
            value = value_in(root, claim.contract, variable)
            keys = tuple(map(bytes, variable.keys))
            yield Stored(claim.contract, variable.name, keys, value, header.ref)

    def _absence(self, claim: AbsenceClaim) -> Absent:
        kind = EVENTS.get(claim.event)
        if kind is None or not kind.is_of(claim.contract):
            raise NotProved(f"absence: {claim.contract} has no event {claim.event} that is evidence")
        if not 0 <= claim.last - claim.first < len(self._headers):
            raise NotProved(f"absence: expected blocks {claim.first} to {claim.last} in the bundle")
        address = self.address(claim.contract)
        topics = within(kind, claim.task, claim.operator)
        wanted = mask((address, *(topic for _, topic in topics)))
        self.spend("looks", claim.last + 1 - claim.first)
        for number in range(claim.first, claim.last + 1):
            header = self._header(number)
            if self._blooms[number] & wanted != wanted:
                continue
            if any(_is_such(entry, address, topics) for entry in self._entries(header)):
                raise NotProved(f"absence: block {number} has such a {claim.event}")
        return Absent(
            event=claim.event,
            first=claim.first,
            last=claim.last,
            task_hash=None if claim.task is None else Hash32(claim.task),
            operator=None if claim.operator is None else Address(claim.operator),
        )

    def _entries(self, header: Header) -> tuple[Entry, ...]:
        """All logs of a block whose bloom does not exclude one that is looked for."""
        receipts = self._receipts.get(header.number)
        if receipts is None:
            raise NotProved(f"absence: expected block {header.number}'s receipts, which its bloom asks for")
        if header.number not in self._logs:
            # Decoded first: of those that are receipts, no bundle has so many that their root takes long.
            decoded = [_read("receipt", decode_receipt, raw) for raw in receipts]
            if ordered_root(receipts) != header.receipts_root:
                raise NotProved(f"absence: the receipts are not those of block {header.number}")
            self._logs[header.number] = tuple(entry for receipt in decoded for entry in receipt.entries)
            self._unused.discard(("receipts", header.number))
        entries = self._logs[header.number]
        self.spend("looks", len(entries))
        return entries

    # --- what Operators signed ----------------------------------------------------------------------

    def _set(self, task: bytes) -> OperatorSet:
        """The set that a Task committed to. Raises NotProved."""
        return self._set_of(_read("task", set_hash_of, task))

    def _set_of(self, set_hash: Hash32) -> OperatorSet:
        if set_hash not in self._sets:
            raise NotProved(f"membership: expected the set 0x{set_hash.hex()} in the bundle; it is missing")
        self._unused.discard(("set", set_hash))
        return self._sets[set_hash]

    def _in_set(self, set_hash: Hash32, index: int) -> InSet:
        members = self._set_of(set_hash).members
        if index >= len(members):
            raise NotProved(f"membership: the set has {len(members)} members; got index {index}")
        member = members[index]
        return InSet(set_hash, member.operator, index, bls.key_hash(member.key))

    def _member(self, task: bytes, index: int) -> Member:
        found = self._in_set(self._set(task).hash, index)
        return Member(Hash32(keccak(task)), found.operator, index, found.key_hash)

    def _non_member(self, claim: NonMemberClaim) -> NotMember:
        members = self._set(claim.task)
        if members.hash not in self._operators:
            self._operators[members.hash] = frozenset(member.operator for member in members.members)
        if len(claim.operator) != 20 or claim.operator in self._operators[members.hash]:
            raise NotProved("membership: expected an operator of 20 bytes that is not in the set")
        return NotMember(Hash32(keccak(claim.task)), Address(claim.operator))

    def _signature(self, claim: SignatureClaim) -> Signed:
        self.spend("signatures", 1)
        member = self._member(claim.task, claim.index)
        key = self._set(claim.task).members[claim.index].key
        if not bls.keys_match(key, G2(claim.key_g2)):
            raise NotProved("key: the key in G2 is not the member's")
        digest = self._require_signed(claim.task, claim.response, G2(claim.key_g2), claim.signature)
        return Signed(member.task_hash, member.operator, digest, alone=True)

    def _forgery(self, claim: ForgeryClaim) -> Forged:
        self.spend("signatures", 1)
        member = self._member(claim.task, claim.index)
        key = G2(claim.key_g2)
        if not bls.keys_match(self._set(claim.task).members[claim.index].key, key):
            raise NotProved("key: the key in G2 is not the member's")
        digest, signed = self._signed(claim.task, claim.response)
        if len(claim.signature) != 64 or bls.verify(key, signed, G1(claim.signature)):
            raise NotProved("forgery: expected 64 bytes that are not the member's signature")
        return Forged(member.task_hash, member.operator, digest, bytes(claim.signature))

    def _aggregate(self, claim: AggregateClaim) -> Iterator[Signed]:
        self.spend("signatures", 1)
        members = self._set(claim.task).members
        self.spend("keys in sums", len(members))
        out = {*claim.non_signers}
        if list(claim.non_signers) != sorted(out) or (out and max(out) >= len(members)):
            raise NotProved("aggregate: expected non-signers as rising places in the set")
        signers = [member for index, member in enumerate(members) if index not in out]
        try:
            matches = bls.keys_match(bls.aggregate([m.key for m in signers]), G2(claim.apk_g2))
        except bls.InvalidPoint as error:
            raise NotProved(f"aggregate: {error}") from error
        if not matches:
            raise NotProved("aggregate: the key in G2 is not the sum of the signers'")
        digest = self._require_signed(claim.task, claim.response, G2(claim.apk_g2), claim.signature)
        for member in signers:
            yield Signed(Hash32(keccak(claim.task)), member.operator, digest, alone=False)

    def _require_signed(self, task: bytes, response: bytes, key: G2, signature: bytes) -> Hash32:
        """The digest of a response that this key signed to this Task. Raises NotProved."""
        digest, signed = self._signed(task, response)
        if len(signature) != 64:
            raise NotProved(f"signature: expected 64 bytes; got {len(signature)}")
        if not bls.verify(key, signed, G1(signature)):
            raise NotProved("signature: it is not the member's over this response to this task")
        return digest

    def _signed(self, task: bytes, response: bytes) -> tuple[Hash32, Hash32]:
        """The digest of a response, and what is signed for it."""
        task_hash, digest = Hash32(keccak(task)), Hash32(keccak(response))
        manager = self.address(TASK_MANAGER)
        return digest, bls.signing_digest(self._reader.chain_id, manager, task_hash, digest)


def within(kind: Kind, task: bytes | None, operator: bytes | None) -> list[tuple[int, bytes]]:
    """(place, topic) of those that every log has which is looked for. Raises NotProved."""
    topics = [(0, bytes(kind.topic))]
    for named, place, size in ((task, kind.task, 32), (operator, kind.operator, 20)):
        if named is None:
            continue
        if not place or len(named) != size:
            raise NotProved(f"absence: {kind.signature} does not name what the claim does")
        topics.append((place, named.rjust(32, b"\0")))
    return topics


def account_in(state_root: Hash32, address: Address, nodes: Sequence[bytes]) -> tuple[Hash32, Hash32]:
    """(storage root, hash of the code) of an account. Raises NotProved."""
    where = f"account 0x{address.hex()}"
    held = _proved(where, state_root, keccak(address), nodes)
    fields = _read(where, rlp.decode, held or b"\x80")
    if isinstance(fields, bytes) or len(fields) != 4:
        raise NotProved(f"{where}: there is none in this block's state")
    root, code = fields[2:]
    if not isinstance(root, bytes) or not isinstance(code, bytes) or {len(root), len(code)} != {32}:
        raise NotProved(f"{where}: expected a storage root and the code's hash")
    return Hash32(root), Hash32(code)


def value_in(root: Hash32, contract: str, variable: Variable) -> int:
    """What a contract's storage of this root holds as a variable. Raises NotProved."""
    try:
        where = stands(contract, variable.name, variable.keys)
    except BadEncoding as error:
        raise NotProved(f"state: {error}") from error
    stored = _proved(f"{contract}'s {variable.name}", root, keccak(where.slot), variable.proof)
    word = _read(variable.name, rlp.decode, b"\x80" if stored is None else stored)
    if not isinstance(word, bytes) or len(word) > 32:
        raise NotProved(f"state: expected {variable.name} to be a word")
    return where.value(int.from_bytes(word))


def _refutation(claim: RefutationClaim) -> Refuted:
    """That the contracts' own check rejects a response (`TaskManager.refutes`)."""
    n, (p, q) = _read("task", input_of, claim.task), _read("response", answer_of, claim.response)
    divisor = int.from_bytes(claim.divisor)
    if len(claim.divisor) != 32 or not refutes(n, p, q, divisor):
        raise NotProved("refutation: this divisor does not refute the response")
    if divisor and wrong_by_itself(n, p, q):
        raise NotProved("refutation: the response refutes itself; expected no divisor")
    return Refuted(Hash32(keccak(claim.task)), Hash32(keccak(claim.response)))


def _is_such(entry: Entry, address: Address, topics: Sequence[tuple[int, bytes]]) -> bool:
    return entry.address == address and all(
        place < len(entry.topics) and entry.topics[place] == topic for place, topic in topics
    )


def _proved(where: str, root: Hash32, key: bytes, nodes: Sequence[bytes]) -> bytes | None:
    try:
        return value_at(root, key, nodes)
    except BadProof as error:
        raise NotProved(f"{where}: {error}") from error


def _require_held(where: str, root: Hash32, place: int, item: bytes, nodes: Sequence[bytes]) -> None:
    """That a list of this root holds the item in this place. Raises NotProved."""
    if _proved(where, root, rlp.number(place), nodes) != item:
        raise NotProved(f"{where}: the block has another one in place {place}")


def _read(where: str, read: Callable[[bytes], T], octets: bytes) -> T:
    try:
        return read(bytes(octets))
    except (rlp.BadRlp, BadEncoding, Unsigned) as error:
        raise NotProved(f"{where}: {error}") from error

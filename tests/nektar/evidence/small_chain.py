"""A small chain with true roots, made by hand, and bundles about it: whatever a test wants to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eth_hash.auto import keccak

from nektar.chain import rlp
from nektar.chain.bloom import bloom, union
from nektar.chain.header import encode_header
from nektar.chain.receipt import Entry
from nektar.evidence import bls
from nektar.evidence.bundle import (
    FORMAT,
    AbsenceClaim,
    AggregateClaim,
    Bundle,
    CallClaim,
    Claim,
    EventClaim,
    MemberClaim,
    Part,
    SignatureClaim,
    StateClaim,
    Variable,
)
from nektar.evidence.canonical import Octets
from nektar.evidence.verify import Accused, Reader, Verdict, verify
from nektar.facts import Fact
from nektar.model import Address, BlockRef, Hash32
from nektar.networks.encoding import (
    ANSWER_WORDS,
    Dynamic,
    encode_answer,
    encode_members,
    encode_task,
    numbers,
    tuple_of,
    word,
)
from nektar.networks.shown import EVENTS, stands
from tests.nektar.chain.tries import Reference

CHAIN_ID = 31_337
CONTRACTS = {
    "task_manager": Address(b"\x7a" * 20),
    "operator_registry": Address(b"\x7b" * 20),
    "delegation": Address(b"\x7c" * 20),
}
READER = Reader(CHAIN_ID, CONTRACTS)
STRANGER = Address(b"\x66" * 20)
OPERATORS = [Address(bytes((0xE0 + i,)) * 20) for i in range(5)]
SECRETS = [1_000 + i for i in range(5)]
CODE = keccak(b"code")
RIGHT, WRONG = (7, 13), (13, 7)


# --- what is hashed and signed ------------------------------------------------------------------------


def set_of(secrets: Sequence[int] = SECRETS, operators: Sequence[bytes] = OPERATORS) -> bytes:
    """The preimage of a set."""
    keys = [bls.public_keys(secret)[0] for secret in secrets]
    return encode_members([(operator, key, 1) for operator, key in zip(operators, keys, strict=True)])


SET = set_of()


def task_of(preimage: bytes = SET, number: int = 1, n: int = 91) -> bytes:
    """The preimage of a Task that commits to the set."""
    return encode_task([bytes(32), n, bytes(32), keccak(preimage), 20, 3, 5000, 5000, number])


TASK = task_of()


def sign(
    secret: int, answer: tuple[int, int], task: bytes = TASK, chain_id: int = CHAIN_ID, manager: bytes = b""
) -> bytes:
    digest = bls.signing_digest(
        chain_id, manager or CONTRACTS["task_manager"], keccak(task), keccak(encode_answer(*answer))
    )
    return bls.sign(secret, digest)


def signature(place: int, answer: tuple[int, int] = RIGHT, task: bytes = TASK) -> SignatureClaim:
    return SignatureClaim(
        task=Octets(task),
        index=place,
        key_g2=Octets(bls.public_keys(SECRETS[place])[1]),
        response=Octets(encode_answer(*answer)),
        signature=Octets(sign(SECRETS[place], answer, task)),
    )


def aggregate(signers: Sequence[int], answer: tuple[int, int] = RIGHT, task: bytes = TASK) -> AggregateClaim:
    secrets = [SECRETS[place] for place in signers]
    return AggregateClaim(
        task=Octets(task),
        non_signers=tuple(i for i in range(len(SECRETS)) if i not in signers),
        apk_g2=Octets(bls.aggregate_g2(bls.public_keys(secret)[1] for secret in secrets)),
        response=Octets(encode_answer(*answer)),
        signature=Octets(bls.aggregate(bls.G1(sign(secret, answer, task)) for secret in secrets)),
    )


def member(place: int, task: bytes = TASK) -> MemberClaim:
    return MemberClaim(Octets(task), place)


# --- what contracts log -------------------------------------------------------------------------------


def log(name: str, *topics: bytes, data: bytes = b"", address: bytes = b"") -> Entry:
    kind = EVENTS[name]
    words = [Hash32(topic.rjust(32, b"\0")) for topic in topics]
    return Entry(Address(address or CONTRACTS[kind.contract]), (kind.topic, *words), data)


def submitted(task: bytes = TASK, address: bytes = b"") -> Entry:
    return log("TaskSubmitted", keccak(task), word(1), STRANGER, data=task, address=address)


def responded(answer: tuple[int, int], non_signers: Sequence[int], task: bytes = TASK) -> Entry:
    assert len(answer) == ANSWER_WORDS
    response = encode_answer(*answer)
    out: Dynamic = numbers(non_signers)
    data = tuple_of(response, out, bytes(32), bytes(64), bytes(128), word(30))
    return log("Responded", keccak(task), keccak(response), data=data)


def attested(place: int, task: bytes = TASK) -> Entry:
    return log("Attested", keccak(task), OPERATORS[place], data=bytes(7 * 32))


NOISE = Entry(STRANGER, (Hash32(keccak(b"Noise()")),), b"noise")


# --- the chain ----------------------------------------------------------------------------------------

Storage = Mapping[bytes, Mapping[bytes, int]]
"""address → slot → word"""


class SmallChain:
    """Blocks from `first` on, each of transactions that are no more than their logs."""

    def __init__(self, first: int = 100, salt: int = 0) -> None:
        self.first = first
        self.headers: list[bytes] = []
        self.receipts: list[list[bytes]] = []
        self.sent: list[Sequence[bytes]] = []
        self.storage: list[Storage] = []
        self._salt = salt

    def block(
        self,
        *transactions: Sequence[Entry],
        storage: Storage | None = None,
        sent: Sequence[bytes] = (),
        failed: bool = False,
    ) -> int:
        """The number of one more, in which these transactions, of which some were `sent`, logged this;
        storage stays as it was."""
        receipts = [_receipt(i, entries, failed) for i, entries in enumerate(transactions)]
        self.receipts.append(receipts)
        self.sent.append(sent)
        before = self.storage[-1] if self.storage else {}
        self.storage.append(before if storage is None else storage)
        number = self.first + len(self.headers)
        parent = keccak(self.headers[-1]) if self.headers else keccak(b"before %d" % self._salt)
        blooms = [bloom(entries) for entries in transactions]
        self.headers.append(
            header(
                number,
                parent,
                receiptsRoot=receipts_root(receipts),
                transactionsRoot=receipts_root(sent),
                logsBloom=union(blooms),
                stateRoot=self._state().root,
            )
        )
        return number

    def ref(self, number: int) -> BlockRef:
        return BlockRef(number, Hash32(keccak(self.headers[number - self.first])))

    def part(self, number: int, receipts: bool = False) -> Part:
        shown = tuple(map(Octets, self.receipts[number - self.first])) if receipts else None
        return Part(Octets(self.headers[number - self.first]), shown)

    def event(self, number: int, transaction: int = 0, place: int = 0, contract: str = "") -> EventClaim:
        receipts = self.receipts[number - self.first]
        trie = Reference({rlp.number(i): receipt for i, receipt in enumerate(receipts)})
        return EventClaim(
            contract=contract or "task_manager",
            block=number,
            transaction=transaction,
            log=place,
            receipt=Octets(receipts[transaction]),
            proof=tuple(map(Octets, trie.proof(rlp.number(transaction)))),
        )

    def call(self, number: int, index: int = 0, contract: str = "task_manager") -> CallClaim:
        sent, receipts = self.sent[number - self.first], self.receipts[number - self.first]
        tries = [
            Reference({rlp.number(i): item for i, item in enumerate(items)}) for items in (sent, receipts)
        ]
        proofs = [tuple(map(Octets, trie.proof(rlp.number(index)))) for trie in tries]
        return CallClaim(
            contract, number, index, Octets(sent[index]), proofs[0], Octets(receipts[index]), proofs[1]
        )

    def state(self, number: int, contract: str, *variables: tuple[str, tuple[bytes, ...]]) -> StateClaim:
        address = CONTRACTS[contract]
        trie = _storage_trie(self.storage[number - self.first].get(address, {}))
        return StateClaim(
            contract=contract,
            block=number,
            account=tuple(map(Octets, self._state(number).proof(keccak(address)))),
            variables=tuple(
                Variable(
                    name,
                    tuple(map(Octets, keys)),
                    tuple(map(Octets, trie.proof(keccak(stands(contract, name, keys).slot)))),
                )
                for name, keys in variables
            ),
        )

    def bundle(
        self,
        *claims: Claim,
        receipts: Sequence[int] = (),
        sets: Sequence[bytes] = (),
        operator: bytes = OPERATORS[0],
        subject: bytes = b"",
        condition: str = "any",
    ) -> Bundle:
        """All that the claims need; `receipts` names the blocks whose receipts are shown."""
        needed: set[int] = set()
        names = {"task_manager"}
        for claim in claims:
            if isinstance(claim, EventClaim | CallClaim | StateClaim):
                needed.add(claim.block)
            if isinstance(claim, AbsenceClaim):
                needed |= {*range(claim.first, claim.last + 1)}
            if isinstance(claim, EventClaim | CallClaim | StateClaim | AbsenceClaim):
                names.add(claim.contract)
        return Bundle(
            format=FORMAT,
            condition=condition,
            chain_id=CHAIN_ID,
            contracts={name: Octets(CONTRACTS[name]) for name in sorted(names)},
            operator=Octets(operator),
            subject=Octets(subject or keccak(TASK)),
            blocks=tuple(self.part(number, number in receipts) for number in sorted(needed)),
            sets=tuple(sorted(map(Octets, sets))),
            claims=claims,
        )

    def _state(self, number: int | None = None) -> Reference:
        storage = self.storage[-1 if number is None else number - self.first]
        others = {bytes((i,)) * 20: b"" for i in range(1, 20)}
        accounts = {keccak(address): _account(EMPTY_STORAGE) for address in others}
        accounts |= {keccak(address): _account(_storage_trie(held).root) for address, held in storage.items()}
        return Reference(accounts)


def header(number: int, parent: bytes, **fields: bytes) -> bytes:
    empty = Reference({}).root
    roots = {"stateRoot": empty, "transactionsRoot": empty, "receiptsRoot": empty, "logsBloom": bytes(256)}
    octets = {"parentHash": parent, "sha3Uncles": bytes(32), "miner": bytes(20), "extraData": b""}
    octets |= roots | {"mixHash": bytes(32), "nonce": bytes(8)} | fields
    quantities = {"difficulty": 0, "number": number, "gasLimit": 1, "gasUsed": 1, "timestamp": 12 * number}
    return encode_header(
        {name: "0x" + value.hex() for name, value in octets.items()}
        | {name: hex(value) for name, value in quantities.items()}
    )


def receipts_root(receipts: Sequence[bytes]) -> bytes:
    """Of transactions too."""
    return Reference({rlp.number(i): receipt for i, receipt in enumerate(receipts)}).root


EMPTY_STORAGE = Reference({}).root


def _account(storage_root: bytes) -> bytes:
    return rlp.encode([b"\1", b"", storage_root, CODE])


def _storage_trie(slots: Mapping[bytes, int]) -> Reference:
    return Reference({keccak(slot): rlp.number(value) for slot, value in slots.items() if value})


def _receipt(place: int, entries: Sequence[Entry], failed: bool) -> bytes:
    logs: list[rlp.Item] = [[each.address, [*each.topics], each.data] for each in entries]
    gas = (21_000 * (place + 1)).to_bytes(4).lstrip(b"\0")
    return b"\2" + rlp.encode([b"" if failed else b"\1", gas, bloom(entries), logs])


# --- the verdict --------------------------------------------------------------------------------------


def facts_of(bundle: Bundle, reader: Reader = READER) -> list[Fact]:
    """What its claims establish. Raises NotProved."""
    found: list[Fact] = []
    judged(bundle, found, reader)
    return found


def judged(bundle: Bundle, found: list[Fact] | None = None, reader: Reader = READER) -> Verdict:
    """The verdict of a condition that always holds. Raises NotProved."""

    def holds(accused: Accused, facts: Sequence[Fact], terms: Mapping[str, int]) -> None:
        if found is not None:
            found.extend(facts)

    return verify(bundle, reader, lambda name: holds)

"""A small Network that lives at random: everything that can happen to it, in the order of a chain.

It minds the contracts' rules no more than the log has to: responses come too late, strangers attest, a pause
ends that never began. Signatures are real, of few keys.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import msgspec
from eth_hash.auto import keccak

from nektar.evidence import bls
from nektar.model import (
    G1,
    G2,
    Address,
    At,
    Attested,
    Block,
    BlockClosed,
    ChainEvent,
    Deadline,
    Event,
    GapPassed,
    Hash32,
    Heartbeat,
    KeyRotated,
    Level,
    Network,
    OperatorDeregistered,
    OperatorRegistered,
    OperatorSet,
    OperatorSetCommitted,
    Paused,
    Report,
    Responded,
    ResponseChallenged,
    Signed,
    Task,
    TaskCancelled,
    TaskSubmitted,
    Told,
    Unpaused,
)
from nektar.networks.encoding import encode_answer, encode_members, encode_task, operator_set
from nektar.rows import Change, Row
from nektar.telemetry import TOO_LATE, Step

CHAIN_ID = 31337
MANAGER = Address(b"\x7a" * 20)
NETWORK = Network("home", CHAIN_ID, {"task_manager": MANAGER}, terms={"miss_allowance": 1, "miss_window": 8})
OPERATORS = [Address(bytes([0xE0 + i]) * 20) for i in range(4)]
STRANGER = Address(b"\x66" * 20)
ANSWERS = [(2, 5), (3, 7), (5, 11)]
BRINGERS = ["aggregator", "peer"]
FIRST = 5
ZERO = Hash32(bytes(32))

public_keys = lru_cache(None)(bls.public_keys)


@lru_cache(None)
def signature(secret: int, task_hash: bytes, digest: bytes) -> G1:
    """What the Operator with this key signs for a response."""
    return bls.sign(secret, bls.signing_digest(CHAIN_ID, MANAGER, task_hash, digest))


def signed(
    at: At | None, task_hash: Hash32, operator: Address, secret: int, answer: tuple[int, int]
) -> Signed:
    response = encode_answer(*answer)
    digest = Hash32(keccak(response))
    return Signed(at, task_hash, operator, digest, signature(secret, task_hash, digest), response)


def registered(at: At, operator: Address, secret: int) -> OperatorRegistered:
    return OperatorRegistered(at, operator, *public_keys(secret), "local", 1)


def set_of(members: Iterable[tuple[Address, int]]) -> OperatorSet:
    """The set of these (operator, secret); their stake is the secret's own."""
    return operator_set(encode_members([(o, public_keys(secret)[0], secret) for o, secret in members]))


def task(at: At, set_hash: Hash32, number: int, deadline: int, grace: int, parent: Hash32 = ZERO) -> Task:
    preimage = encode_task([bytes(32), 10, parent, set_hash, deadline, grace, 5000, 5000, number])
    return Task(
        hash=Hash32(keccak(preimage)),
        number=number,
        type=Hash32(bytes(32)),
        input="10",
        set_hash=set_hash,
        submitted=at,
        deadline=Deadline("block", deadline),
        grace=grace,
        response_threshold=5000,
        stake_threshold=5000,
        submitter=STRANGER,
        preimage=preimage,
    )


def block(number: int, parent: Hash32 = ZERO, level: Level = Level.PROVED, salt: int = 0) -> Block:
    hash_ = Hash32(keccak(b"%d %b %d" % (number, parent, salt)))
    return Block(number, hash_, parent, 1000 + 12 * number, level, "p", "single:p")


class World:
    """The Network as it stands; `next_block` goes on. Copies of it (`copy.deepcopy`) are its forks."""

    answers: Sequence[tuple[int, int]] = ANSWERS

    def __init__(self, rng: random.Random, pauses: bool = True) -> None:
        self.rng = rng
        self.number = FIRST
        self.parent = Hash32(keccak(b"before the first"))
        self._pauses = pauses
        self._secrets = 0
        self._numbers = 0
        self._keys: dict[Address, int] = {}  # of those registered, by secret
        self._sets: dict[Hash32, dict[Address, int]] = {}
        self._newest: Hash32 | None = None
        self._tasks: list[Task] = []
        self._responses: list[Responded] = []

    def next_block(self, level: Level | None = None) -> tuple[Block, list[ChainEvent]]:
        rng = self.rng
        level = level or rng.choice([Level.PROVED] * 9 + [Level.LINKED])
        made = block(self.number, self.parent, level, rng.randrange(1 << 30))
        count = len(OPERATORS) + 1 if self.number == FIRST else rng.choice((0, 1, 2, 3, 5, 8))
        events: list[ChainEvent] = []
        for i in range(count):
            at = At(self.number, i, i)
            event = self._first(i) if self.number == FIRST else self._any(at)
            events += [event] if event else []
        self.number, self.parent = self.number + 1, made.hash
        return made, events

    def gap(self) -> GapPassed:
        last = self.number + self.rng.randrange(4)
        self.number, self.parent, first = last + 1, Hash32(keccak(b"gap %d" % last)), self.number
        return GapPassed(first, last)

    def telemetry(self) -> Signed | None:
        """A message that some Operator signed, or is said to have."""
        made = self._signed(None)
        return made and msgspec.structs.replace(made, brought_by=self.rng.choice(BRINGERS))

    def told(self) -> Told:
        """What telemetry says of some Operator's work on some Task, not always one that there is."""
        rng = self.rng
        operator, head = rng.choice(OPERATORS), max(0, self.number - rng.randrange(-3, 12))
        ended = head + rng.choice((0, 0, 1, 4))
        if rng.random() < 0.3:
            return Heartbeat(operator, head, ended)
        among = self._tasks[-4:]
        about = rng.choice(among) if among else None
        step, error = rng.choice(list(Step)), rng.choice(("", "", "TimeoutError", "TimeoutError", TOO_LATE))
        if about and rng.random() < 0.3:  # all is well
            head = ended = about.submitted.block
            step, error = Step.SEND, ""
        role = rng.choice(("operator", "operator", "operator", "aggregator"))
        return Report(
            brought_by=f"operator/0x{operator.hex()}" if role == "operator" else rng.choice(BRINGERS),
            role=role,
            operator=operator,
            task_hash=about.hash if about else Hash32(bytes(32)),
            step=Step.COLLECT if role == "aggregator" else step,
            span=rng.randbytes(8),
            begun=rng.choice((-1, head, head, head)),
            ended=rng.choice((-1, ended, ended, ended)),
            error=error,
            response=rng.choice((b"", b"", b"", encode_answer(2, 5), encode_answer(5, 2))),
        )

    def _first(self, i: int) -> ChainEvent:
        at = At(self.number, i, 0)
        return self._commit(at) if i == len(OPERATORS) else self._register(at, OPERATORS[i])

    def _any(self, at: At) -> ChainEvent | None:
        kinds: list[tuple[int, Callable[[At], ChainEvent | None]]] = [
            (3, self._submit),
            (4, self._attest),
            (6, self._call),
            (2, self._respond),
            (1, self._challenge),
            (1, self._cancel),
            (1, self._change_key),
            (1, self._leave_or_come),
            (1, self._commit),
        ]
        if self._pauses:
            kinds.append((1, lambda at: self.rng.choice((Paused, Unpaused, Unpaused))(at)))
        weights, makers = zip(*kinds, strict=True)
        return self.rng.choices(makers, weights)[0](at)

    def _secret(self) -> int:
        self._secrets += 1
        return self._secrets

    def _register(self, at: At, operator: Address) -> ChainEvent:
        self._keys[operator] = self._secret()
        return registered(at, operator, self._keys[operator])

    def _change_key(self, at: At) -> ChainEvent | None:
        if not self._keys:
            return None
        operator = self.rng.choice(sorted(self._keys))
        self._keys[operator] = self._secret()
        return KeyRotated(at, operator, *public_keys(self._keys[operator]))

    def _leave_or_come(self, at: At) -> ChainEvent | None:
        operator = self.rng.choice(OPERATORS)
        if operator not in self._keys:
            return self._register(at, operator)
        del self._keys[operator]
        return OperatorDeregistered(at, operator, at.block + self.rng.choice((1, 1, 3)))

    def _commit(self, at: At) -> ChainEvent | None:
        if not self._keys:
            return None
        members = sorted(self._keys.items())
        committed = set_of(members)
        self._sets[committed.hash] = dict(members)
        self._newest = committed.hash
        return OperatorSetCommitted(at, committed)

    def _submit(self, at: At) -> ChainEvent | None:
        assert self._newest
        self._numbers += 1
        unknown = self.rng.random() < 0.05
        deadline = at.block + self.rng.choice((0, 1, 2, 4, 8))
        set_hash = Hash32(bytes([9] * 32)) if unknown else self._newest
        made = task(at, set_hash, self._numbers, deadline, self.rng.choice((0, 0, 1, 3)), self.parent)
        self._tasks.append(made)
        return TaskSubmitted(at, made)

    def _some_task(self) -> Task | None:
        """One that is open more often than not, so that what happens to it matters."""
        near = [t for t in self._tasks if self.number <= t.deadline.value + t.grace + 1]
        among = near if near and self.rng.random() < 0.95 else self._tasks
        return self.rng.choice(among) if among else None

    def _respond(self, at: At) -> ChainEvent | None:
        if (about := self._some_task()) is None:
            return None
        members = self._sets.get(about.set_hash, {})
        missing = tuple(i for i in range(len(members) + 1) if self.rng.random() < 0.4)
        digest = Hash32(bytes([self.rng.randrange(1, 4)] * 32))
        made = Responded(at, about.hash, digest, missing, at.block + self.rng.choice((0, 1, 4, 12)))
        self._responses.append(made)
        return made

    def _challenge(self, at: At) -> ChainEvent | None:
        """Of a response that still can be more often than not, its grace over or not."""
        near = [r for r in self._responses if self.number <= r.challenge_deadline + 1]
        among = near if near and self.rng.random() < 0.8 else self._responses
        return ResponseChallenged(at, self.rng.choice(among).task_hash) if among else None

    def _attest(self, at: At) -> ChainEvent | None:
        if (about := self._some_task()) is None:
            return None
        operator = self.rng.choice([*OPERATORS, STRANGER])
        return Attested(at, about.hash, operator, Hash32(bytes(32)), True)

    def _cancel(self, at: At) -> ChainEvent | None:
        about = self._some_task()
        return TaskCancelled(at, about.hash) if about else None

    def _call(self, at: At) -> ChainEvent | None:
        return self._signed(msgspec.structs.replace(at, log=-1))

    def _signed(self, at: At | None) -> Signed | None:
        near = [t for t in self._tasks if self.number <= t.deadline.value + t.grace]
        if not near:
            return None
        about, rng = rng_choice(self.rng, near), self.rng
        operator = rng.choice([*OPERATORS, STRANGER])
        true = self._sets.get(about.set_hash, {}).get(operator, 1)
        made = signed(at, about.hash, operator, true, rng.choice(self.answers))
        match rng.randrange(12):
            case 0:  # a signature over something else
                other = signed(at, about.hash, operator, true, rng.choice(self.answers))
                return msgspec.structs.replace(made, signature=other.signature)
            case 1:  # with another key
                return signed(at, about.hash, operator, 1 + true % 3, rng.choice(self.answers))
            case 2:  # no point at all
                return msgspec.structs.replace(made, signature=G1(bytes([rng.randrange(3)] * 64)))
            case 3:  # a response that the digest is not of
                return msgspec.structs.replace(made, response=encode_answer(1, 1))
        return made


def rng_choice(rng: random.Random, among: list[Task]) -> Task:
    """The oldest more often than not, so that signatures meet."""
    return among[0] if rng.random() < 0.5 else rng.choice(among)


def history(rng: random.Random, blocks: int, pauses: bool = True, of: type[World] = World) -> list[Event]:
    """What a fold is shown of so many blocks, gaps and messages, some of which come before their Task."""
    world = of(rng, pauses)
    records: list[list[Event]] = []
    for i in range(blocks):
        if i and rng.random() < 0.04:
            records.append([world.gap()])
        for _ in range(2):
            if (message := world.telemetry()) and rng.random() < 0.3:
                records.insert(len(records) - rng.choice((0, 0, 1, 2, 4, 8)), [message])
        made, happened = world.next_block()
        records.append([*happened, BlockClosed(made)])
    return [event for record in records for event in record]


LIAR = 77  # the secret of whoever alters what linked blocks say: no Operator's


def with_false_twins(rng: random.Random, events: Iterable[Event]) -> list[Event]:
    """The same, but most twins that linked blocks tell are a liar's, who signs in all Operators' names."""
    heard: list[Event] = []
    block_: list[Event] = []
    for event in events:
        if isinstance(event, Signed) and rng.random() < 0.2:
            digest = bls.signing_digest(CHAIN_ID, MANAGER, event.task_hash, event.digest)
            event = msgspec.structs.replace(event, signature=bls.sign(LIAR, digest))
        block_.append(event)
        if isinstance(event, BlockClosed | GapPassed):
            linked = isinstance(event, BlockClosed) and event.block.level is Level.LINKED
            heard += [_with_false_twin(each) if linked and rng.random() < 0.8 else each for each in block_]
            block_ = []
    return heard + block_


def _with_false_twin(event: Event) -> Event:
    if isinstance(event, OperatorRegistered | KeyRotated):
        return msgspec.structs.replace(event, key_g2=public_keys(LIAR)[1])
    return event


def falsely_told(events: Iterable[Event]) -> set[G1]:
    """The keys whose twins are not told as they are."""
    told = [event for event in events if isinstance(event, OperatorRegistered | KeyRotated)]
    return {event.key for event in told if event.key_g2 == public_keys(LIAR)[1]}


Rows = dict[tuple[object, ...], Row]


def put(rows: Rows, changes: Iterable[Change]) -> None:
    """Move the rows; a change whose `before` is not what stands there is a lie."""
    for change in changes:
        row = change.before if change.after is None else change.after
        assert row is not None
        key = (row.table, *(getattr(row, name) for name in row.key))
        assert rows.get(key) == change.before
        if change.after is None:
            del rows[key]
        else:
            rows[key] = change.after


def key_of(secret: int) -> tuple[G1, G2]:
    return public_keys(secret)

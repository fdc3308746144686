"""Random logs of a Network that obey the log's rules, and a small fold that minds every one of them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from immutables import Map

from nektar.log import Gap, Mark, New, Record, SignedBatch, Undo
from nektar.model import (
    G1,
    G2,
    Address,
    At,
    Attested,
    Block,
    BlockClosed,
    ChainEvent,
    Event,
    GapPassed,
    Hash32,
    Level,
    Network,
    OperatorDeregistered,
    OperatorRegistered,
    Signed,
    TaskCancelled,
)
from nektar.rows import ChainSpan, Change, Finding, OperatorRow

NETWORK = Network("home", 31337, {})
TASKS = [Hash32(bytes([t]) * 32) for t in range(5)]
OPERATORS = [Address(bytes([o]) * 20) for o in range(3)]
DIGESTS = [Hash32(bytes([d]) * 32) for d in range(1, 4)]


# --- a fold -----------------------------------------------------------------------------------------


class Answer(msgspec.Struct, frozen=True):
    """What one Operator said of one task: its digests, and the newest block in which one of them stood."""

    digests: tuple[bytes, ...]
    block: Block | None
    finding: Finding | None = None


class Heard(msgspec.Struct, frozen=True):
    operators: Map[bytes, OperatorRow] = Map()
    answers: Map[tuple[bytes, bytes], Answer] = Map()
    here: tuple[tuple[bytes, bytes], ...] = ()  # answers that the open block brought
    past: int = 0  # blocks and gaps gone by; a number that no column holds, to see all of it checkpointed
    gaps: tuple[tuple[int, int], ...] = ()


class Gossip:
    """Who said two things about one task, on chain or signed. Beside it the Operators, as rows that come,
    change and go, and a span for each block, which is said once it is final."""

    name = "gossip"
    state_type = Heard

    def initial(self, network: Network) -> Heard:
        return Heard()

    def step(self, state: Heard, event: Event) -> tuple[Heard, Sequence[Change]]:
        match event:
            case OperatorRegistered():
                before = state.operators.get(event.operator)
                row = OperatorRow(event.operator, event.key, "", event.validators, 2**200, True, 0, 0)
                operators = state.operators.set(event.operator, row)
                return msgspec.structs.replace(state, operators=operators), [Change(before, row)]
            case OperatorDeregistered() if event.operator in state.operators:
                before = state.operators[event.operator]
                operators = state.operators.delete(event.operator)
                return msgspec.structs.replace(state, operators=operators), [Change(before, None)]
            case Attested():
                state, heard = _hear(state, event.task_hash, event.operator, event.digest)
                return (msgspec.structs.replace(state, here=(*state.here, heard)) if heard else state), ()
            case Signed():
                state, heard = _hear(state, event.task_hash, event.operator, event.digest)
                if heard and (block := state.answers[heard].block):
                    return _judge(state, heard, block)
                return state, ()
            case BlockClosed():
                changes: list[Change] = []
                for key in state.here:
                    state, said = _judge(state, key, event.block)
                    changes += said
                id_ = event.block.hash[:16]
                changes.append(
                    Change(None, ChainSpan(id_, id_[:8], bytes(8), "block", 0, 0, str(state.past)))
                )
                return msgspec.structs.replace(state, here=(), past=(state.past + 1) * 3 % 2**100), changes
            case GapPassed():
                return msgspec.structs.replace(state, gaps=(*state.gaps, (event.first, event.last))), ()
        return state, ()


def _hear(
    state: Heard, task: bytes, operator: bytes, digest: bytes
) -> tuple[Heard, tuple[bytes, bytes] | None]:
    answer = state.answers.get((task, operator), Answer((), None))
    if digest in answer.digests:
        return state, None
    answer = msgspec.structs.replace(answer, digests=(*answer.digests, digest))
    return msgspec.structs.replace(state, answers=state.answers.set((task, operator), answer)), (
        task,
        operator,
    )


def _judge(state: Heard, key: tuple[bytes, bytes], block: Block) -> tuple[Heard, Sequence[Change]]:
    answer = msgspec.structs.replace(state.answers[key], block=block)
    changes = []
    if len(answer.digests) > 1 and answer.finding is None:
        answer = msgspec.structs.replace(answer, finding=gossip(key, answer, block))
        changes = [Change(None, answer.finding)]
    return msgspec.structs.replace(state, answers=state.answers.set(key, answer)), changes


def gossip(key: tuple[bytes, bytes], answer: Answer, block: Block) -> Finding:
    task, operator = key
    return Finding(
        id=hashlib.sha256(task + operator).digest(),
        condition="gossip",
        operator=operator,
        task_hash=task,
        task_number=2**60,
        task_input="12",
        block_number=block.number,
        block_hash=block.hash,
        block_time=block.time,
        level=block.level,
        anchor=block.anchor,
        facts=",".join(digest.hex() for digest in answer.digests),
    )


class Plain:
    """An adapter whose tables hold the events themselves."""

    name = "plain"
    selector: frozenset[str] = frozenset()
    terms: frozenset[str] = frozenset()

    def abi(self) -> Mapping[str, Sequence[Mapping[str, object]]]:
        return {}

    def events(self, network: Network, tables: Mapping[str, bytes]) -> Sequence[ChainEvent]:
        return _events.decode(tables["events"])


_events = msgspec.msgpack.Decoder(list[ChainEvent])


def tables(events: Sequence[ChainEvent]) -> dict[str, bytes]:
    return {"events": msgspec.msgpack.encode(events)}


# --- logs -------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """A piece of the chain as it stands: a block with what happened in it, a gap, or what was signed."""

    what: Block | Gap | Signed
    events: tuple[ChainEvent, ...] = ()


class Written(NamedTuple):
    """A record, what happened in its blocks, and what stands after it."""

    record: Record
    events: tuple[ChainEvent, ...]
    surviving: tuple[Part, ...]
    safe: int  # number of the newest block that is safe and still there
    finalized: int


def hash32(*parts: object) -> Hash32:
    return Hash32(hashlib.sha256(repr(parts).encode()).digest())


def block(number: int, parent: Hash32, salt: object = 0, level: Level = Level.PROVED) -> Block:
    return Block(number, hash32(number, parent, salt), parent, 1000 + number, level, "p", "single:p")


def signed(rng: random.Random) -> Signed:
    return Signed(None, rng.choice(TASKS), rng.choice(OPERATORS), rng.choice(DIGESTS), G1(bytes(64)))


def happenings(rng: random.Random, number: int) -> tuple[ChainEvent, ...]:
    found: list[ChainEvent] = []
    for i in range(rng.choice((0, 0, 1, 2, 4))):
        at, task, operator = At(number, i, 0), rng.choice(TASKS), rng.choice(OPERATORS)
        match rng.randrange(8):
            case 0 | 1:
                validators = rng.randrange(3)
                found.append(OperatorRegistered(at, operator, G1(bytes(64)), G2(bytes(128)), "", validators))
            case 2:
                found.append(OperatorDeregistered(at, operator, number + 1))
            case 3:
                found.append(TaskCancelled(at, task))
            case _:
                found.append(Attested(at, task, operator, rng.choice(DIGESTS), True))
    return tuple(found)


def random_log(rng: random.Random, records: int, first: int = 7) -> Iterator[Written]:
    """A log of `records` records, beginning with block `first`: blocks, undos, marks, gaps, signatures."""
    parts: list[Part] = []
    safe = finalized = -1
    nothing = hash32("before the first")
    for salt in range(records):
        places = [i for i, part in enumerate(parts) if not isinstance(part.what, Signed)]
        span = [_span(parts[i].what) for i in places]
        number = span[-1][1] + 1 if span else first
        unfinal = [i for i, (low, _) in zip(places, span, strict=True) if low > finalized]
        record: Record
        events: tuple[ChainEvent, ...] = ()
        match rng.choice("nnnnuummgss"):
            case "u" if unfinal:
                gone = unfinal[-rng.randint(1, min(len(unfinal), 5)) :]
                gaps = [i for i in gone if isinstance(parts[i].what, Gap)]
                gone = gone[gone.index(gaps[-1]) :] if gaps else gone
                taken = [parts[i].what for i in reversed(gone)]
                blocks = tuple(b for b in taken if isinstance(b, Block))
                gap = next(((g.first, g.last) for g in taken if isinstance(g, Gap)), None)
                record = Undo(blocks, {}, gap)
                parts = [part for i, part in enumerate(parts) if i not in gone]
                head = next((p.what for p in reversed(parts) if not isinstance(p.what, Signed)), None)
                safe = min(safe, _span(head)[1] if head else -1)
            case "m" if any(isinstance(parts[i].what, Block) for i in unfinal):
                blocks = tuple(b for i in unfinal if isinstance(b := parts[i].what, Block))
                newest = rng.randrange(len(blocks))
                final = blocks[rng.randint(0, newest)]
                record = Mark(blocks[newest].ref, final.ref, blocks)
                safe, finalized = blocks[newest].number, final.number
            case "g" if rng.random() < 0.5:
                last = number + rng.randrange(3)
                record = Gap(number, last, rng.choice((None, hash32("gap", salt))), "no provider has them")
                parts.append(Part(record))
            case "s":
                record = SignedBatch(tuple(signed(rng) for _ in range(rng.randint(1, 3))))
                parts += [Part(each) for each in record.responses]
            case _:
                new = []
                parent = _hash(parts[places[-1]].what) if places else nothing
                for _ in range(rng.randint(1, 4)):
                    new.append(block(number, parent or nothing, salt))
                    happened = happenings(rng, number)
                    parts.append(Part(new[-1], happened))
                    events += happened
                    parent, number = new[-1].hash, number + 1
                record = New(tuple(new), tables(events))
        yield Written(record, events, tuple(parts), safe, finalized)


def _span(what: Block | Gap | Signed) -> tuple[int, int]:
    assert not isinstance(what, Signed)
    return (what.number, what.number) if isinstance(what, Block) else (what.first, what.last)


def _hash(what: Block | Gap | Signed) -> Hash32 | None:
    assert not isinstance(what, Signed)
    return what.hash if isinstance(what, Block) else what.last_hash

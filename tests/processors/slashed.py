"""The random Network (world.py) with slashings, right ones and wrong, by contracts that mind no rule."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
from eth_abi.abi import encode
from eth_hash.auto import keccak

from nektar.model import (
    G1,
    Address,
    At,
    BlockClosed,
    ChainEvent,
    Event,
    GapPassed,
    Hash32,
    MissCounted,
    Moment,
    NetworkListed,
    Position,
    SlashingExecuted,
    SlashingRequested,
    SlashingTrusted,
    SlashingVetoed,
    Task,
    VetoVoted,
)
from nektar.networks.encoding import encode_answer
from tests.processors import world
from tests.processors.world import ANSWERS, OPERATORS, STRANGER, World, set_of, signature

PROVED, TRUSTED, VAULT = (Address(bytes([c]) * 20) for c in (0x51, 0x52, 0x53))
BURNER, THIEF = (Address(bytes([c]) * 20) for c in (0xBB, 0x77))
ID = Hash32(keccak(b"home"))
SETS = [Hash32(bytes([c]) * 32) for c in (0x81, 0x82)]
EQUIVOCATION, INVALID_RESPONSE, MISSED_DUTY, BOND_BREACH = (
    "0x" + keccak(name).hex()
    for name in (b"equivocation", b"invalid_response", b"missed_duty", b"bond_breach")
)
OWN = "0x" + 32 * "11"  # a condition that the Network has of its own
CONDITIONS = [EQUIVOCATION, EQUIVOCATION, INVALID_RESPONSE, MISSED_DUTY, MISSED_DUTY, BOND_BREACH, OWN]
OF_TASKS = {EQUIVOCATION, INVALID_RESPONSE, MISSED_DUTY}
# Blocks after a Task's grace in which it can be slashed for.
WINDOW = 2
TERMS = {**world.NETWORK.terms, "slashing_window": WINDOW, "max_duration": 12}
NETWORK = msgspec.structs.replace(
    world.NETWORK,
    contracts={
        **world.NETWORK.contracts,
        **{"slashing_manager": PROVED, "slashing_manager/other": STRANGER},
        **{"trusted_slasher": TRUSTED, "trusted_slasher/vault": VAULT},
    },
    selector={"network": "0x" + ID.hex()},
    terms=TERMS,
)

_TASK = "(bytes32,uint256,bytes32,bytes32,uint64,uint64,uint16,uint16,uint64)"
_PAIR = "(uint256,uint256)"
_SET = f"(address,{_PAIR},uint256)[]"
_PROOFS = {
    EQUIVOCATION: ("proveEquivocation", [_TASK, _SET, "uint256", _PAIR, _PAIR, _PAIR, _PAIR]),
    INVALID_RESPONSE: ("proveInvalidResponse", [_TASK, _SET, "uint256", _PAIR, _PAIR, "uint256"]),
}


def calldata(
    condition: str,
    task: Task,
    members: dict[Address, int],
    index: int,
    signed: list[tuple[tuple[int, int], G1]],
    divisor: int = 0,
) -> bytes:
    """Of the function that proves the condition, as eth-abi encodes it. `members` are (Operator, secret)."""
    name, types = _PROOFS[condition]
    set_ = [(m.operator, _pair(m.key), m.stake[0].amount) for m in set_of(members.items()).members]
    fields = tuple(
        word if i in (0, 2, 3) else int.from_bytes(word, "big")
        for i in range(9)
        for word in [task.preimage[32 * i : 32 * i + 32]]
    )
    values: list[object] = [fields, set_, index]
    for answer, made in signed:
        values += [answer, _pair(made)]
    values += [divisor] if condition == INVALID_RESPONSE else []
    return bytes(keccak(f"{name}({','.join(types)})".encode())[:4] + encode(types, values))


def _pair(point: bytes) -> tuple[int, int]:
    return int.from_bytes(point[:32], "big"), int.from_bytes(point[32:], "big")


# What was made by `Slashed.evidence` → (condition, Task, Operator) that it proves; None: nothing.
PROVES: dict[bytes, tuple[str, Hash32, Address] | None] = {b"look": None}


class Slashed(World):
    """Its slashers: one by proof and one on trust, in blocks; a vault's, in seconds, with captured stake."""

    def __init__(self, rng: random.Random, pauses: bool = True) -> None:
        super().__init__(rng, pauses)
        self._requests: list[SlashingRequested] = []
        self._votes: dict[tuple[Address, Hash32], int] = {}
        self._trusted: SlashingRequested | None = None  # of which no more is said yet
        self._numbers = rng.choice((0, 0, 0, 7))  # a log may begin when there were Tasks already

    def gap(self) -> GapPassed:
        """Tasks may be submitted in it."""
        self._numbers += self.rng.choice((0, 1))
        return super().gap()

    def _any(self, at: At) -> ChainEvent | None:
        if self._trusted:
            return self._say_more(at)
        kinds = [
            *(super()._any, self._request, self._request, self._vote, self._veto),
            *(self._execute, self._execute, self._slash, self._list),
        ]
        return self.rng.choices(kinds, [24, 2, 2, 2, 1, 2, 2, 1, 1])[0](at)

    def _request(self, at: At) -> ChainEvent:
        rng, slasher = self.rng, self.rng.choice([PROVED, TRUSTED, TRUSTED, VAULT])
        now, unit = self._now(at, slasher)
        about = self._some_task() if rng.random() < 0.9 else None
        task_hash = about.hash if about else rng.choice([None, Hash32(bytes([rng.randrange(3)] * 32))])
        veto, last = now + rng.choice((-1, 0, 2, 4)), now + rng.choice((-1, 3, 6, 8, 20))
        if self._requests and rng.random() < 0.03:
            request = rng.choice(self._requests).request
        else:
            request = Hash32(keccak(b"%d %b" % (rng.randrange(1 << 30), slasher)))
        made = SlashingRequested(
            at=at,
            slasher=slasher,
            request=request,
            operator=rng.choice(OPERATORS[:2] if slasher == VAULT else [*OPERATORS, STRANGER]),
            penalty=(Position("it", rng.randrange(1, 1000)), Position("that", 1))[: rng.choice((1, 1, 2))],
            veto_deadline=Moment(unit, veto),
            condition=rng.choice(CONDITIONS),
            task_hash=task_hash,
            set=rng.choice(SETS) if slasher == VAULT else None,
            captured=Moment(unit, now - rng.randrange(60)) if slasher == VAULT else None,
            execution_deadline=Moment(unit, last) if rng.random() < 0.9 else None,
            proved=slasher == PROVED,
        )
        if made.condition == BOND_BREACH:
            made = msgspec.structs.replace(made, task_hash=None, set_hash=SETS[at.block % 2])
        self._requests.append(made)
        self._trusted = made if slasher == TRUSTED and rng.random() < 0.9 else None
        return made

    def _say_more(self, at: At) -> ChainEvent:
        about, self._trusted = self._trusted, None
        assert about
        receiver = self.rng.choice([BURNER, BURNER, THIEF, None])
        return SlashingTrusted(at, about.slasher, about.request, STRANGER, receiver, self.evidence(about))

    def evidence(self, about: SlashingRequested) -> bytes:
        """What the authority shows for it: nothing, nonsense, a proof, or what looks like one."""
        rng = self.rng
        known = [task for task in self._tasks if task.set_hash in self._sets]
        if about.condition not in _PROOFS or not known or rng.random() < 0.3:
            return rng.choice([b"", b"look"])
        own = [task for task in known if task.hash == about.task_hash]
        task = own[0] if own and rng.random() < 0.9 else rng.choice(known)
        members = self._sets[task.set_hash]
        order = list(members)
        mine = about.operator in members and rng.random() < 0.9
        index = order.index(about.operator) if mine else rng.randrange(len(order))
        secret, answers = members[order[index]], rng.sample(ANSWERS, 2)
        if rng.random() < 0.2:
            answers = [answers[0]] * 2
        false = rng.random() < 0.2
        signed = [
            (answer, signature(99 if false else secret, task.hash, keccak(encode_answer(*answer))))
            for answer in answers[: 2 if about.condition == EQUIVOCATION else 1]
        ]
        shown = calldata(about.condition, task, members, index, signed)
        # Of n = 10, (2, 5) is right.
        breach = answers[0] != answers[1] if about.condition == EQUIVOCATION else answers[0] != (2, 5)
        PROVES[shown] = (about.condition, task.hash, order[index]) if breach and not false else None
        return shown

    def _some_request(self) -> tuple[Address, Hash32, Address]:
        """A new one more often than not; some that nobody made."""
        if not self._requests or self.rng.random() < 0.05:
            return TRUSTED, Hash32(bytes(32)), STRANGER
        made = self.rng.choice(self._requests[-4:] if self.rng.random() < 0.8 else self._requests)
        return made.slasher, made.request, made.operator

    def _vote(self, at: At) -> ChainEvent:
        slasher, request, _ = self._some_request()
        votes = self._votes[slasher, request] = self._votes.get((slasher, request), 0) + 1
        return VetoVoted(at, slasher, request, STRANGER, votes, self.rng.choice((0, 2, 2)))

    def _veto(self, at: At) -> ChainEvent:
        slasher, request, _ = self._some_request()
        return SlashingVetoed(at, slasher, request)

    def _execute(self, at: At) -> ChainEvent:
        slasher, request, operator = self._some_request()
        taken = (Position("it", self.rng.randrange(1000)),)
        receiver = self.rng.choice([BURNER, BURNER, BURNER, THIEF, None])
        named = self.rng.choice([operator, operator, None])
        return SlashingExecuted(at, slasher, request, named, taken, receiver=receiver)

    def _slash(self, at: At) -> ChainEvent:
        """Without a request, or one that it does not name."""
        now, unit = self._now(at, VAULT)
        captured = Moment(unit, now - self.rng.randrange(60)) if self.rng.random() < 0.5 else None
        set_ = self.rng.choice([None, *SETS])
        taken = (Position("it", self.rng.randrange(1000)),)
        operator = self.rng.choice(OPERATORS[:2])
        slasher = self.rng.choice([VAULT, VAULT, STRANGER])
        return SlashingExecuted(at, slasher, None, operator, taken, set=set_, captured=captured)

    def _list(self, at: At) -> ChainEvent:
        return NetworkListed(at, ID, STRANGER, BURNER)

    def _now(self, at: At, slasher: Address) -> tuple[int, Literal["block", "timestamp"]]:
        if slasher == VAULT:
            return 1000 + 12 * at.block, "timestamp"
        return at.block, "block"


def slashed(rng: random.Random, blocks: int) -> list[Event]:
    """As `world.history`, with slashings."""
    return [*_counted(rng, world.history(rng, blocks, of=Slashed))]


def _counted(rng: random.Random, events: Sequence[Event]) -> Iterator[Event]:
    """With misses that count for proofs of several: of duties of which somebody says that they were missed,
    or will."""
    claimed = [
        (event.task_hash, rng.choice([event.operator, event.operator, *OPERATORS]))
        for event in events
        if isinstance(event, SlashingRequested) and event.condition == MISSED_DUTY and event.task_hash
    ]
    for event in events:
        if isinstance(event, BlockClosed) and claimed and rng.random() < 0.1:
            task_hash, operator = rng.choice(claimed)
            request = Hash32(rng.randbytes(32))
            at = At(event.block.number, 900, 900)  # the last of its block
            yield MissCounted(at, rng.choice([PROVED, PROVED, THIEF]), request, task_hash, operator)
        yield event

"""Makes false evidence of true: changes what it says, recomputes every hash that anyone can recompute, signs
with keys of its own, and mixes what was shown of other Tasks, contracts, forks and look-alike deployments.

It knows no condition: it takes bundles as they come, and what a condition is shown is all in their claims.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec
from eth_hash.auto import keccak

from nektar.chain import rlp
from nektar.chain.bloom import bloom, may_contain, union
from nektar.chain.header import read_header
from nektar.chain.receipt import decode_receipt
from nektar.chain.trie import ordered_proof, ordered_root
from nektar.errors import NektarError
from nektar.evidence import bls
from nektar.evidence.bundle import (
    AbsenceClaim,
    AggregateClaim,
    Bundle,
    CallClaim,
    EventClaim,
    MemberClaim,
    Part,
    SetMemberClaim,
    SignatureClaim,
    StateClaim,
    write,
)
from nektar.evidence.canonical import Octets
from nektar.evidence.verify import Reader, account_in, value_in
from nektar.model import G1, G2, Address, Member
from nektar.networks.encoding import encode_answer, encode_members, operator_set, set_hash_of, word
from nektar.networks.shown import EVENTS, stands
from tests.nektar.chain.tries import Reference

replace = msgspec.structs.replace
TASK_SUBMITTED_DATA = 288
_PARENT, _STATE, _RECEIPTS, _BLOOM = 0, 3, 5, 6  # places in a header


class Known(NamedTuple):
    """All that a forger has seen and has."""

    reader: Reader
    bundles: tuple[Bundle, ...]  # true ones, of the reader's Network and of others
    operators: tuple[bytes, ...]
    secrets: tuple[int, ...]  # keys that it owns, an Operator's own among them
    chain: Mapping[int, Part]  # every block, with all of its receipts
    # The same variables, under keys by other names, as they truly stood after that block.
    state: Callable[[StateClaim, dict[bytes, bytes]], StateClaim]


Forgery: TypeAlias = "Callable[[random.Random, Known], Bundle | bytes]"
KINDS: dict[str, Forgery] = {}


class Unfit(Exception):
    """The bundle that was drawn has nothing that this kind of forgery changes."""


def kind(make: Forgery) -> Forgery:
    KINDS[make.__name__] = make
    return make


def drawn(rng: random.Random, known: Known, *claims: type) -> Bundle:
    """One that has such claims, of any condition as likely. Raises Unfit where none has."""
    fit: dict[str, list[Bundle]] = {}
    for bundle in known.bundles:
        if not claims or any(isinstance(claim, claims) for claim in bundle.claims):
            fit.setdefault(bundle.condition, []).append(bundle)
    if not fit:
        raise Unfit
    return rng.choice(fit[rng.choice(sorted(fit))])


# --- any value ----------------------------------------------------------------------------------------


def text(tree: Any) -> bytes:
    """The canonical text of plain JSON."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()


def tree(bundle: Bundle) -> Any:
    return json.loads(write(bundle))


def values(of: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Everything in it, whole and in parts, and where it stands."""
    yield path, of
    if isinstance(of, dict | list):
        for key, each in of.items() if isinstance(of, dict) else enumerate(of):
            yield from values(each, (*path, key))


def put(of: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copied = of.copy()
    copied[path[0]] = put(of[path[0]], path[1:], value)
    return copied


def name_of(path: tuple[Any, ...]) -> Any:
    return next((key for key in reversed(path) if isinstance(key, str)), None)


@kind
def a_value_is_another(rng: random.Random, known: Known) -> bytes:
    """Any string, number or byte string, by another one that stands in such a place, or by one bit."""
    start = tree(drawn(rng, known))
    leaves = [(path, value) for path, value in values(start) if not isinstance(value, dict | list)]
    path, value = rng.choice(leaves)
    if rng.random() < 0.4:
        others = [
            each
            for path_, each in values(tree(drawn(rng, known)))
            if name_of(path_) == name_of(path) and type(each) is type(value) and each != value
        ]
        if others:
            return text(put(start, path, rng.choice(others)))
    return text(put(start, path, _near(value, rng)))


def _near(value: Any, rng: random.Random) -> Any:
    if isinstance(value, int):
        return rng.choice([value + 1, max(0, value - 1), 0, rng.randrange(1 << 53), value ^ 1])
    if value.startswith("0x") and len(value) > 2:
        octets = bytearray.fromhex(value[2:])
        at = rng.randrange(len(octets))
        changed = octets.copy()
        changed[at] ^= 1 << rng.randrange(8)
        several = [changed, octets[:-1], octets[1:], octets + b"\0", bytes(len(octets)), b""]
        return "0x" + rng.choice(several).hex()
    return rng.choice([value + "x", value[:-1], "task_manager", "delegation", "Attested", "0x00"])


@kind
def a_list_is_another(rng: random.Random, known: Known) -> bytes:
    """Items of any list left out, there twice, in another order, or one of another bundle's more."""
    start = tree(drawn(rng, known))
    path, value = rng.choice([(p, v) for p, v in values(start) if isinstance(v, dict | list) and v])
    if isinstance(value, dict):
        key = rng.choice(sorted(value))
        return text(put(start, path, rng.choice([_without(value, key), value | {key + "s": value[key]}])))
    at = rng.randrange(len(value))
    others = [
        each
        for path_, each in values(tree(drawn(rng, known)))
        if name_of(path_) == name_of(path) and isinstance(path_[-1], int)
    ]
    changed = rng.choice(
        [
            value[:at] + value[at + 1 :],
            [*value, value[at]],
            value[::-1],
            rng.sample(value, len(value)),
            [*value[:at], *rng.sample(others, min(1, len(others))), *value[at:]],
            [*value[:at], *rng.sample(others, min(1, len(others))), *value[at + 1 :]],
        ]
    )
    return text(put(start, path, changed))


def _without(of: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in of.items() if name != key}


# --- true parts, of elsewhere -------------------------------------------------------------------------


def tidy(bundle: Bundle, known: Known) -> Bundle:
    """With the blocks, receipts, sets and contracts that its claims need and no more, at the reader's
    addresses; what is missing comes from the chain."""
    parts = {number_of(part): part for part in bundle.blocks}
    blocks, names, committed, receipts = set(), {"task_manager"}, set(), set()
    for claim in bundle.claims:
        if isinstance(claim, EventClaim | CallClaim | StateClaim):
            blocks.add(claim.block)
        if isinstance(claim, AbsenceClaim):
            for number in range(claim.first, min(claim.last, claim.first + 10_000) + 1):
                blocks.add(number)
                if (part := parts.get(number, known.chain.get(number))) and _may_have(part, claim, known):
                    receipts.add(number)
        if isinstance(claim, EventClaim | CallClaim | StateClaim | AbsenceClaim):
            names.add(claim.contract)
        if (task := getattr(claim, "task", None)) is not None and len(task) == TASK_SUBMITTED_DATA:
            committed.add(set_hash_of(task))
        if isinstance(claim, SetMemberClaim):
            committed.add(claim.set)
    shown = {}
    for number in sorted(blocks):
        if part := parts.get(number, known.chain.get(number)):
            there = known.chain.get(number, part)
            held = part.receipts or (there.receipts if there.header == part.header else None)
            shown[number] = Part(part.header, held if number in receipts else None)
    return replace(
        bundle,
        contracts={
            name: Octets(known.reader.contracts[name]) for name in names if name in known.reader.contracts
        },
        blocks=tuple(shown.values()),
        sets=tuple(sorted({each for each in bundle.sets if keccak(each) in committed})),
    )


def _may_have(part: Part, claim: AbsenceClaim, known: Known) -> bool:
    """Whether the block's bloom asks for its receipts."""
    if claim.event not in EVENTS or claim.contract not in known.reader.contracts:
        return False
    named = [each.rjust(32, b"\0") for each in (claim.task, claim.operator) if each is not None]
    items = [known.reader.contracts[claim.contract], EVENTS[claim.event].topic, *named]
    filter_ = rlp.decode(part.header)[_BLOOM]
    return isinstance(filter_, bytes) and all(may_contain(filter_, item) for item in items)


def merged(rng: random.Random, bundles: Sequence[Bundle]) -> Bundle:
    """One that has all parts of these; of two blocks of one number, either."""
    shuffled = rng.sample(bundles, len(bundles))
    parts = {number_of(part): part for each in shuffled for part in each.blocks}
    return replace(
        bundles[0],
        blocks=tuple(parts[number] for number in sorted(parts)),
        sets=tuple(sorted({each for bundle in bundles for each in bundle.sets})),
        claims=tuple(claim for bundle in bundles for claim in bundle.claims),
    )


def subjects(known: Known) -> list[Octets]:
    return [each.subject for each in known.bundles]


@kind
def another_is_accused(rng: random.Random, known: Known) -> Bundle:
    """Of the same, or the same of another thing."""
    bundle = drawn(rng, known)
    operator = Octets(rng.choice([*known.operators, rng.randbytes(20), bundle.operator]))
    subject = rng.choice([*subjects(known), Octets(rng.randbytes(32)), bundle.subject])
    condition = rng.choice([bundle.condition, *(each.condition for each in known.bundles)])
    return tidy(replace(bundle, operator=operator, subject=subject, condition=condition), known)


@kind
def claims_are_mixed(rng: random.Random, known: Known) -> Bundle:
    """True claims of several bundles, of any Task, contract, fork or deployment."""
    several = rng.sample(known.bundles, rng.randint(2, 3))
    whole = merged(rng, several)
    claims = rng.sample(whole.claims, rng.randint(2, len(whole.claims)))
    accused = rng.choice(several)
    operator = Octets(rng.choice([*known.operators, accused.operator]))
    mixed = replace(whole, claims=tuple(claims), operator=operator, subject=rng.choice(several).subject)
    return tidy(mixed, known) if rng.random() < 0.9 else mixed


@kind
def a_claim_says_anothers_words(rng: random.Random, known: Known) -> Bundle:
    """Fields of one claim by those of another of its kind: a signature to another Task, a receipt of another
    block, the key of someone else."""
    whole = merged(rng, rng.sample(known.bundles, 2))
    first = rng.randrange(len(whole.claims))
    same = [claim for claim in whole.claims if type(claim) is type(whole.claims[first])]
    given, taken = whole.claims[first], rng.choice(same)
    names = rng.sample(given.__struct_fields__, rng.randint(1, len(given.__struct_fields__) - 1))
    other = replace(given, **{name: getattr(taken, name) for name in names})
    claims = [*whole.claims[:first], other, *whole.claims[first + 1 :]]
    return tidy(replace(whole, claims=tuple(rng.sample(claims, rng.randint(2, len(claims))))), known)


@kind
def a_look_alike_is_taken_for_the_network(rng: random.Random, known: Known) -> Bundle:
    """A bundle of another deployment under the reader's addresses, in its list alone or wherever they are."""
    bundle = rng.choice([b for b in known.bundles if not _is_readers(b, known)])
    if rng.random() < 0.2:
        return tidy(bundle, known)
    addresses = {bytes(at): bytes(known.reader.contracts[name]) for name, at in bundle.contracts.items()}
    renamed = replace(
        bundle, contracts={name: Octets(addresses[at]) for name, at in bundle.contracts.items()}
    )
    receipts = {}
    for i, claim in enumerate(bundle.claims):
        if isinstance(claim, EventClaim):
            entries = decode_receipt(claim.receipt).entries
            receipts[i] = _receipt(
                [[addresses.get(e.address, e.address), [*e.topics], e.data] for e in entries]
            )
    return rng.choice([renamed, rehashed(renamed, receipts=receipts)])


def _is_readers(bundle: Bundle, known: Known) -> bool:
    return all(known.reader.contracts[name] == address for name, address in bundle.contracts.items())


@kind
def all_of_it_accuses_another(rng: random.Random, known: Known) -> Bundle:
    """Every claim names the victim: its place, its address, its keys, with the chain's own proofs of them; in
    its name stand any signatures that it made, and the forger's."""
    bundle = drawn(rng, known)
    if not bundle.sets:
        raise Unfit
    members = operator_set(rng.choice(bundle.sets)).members
    accused = [i for i, m in enumerate(members) if m.operator == bundle.operator]
    victim = rng.randrange(len(members))
    was, now = members[accused[0] if accused else 0], members[victim]
    shown = [
        (members_of(b, c)[c.index].operator, c)
        for b in known.bundles
        for c in b.claims
        if isinstance(c, SignatureClaim) and c.index < len(members_of(b, c))
    ]
    hers = [claim for operator, claim in shown if operator == now.operator]
    own, secret = rng.random() < 0.5, known.secrets[0]
    claims: list[Any] = []
    for claim in bundle.claims:
        if isinstance(claim, SignatureClaim):
            said = rng.choice(hers) if hers and rng.random() < 0.5 else claim
            claim = replace(claim, index=victim, response=said.response, signature=said.signature)
            if own:
                signature = _signed(known, secret, claim.task, claim.response)
                claim = replace(claim, key_g2=Octets(bls.public_keys(secret)[1]), signature=signature)
            elif hers:
                claim = replace(claim, key_g2=hers[0].key_g2)
        elif isinstance(claim, MemberClaim | SetMemberClaim):
            claim = replace(claim, index=victim)
        elif isinstance(claim, AbsenceClaim) and claim.operator is not None:
            claim = replace(claim, operator=Octets(now.operator))
        elif isinstance(claim, StateClaim):
            names = {
                bls.key_hash(was.key): bls.key_hash(now.key),
                bytes(12) + was.operator: bytes(12) + now.operator,
            }
            claim = known.state(claim, names)
        claims.append(claim)
    forged = tidy(replace(bundle, claims=tuple(claims), operator=Octets(now.operator)), known)
    if rng.random() < 0.2:  # receipts that blooms ask for, but that say too much
        return replace(forged, blocks=tuple(Part(part.header) for part in forged.blocks))
    return forged


def members_of(bundle: Bundle, claim: SignatureClaim) -> tuple[Member, ...]:
    return next(
        (operator_set(each).members for each in bundle.sets if keccak(each) == set_hash_of(claim.task)), ()
    )


# --- keys and sets of its own -------------------------------------------------------------------------


def _signed(known: Known, secret: int, task: bytes, response: bytes) -> Octets:
    digest = bls.signing_digest(
        known.reader.chain_id, known.reader.contracts["task_manager"], keccak(task), keccak(response)
    )
    return Octets(bls.sign(secret, digest))


def _response(rng: random.Random, known: Known) -> Octets:
    shown = [claim.response for b in known.bundles for claim in b.claims if hasattr(claim, "response")]
    return rng.choice([*shown, Octets(encode_answer(rng.randrange(99), 7))])


@kind
def signed_with_a_key_of_its_own(rng: random.Random, known: Known) -> Bundle:
    """In the name of whoever stands in the claim; the key shown is its own or the victim's."""
    bundle = drawn(rng, known, SignatureClaim, AggregateClaim)
    claims = list(bundle.claims)
    places = [i for i, claim in enumerate(claims) if isinstance(claim, SignatureClaim | AggregateClaim)]
    at, secret, response = rng.choice(places), rng.choice(known.secrets), _response(rng, known)
    claim = claims[at]
    assert isinstance(claim, SignatureClaim | AggregateClaim)
    claim = replace(claim, response=response, signature=_signed(known, secret, claim.task, response))
    if rng.random() < 0.5:
        named = "key_g2" if isinstance(claim, SignatureClaim) else "apk_g2"
        claim = replace(claim, **{named: Octets(bls.public_keys(secret)[1])})
    if rng.random() < 0.5:
        [members] = [each for each in bundle.sets if keccak(each) == set_hash_of(claim.task)]
        index = rng.randrange(len(operator_set(members).members))
        claim = replace(claim, index=index) if isinstance(claim, SignatureClaim) else claim
    return tidy(replace(bundle, claims=(*claims[:at], claim, *claims[at + 1 :])), known)


@kind
def a_set_of_its_own_making(rng: random.Random, known: Known) -> Bundle:
    """The victims under keys of its own, in a set that a Task of its own commits to, all signed; the Task's
    submission is another one's, or is invented."""
    bundle = drawn(rng, known)
    if not bundle.sets:
        raise Unfit
    secret = known.secrets[0]
    key, twin = bls.public_keys(secret)
    old = rng.choice(bundle.sets)
    members = operator_set(old).members
    accused = rng.randrange(len(members))  # in whose name all is signed
    victims = {accused} | (
        {rng.randrange(len(members)) for _ in range(3)} if rng.random() < 0.5 else {*range(len(members))}
    )
    new = encode_members(
        [(m.operator, key if i in victims else m.key, m.stake[0].amount) for i, m in enumerate(members)]
    )
    under_the_true = rng.random() < 0.3  # a Task that commits to another set
    tasks = {
        task: task if under_the_true else Octets(task.replace(keccak(old), keccak(new)))
        for claim in bundle.claims
        if (task := getattr(claim, "task", None)) is not None
    }
    claims = []
    for claim in bundle.claims:
        if isinstance(claim, SignatureClaim | MemberClaim | SetMemberClaim) and rng.random() < 0.9:
            claim = replace(claim, index=accused)
        if isinstance(claim, SetMemberClaim):
            claim = replace(claim, set=Octets(keccak(new)))
        if isinstance(claim, SignatureClaim) and claim.index in victims:
            task = tasks[claim.task]
            signature = _signed(known, secret, task, claim.response)
            claim = replace(claim, task=task, key_g2=Octets(twin), signature=signature)
        elif isinstance(claim, AggregateClaim):
            task, many = tasks[claim.task], secret * (len(members) - len(claim.non_signers)) % bls.R
            signature = _signed(known, many, task, claim.response)
            claim = replace(claim, task=task, apk_g2=Octets(bls.public_keys(many)[1]), signature=signature)
        elif getattr(claim, "task", None) in tasks:
            claim = replace(claim, task=tasks[claim.task])  # type: ignore[union-attr]
        claims.append(claim)
    forged = replace(
        bundle,
        claims=tuple(claims),
        sets=tuple(sorted({*bundle.sets, Octets(new)})),
        operator=Octets(members[accused].operator),
        subject=rng.choice([bundle.subject, *(Octets(keccak(task)) for task in tasks.values())]),
    )
    if rng.random() < 0.5:
        forged = _with_tasks(forged, tasks)
    if under_the_true:
        return replace(tidy(forged, known), sets=(Octets(new),))
    return tidy(forged, known)


@kind
def a_quorum_of_others(rng: random.Random, known: Known) -> Bundle:
    """Who did not sign is in; the sum of keys is made right, that of signatures as far as it can be."""
    bundle = drawn(rng, known, AggregateClaim)
    [at] = [i for i, claim in enumerate(bundle.claims) if isinstance(claim, AggregateClaim)]
    claim = bundle.claims[at]
    assert isinstance(claim, AggregateClaim)
    [members] = [
        operator_set(each).members for each in bundle.sets if keccak(each) == set_hash_of(claim.task)
    ]
    out = tuple(sorted(rng.sample(range(len(members)), rng.randrange(len(members)))))
    twins = {c.index: c.key_g2 for b in known.bundles for c in b.claims if isinstance(c, SignatureClaim)}
    own = bls.public_keys(rng.choice(known.secrets))[1]
    keys = [G2(twins.get(i, own)) for i in range(len(members)) if i not in out]
    signed = [
        G1(c.signature)
        for b in known.bundles
        for c in b.claims
        if isinstance(c, SignatureClaim | AggregateClaim)
    ]
    try:
        apk = rng.choice([claim.apk_g2, Octets(bls.aggregate_g2(keys)), Octets(own)])
        some = rng.sample(signed, rng.randint(1, min(4, len(signed))))
        signature = rng.choice([claim.signature, Octets(bls.aggregate(some))])
    except bls.InvalidPoint as error:
        raise Unfit from error
    changed = replace(claim, non_signers=out, apk_g2=apk, signature=signature)
    forged = replace(bundle, claims=(*bundle.claims[:at], changed, *bundle.claims[at + 1 :]))
    return tidy(replace(forged, operator=Octets(rng.choice(known.operators))), known)


# --- blocks of its own --------------------------------------------------------------------------------


def number_of(part: Part) -> int:
    fields = rlp.decode(part.header)
    assert isinstance(fields[8], bytes)
    return int.from_bytes(fields[8])


def rehashed(
    bundle: Bundle,
    receipts: dict[int, bytes] | None = None,
    words: dict[tuple[int, int], int] | None = None,
    fields: dict[int, dict[int, bytes]] | None = None,
) -> Bundle:
    """The bundle on blocks that show what its claims say: `receipts` (by claim), `words` (by claim and
    variable) and header `fields` (by block) are put in, and every root, bloom, proof and parent made anew."""
    receipts, words, fields = receipts or {}, words or {}, fields or {}
    claims = list(bundle.claims)
    parts, parent = [], (-2, b"")
    for part in bundle.blocks:
        number, header = number_of(part), list(rlp.decode(part.header))
        mine = [i for i, c in enumerate(claims) if isinstance(c, EventClaim) and c.block == number]
        held = list(part.receipts or ())
        if mine or part.receipts is not None:
            shown = [receipts.get(i, claims[i].receipt) for i in mine]  # type: ignore[union-attr]
            items = list(dict.fromkeys([*shown, *held]))
            header[_RECEIPTS] = ordered_root(items)
            header[_BLOOM] = union(_bloom(each) for each in items)
            for i, receipt in zip(mine, shown, strict=True):
                proof = tuple(map(Octets, ordered_proof(items, items.index(receipt))))
                claims[i] = replace(
                    claims[i], transaction=items.index(receipt), receipt=Octets(receipt), proof=proof
                )
            held = items
        _state(bundle, number, header, claims, words)
        for place, value in fields.get(number, {}).items():
            header[place] = value
        if parent[0] == number - 1:
            header[_PARENT] = parent[1]
        encoded = rlp.encode(header)
        parent = number, keccak(encoded)
        shown_ = tuple(map(Octets, held)) if part.receipts is not None else None
        parts.append(Part(Octets(encoded), shown_))
    return replace(bundle, blocks=tuple(parts), claims=tuple(claims))


def _bloom(receipt: bytes) -> bytes:
    try:
        return decode_receipt(receipt).bloom
    except rlp.BadRlp:
        return bytes(256)


def _state(
    bundle: Bundle, number: int, header: list[Any], claims: list[Any], words: dict[tuple[int, int], int]
) -> None:
    mine = [i for i, c in enumerate(claims) if isinstance(c, StateClaim) and c.block == number]
    mine = [i for i in mine if any(claim == i for claim, _ in words)]
    accounts = {}
    for i in mine:
        claim = claims[i]
        places = [stands(claim.contract, v.name, v.keys) for v in claim.variables]
        held: dict[bytes, int] = {}
        for j, place in enumerate(places):
            value = words.get((i, j), 0) % 256**place.size << 8 * place.first
            held[keccak(place.slot)] = held.get(keccak(place.slot), 0) | value
        slots = [keccak(place.slot) for place in places]
        trie = Reference({slot: rlp.number(value) for slot, value in held.items() if value})
        address = keccak(bundle.contracts[claim.contract])
        accounts[address] = rlp.encode([b"\1", b"", trie.root, keccak(b"code")])
        variables = [
            replace(v, proof=tuple(map(Octets, trie.proof(slot))))
            for v, slot in zip(claim.variables, slots, strict=True)
        ]
        claims[i] = replace(claim, variables=tuple(variables))
    if mine:
        tries = Reference(accounts)
        header[_STATE] = tries.root
        for i in mine:
            address = keccak(bundle.contracts[claims[i].contract])
            claims[i] = replace(claims[i], account=tuple(map(Octets, tries.proof(address))))


@kind
def headers_that_say_something_else(rng: random.Random, known: Known) -> Bundle:
    """Any field of any header, and whatever follows from it."""
    bundle = drawn(rng, known)
    part = rng.choice(bundle.blocks)
    header = list(rlp.decode(part.header))
    place = rng.randrange(len(header))
    value = header[place]
    assert isinstance(value, bytes)
    other = bytes([*value[:-1], (value[-1] ^ rng.randint(1, 255)) if value else 1])
    if rng.random() < 0.5:
        return tidy(rehashed(bundle, fields={number_of(part): {place: other}}), known)
    changed = Part(Octets(rlp.encode([*header[:place], other, *header[place + 1 :]])), part.receipts)
    return replace(bundle, blocks=tuple(changed if each is part else each for each in bundle.blocks))


@kind
def logs_that_nobody_made(rng: random.Random, known: Known) -> Bundle:
    """Any word of a log, its address, or a whole log of another receipt, with tries and blocks made anew."""
    bundle = drawn(rng, known, EventClaim)
    places = [i for i, claim in enumerate(bundle.claims) if isinstance(claim, EventClaim)]
    at = rng.choice(places)
    claim = bundle.claims[at]
    assert isinstance(claim, EventClaim)
    logs = [[each.address, [*each.topics], each.data] for each in decode_receipt(claim.receipt).entries]
    log = logs[claim.log]
    others = [c for b in known.bundles for c in b.claims if isinstance(c, EventClaim)]
    match rng.randrange(5):
        case 0:
            log[0] = rng.choice([*known.reader.contracts.values(), rng.randbytes(20)])
        case 1:
            log[1][rng.randrange(len(log[1]))] = rng.choice([rng.randbytes(32), *subjects(known)])
        case 2 if log[2]:
            word_at = rng.randrange(len(log[2]) // 32) * 32
            log[2] = log[2][:word_at] + rng.randbytes(32) + log[2][word_at + 32 :]
        case 3:
            other = rng.choice(others)
            entry = decode_receipt(other.receipt).entries[other.log]
            logs[claim.log] = [log[0], [*entry.topics], entry.data]
        case _:
            logs.insert(rng.randrange(len(logs) + 1), [rng.randbytes(20), [], b""])
    return tidy(rehashed(bundle, receipts={at: _receipt(logs)}), known)


def _receipt(logs: list[Any]) -> bytes:
    class Seen(NamedTuple):
        address: bytes
        topics: Sequence[bytes]

    return b"\2" + rlp.encode([b"\1", b"\x52\x08", bloom(Seen(log[0], log[1]) for log in logs), logs])


@kind
def a_task_that_asks_something_else(rng: random.Random, known: Known) -> Bundle:
    """Any word of a Task, in all claims and in its submission's log; the signatures are what they were."""
    bundle = drawn(rng, known)
    tasks = {}
    for claim in bundle.claims:
        if (task := getattr(claim, "task", None)) is not None and len(task) == TASK_SUBMITTED_DATA:
            at = rng.randrange(9) * 32
            tasks.setdefault(task, Octets(task[:at] + word(rng.randrange(99)) + task[at + 32 :]))
    if not tasks:
        raise Unfit
    claims = [
        replace(claim, task=tasks[claim.task]) if getattr(claim, "task", None) in tasks else claim  # type: ignore[union-attr]
        for claim in bundle.claims
    ]
    subject = Octets(keccak(rng.choice(list(tasks.values()))))
    forged = replace(bundle, claims=tuple(claims), subject=rng.choice([subject, bundle.subject]))
    return tidy(_with_tasks(forged, tasks) if rng.random() < 0.7 else forged, known)


def _with_tasks(bundle: Bundle, tasks: dict[Octets, Octets]) -> Bundle:
    """With logs that name these Tasks instead."""
    receipts = {}
    for i, claim in enumerate(bundle.claims):
        if not isinstance(claim, EventClaim):
            continue
        logs = [[each.address, [*each.topics], each.data] for each in decode_receipt(claim.receipt).entries]
        for log in logs:
            for old, new in tasks.items():
                log[1] = [keccak(new) if topic == keccak(old) else topic for topic in log[1]]
                log[2] = new if log[2] == old else log[2]
        receipts[i] = _receipt(logs)
    return rehashed(bundle, receipts=receipts)


@kind
def state_that_never_was(rng: random.Random, known: Known) -> Bundle:
    """Other words in the slots of some variables, with tries and blocks made anew."""
    bundle = drawn(rng, known, StateClaim)
    roots = {number_of(part): read_header(part.header).state_root for part in bundle.blocks}
    words: dict[tuple[int, int], int] = {}
    for i, claim in enumerate(bundle.claims):
        if not isinstance(claim, StateClaim):
            continue
        root, _ = account_in(roots[claim.block], Address(bundle.contracts[claim.contract]), claim.account)
        for j, variable in enumerate(claim.variables):
            words[i, j] = value_in(root, claim.contract, variable)
    for place in rng.sample(sorted(words), rng.randint(1, min(2, len(words)))):
        words[place] = rng.choice([0, 1, words[place] + 1, rng.randrange(1 << 64)])
    return tidy(rehashed(bundle, words=words), known)


@kind
def absences_of_other_blocks(rng: random.Random, known: Known) -> Bundle:
    """Shorter, longer or moved ranges, of anything or anyone, and blooms that exclude all."""
    bundle = drawn(rng, known, AbsenceClaim)
    places = [i for i, claim in enumerate(bundle.claims) if isinstance(claim, AbsenceClaim)]
    at = rng.choice(places)
    claim = bundle.claims[at]
    assert isinstance(claim, AbsenceClaim)
    changes: list[dict[str, Any]] = [
        {"first": claim.first + rng.randint(-2, 2)},
        {"last": claim.last + rng.randint(-2, 2)},
        {"first": claim.last, "last": claim.last},
        {"task": rng.choice(subjects(known))},
        {"operator": Octets(rng.choice(known.operators))},
        {"task": None},
        {"operator": None},
        {"event": "TaskCancelled", "operator": None},
    ]
    forged = replace(
        bundle,
        claims=(*bundle.claims[:at], replace(claim, **rng.choice(changes)), *bundle.claims[at + 1 :]),
    )
    if rng.random() < 0.3:
        forged = rehashed(forged, fields={number_of(part): {_BLOOM: bytes(256)} for part in forged.blocks})
    return tidy(forged, known)


@kind
def several_at_once(rng: random.Random, known: Known) -> Bundle | bytes:
    """What one forgery leaves, another takes on."""
    kinds = [each for name, each in KINDS.items() if not name.startswith(("several", "a_value", "a_list"))]
    forged = rng.choice(kinds)(rng, known)
    if isinstance(forged, bytes):
        return forged
    second = known._replace(bundles=(forged, drawn(rng, known)))
    try:
        return rng.choice(kinds)(rng, second)
    except (IndexError, ValueError, KeyError, NektarError) as error:  # nothing of the kind, or no sense
        raise Unfit from error

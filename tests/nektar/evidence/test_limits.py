"""A forged bundle of whatever size may be costs seconds, whatever is in it."""

from __future__ import annotations

import time

import msgspec
import pytest
from eth_hash.auto import keccak

from nektar.chain import rlp
from nektar.chain.receipt import Entry
from nektar.chain.trie import ordered_proof
from nektar.evidence import bls
from nektar.evidence.bundle import (
    MAX_BYTES,
    MAX_OCTETS,
    AbsenceClaim,
    Bundle,
    MemberClaim,
    Part,
    SignatureClaim,
    StateClaim,
    Variable,
    read,
    write,
)
from nektar.evidence.canonical import NotCanonical, Octets
from nektar.evidence.verify import LIMITS, NotProved
from nektar.model import Address
from nektar.networks.encoding import encode_answer, encode_members
from tests.nektar.evidence.small_chain import (
    CODE,
    CONTRACTS,
    EMPTY_STORAGE,
    NOISE,
    RIGHT,
    SET,
    STRANGER,
    TASK,
    SmallChain,
    aggregate,
    header,
    judged,
    member,
    set_of,
    sign,
    task_of,
)
from tests.seeds import thorough

replace = msgspec.structs.replace
# On a machine that does other things too; each takes some seconds at most where it has a core of its own.
SECONDS = 12


def said(bundle: Bundle | bytes) -> str:
    """Why it is refused, or nothing; in time."""
    text = bundle if isinstance(bundle, bytes) else write(bundle)
    start = time.process_time()
    try:
        judged(read(text))
    except (NotProved, NotCanonical) as error:
        return str(error)
    finally:
        taken = time.process_time() - start
        assert taken < SECONDS, f"{taken:.1f} s"
    return ""


def absent(first: int, last: int, task: bytes) -> AbsenceClaim:
    return AbsenceClaim("task_manager", "Attested", first, last, task=Octets(keccak(task)))


@pytest.fixture(scope="module")
def long() -> SmallChain:
    """As many blocks as a bundle has room for."""
    chain, parent = SmallChain(), bytes(32)
    for number in range(100, 100 + MAX_BYTES // 1_100):
        chain.headers.append(header(number, parent))
        parent = keccak(chain.headers[-1])
    return chain


def test_thousands_of_absences_over_thousands_of_blocks(long: SmallChain) -> None:
    size = len(long.headers)
    fit = LIMITS["looks"] // size
    claims = [absent(100, 99 + size, b"%d" % i) for i in range(4_000)]
    shown = long.bundle(claims[0])
    assert MAX_BYTES > len(write(replace(shown, claims=tuple(claims[:fit])))) > MAX_BYTES * 0.8
    assert not said(replace(shown, claims=tuple(claims[:fit])))
    assert "2000000 looks" in said(replace(shown, claims=tuple(claims[: fit + 1])))
    assert "2000000 looks" in said(replace(shown, claims=tuple(claims[:600])))


@thorough
def test_thousands_of_absences_at_a_block_of_very_many_logs() -> None:
    """All of its logs are of the contract, and its bloom says that it may have any other."""
    chain = SmallChain()
    logs = [
        Entry(CONTRACTS["task_manager"], tuple(bls.Hash32(keccak(b"%d %d" % (i, j))) for j in range(4)), b"")
        for i in range(30_000)
    ]
    chain.block(logs[:15_000], logs[15_000:])
    claims = [absent(100, 100, b"%d" % i) for i in range(4_000)]
    shown = chain.bundle(claims[0], receipts=[100])
    assert not said(replace(shown, claims=tuple(claims[: LIMITS["looks"] // 30_001])))
    assert "2000000 looks" in said(replace(shown, claims=tuple(claims)))


def test_a_block_of_as_many_receipts_as_there_is_room_for() -> None:
    chain = SmallChain()
    chain.block([])
    receipt = chain.receipts[0][0]
    many = [receipt] * (MAX_BYTES // 2 // (len(receipt) + 8))
    part = Part(Octets(header(100, bytes(32), logsBloom=b"\xff" * 256)), tuple(map(Octets, many)))
    shown = replace(chain.bundle(absent(100, 100, TASK)), blocks=(part,))
    assert "not those of block 100" in said(shown)


@thorough
def test_signatures_of_keys_that_nobody_has_seen() -> None:
    keys = [bls.public_keys(10_000 + i) for i in range(1_024)]
    preimage = encode_members([(i.to_bytes(20), key, 1) for i, (key, _) in enumerate(keys)])
    task, response = Octets(task_of(preimage)), Octets(encode_answer(*RIGHT))
    claims = [
        SignatureClaim(task, i, Octets(keys[i][1]), response, Octets(sign(10_000 + i, RIGHT, task)))
        for i in range(LIMITS["signatures"] + 1)
    ]
    chain = SmallChain()
    assert not said(chain.bundle(*claims[:-1], sets=[preimage]))
    assert "at most 512 signatures" in said(chain.bundle(*claims, sets=[preimage]))
    assert "at most 4096 claims" in said(chain.bundle(*(claims * 8), sets=[preimage]))


def test_aggregates_of_large_sets() -> None:
    secrets = list(range(20_000, 21_024))
    preimage = set_of(secrets, [i.to_bytes(20) for i in range(1_024)])
    task, whole = task_of(preimage), sum(secrets) % bls.R
    claim = replace(
        aggregate(range(5)),
        task=Octets(task),
        non_signers=(),
        apk_g2=Octets(bls.public_keys(whole)[1]),
        signature=Octets(sign(whole, RIGHT, task)),
    )
    fit = LIMITS["keys in sums"] // 1_024
    chain = SmallChain()
    assert not said(chain.bundle(*[claim] * fit, sets=[preimage]))
    assert "at most 16384 keys in sums" in said(chain.bundle(*[claim] * (fit + 1), sets=[preimage]))


def test_non_signers_without_end() -> None:
    claim = replace(aggregate(range(5)), non_signers=(1,) * (MAX_BYTES // 2 - 2_000))
    assert "rising places" in said(SmallChain().bundle(claim, sets=[SET]))
    rising = replace(claim, non_signers=tuple(range(MAX_BYTES // 9)))
    assert "rising places" in said(SmallChain().bundle(rising, sets=[SET]))


def test_a_set_as_large_as_there_is_room_for() -> None:
    one = encode_members([(STRANGER, bls.public_keys(1)[0], 1)])[64:]
    count = (MAX_BYTES - 3_000_000) // 2 // len(one)
    preimage = (32).to_bytes(32) + count.to_bytes(32) + one * count
    chain, task = SmallChain(), task_of(preimage)
    assert not said(chain.bundle(*[member(i, task) for i in range(4_000)], sets=[preimage]))
    claim = replace(aggregate(range(5)), task=Octets(task), non_signers=tuple(range(1, count)))
    assert "keys in sums" in said(chain.bundle(claim, sets=[preimage]))


def test_variables_and_claims_without_end() -> None:
    chain = SmallChain()
    variables = tuple(Variable("setHash", (), ()) for _ in range(200_000))
    account = rlp.encode([b"\1", b"", EMPTY_STORAGE, CODE])
    leaf = rlp.encode([b"\x20" + keccak(CONTRACTS["operator_registry"]), account])
    head = header(100, bytes(32), stateRoot=keccak(leaf))
    claim = StateClaim("operator_registry", 100, (Octets(leaf),), variables)
    shown = replace(
        chain.bundle(member(0)),
        blocks=(Part(Octets(head)),),
        contracts={name: Octets(CONTRACTS[name]) for name in ("operator_registry", "task_manager")},
    )
    assert "at most 4096 variables" in said(replace(shown, claims=(claim,)))
    fits = replace(claim, variables=variables[: LIMITS["variables"]])
    assert not said(replace(shown, claims=(fits,)))
    assert "at most 4096 claims" in said(replace(shown, claims=(MemberClaim(Octets(b""), 0),) * 200_000))


@thorough
def test_lists_that_take_long_to_read() -> None:
    each = rlp.sequence([b"\xc0" * (MAX_BYTES // 2 - 4_000)])
    chain = SmallChain()
    chain.block([NOISE])
    claim = absent(100, 100, TASK)
    any_log = header(100, bytes(32), logsBloom=b"\xff" * 256)
    for part in (Part(Octets(each)), Part(Octets(any_log), (Octets(each),))):
        assert said(replace(chain.bundle(claim), blocks=(part,)))
    held = each[: len(each) // 2]
    hidden = rlp.sequence([rlp.sequence([b"\xc0" * 130_000]), *[b"\x80"] * 16])
    for receipt, proof in (
        (held, ordered_proof([held], 0)),
        (b"", [hidden] * 62),
    ):
        event = replace(chain.event(100), receipt=Octets(receipt), proof=tuple(map(Octets, proof)))
        part = Part(Octets(header(100, bytes(32), receiptsRoot=keccak(proof[0]))))
        why = said(replace(chain.bundle(event), blocks=(part,)))
        assert why
        assert "expected at most" not in why


def test_more_bytes_or_strings_than_may_be_are_not_even_read() -> None:
    shown = SmallChain().bundle(member(0))
    claim = StateClaim("delegation", 1, (Octets(b""),) * MAX_OCTETS, ())
    assert f"at most {MAX_OCTETS} strings" in said(replace(shown, claims=(claim,)))
    assert f"at most {MAX_BYTES} bytes" in said(write(shown) + b" " * MAX_BYTES)
    assert "block 1: " in said(replace(shown, claims=(replace(claim, account=claim.account[:-10]),)))


def test_a_name_is_cut_before_it_is_said() -> None:
    shown = SmallChain().bundle(member(0))
    assert len(said(replace(shown, condition="a" * 1_000_000))) < 1_000
    assert len(said(replace(shown, contracts={"a" * 1_000_000: Octets(Address(b"\1" * 20))}))) < 1_000

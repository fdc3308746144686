"""What docs/EVIDENCE.md says is what is checked: a second verifier, written from it, comes to the same."""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nektar import facts as first
from nektar.evidence import schema
from nektar.evidence.bundle import Bundle, Claim, read, write
from nektar.evidence.canonical import NotCanonical
from nektar.evidence.verify import LIMITS, Verdict
from nektar.evidence.verify import verify as verify_first
from nektar.model import BlockRef
from nektar.networks.shown import EVENTS, VARIABLES
from processors.conditions.equivocation import Equivocation
from tests.nektar.evidence import second, silent
from tests.nektar.evidence.example import FILE, example
from tests.nektar.evidence.forger import KINDS, Known, Unfit, number_of, tidy
from tests.nektar.evidence.small_chain import READER, facts_of
from tests.nektar.evidence.test_forger import World, _world, judge, known
from tests.nektar.evidence.test_verify import called, chain, verdict_of, whole
from tests.seeds import seeds

replace = msgspec.structs.replace
DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "EVIDENCE.md").read_text("utf-8")
SECOND_READER = second.Reader(READER.chain_id, dict(READER.contracts))
__all__ = ["chain", "whole"]  # fixtures of theirs


def fact(said: tuple[Any, ...]) -> first.Fact:
    """The second's fact as the first's."""
    kind, *rest = said
    if kind in ("submitted", "accepted", "stored", "called", "cancelled", "paused"):
        *rest, number, hash_ = rest
        rest = [*rest, BlockRef(number, hash_)]
    kinds: dict[str, Any] = {
        "submitted": first.Submitted,
        "accepted": first.Accepted,
        "member": first.Member,
        "not member": first.NotMember,
        "cancelled": first.Cancelled,
        "paused": first.Paused,
        "signed": first.Signed,
        "forged": first.Forged,
        "stored": first.Stored,
        "absent": first.Absent,
        "refuted": first.Refuted,
        "in set": first.InSet,
        "called": first.Called,
    }
    made: first.Fact = kinds[kind](*rest)
    return made


CONDITIONS = {**second.CONDITIONS, silent.NAME: silent.holds_second}


def judged(text: bytes, reader: second.Reader) -> second.Verdict | None:
    try:
        return second.verify(text, reader, CONDITIONS)
    except second.Refused:
        return None


def same(one: Verdict | None, other: second.Verdict | None) -> bool:
    if one is None or other is None:
        return one is other
    blocks = tuple((block.number, bytes(block.hash)) for block in one.canonical)
    return (one.id, one.condition, one.accused.operator, one.accused.subject, blocks) == other


# --- the page -----------------------------------------------------------------------------------------


def test_the_worked_example_is_a_bundle_that_both_verify_and_says_what_the_page_says() -> None:
    text = FILE.read_bytes()
    assert text == write(example()), "python -m tests.nektar.evidence.example writes it again"
    verdict = verify_first(read(text), READER, lambda name: Equivocation().holds)
    assert same(verdict, judged(text, SECOND_READER))
    shown = PAGE[PAGE.index("## A worked example") :]
    hashes = {bytes.fromhex(each) for each in re.findall("0x([0-9a-f]{64})", shown)}
    assert {verdict.id, verdict.canonical[0].hash, verdict.accused.subject} < hashes
    header = second.block(example().blocks[0].header)
    task = example().claims[1].task  # type: ignore[union-attr]
    digests = [second.keccak(claim.response) for claim in example().claims[1:]]  # type: ignore[union-attr]
    manager = READER.contracts["task_manager"]
    assert {
        *(verdict.id, header.hash, header.receipts, verdict.accused.subject, task[96:128], *digests),
        *(second.signed_digest(READER.chain_id, manager, second.keccak(task), each) for each in digests),
    } == hashes
    assert f"{len(text):,}".replace(",", " ") in shown


def test_the_schema_is_what_the_types_give() -> None:
    kept = (DOCS / "evidence.schema.json").read_text("utf-8")
    assert kept == schema.text(), "python -m nektar.evidence.schema writes it"
    assert '"null"' not in kept


def test_the_page_names_every_field_claim_event_and_variable() -> None:
    said = schema.schema()["$defs"]
    for kind in said.values():
        for each in kind["properties"]:
            assert f"`{each}`" in PAGE or f"{{{each}, " in PAGE, each
    for claim in said["Bundle"]["properties"]["claims"]["items"]["discriminator"]["mapping"]:
        assert f"### `{claim}`" in PAGE, claim
    for event in EVENTS.values():
        assert f"`{event.signature}`" in PAGE, event
    for name, slot in VARIABLES.items():
        [row] = re.findall(rf"^\| `{re.escape(name)}` .*$", PAGE, re.MULTILINE)
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        first = "8 · (i mod 4)" if slot.array else str(slot.first)
        assert [cells[1], cells[2], cells[4], *cells[5:]] == [
            slot.contract,
            *map(str, (slot.slot, slot.further, slot.size)),
            first,
        ]
    for limit in LIMITS.values():
        assert f"{limit:,}".replace(",", " ") in PAGE or str(limit) in PAGE


def test_the_page_has_every_condition_that_has_evidence() -> None:
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))["project"]
    for name in project["entry-points"]["nektar.conditions"]:
        assert f"* **`{name}`**: " in PAGE, name
        assert f"| `{name}` | " in PAGE, name


def test_second_tables_are_the_pages() -> None:
    for name, event in second.EVENTS.items():
        assert f"| {name} | {event.contract} | `{event.signature}` |" in PAGE


# --- claims -------------------------------------------------------------------------------------------


def test_both_find_the_same_facts_in_every_kind_of_claim(whole: Bundle) -> None:
    shown: list[Any] = []

    def holds(operator: bytes, subject: bytes, facts: second.Facts, terms: second.Terms) -> bool:
        shown.extend(map(fact, facts))
        return True

    second.verify(write(whole), SECOND_READER, {"any": holds})
    assert shown == facts_of(whole)


def test_both_refuse_the_same_altered_bytes(whole: Bundle) -> None:
    rng, text = random.Random(6), write(whole)
    expected = facts_of(whole)

    def holds(operator: bytes, subject: bytes, facts: second.Facts, terms: second.Terms) -> bool:
        return list(map(fact, facts)) == expected

    for at in rng.sample(range(len(text)), 80):
        other = text[:at] + rng.choice([b"0", b"7", b"e", b'"', b" ", b"", b"00"]) + text[at + 1 :]
        try:
            said = second.verify(other, SECOND_READER, {"any": holds})
        except second.Refused:
            said = None
        assert same(verdict_of(other, expected), said), at


def test_both_read_a_call_as_the_same() -> None:
    made = called()
    bundle = made.bundle(made.call(100, 1))
    shown: list[Any] = []

    def holds(operator: bytes, subject: bytes, facts: second.Facts, terms: second.Terms) -> bool:
        shown.extend(map(fact, facts))
        return True

    second.verify(write(bundle), SECOND_READER, {"any": holds})
    assert shown == facts_of(bundle)


def conforms(value: Any, kind: Any, defs: Any) -> bool:
    """Whether a value is what the schema says, as far as schemas of bundles go."""
    if "$ref" in kind:
        return conforms(value, defs[kind["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in kind:
        return sum(conforms(value, each, defs) for each in kind["anyOf"]) == 1
    if "enum" in kind:
        return value in kind["enum"]
    match kind["type"]:
        case "string":
            sound = isinstance(value, str) and len(value) <= kind.get("maxLength", len(value))
            return sound and re.search(kind["pattern"], value) is not None
        case "integer":
            return type(value) is int and kind["minimum"] <= value < kind["exclusiveMaximum"]
        case "array":
            return isinstance(value, list) and all(conforms(each, kind["items"], defs) for each in value)
    if not isinstance(value, dict):
        return False
    if "properties" not in kind:
        return all(conforms(each, kind["additionalProperties"], defs) for each in value.values())
    return {*kind["required"]} <= value.keys() <= kind["properties"].keys() and all(
        conforms(each, kind["properties"][name], defs) for name, each in value.items()
    )


def test_bundles_are_what_the_schema_says_and_others_are_not(whole: Bundle) -> None:
    said = schema.schema()
    value = msgspec.json.decode(write(whole))
    assert conforms(value, said, said["$defs"])
    for other in (
        value | {"more": 1},
        value | {"operator": "e0"},
        value | {"chain_id": -1},
        value | {"claims": [{}]},
        value | {"blocks": [{"header": "0x", "receipts": None}]},
        value | {"condition": "\x1b"},
    ):
        assert not conforms(other, said, said["$defs"])
        with pytest.raises(NotCanonical):
            read(msgspec.json.encode(other, order="sorted"))


# --- true bundles and false -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    yield from _world()


@pytest.mark.real
def test_both_come_to_the_same_on_all_true_bundles(world: World) -> None:
    reader = second.Reader(
        world.reader.chain_id, dict(world.reader.contracts), terms=dict(world.reader.terms)
    )
    for bundle in world.true + world.elsewhere:
        assert same(judge(bundle, world.reader), judged(write(bundle), reader))


@pytest.mark.real
def test_true_claims_in_another_order_or_with_others_beside_them_prove_the_same_or_are_refused(
    world: World,
) -> None:
    """To both verifiers alike; and each of the two is met."""
    reader = second.Reader(
        world.reader.chain_id, dict(world.reader.contracts), terms=dict(world.reader.terms)
    )
    rng, has, came = random.Random("order"), known(world), dict[tuple[str, bool], int]()
    for bundle in world.true:
        said = judge(bundle, world.reader)
        assert said is not None
        others = rng.sample(world.true, 4)
        again = [(claim, bundle) for claim in bundle.claims]
        more = [(claim, other) for other in others for claim in rng.sample(other.claims, 1)]
        variants = [
            ("order", replace(bundle, claims=bundle.claims[::-1])),
            *(("order", replace(bundle, claims=_shuffled(rng, bundle.claims))) for _ in range(2)),
            *(("more", _with(bundle, claim, of, has)) for claim, of in rng.sample(again, 2) + more),
        ]
        for how, variant in variants:
            verdict = judge(variant, world.reader)
            assert same(verdict, judged(write(variant), reader))
            assert verdict is None or (verdict.id, verdict.accused) == (said.id, said.accused)
            came[how, verdict is None] = came.get((how, verdict is None), 0) + 1
    assert len(came) == 4, came


def _shuffled(rng: random.Random, claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
    return tuple(rng.sample(claims, len(claims)))


def _with(bundle: Bundle, claim: Claim, of: Bundle, has: Known) -> Bundle:
    """With a true claim more, of another bundle, and what that needs."""
    parts = {number_of(part): part for part in (*of.blocks, *bundle.blocks)}
    return tidy(
        replace(
            bundle,
            claims=(*bundle.claims, claim),
            blocks=tuple(parts[number] for number in sorted(parts)),
            sets=tuple(sorted({*bundle.sets, *of.sets})),
        ),
        has,
    )


@pytest.mark.real
@pytest.mark.parametrize("name", KINDS)
def test_both_come_to_the_same_on_forgeries(world: World, name: str) -> None:
    reader = second.Reader(
        world.reader.chain_id, dict(world.reader.contracts), terms=dict(world.reader.terms)
    )
    for seed in range(seeds(2, 12)):
        try:
            forgery = KINDS[name](random.Random(f"{name} {seed}"), known(world))
        except Unfit:
            continue
        text = forgery if isinstance(forgery, bytes) else write(forgery)
        assert same(judge(text, world.reader), judged(text, reader)), seed

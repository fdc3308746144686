"""Findings of a real chain are proved: their bundles made of what its node serves, their proofs run on it."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pytest

from devnet.anvil import free_port
from devnet.deploy import EQUIVOCATION, NETWORK
from nektar import bus as buses
from nektar.bus.port import Bus, Message, read_all
from nektar.chain.pool import Absent, Pool
from nektar.chain.rpc import Oversized, Refused, Unreachable
from nektar.chain.rpc import Provider as Asked
from nektar.config import Config, NetworkConfig, Provider
from nektar.evidence import bundle as bundles
from nektar.evidence import gather
from nektar.evidence import verify as verifying
from nektar.evidence.bundle import Bundle
from nektar.evidence.reader import reader_of
from nektar.evidence.sought import Sought
from nektar.evidence.verify import NotProved
from nektar.log import DEAD, FINDINGS, ROWS
from nektar.model import BlockRef
from nektar.rows import Change, Finding
from processors import docket, dry_run, outputs, proving
from processors import prosecutor as module
from processors.conditions.condition import Condition
from processors.conditions.equivocation import Equivocation
from processors.conditions.missed_duty import MissedDuty
from processors.followed import network_of
from processors.prosecutor import Prosecutor
from processors.proving import Work
from processors.reproof import Again, prove_again
from tests.devnet.contracts.conftest import CHAIN_ID, TERMS, Site, on_anvil
from tests.nektar.evidence.silent import Silent
from tests.nektar.evidence.test_gather import altered
from tests.processors.real_chain import ADAPTER, found, gathered
from tests.processors.told import finding as said
from tests.seeds import seeds

pytestmark = pytest.mark.real
HEADERS = {"generation": b"1", "processor": b"equivocation"}
CONDITION = Equivocation()
RIGHT, WRONG = (7, 13), (13, 7)
TURNS = 400
FIRST = "wrongful_slashing"

site = pytest.fixture(scope="module", name="site")(on_anvil)


@pytest.fixture(scope="module")
def findings(site: Site) -> list[Finding]:
    """Two Operators, each with two responses to one Task."""
    task = site.submit(n=91)
    for operator in (0, 1):
        for answer in (RIGHT, WRONG):
            site.attest(operator, task, answer)
    site.chain.mine()  # their block is the newest no more
    return sorted(found(site, CONDITION), key=lambda each: each.id)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    opened = buses.open(f"sqlite://{tmp_path / 'bus'}?partitions=1")
    yield opened
    opened.close()


def config(site: Site, *urls: str) -> Config:
    """The Network at home, by the chain's own node or by others."""
    providers = {f"p{i}": Provider(url) for i, url in enumerate(urls or (site.chain.url,))}
    terms = {name: getattr(TERMS, name) for name in ADAPTER.terms}
    network = NetworkConfig("home", CHAIN_ID, tuple(providers), site.contracts, terms=terms)
    return Config(providers=providers, networks=(network,))


@contextmanager
def prosecuting(
    bus: Bus, of: Config, conditions: Mapping[str, Condition] | None = None
) -> Iterator[Callable[[Callable[[], bool]], None]]:
    """The role; what it gives plays turns until something holds."""
    work = Work(of, {"home": ADAPTER}, conditions or {"equivocation": CONDITION}, bus)
    with work, Prosecutor(bus, work) as prosecutor:
        first = network_of(of.networks[0])
        work.look([first, msgspec.structs.replace(first, generation=2)])

        def until(holds: Callable[[], bool]) -> None:
            for _ in range(TURNS):
                prosecutor.turn(0.02)
                if holds():
                    return
            raise AssertionError("it does not come to that")

        yield until


def say(bus: Bus, *versions: Finding, generation: int = 1) -> None:
    network = network_of(NetworkConfig("home", 1, ("p",), {}))
    headers = HEADERS | {"generation": str(generation).encode()}
    with bus.writer("test", 0) as writer:
        writer.transaction(
            Message(FINDINGS, b"home", outputs.cloud_event(network, each, i), headers)
            for i, each in enumerate(versions)
        )


def rows(bus: Bus, table: str) -> list[dict[str, Any]]:
    """What was put out into a table, in order, with whether it was taken back."""
    return [
        row
        for message in read_all(bus, ROWS, 0)
        if message.headers["table"] == table.encode()
        for row in pa.ipc.open_stream(message.value).read_all().to_pylist()
    ]


def as_status(findings: Sequence[Finding], status: str) -> list[Finding]:
    return [msgspec.structs.replace(each, status=status) for each in findings]


def test_each_finding_gets_its_bundle_and_the_contract_accepts_its_proof(
    site: Site, bus: Bus, findings: list[Finding]
) -> None:
    say(bus, *findings, *as_status(findings, "safe"))
    with prosecuting(bus, config(site)) as until:
        until(lambda: len(rows(bus, "dry_runs")) == 2)
        say(bus, *as_status(findings, "final"))
        until(lambda: bus.end(FINDINGS, 0) <= (committed(bus) or 0))
    evidence = {row["id"]: row for row in rows(bus, "evidence")}
    assert len(rows(bus, "evidence")) == len(evidence) == 2
    for finding, run in zip(findings, sorted(rows(bus, "dry_runs"), key=lambda r: r["id"]), strict=True):
        bundle = bundles.read(evidence[finding.id]["bundle"].encode())
        assert bundle == gathered(site, CONDITION, finding)
        assert (run["id"], run["block_hash"], run["accepted"]) == (finding.id, finding.block_hash, True)
        assert run["gas"] > 100_000
    assert list(read_all(bus, DEAD, 0)) == []


def committed(bus: Bus) -> int | None:
    with bus.consumer(module.NAME, [FINDINGS]) as consumer:
        return consumer.committed(FINDINGS, 0)


def test_what_a_reorg_takes_away_has_no_evidence(site: Site, bus: Bus, findings: list[Finding]) -> None:
    say(bus, findings[0])
    with prosecuting(bus, config(site)) as until:
        until(lambda: bool(rows(bus, "dry_runs")))
        say(bus, *as_status(findings[:1], "retracted"))
        until(lambda: len(rows(bus, "evidence")) == 2)
    put, gone = rows(bus, "evidence")
    assert (put["id"], put["is_deleted"]) == (findings[0].id, False)
    assert (gone["id"], gone["is_deleted"]) == (findings[0].id, True)


def test_a_finding_of_a_chain_that_no_provider_has_waits_until_it_is_retracted(
    site: Site, bus: Bus, findings: list[Finding]
) -> None:
    sought = findings[0].facts.replace(findings[0].facts.split('"hash":"')[1][:66], "0x" + "ab" * 32)
    say(bus, msgspec.structs.replace(findings[0], facts=sought), findings[1])
    with prosecuting(bus, config(site)) as until:
        until(lambda: bool(rows(bus, "dry_runs")))
        say(bus, msgspec.structs.replace(findings[0], facts=sought, status="retracted"))
        until(lambda: [id_ for _, _, id_ in module._read_index(bus, 0)] == [findings[1].id])
    assert [row["id"] for row in rows(bus, "evidence")] == [findings[1].id]


def test_one_provider_that_answers_is_enough(site: Site, bus: Bus, findings: list[Finding]) -> None:
    say(bus, findings[0])
    with prosecuting(bus, config(site, f"http://127.0.0.1:{free_port()}", site.chain.url)) as until:
        until(lambda: bool(rows(bus, "dry_runs")))


def test_what_nodes_have_forgotten_is_taken_from_the_bundle_that_an_older_generation_made(
    site: Site, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte, though a role that begins anew has to find it on the bus, where much else lies."""
    condition, of = MissedDuty(), config(site)
    tasks = [site.submit(window=2, grace=0) for _ in range(TERMS.miss_allowance + 1)]
    site.mine_to(tasks[-1].end + 1)
    missed = as_status(found(site, condition)[:2], "final")
    ask, told = Asked.call, list[str]()

    async def forgetful(self: Asked, method: str, *params: Any) -> Any:
        if method == "eth_getProof":
            told.append(method)
            raise Refused(self.name, method, -32000, "missing trie node 12ab (path ) is not available")
        return await ask(self, method, *params)

    say(bus, *missed)
    with prosecuting(bus, of, {"missed_duty": condition}) as until:
        until(lambda: len(rows(bus, "evidence")) == 2)
    monkeypatch.setattr(Asked, "call", forgetful)
    say(bus, *missed, generation=2)
    with prosecuting(bus, of, {"missed_duty": condition}) as until:
        until(lambda: len(rows(bus, "evidence")) == 4)
    assert told
    before, after = ({row["id"]: row["bundle"] for row in rows(bus, "evidence")[i : i + 2]} for i in (0, 2))
    assert before == after
    assert all(before.values())


@pytest.fixture(scope="module")
def silence(site: Site, findings: list[Finding]) -> Finding:
    """One that rests on all blocks of a range."""
    site.mine_to(site.submit().end + 1)
    return max(found(site, Silent()), key=lambda each: each.block_number)


@pytest.mark.parametrize("rehashed", [False, True], ids=["it hashes to something else", "it is another one"])
@pytest.mark.parametrize("back", [0, 3])
def test_where_a_provider_shows_another_header_the_next_one_is_asked_and_the_first_is_named(
    site: Site,
    bus: Bus,
    silence: Finding,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    rehashed: bool,
    back: int,
) -> None:
    """Whichever block of the range it is of, the last or one before."""
    ask, told = Asked.batch, hex(silence.block_number - back)

    async def lying(self: Asked, calls: Sequence[Any]) -> list[Any]:
        answers = await ask(self, calls)
        return [
            altered(answer, random.Random(1), rehashed)
            if (self.name, each.method, each.params[:1]) == ("p0", "eth_getBlockByNumber", (told,))
            else answer
            for each, answer in zip(calls, answers, strict=True)
        ]

    monkeypatch.setattr(Asked, "batch", lying)
    say(bus, silence)
    with prosecuting(bus, config(site, site.chain.url, site.chain.url), {"silent": Silent()}) as until:
        until(lambda: bool(rows(bus, "evidence")))
    (row,) = rows(bus, "evidence")
    monkeypatch.undo()
    assert row["bundle"].encode() == bundles.write(gathered(site, Silent(), silence))
    (line,) = [each.getMessage() for each in caplog.records if "asking another" in each.getMessage()]
    assert "p0" in line
    assert f"block {int(told, 16)}" in line or f"block {int(told, 16) + 1}" in line


def test_what_rests_on_a_block_that_its_finding_does_not_name_is_not_put_out(
    site: Site, bus: Bus, silence: Finding, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However it was gathered: here of a finding that names a later block."""
    later = site.chain.rpc("eth_getBlockByNumber", hex(silence.block_number + 1), False)
    at = int(later["number"], 16)
    moved = msgspec.structs.replace(silence, block_number=at, block_hash=bytes.fromhex(later["hash"][2:]))
    sought = Silent().claims(silence)

    async def careless(provider: Asked, *given: Any, **more: Any) -> Bundle:
        return await gather.gather(provider, given[0], silence, sought)

    class Unnamed(Silent):
        def claims(self, finding: Finding) -> Sought:
            return msgspec.structs.replace(sought, fetch=sought.fetch[:1])

    monkeypatch.setattr(proving, "gather", careless)
    say(bus, moved)
    with prosecuting(bus, config(site), {"silent": Unnamed()}) as until:
        until(lambda: "that the finding names" in caplog.text)
    assert rows(bus, "evidence") == []


class Asking:
    """Who is asked for evidence, of which cases in which order; nobody answers until it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[Finding, Future[proving.Done | None]]] = []
        self._error = error or proving.Unserved([Absent("p", "it has none")])

    def knows(self, key: docket.Key) -> bool:
        return True

    def on(self, key: docket.Key, case: docket.Case) -> Future[proving.Done | None]:
        future: Future[proving.Done | None] = Future()
        self.asked.append((case.finding, future))
        return future

    @property
    def pending(self) -> list[Future[proving.Done | None]]:
        return [future for _, future in self.asked if not future.done()]

    def fail(self) -> None:
        """None of what is under way comes to anything."""
        for future in self.pending:
            future.set_exception(self._error)

    @property
    def conditions(self) -> list[str]:
        return [finding.condition for finding, _ in self.asked]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The role's time, which stands still."""
    told = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: told.now))
    return told


def test_what_people_must_act_on_waits_for_nothing_else(bus: Bus) -> None:
    work: Any = Asking()
    say(bus, *(said(n) for n in range(200)))
    with Prosecutor(bus, work) as prosecutor:
        prosecutor.turn(0.1)
        assert work.conditions == ["equivocation"] * module.AT_ONCE
        say(bus, *(said(n) for n in range(200, 300)), *(said(n, condition=FIRST) for n in range(300, 310)))
        prosecutor.turn(0.1)
        # None of the others has been answered.
        assert work.conditions[module.AT_ONCE :] == [FIRST] * module.AT_ONCE
        for _, future in work.asked[1:]:
            future.set_result(proving.Done(nothing=True))
        prosecutor.turn(0.0)
        again = work.conditions[2 * module.AT_ONCE :]
        assert again == [FIRST] * module.AT_ONCE + ["equivocation"] * (module.AT_ONCE - 1)
        for condition in {*work.conditions}:
            ids = [finding.id for finding, _ in work.asked if finding.condition == condition]
            assert ids == sorted(ids)


@pytest.mark.parametrize("stuck", ["equivocation", FIRST])
@pytest.mark.parametrize("new", ["equivocation", FIRST])
@pytest.mark.parametrize(("lives", "served"), [(1, 0.0), (2, 0.0), (1, 3_600.0)])
def test_what_is_new_is_not_behind_what_has_failed_before(
    bus: Bus,
    clock: SimpleNamespace,
    stuck: str,
    new: str,
    lives: int,
    served: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where that failed in another life, and is tried again with the next one's first turn."""
    monkeypatch.setattr(module, "SERVED_SECONDS", served)
    work: Any = Asking()
    say(bus, *(said(n, condition=stuck) for n in range(40)))
    for life in range(lives):
        with Prosecutor(bus, work) as prosecutor:
            prosecutor.turn(0.1)
            while life == 0 and clock.now < 10 * module.LONGEST_PAUSE:
                work.fail()
                clock.now += 1.0
                prosecutor.turn(0.0)
            if life + 1 == lives:
                assert served or len(work.pending) == module.AT_ONCE - 1  # nobody answers these
                say(bus, said(100, condition=new))
                prosecutor.turn(0.1)
                assert said(100, condition=new) in [finding for finding, _ in work.asked]
    assert {finding.id for finding, _ in work.asked} == {said(n).id for n in (*range(40), 100)}


@pytest.mark.parametrize(
    "error", [proving.Unserved([Absent("p", "it has none")]), Unreachable("p", "down")], ids=repr
)
def test_what_failed_is_tried_ever_more_rarely_up_to_a_bound_and_what_nobody_serves_is_said(
    bus: Bus, clock: SimpleNamespace, error: Exception
) -> None:
    work: Any = Asking(error)
    days, at = 30, list[float]()
    say(bus, said(1), said(1, "final"))
    with Prosecutor(bus, work) as prosecutor:
        prosecutor.turn(0.1)
        share = prosecutor._shares[0]
        while clock.now < days * 86_400 and len(at) < 200:
            (waiting,) = share._open.values()
            clock.now = max(clock.now, waiting.due)
            share.go_on()
            work.fail()
            at.append(clock.now)
            prosecutor.turn(0.0)
        pauses = [round(after - before, 3) for before, after in itertools.pairwise(at)]
        assert pauses == sorted(pauses)
        tried = [moment - at[0] for moment in at]
        assert all(any(late <= each < late + 60 for each in tried) for late in range(60, 3_600, 60))
        is_served = isinstance(error, Unreachable)
        assert max(pauses) == (module.LONGEST_PAUSE if is_served else module.RARE_PAUSE)
        assert [row["missing"] for row in rows(bus, "evidence")] == ([] if is_served else [str(error)])
        clock.now += module.RARE_PAUSE
        prosecutor.turn(0.0)
        work.asked[-1][1].set_result(proving.Done(bundle=b"{}"))
        prosecutor.turn(0.0)
        assert (rows(bus, "evidence")[-1]["bundle"], rows(bus, "evidence")[-1]["missing"]) == ("{}", "")


def test_what_nobody_serves_is_missing_with_the_reasons_of_all_that_answer_until_somebody_does(
    site: Site, bus: Bus, silence: Finding, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, pruned = Asked.call, {"p0", "p1"}

    async def without(self: Asked, method: str, *params: Any) -> Any:
        if method == "eth_getBlockReceipts" and self.name in pruned:
            raise Refused(self.name, method, -32000, "missing receipts: pruned")
        return await ask(self, method, *params)

    monkeypatch.setattr(Asked, "call", without)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(module, "SERVED_SECONDS", 0.0)
    say(bus, silence)
    with prosecuting(bus, config(site, site.chain.url, site.chain.url), {"silent": Silent()}) as until:
        until(lambda: bool(rows(bus, "evidence")))
        pruned.remove("p1")
        until(lambda: len(rows(bus, "evidence")) == 2)
    missing, made = rows(bus, "evidence")
    assert missing["bundle"] == made["missing"] == ""
    assert all(f"provider {name}: eth_getBlockReceipts" in missing["missing"] for name in ("p0", "p1"))
    assert made["bundle"].encode() == bundles.write(gathered(site, Silent(), silence))


@pytest.mark.parametrize(
    "others", [[], [Unreachable("p1", "down")]], ids=["alone", "beside one that is down"]
)
@pytest.mark.parametrize(
    "error", [Refused("p0", "m", -32000, "pruned"), NotProved("lie"), Oversized("p0", "")]
)
def test_who_does_not_answer_says_nothing_of_what_is_missing(
    others: list[Exception], error: Exception
) -> None:
    def asked(*errors: Exception) -> None:
        async def ask(provider: Asked) -> None:
            raise errors[int(provider.name[1:])]

        providers = [Asked(f"p{i}", "http://127.0.0.1") for i in range(len(errors))]
        asyncio.run(proving._first(Pool(providers, lies=NotProved), ask))

    with pytest.raises(proving.Unserved, match=re.escape(str(error))):
        asked(error, *others)
    with pytest.raises(Unreachable):
        asked(Unreachable("p0", "down"), *others)


UNSHOWABLE: dict[str, Callable[[pytest.MonkeyPatch, Finding], Finding]] = {}


def unshowable(make: Callable[[pytest.MonkeyPatch, Finding], Finding]) -> None:
    UNSHOWABLE[make.__name__.replace("_", " ")] = make


@unshowable
def a_bundle_that_is_too_large(patch: pytest.MonkeyPatch, finding: Finding) -> Finding:
    patch.setattr(bundles, "MAX_BYTES", 5_000)
    return finding


@unshowable
def a_bundle_that_takes_too_long_to_check(patch: pytest.MonkeyPatch, finding: Finding) -> Finding:
    patch.setitem(verifying.LIMITS, "signatures", 1)
    return finding


@unshowable
def a_finding_of_another_version(patch: pytest.MonkeyPatch, finding: Finding) -> Finding:
    return msgspec.structs.replace(finding, facts=finding.facts.replace('"sets":[', '"sets":["0x",'))


@pytest.mark.parametrize("what", UNSHOWABLE)
def test_of_what_no_verifier_takes_there_is_a_reason_and_no_evidence_and_nobody_is_asked_again(
    site: Site, bus: Bus, findings: list[Finding], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    asked = itertools.count()
    ask = Asked.call

    async def counted(self: Asked, method: str, *params: Any) -> Any:
        next(asked)
        return await ask(self, method, *params)

    monkeypatch.setattr(Asked, "call", counted)
    say(bus, UNSHOWABLE[what](monkeypatch, findings[0]))
    with prosecuting(bus, config(site, site.chain.url, site.chain.url)) as until:
        until(lambda: bool(rows(bus, "evidence")))
        (row,) = rows(bus, "evidence")
        assert (row["id"], row["bundle"], row["is_deleted"]) == (findings[0].id, "", False)
        assert row["missing"]
        before = next(asked)
        turns = itertools.count()
        until(lambda: next(turns) > 30)
        assert next(asked) == before + 1
    assert rows(bus, "dry_runs") == []
    with prosecuting(bus, config(site)) as until:  # a restart neither
        turns = itertools.count()
        until(lambda: next(turns) > 10)
    assert next(asked) == before + 2


class Later(NamedTuple):
    """A finding whose proof the contract takes later, once the Network allows the condition."""

    finding: Finding
    allow: Callable[[], object]


@pytest.fixture
def later(site: Site) -> Iterator[Later]:
    snapshot = site.chain.rpc("evm_snapshot")

    def allow(is_allowed: bool = True) -> None:
        site.do(site.admin, "network_registry", "allowCondition", NETWORK, EQUIVOCATION, is_allowed)

    allow(False)
    task = site.submit(n=91)
    for answer in (RIGHT, WRONG):
        site.attest(2, task, answer)
    site.chain.mine()
    (finding,) = (each for each in found(site, CONDITION) if each.task_hash == task.hash)
    yield Later(finding, allow)
    site.chain.rpc("evm_revert", snapshot)


def test_a_proof_that_holds_later_is_tried_again_in_later_blocks_and_each_attempt_is_kept(
    site: Site, bus: Bus, later: Later
) -> None:
    say(bus, later.finding)
    with prosecuting(bus, config(site)) as until:
        until(lambda: len(rows(bus, "dry_runs")) == 2)
        site.chain.mine()
        until(lambda: len(rows(bus, "dry_runs")) == 3)
        later.allow()
        until(lambda: len(rows(bus, "dry_runs")) == 4)
    runs = rows(bus, "dry_runs")
    assert [run["accepted"] for run in runs] == [False, False, False, True]
    assert [run["block_number"] for run in runs] == sorted({run["block_number"] for run in runs})
    assert all(run["revert"].startswith("ConditionNotAllowed(") for run in runs[:-1])
    assert len(rows(bus, "evidence")) == 1


def test_a_proof_is_not_tried_while_its_findings_block_is_the_newest_which_may_change_under_the_call(
    site: Site, bus: Bus, findings: list[Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Asked] = []

    async def still(provider: Asked) -> BlockRef:
        asked.append(provider)
        return findings[0].block if len(asked) <= 5 else await dry_run.newest(provider)

    monkeypatch.setattr(proving, "newest", still)
    say(bus, findings[0])
    with prosecuting(bus, config(site)) as until:
        until(lambda: len(asked) >= 3)
        assert rows(bus, "evidence")
        assert rows(bus, "dry_runs") == []
        until(lambda: bool(rows(bus, "dry_runs")))
    (run,) = rows(bus, "dry_runs")
    assert (run["accepted"], run["block_number"]) == (True, findings[0].block_number)


@pytest.mark.parametrize("keeps", [None, "p1"], ids=["nobody keeps it", "one of two does"])
def test_where_no_node_keeps_the_state_of_a_findings_block_its_proof_is_tried_on_the_newest(
    site: Site, bus: Bus, findings: list[Finding], monkeypatch: pytest.MonkeyPatch, keeps: str | None
) -> None:
    ask, gone = Asked.call, {"blockHash": "0x" + findings[0].block_hash.hex()}

    async def pruned(self: Asked, method: str, *params: Any) -> Any:
        if method == "eth_call" and params[1] == gone and self.name != keeps:
            raise Refused(self.name, method, -32000, "missing trie node 12ab (path ) is not available")
        return await ask(self, method, *params)

    monkeypatch.setattr(Asked, "call", pruned)
    site.chain.mine(2)
    say(bus, findings[0])
    with prosecuting(bus, config(site, site.chain.url, site.chain.url)) as until:
        until(lambda: bool(rows(bus, "dry_runs")))
    (run,) = rows(bus, "dry_runs")
    assert run["accepted"]
    assert (run["block_number"] > findings[0].block_number) == (keeps is None)


@pytest.fixture
def unlike(site: Site) -> Iterator[Callable[[str], Finding]]:
    """A finding, in the state of whose block another code stands in the slashing manager's place."""
    snapshot = site.chain.rpc("evm_snapshot")
    manager = site.contracts["slashing_manager"]
    code = site.chain.rpc("eth_getCode", manager, "latest")

    def under(other: str) -> Finding:
        site.chain.rpc("anvil_setCode", manager, other)
        task = site.submit(n=91)
        for answer in (RIGHT, WRONG):
            site.attest(2, task, answer)
        site.chain.mine()
        site.chain.rpc("anvil_setCode", manager, code)
        site.chain.mine()
        (finding,) = (each for each in found(site, CONDITION) if each.task_hash == task.hash)
        return finding

    yield under
    site.chain.rpc("evm_revert", snapshot)


# Runtime code by what it does: nothing; stops; answers with a word of zeros.
UNLIKE = {"it is not deployed yet": "0x", "it takes all": "0x00", "it answers with a word": "0x60205ff3"}


@pytest.mark.parametrize("what", UNLIKE)
def test_where_the_contract_did_not_run_a_proof_it_is_not_accepted_and_is_tried_where_it_does(
    site: Site, bus: Bus, unlike: Callable[[str], Finding], what: str
) -> None:
    finding = unlike(UNLIKE[what])
    say(bus, finding)
    with prosecuting(bus, config(site)) as until:
        until(lambda: bool(rows(bus, "dry_runs")))
    (run,) = rows(bus, "dry_runs")
    assert run["accepted"]
    assert run["block_number"] > finding.block_number


@pytest.mark.parametrize(
    "said",
    [
        *(None, "0x", "0x" + "00" * 32, {"accepted": True}),
        Refused("p0", "eth_call", 3, "execution reverted"),  # which is its word alone: nobody can show it
    ],
    ids=str,
)
def test_a_provider_that_refuses_or_answers_anything_but_the_request_says_nothing_and_the_next_is_asked(
    site: Site, bus: Bus, findings: list[Finding], monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    ask = Asked.call

    async def answered(self: Asked, method: str, *params: Any) -> Any:
        if (self.name, method) != ("p0", "eth_call"):
            return await ask(self, method, *params)
        if isinstance(said, Exception):
            raise said
        return said

    monkeypatch.setattr(Asked, "call", answered)
    say(bus, findings[0])
    with prosecuting(bus, config(site, site.chain.url, site.chain.url)) as until:
        until(lambda: bool(rows(bus, "dry_runs")))
    (run,) = rows(bus, "dry_runs")
    assert (run["accepted"], run["provider"], run["block_hash"]) == (True, "p1", findings[0].block_hash)


def test_where_all_refuse_a_proof_each_is_asked_in_later_blocks_and_the_attempt_names_them(
    site: Site, bus: Bus, later: Later
) -> None:
    say(bus, later.finding)
    with prosecuting(bus, config(site, site.chain.url, site.chain.url)) as until:
        until(lambda: len(rows(bus, "dry_runs")) == 2)
        later.allow()
        until(lambda: rows(bus, "dry_runs")[-1]["accepted"])
    *refused, accepted = rows(bus, "dry_runs")
    assert [sorted(run["provider"].split(", ")) for run in refused] == [["p0", "p1"]] * len(refused)
    assert accepted["provider"] in ("p0", "p1")


def test_a_restart_goes_on_with_the_bundle_that_is_made(
    site: Site, bus: Bus, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(bus, later.finding)
    with prosecuting(bus, config(site)) as until:
        until(lambda: len(rows(bus, "dry_runs")) == 2)

    async def never(*given: object) -> bytes:
        raise AssertionError("the bundle is there")

    monkeypatch.setattr(Work, "_gathered", never)
    later.allow()
    with prosecuting(bus, config(site)) as until:
        until(lambda: rows(bus, "dry_runs")[-1]["accepted"])
    assert len(rows(bus, "evidence")) == 1


def test_what_is_no_finding_is_a_dead_letter_and_what_comes_after_it_is_proved(
    site: Site, bus: Bus, findings: list[Finding]
) -> None:
    with bus.writer("test", 0) as writer:
        writer.transaction([Message(FINDINGS, b"home", b"{}", HEADERS)])
    say(bus, findings[0])
    with prosecuting(bus, config(site)) as until:
        until(lambda: bool(rows(bus, "dry_runs")))
    assert len(list(read_all(bus, DEAD, 0))) == 1


@pytest.mark.parametrize("seed", range(seeds(1, 3)))
def test_killed_at_any_write_it_puts_out_the_same(
    site: Site, tmp_path: Path, findings: list[Finding], seed: int
) -> None:
    """A process of its own, killed right after its first, second, … transaction, and started again."""
    with_bus = f"sqlite://{tmp_path / 'bus'}?partitions=1&lease=1"
    bus = buses.open(with_bus)
    say(bus, *findings)
    file = tmp_path / "config.json"
    file.write_bytes(msgspec.json.encode(config(site)))
    for dies_after in (seed + 1, 0):
        done = subprocess.run(
            [sys.executable, "-m", "tests.processors.dying_prosecutor", with_bus, str(file), str(dies_after)],
            timeout=60,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == (-signal.SIGKILL if dies_after else 0), done.stderr
    assert sorted(row["id"] for row in rows(bus, "evidence")) == [each.id for each in findings]
    assert sorted(row["id"] for row in rows(bus, "dry_runs")) == [each.id for each in findings]
    bus.close()


def test_the_chain_gives_the_evidence_again_and_what_is_not_the_same_is_told(
    site: Site, bus: Bus, findings: list[Finding]
) -> None:
    of = config(site)
    say(bus, *findings)
    with prosecuting(bus, of) as until:
        until(lambda: len(rows(bus, "dry_runs")) == 2)

    async def again() -> list[Again]:
        async with Asked("p0", site.chain.url) as provider:
            pool, reader = Pool([provider], lies=NotProved), reader_of(of.networks[0])
            network = network_of(of.networks[0])
            return await prove_again(bus, network, pool, {"equivocation": CONDITION}, reader)

    assert [(each.same, each.difference) for each in asyncio.run(again())] == [(True, "")] * 2
    row = docket.evidence(findings[0], rows(bus, "evidence")[0]["bundle"].replace('"index":', '"index": '))
    forged = outputs.messages(network_of(of.networks[0]), module.NAME, 0, [Change(None, row)])
    with bus.writer("test", 0) as writer:
        writer.transaction(forged)
    told = {each.finding.id: each for each in asyncio.run(again())}
    assert told[findings[1].id].same
    assert "reads and writes to itself" in told[findings[0].id].difference

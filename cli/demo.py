"""`nektar demo`: a whole Network on this machine, faults and all, and what was found beside what was done.

The order of things keeps the account honest: the plan and its truth are fixed first and their digest printed;
then the chain, agents and pipeline start; then the scenario is played; then a judge that shares no code with
the pipeline compares, in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import yaml

from cli import demo_bus
from cli.answers import Known, chain_spans, undone
from cli.explained import explained
from cli.latency import latencies
from cli.panels import run_all
from cli.progress import Account, Watching, show_account
from cli.proofs import proved
from cli.reported import AUDIENCE, Reporters, telemetry
from cli.reported import wrong as spans_wrong
from cli.settings import read_config
from cli.told import Findings, compare, watcher
from cli.up import STOP_SECONDS, end_all, supervised
from devnet.agent import Reports
from devnet.anvil import free_port
from devnet.home import POLL, Home
from devnet.judge import query
from devnet.plan import Fact, Plan, plan
from devnet.processes import Child, write_private
from devnet.scenario import Progress, Scenario
from nektar import plugins
from nektar.config import Config, ConfigError
from nektar.errors import NektarError
from nektar.role import ROLES, ends_with_parent
from nektar.telemetry import CHAIN, SENDER

NETWORK = "devnet"
KEEP = Path("build/demo")
SUMMARY = KEEP / "summary.json"
# Only a directory that holds this is ever deleted.
MARKER = ".nektar-demo"
# What the pipeline may take to catch up with a head: seconds on an idle machine, more while a killed role
# comes back. Nothing is decided by it: it only ends a run that is stuck.
PATIENCE_SECONDS = 120.0
LOOK_SECONDS = 0.02


class DemoFailed(NektarError):
    """What was found is not what was done, or the run did not come to its end."""


def run(
    *,
    seed: int,
    operators: int,
    tasks: int,
    reorgs: int,
    kill: str,
    bus: str | None,
    keep: Path | None,
    stay: bool,
) -> None:
    """The command. Raises DemoFailed unless found equals truth with nothing lost or doubled.

    A run on another `bus` than its own directory takes what it has there with it when it ends well, unless
    somebody asked to `keep` it; else the next run into the same directory does.
    """
    started = time.monotonic()
    SUMMARY.unlink(missing_ok=True)
    asked_to_keep, keep = keep is not None, keep or KEEP
    victims = [role for role in kill.split(",") if role]
    for role in victims:
        if role not in ROLES:
            raise ConfigError(f"--kill: expected roles of {', '.join(ROLES)}; got {role!r}")
    the_plan = plan(seed, operators, tasks, reorgs)
    reports = Reports(f"http://127.0.0.1:{free_port()}", NETWORK, AUDIENCE)
    bus = demo_bus.own(bus) if bus else None
    _clear(keep)
    if bus:
        demo_bus.note(keep, bus)
    with (
        TemporaryDirectory(prefix="nektar-truth-") as apart,
        Watching(the_plan.blocks) as watching,
        Home(the_plan, keep, reports) as home,
    ):
        reporters = Reporters(home, the_plan, reports)
        addresses = [*(operator.address for operator in home.operators), home.aggregator.address]
        facts = the_plan.truth(addresses, plugins.names("nektar.conditions"))
        truth = Truth.write(Path(apart), facts)
        watching.say(
            f"seed {seed}: {the_plan.tasks} tasks, {operators} operators, {the_plan.reorgs} reorgs; "
            f"truth of {len(truth.facts)} facts fixed, sha256 {truth.sha256[:16]}"
        )
        home.start()
        config_path, sql = _write_config(keep, home, bus, reports)
        config, _ = read_config(config_path, None)
        with _pipeline(config_path) as pipeline:
            pipeline.wait_until(lambda: _answers(sql), "the store to answer SQL")
            pipeline.wait_until(reporters.are_admitted, "the collector to know who reports")
            probe = Child("probe", "devnet.probe", home.chain.ws_url, sql)
            try:
                murders = _Murders(victims, the_plan, keep)

                def on_block(progress: Progress) -> None:
                    watching.on_block(progress)
                    murders.on_block(progress.block)

                def witness(number: int, block_hash: str) -> None:
                    pipeline.wait_until(lambda: _stored(sql, block_hash), f"block {number} to be stored")

                scenario = Scenario(home, the_plan, witness, on_block)
                scenario.play()
                head, head_hash = scenario.head
                watching.say(f"played {head} blocks; waiting for the pipeline to reach the head")
                pipeline.wait_until(lambda: _settled(sql, head_hash), f"head {head} to be folded and stored")
                config = read_config(config_path, None)[0]
                with Findings(config) as findings:
                    pipeline.wait_until(findings.told, "the watcher to be told of every finding")
                    due = findings.due()
                reported = home.flush()
                spans = reporters.counted(reported)
                pipeline.wait_until(reporters.are_known, "the collector to know whose keys count in the end")
                pipeline.wait_until(
                    lambda: reporters.stored(lambda statement: _rows(sql, statement)) >= spans["sent"],
                    f"{spans['sent']} spans to be stored",
                )
                provable = proved(config, lambda statement: _rows(sql, statement), pipeline.gives_up())
                received = home.receiver.tell({"report": 1})
                moments = probe.finish()
            finally:
                probe.stop()
            watching.say("judging")
            verdict = _judge(truth, home, scenario, sql)
            told = compare(lambda statement: _rows(sql, statement), due, moments["announced"], received)
            latency = latencies(config, moments["seen"]) | told.latencies
            summary = _summary(config, the_plan, scenario, truth, verdict, latency, sql)
            summary["webhooks"] = told.webhooks
            summary["provable"] = provable.counts
            summary["diagnosis"] = explained(the_plan.injected(addresses), verdict["found"])
            spans["stored"] = reporters.stored(lambda statement: _rows(sql, statement))
            summary["spans"] = spans
            known = Known(
                facts=truth.facts,
                chain=verdict["chain"],
                undone=undone(the_plan),
                reported={agent: each["sent"] for agent, each in reported.items()},
                processors=_processors(),
            )
            # They are told by the mark after the block whose consequences were waited for.
            pipeline.wait_until(
                lambda: _told_by_chain(sql) >= chain_spans(known),
                f"{chain_spans(known)} spans of the chain's own to be stored",
            )
            panels = run_all(lambda statement: query(sql, statement), NETWORK, known)
            summary["panels"] = panels.counts
            summary["kills"] = murders.done
            summary["seconds"] = round(time.monotonic() - started, 1)
            _write(keep, summary)
            watching.close()
            stays = bus is None or asked_to_keep or stay
            show_account(Account(summary, keep, stays))
            if stay:
                _stay(sql, home)
    if murders.left:
        raise DemoFailed(f"--kill: the run ended before {', '.join(murders.left)} could be killed")
    if not verdict["right"]:
        raise DemoFailed(
            f"what was found is not what was done: precision {summary['precision']:.4f}, "
            f"recall {summary['recall']:.4f}, {summary['lost']} lost, {summary['duplicated']} doubled; "
            f"see {SUMMARY}"
        )
    if why := spans_wrong(spans):
        raise DemoFailed(f"spans: {why}; see {SUMMARY}")
    if panels.wrong:
        raise DemoFailed(f"panels: {panels.wrong}; see {SUMMARY}")
    if provable.wrong:
        raise DemoFailed(f"evidence: {provable.wrong}; see {SUMMARY}")
    if told.wrong:
        raise DemoFailed(f"webhooks: {told.wrong}; see {SUMMARY}")
    if not stays:
        demo_bus.delete(keep)


def _clear(keep: Path) -> None:
    """Delete what an earlier demo left. Raises ConfigError rather than delete what no demo has made, or what
    one still runs in."""
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        if not (keep / MARKER).is_file():
            raise ConfigError(
                f"--keep: {keep} holds something that no demo has made; name an empty directory"
            )
        if keep.resolve() in (Path.cwd(), *Path.cwd().parents):
            raise ConfigError(f"--keep: {keep} holds the directory that this runs in; name another")
        if roles := supervised(keep):
            raise ConfigError(
                f"--keep: {', '.join(roles)} still run in {keep}; end them, or name another directory"
            )
        with suppress(NektarError):  # its brokers are gone, and it with them
            demo_bus.delete(keep)
        shutil.rmtree(keep)
    keep.mkdir(parents=True, exist_ok=True)
    (keep / MARKER).write_text("Made by `nektar demo`, which deletes this directory when it is run again.\n")
    SUMMARY.parent.mkdir(parents=True, exist_ok=True)


def _write_config(keep: Path, home: Home, bus: str | None, reports: Reports) -> tuple[Path, str]:
    """The demo's nektar.yaml, and the URL at which it will answer SQL."""
    listen = f"127.0.0.1:{free_port()}"
    config = {
        "data_dir": ".",
        "providers": {"proxy": {"url": home.proxy_url}},
        "networks": [
            {
                "name": NETWORK,
                "adapter": "nektar",
                "chain_id": home.chain_id,
                "rpc": ["proxy"],
                "contracts": home.contracts,
                "selector": home.selector,
                "terms": home.terms,
                "code": home.code,
                "poll": POLL,
            }
        ],
        "listen": {
            "sql": listen,
            "otlp": reports.url.removeprefix("http://"),
            "otlp_grpc": "",
            "metrics": "127.0.0.1:0",
        },
        "telemetry": telemetry(home),
        **({"bus": bus} if bus else {}),
        "watchers": [watcher(*home.start_receiver())],
    }
    text = "# Written by `nektar demo`.\n" + yaml.safe_dump(config, sort_keys=False)
    return write_private(keep / "nektar.yaml", text.encode()), f"http://{listen}"


class Truth(msgspec.Struct, frozen=True):
    """What is true of a run, in a file apart from all that the pipeline is given."""

    facts: list[Fact]
    file: Path
    sha256: str

    @classmethod
    def write(cls, directory: Path, facts: list[Fact]) -> Truth:
        written = msgspec.json.encode(facts)
        file = directory / "truth.json"
        file.write_bytes(written)
        return cls(facts, file, hashlib.sha256(written).hexdigest())


class _Pipeline:
    """`nektar up` as a process, and waiting for it."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def gives_up(self) -> Callable[[], bool]:
        """Whether waiting makes no sense any more, from now on."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        return lambda: self._process.poll() is not None or time.monotonic() > deadline

    def wait_until(self, there: Callable[[], bool], what: str) -> None:
        """Until `there()`. Raises DemoFailed when the pipeline has ended or PATIENCE_SECONDS are over."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        asked = time.monotonic()
        while not there():
            if self._process.poll() is not None:
                raise DemoFailed(f"the pipeline ended while waiting for {what}; its log is {self._log}")
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"waited {PATIENCE_SECONDS:.0f} s for {what}; the pipeline's log is {self._log}"
                )
            # As long a rest as the last look took: on a busy machine looking must not be what it waits for.
            time.sleep(LOOK_SECONDS + time.monotonic() - asked)
            asked = time.monotonic()


@contextmanager
def _pipeline(config_path: Path) -> Iterator[_Pipeline]:
    log = config_path.parent / "pipeline.log"
    command = [sys.executable, "-m", "cli.main", "up", "--config", str(config_path)]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,  # Ctrl-C is for the demo, which ends the pipeline itself
            preexec_fn=ends_with_parent(),
        )
        try:
            yield _Pipeline(process, log)
        finally:
            end_all({"up": process}, STOP_SECONDS + 5.0)  # it ends its own children first


def _rows(sql: str, statement: str) -> list[dict[str, Any]]:
    """What the store answers; nothing while it is not there."""
    try:
        return query(sql, statement)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return []


def _answers(sql: str) -> bool:
    return bool(_rows(sql, "SELECT 1 AS one FROM blocks HAVING count() >= 0"))


def _stored(sql: str, block_hash: str) -> bool:
    statement = f"SELECT number FROM blocks WHERE hash = '{block_hash}'"  # noqa: S608  a hash of our own
    return bool(_rows(sql, statement))


def _told_by_chain(sql: str) -> int:
    statement = f"SELECT count() AS n FROM otel_traces WHERE ResourceAttributes['{SENDER}'] = '{CHAIN}'"  # noqa: S608
    return sum(row["n"] for row in _rows(sql, statement))


def _settled(sql: str, head_hash: str) -> bool:
    """Whether the head is stored, and every processor has put out all that follows from it."""
    at_head = {
        row["processor"]
        for row in _rows(sql, "SELECT processor, block_hash FROM progress")
        if row["block_hash"] == head_hash
    }
    return at_head == _processors() and _stored(sql, head_hash)


def _processors() -> set[str]:
    ledgers = ("tasks", "diagnosis", "operators", "slashings", "service_levels", "traces")
    return {*ledgers, *plugins.names("nektar.conditions")}


class _Murders:
    """kill -9 of each victim once, at a block that the seed chooses."""

    def __init__(self, victims: list[str], the_plan: Plan, keep: Path) -> None:
        rng = random.Random(f"nektar-kill-{the_plan.seed}")  # noqa: S311  repeatable on purpose
        blocks = range(20, max(21, the_plan.blocks - 20))
        self._due = sorted((rng.choice(blocks), role) for role in victims)
        self._run_dir = keep / "run"
        self.done: list[dict[str, Any]] = []

    def on_block(self, block: int) -> None:
        for due in [each for each in self._due if block >= each[0]]:
            try:
                os.kill(int((self._run_dir / f"{due[1]}.pid").read_text()), signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                continue  # just being restarted: the next block is another chance
            self._due.remove(due)
            self.done.append({"role": due[1], "block": block})

    @property
    def left(self) -> list[str]:
        return [role for _, role in self._due]


def _judge(truth: Truth, home: Home, scenario: Scenario, sql: str) -> dict[str, Any]:
    """The verdict of a process that knows nothing of the pipeline."""
    case = truth.file.with_name("case.json")
    case.write_text(
        json.dumps(
            {
                "truth": {"file": str(truth.file), "sha256": truth.sha256},
                "sql": sql,
                "rpc": home.chain.url,
                "contracts": home.contracts,
                "abi": home.abi,
                "withheld": home.withheld,
                "unsafe": scenario.unsafe,
            }
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "devnet.judge", str(case)], capture_output=True, text=True, check=False
    )
    try:
        verdict: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise DemoFailed(f"the judge failed: {done.stderr.strip()[-400:]}") from None
    return verdict


def _summary(
    config: Config,
    the_plan: Plan,
    scenario: Scenario,
    truth: Truth,
    verdict: dict[str, Any],
    latency: dict[str, Any],
    sql: str,
) -> dict[str, Any]:
    duties = Counter(f["value"] for f in verdict["found"] if f["kind"] == "duty")
    return {
        "seed": the_plan.seed,
        "bus": config.bus_url.partition("://")[0],
        "store": config.store_url.partition("://")[0],
        "blocks": scenario.head[0],
        "reorgs": scenario.reorgs,
        "tasks": the_plan.tasks,
        "duties": dict(sorted(duties.items())),
        "truth": msgspec.to_builtins(truth.facts),
        "truth_sha256": truth.sha256,
        "found": verdict["found"],
        "precision": verdict["precision"],
        "recall": verdict["recall"],
        "lost": verdict["lost"],
        "duplicated": verdict["duplicated"],
        "latency_ms": latency,
        "counted": verdict["counted"],
        "differences": {k: verdict[k] for k in ("missing", "surplus", "lost_sample", "duplicated_sample")},
        "undone_blocks": _rows(sql, "SELECT count() AS n FROM blocks_rows WHERE is_deleted")[0]["n"],
    }


def _write(keep: Path, summary: dict[str, Any]) -> None:
    text = json.dumps(summary, indent=1) + "\n"
    for path in {SUMMARY.resolve(), (keep / SUMMARY.name).resolve()}:
        path.write_text(text)


def _stay(sql: str, home: Home) -> None:
    print(f"\nstays up until Ctrl-C: SQL at {sql}, the chain at {home.chain.url}", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print("ending", flush=True)

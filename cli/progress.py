"""What a person sees of a demo: progress while it runs, the account at its end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cli.show import COLOURS
from devnet.scenario import Progress as ScenarioProgress

# Without a terminal a line now and then is enough.
PLAIN_LINE_SECONDS = 5.0


class Watching:
    """Live progress on a terminal, plain lines elsewhere."""

    def __init__(self, blocks: int) -> None:
        self._console = Console()
        self._blocks = blocks
        self._progress = Progress(
            TextColumn("[bold]{task.fields[scene]}"),
            BarColumn(),
            TextColumn(
                "block {task.completed:.0f}, {task.fields[tasks]} tasks, {task.fields[reorgs]} reorgs"
            ),
            TextColumn("{task.fields[rate]:.0f} blocks/s"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, scene="starting", tasks=0, reorgs=0, rate=0.0)
        self._started = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._last_line = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()

    def say(self, line: str) -> None:
        """One line that stays."""
        self._console.print(
            Text(f"{time.monotonic() - self._started:6.1f} s  ", style="dim") + Text(line),
            highlight=False,
            soft_wrap=True,
        )

    def on_block(self, progress: ScenarioProgress) -> None:
        """The scenario has settled on a block."""
        now = time.monotonic()
        if self._first is None:
            self._first = (progress.block, now)
            self._progress.update(self._task, total=progress.block + self._blocks)
        block, since = self._first
        rate = (progress.block - block) / (now - since) if now > since else 0.0
        scene = f"{progress.scene}/{progress.scenes} {progress.kind.replace('_', ' ')}"
        if self._console.is_terminal:
            self._progress.update(
                self._task,
                completed=progress.block,
                scene=scene,
                tasks=progress.tasks,
                reorgs=progress.reorgs,
                rate=rate,
            )
        elif now - self._last_line > PLAIN_LINE_SECONDS:
            self._last_line = now
            self.say(f"scene {scene}: block {progress.block}, {progress.tasks} tasks, {rate:.0f} blocks/s")


class Account(msgspec.Struct, frozen=True):
    """What the end of a demo shows."""

    summary: dict[str, Any]
    left_in: Path
    bus_stays: bool = True


def show_account(account: Account) -> None:
    """Duties by state and findings by condition beside the truth, the judge's count, and what to try next."""
    summary, console = account.summary, Console(highlight=False)
    console.print()
    table = Table(title="found beside the truth", title_justify="left", box=None, header_style="bold")
    for column in ("", "value", "truth", "found"):
        table.add_column(column, justify="left" if column in ("", "value") else "right")
    truth, found = (Counter((_what(f), f["value"]) for f in summary[side]) for side in ("truth", "found"))
    for what, value in sorted(truth | found, key=lambda line: (line[0] not in ("duty", "cause"), line)):
        counts = truth[what, value], found[what, value]
        style = "" if counts[0] == counts[1] else "bold red"
        table.add_row(what, Text(value, style=COLOURS.get(value, "")), *map(str, counts), style=style)
    console.print(table)
    right = summary["precision"] == summary["recall"] == 1.0
    hooks, spans, panels = summary["webhooks"], summary["spans"], summary["panels"]
    proofs, causes = summary["provable"], summary["diagnosis"].values()
    told = {name: sum(cause[name] for cause in causes) for name in ("injected", "right", "none_reported")}
    console.print()
    for label, text, good in (
        ("precision, recall", f"{summary['precision']:.4f}, {summary['recall']:.4f}", right),
        (
            "chain and store",
            f"{summary['counted']['chain']} and {summary['counted']['store']} things compared: "
            f"{summary['lost']} lost, {summary['duplicated']} doubled",
            summary["lost"] == summary["duplicated"] == 0,
        ),
        (
            "spans",
            f"{spans['sent']} sent by operators and the aggregator, {spans['stored']} stored, "
            f"{spans['refused']} refused, {spans['refused_of_left']} of them from operators that had left",
            spans["stored"] == spans["sent"] and spans["refused"] == spans["refused_of_left"],
        ),
        (
            "causes",
            f"{told['right']} of {told['injected']} duties not done in time explained rightly, "
            f"{told['none_reported']} of an operator who reports nothing",
            told["injected"] == told["right"] + told["none_reported"],
        ),
        (
            "evidence",
            f"{proofs['verified_offline']} of {proofs['found']} findings verified offline, and "
            f"{proofs['dry_run_accepted']} accepted by the slashing contract in a dry run",
            proofs["found"] == proofs["dry_run_accepted"] == proofs["verified_offline"],
        ),
        (
            "webhooks",
            f"{hooks['verified']} of {hooks['due']} versions of findings told and verified, "
            f"{hooks['retracted']} of them retractions; {hooks['repeated_id']} of {hooks['sent']} repeated",
            hooks["due"] == hooks["delivered"] == hooks["verified"],
        ),
        (
            "panels",
            f"{panels['run']} of the board run on this: {panels['empty']} empty, {panels['failed']} failed, "
            f"{panels['untrue']} untrue",
            not panels["empty"] and not panels["failed"] and not panels["untrue"],
        ),
        (
            "run",
            f"{summary['blocks']} blocks, {summary['tasks']} tasks, {summary['reorgs']} reorgs that undid "
            f"{summary['undone_blocks']} stored blocks, {summary['seconds']} s",
            True,
        ),
    ):
        console.print(
            Text(f"{label:>18}  ", style="dim") + Text(text, style="" if good else "bold red"), soft_wrap=True
        )
    console.print("\nslowest hops", style="bold")
    for hop, figures in sorted(summary["latency_ms"].items(), key=lambda each: -each[1]["p50"]):
        over = "findings" if hop.endswith("webhook") else "blocks"
        console.print(
            Text(f"{hop.replace('_to_', ' → '):>18}  ", style="dim")
            + f"p50 {figures['p50']:.0f} ms, p99 {figures['p99']:.0f} ms over {figures['n']} {over}"
        )
    where = f"--dir {account.left_in}"
    console.print("\ntry next", style="bold")
    for command in (
        f"nektar tasks {where}",
        f"nektar findings {where}",
        f'nektar sql {where} "SELECT state, count() FROM duties GROUP BY state"',  # noqa: S608  shown, not run
        *((f"nektar replay {where}",) if account.bus_stays else ()),
    ):
        console.print(f"  .venv/bin/{command}", style="cyan", soft_wrap=True)


def _what(fact: Mapping[str, Any]) -> str:
    """What a line of the truth is about: a condition, with its reason where it has several."""
    named = str(fact["condition"] or fact["kind"])
    return f"{named}: {fact['reason']}" if fact["reason"] else named

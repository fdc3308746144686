"""`nektar index` beside its peers: how fast each is, and who notices that it is lied to.

    python -m bench.peers [--logs N] [--lied N] [--rounds N] [--only NAME …] [--write]

**Speed.** All read the same chain, in rounds that alternate; before each round the floor is measured, and
what is said in multiples of it is said of the same round. A time is that of the whole process, from its start
until its output is complete; then its output is read and counted. Slow ones are given the chain's beginning.

**Lies.** All read a short chain through the devnet's proxy, once as it is (what they keep must be the truth)
and once for each lie, which is about one block alone. What they keep is compared with the chain's own logs.

`build/bench/peers.json` has the figures; `--write` puts the table into README.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.floor import floor
from bench.load import BUNDLED, Load, load
from bench.peers.cryo import Cryo
from bench.peers.ethereum_etl import EthereumEtl
from bench.peers.nektar import Audited, Nektar
from bench.peers.ponder import Ponder
from bench.peers.tool import Ended, Row, Tool, row
from devnet.chain import Chain
from devnet.liar import ABOUT_ONE_BLOCK
from devnet.proxy import proxied

OUT = Path("build/bench/peers.json")
README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- bench.peers -->\n", "<!-- /bench.peers -->\n"
LOGS, LIED, ROUNDS = 500_000, 10_000, 5
# Blocks on top of what is read, so that all of it is final to everybody.
ABOVE = 64
TOOLS: tuple[Tool, ...] = (Nektar("reported"), Nektar("proved"), Cryo(), EthereumEtl(), Ponder())


class Speed(NamedTuple):
    """Medians, and the spread of what is said in multiples of the floor."""

    logs: int
    logs_s: int
    ratio: float
    ratio_min: float
    ratio_max: float
    rss_mb: int


class Verdict(NamedTuple):
    """What came of one lie."""

    noticed: bool  # it ended with an error
    stuck: bool  # it was stopped, and may have noticed or not
    false: int  # events that it keeps otherwise than they are
    missing: int  # events that it does not keep at all
    said: str  # its last word about an error, or its last

    @property
    def words(self) -> str:
        if self.noticed:
            if self.false:
                return f"noticed, and kept {self.false:,} false"
            return "noticed" if self.missing else "noticed, corrected"
        kept = ((self.false, "false"), (self.missing, "missing"))
        wrong = ", ".join(f"{count:,} {what}" for count, what in kept if count)
        if self.stuck:
            return f"never ended: {wrong}" if wrong else "never ended"
        return f"**kept it**: {wrong}" if wrong else "what it keeps is true"


def verdict(ended: Ended, kept: Counter[Row], truth: Counter[Row]) -> Verdict:
    """What came of a lie, by what was kept."""
    false, lacking = (kept - truth).total(), (truth - kept).total()
    lines = ended.words.strip().splitlines() or [""]
    said = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1])
    # Who dies of a signal has noticed nothing.
    return Verdict((ended.status or 0) > 0, ended.status is None, false, max(0, lacking - false), said[:300])


@contextmanager
def final(logs: int) -> Iterator[Load]:
    """A load of which everything is final."""
    with load(BUNDLED, logs) as of:
        chain = Chain(of.url)
        chain.rpc("anvil_mine", hex(ABOVE))
        chain.close()
        yield of


def speeds(tools: Sequence[Tool], logs: int, rounds: int, folder: Path) -> tuple[int, dict[str, Speed]]:
    """The floor's median, and each tool's speed by its name."""
    floors: list[float] = []
    rates: dict[str, list[float]] = {tool.name: [] for tool in tools}
    memory: Counter[str] = Counter()
    with final(logs) as of:
        for number in range(1, rounds + 1):
            floors.append(floor(of))
            print(f"round {number}: floor {floors[-1]:,.0f} logs/s", flush=True)
            for tool in tools:
                part = of.beginning(logs // tool.share)
                ended = tool.run(part, folder)
                kept = tool.count(folder) if ended.status == 0 else 0
                if kept != part.logs:
                    raise SystemExit(f"{tool.name}: kept {kept} of {part.logs} logs: {ended}")
                rates[tool.name].append(rate := kept / ended.seconds)
                memory[tool.name] = max(memory[tool.name], ended.rss_mb)
                print(f"  {tool.name} {rate:,.0f} ({rate / floors[-1]:.2f} ×), {ended.rss_mb} MB", flush=True)
    found = {}
    for tool in tools:
        ratios = sorted(rate / below for rate, below in zip(rates[tool.name], floors, strict=True))
        found[tool.name] = Speed(
            logs // tool.share,
            round(statistics.median(rates[tool.name])),
            round(statistics.median(ratios), 3),
            round(ratios[0], 3),
            round(ratios[-1], 3),
            memory[tool.name],
        )
    return round(statistics.median(floors)), found


def lies(tools: Sequence[Tool], logs: int, folder: Path) -> dict[str, dict[str, Verdict]]:
    """What came of each lie, by the tool's name and the lie's."""
    with final(logs) as of, proxied(of.url) as (liar, url):
        if any(isinstance(tool, Nektar) for tool in tools):
            tools = [*tools, Audited(of.url)]
        found: dict[str, dict[str, Verdict]] = {tool.name: {} for tool in tools}
        truth, block = _truth(of), (of.first + of.last) // 2
        for lie in ("", *ABOUT_ONE_BLOCK):
            liar.tell({"lie": lie, "seed": 7, **({"block": block} if lie else {})})
            print(f"lie: {lie or 'none'}", flush=True)
            for tool in tools:
                ended = tool.run(of._replace(url=url), folder)
                kept = Counter(tool.rows(folder))
                what = verdict(ended, kept, truth)
                print(f"  {tool.name}: {what.words} (exit {ended.status}): {what.said}", flush=True)
                if lie:
                    found[tool.name][lie] = what
                elif kept != truth or ended.status != 0:
                    raise SystemExit(f"{tool.name}: told the truth, it keeps something else: {ended}")
    return found


def _truth(of: Load) -> Counter[Row]:
    """What the chain itself says."""
    chain = Chain(of.url)
    asked = {"fromBlock": hex(of.first), "toBlock": hex(of.last), "address": of.address}
    logs = chain.rpc("eth_getLogs", asked)
    chain.close()
    return Counter(
        row(
            int(log["blockNumber"], 16),
            int(log["logIndex"], 16),
            log["blockHash"],
            log["topics"][1],
            log["data"],
        )
        for log in logs
    )


def table(found_floor: int, fast: dict[str, Speed], lied: dict[str, dict[str, Verdict]]) -> str:
    """Both, in Markdown."""
    head = ["", "keeps", "logs read", "logs/s", "× floor (spread)", "peak MB"]
    lines = [f"| {' | '.join((*head, *ABOUT_ONE_BLOCK))} |", "|---|---|" + "---:|" * 4 + "---|" * 4]
    for tool in (*TOOLS, Audited("")):
        cells = [tool.name, tool.keeps]
        if speed := fast.get(tool.name):
            spread = f"{speed.ratio_min:.2f}–{speed.ratio_max:.2f}"
            cells += [
                f"{speed.logs:,}",
                f"{speed.logs_s:,}",
                f"{speed.ratio:.2f} ({spread})",
                f"{speed.rss_mb:,}",
            ]
        else:
            cells += 4 * ["–"]
        verdicts = lied.get(tool.name, {})
        cells += [verdicts[lie].words if lie in verdicts else "–" for lie in ABOUT_ONE_BLOCK]
        if fast.get(tool.name) or verdicts:
            lines.append(f"| {' | '.join(cells)} |")
    if fast:
        lines.append(
            f"| the floor | nothing | {max(s.logs for s in fast.values()):,} | {found_floor:,} | 1 | |"
            + 4 * " |"
        )
    return "\n".join(lines) + "\n"


def written(page: str, told: str) -> str:
    """The page with this table between its marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md: expected {BEGIN.strip()} and {END.strip()}")
    return before + begin + told + end + after


def _installed(tools: Sequence[Tool]) -> list[Tool]:
    there = []
    for tool in tools:
        try:
            tool.install()
            there.append(tool)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{tool.name} is left out, since it can't be installed: {error}", file=sys.stderr)
    return there


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="bench peers")
    parser.add_argument("--logs", type=int, default=LOGS, help="logs of which speed is measured")
    parser.add_argument("--lied", type=int, default=LIED, help="logs among which lies are told")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="0: lies alone")
    parser.add_argument("--only", nargs="+", default=[""], help="tools whose names hold one of these")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    chosen = parser.parse_args(arguments)
    tools = _installed([tool for tool in TOOLS if any(part in tool.name for part in chosen.only)])
    OUT.parent.mkdir(parents=True, exist_ok=True)
    folder = (OUT.parent / "peer").resolve()
    found_floor, fast = (0, {}) if not chosen.rounds else speeds(tools, chosen.logs, chosen.rounds, folder)
    lied = lies(tools, chosen.lied, folder) if chosen.lied else {}
    shutil.rmtree(folder, ignore_errors=True)
    found: dict[str, Any] = {"floor": found_floor, "tools": {}}
    for name in {**fast, **lied}:
        speed = fast[name]._asdict() if name in fast else {}
        verdicts = {lie: what._asdict() for lie, what in lied.get(name, {}).items()}
        found["tools"][name] = {**speed, "lies": verdicts}
    OUT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    told = table(found_floor, fast, lied)
    print(told)
    if chosen.write:
        README.write_text(written(README.read_text("utf-8"), told), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

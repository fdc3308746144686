"""The command `nektar`: names, options and one way to fail. Each command imports what it needs when it runs.

Exit codes: 0 success; 1 it did not succeed, and one line on stderr says why; 2 the command or the
configuration was wrong; 130 Ctrl-C.
"""

from __future__ import annotations

import _thread
import atexit
import errno
import gc
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer

from nektar.errors import NektarError

# numpy's linear algebra, which nothing here uses, starts a thread for each core, which waits by turning.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# What is imported is never garbage; to look there for some after every 700 objects is a tenth of each start.
gc.set_threshold(50_000, 20, 20)
# Nor is it when the process ends, and that looks at all of it: a tenth of a second of every command.
atexit.register(gc.freeze)

# Long enough for the hook to be over.
AGAIN_SECONDS = 0.05

app = typer.Typer(
    name="nektar",
    help="Indexes a Nektar Network, proves what went wrong, and tells the people who must act.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

watchers = typer.Typer(help="Those who are told of findings.")
app.add_typer(watchers, name="watchers")
dashboards = typer.Typer(help="What people see in Grafana.")
app.add_typer(dashboards, name="dashboards")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="nektar.yaml; by default $NEKTAR_CONFIG or ./nektar.yaml")
]
DirOption = Annotated[
    Path | None, typer.Option("--dir", help="A data directory that holds its own nektar.yaml")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs")]
NetworkOption = Annotated[
    str | None, typer.Option("--network", help="Which Network, where there are several")
]


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="The run is a function of it")] = 1,
    operators: Annotated[int, typer.Option(help="How many operators")] = 7,
    tasks: Annotated[int, typer.Option(help="How many tasks; fewer hold everything once, not twice")] = 42,
    reorgs: Annotated[int, typer.Option(help="Random reorgs beside those of every run")] = 2,
    kill: Annotated[str, typer.Option(help="Roles to kill -9 at a random moment: ROLE[,ROLE…]")] = "",
    bus: Annotated[
        str | None, typer.Option(help="Run on this bus, kafka://HOST:PORT, instead of an embedded one")
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="Where the run is left, build/demo by default; an older one there is deleted"),
    ] = None,
    stay: Annotated[bool, typer.Option("--stay", help="Keep everything running until Ctrl-C")] = False,
) -> None:
    """A whole Network on this machine, faults and all, and what was found."""
    from cli.demo import run

    run(seed=seed, operators=operators, tasks=tasks, reorgs=reorgs, kill=kill, bus=bus, keep=keep, stay=stay)


@app.command()
def devnet(
    seed: Annotated[int, typer.Option(help="Keys and tasks are a function of it")] = 1,
    operators: Annotated[int, typer.Option(min=1, help="How many operators")] = 7,
    block_time: Annotated[float, typer.Option(min=0.01, max=3600, help="Seconds between blocks")] = 1.0,
    history: Annotated[
        int, typer.Option(min=0, max=20_000, help="Blocks before the first task, some hundreds a second")
    ] = 0,
    out: Annotated[Path, typer.Option(help="Where nektar.yaml is written")] = Path("build/devnet"),
) -> None:
    """Only the chain, contracts and operators, with tasks flowing; prints a nektar.yaml."""
    from cli.devnet import run

    run(seed=seed, operators=operators, block_time=block_time, history=history, out=out)


@app.command()
def init(path: Annotated[Path, typer.Argument(help="The file to write")] = Path("nektar.yaml")) -> None:
    """Write a starter nektar.yaml."""
    from cli.setup import init as run

    run(path)


@app.command()
def check(config: ConfigOption = None, directory: DirOption = None) -> None:
    """Validate the configuration and reach everything it names."""
    from cli.setup import check as run

    run(config, directory)


@app.command()
def up(
    roles: Annotated[
        list[str] | None,
        typer.Argument(help="indexer, collector, processors, prosecutor, store, watchers; all by default"),
    ] = None,
    config: ConfigOption = None,
    directory: DirOption = None,
) -> None:
    """Run all roles, or some; restart what dies."""
    from cli.up import run

    run(roles or [], config, directory)


@app.command()
def migrate(config: ConfigOption = None, directory: DirOption = None) -> None:
    """Bring the store's schema up to date. Safe to run twice."""
    from cli.setup import migrate as run

    run(config, directory)


@app.command()
def index(
    rpc: Annotated[
        list[str],
        typer.Option(
            help="URL of a JSON-RPC provider, ${NAME} of one, or a configured name; several are asked at once"
        ),
    ],
    abi: Annotated[Path, typer.Option(help="JSON file with the contract's ABI")],
    address: Annotated[list[str], typer.Option(help="The contract; may be given several times")],
    first: Annotated[int, typer.Option("--from", min=0, help="First block")] = 0,
    last: Annotated[
        int | None, typer.Option("--to", min=0, help="Last block; by default the newest that is final")
    ] = None,
    check: Annotated[
        str, typer.Option(help="reported: believe the provider; proved: recompute every block")
    ] = "proved",
    audit: Annotated[
        bool,
        typer.Option(
            "--audit", help="Prove what was only reported, correct it, and name each lie; exit 3 if any"
        ),
    ] = False,
    name: Annotated[str, typer.Option(help="The name under which the rows stand, as `network`")] = "index",
    config: ConfigOption = None,
    directory: DirOption = None,
    json: JsonOption = False,
) -> None:
    """Read any contract's events straight into the store."""
    from cli.index import run

    run(rpc, abi, address, first, last, check, audit, name, config, directory, json)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="A SELECT")],
    config: ConfigOption = None,
    directory: DirOption = None,
    format: Annotated[
        str | None,
        typer.Option("--format", help="A ClickHouse format (CSV, JSONEachRow, …) instead of a table"),
    ] = None,
) -> None:
    """Ask the store in SQL."""
    from cli.ask import sql as run

    run(query, config, directory, format)


@app.command()
def tasks(
    task: Annotated[
        str | None, typer.Argument(help="A task's hash, or how it begins, its number or its input")
    ] = None,
    config: ConfigOption = None,
    directory: DirOption = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many")] = 50,
    json: JsonOption = False,
) -> None:
    """Tasks and how they stand; one task's story: the chain's events, each duty and why it was not done, and
    the steps of all who worked on it."""
    if task is None:
        from cli.ask import tasks as run

        run(config, directory, limit, json)
    else:
        from cli.story import story

        story(task, config, directory, json)


@app.command()
def operators(config: ConfigOption = None, directory: DirOption = None, json: JsonOption = False) -> None:
    """Operators, their stake, and how they kept their duties."""
    from cli.ask import operators as run

    run(config, directory, json)


@app.command()
def findings(
    config: ConfigOption = None,
    directory: DirOption = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many")] = 50,
    json: JsonOption = False,
) -> None:
    """Findings: which condition holds for whom, and how sure it is."""
    from cli.ask import findings as run

    run(config, directory, limit, json)


@app.command()
def evidence(
    finding: Annotated[str, typer.Argument(help="A finding's id, or how it begins")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The file to write; stdout by default")
    ] = None,
    config: ConfigOption = None,
    directory: DirOption = None,
) -> None:
    """The bundle that proves a finding to a stranger."""
    from cli.evidence import evidence as run

    run(finding, out, config, directory)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="The bundle's file; - reads stdin")],
    config: ConfigOption = None,
    directory: DirOption = None,
    network: NetworkOption = None,
    chain_id: Annotated[int | None, typer.Option(min=1, help="Instead of a nektar.yaml: the chain")] = None,
    contract: Annotated[
        list[str] | None, typer.Option(help="Instead of a nektar.yaml: NAME=0x…, as often as needed")
    ] = None,
    code: Annotated[list[str] | None, typer.Option(help="The hash of a contract's code: NAME=0x…")] = None,
    term: Annotated[
        list[str] | None, typer.Option(help="What contracts hold in their code: NAME=NUMBER")
    ] = None,
    rpc: Annotated[
        str | None,
        typer.Option(help="URL, or ${NAME} of one, that is asked whether the blocks are the chain's"),
    ] = None,
    block_hash: Annotated[
        list[str] | None, typer.Option(help="A hash that is the chain's, as often as needed")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check evidence, offline. Exit 0: proved; 1: refused; 3: proved, on blocks that are not the chain's;
    4: not checked, as the file can't be read or the provider does not answer; 2: a mistake in the options."""
    from cli.evidence import verify as run

    given = contract or [], code or [], term or [], rpc, block_hash or []
    run(bundle, config, directory, network, chain_id, *given, json)


@app.command()
def dispute(
    finding: Annotated[str, typer.Argument(help="A finding's id, or how it begins")],
    challenge: Annotated[
        bool,
        typer.Option(
            "--challenge", help="The one that overturns the accepted response that is wrong, instead"
        ),
    ] = False,
    config: ConfigOption = None,
    directory: DirOption = None,
) -> None:
    """The unsigned transaction that proves a finding to the slashing contract."""
    from cli.evidence import dispute as run

    run(finding, challenge, config, directory)


@app.command()
def token(
    sender: Annotated[str, typer.Argument(help="An Operator's address; of others, the name in nektar.yaml")],
    key: Annotated[
        str, typer.Option(help="The sender's BN254 secret in hex: file:PATH, or ${NAME} of a variable")
    ],
    role: Annotated[
        Literal["operator", "aggregator", "observer"], typer.Option(help="What the sender is to the Network")
    ] = "operator",
    days: Annotated[int, typer.Option(min=1, max=400, help="For how long it is valid")] = 30,
    network: NetworkOption = None,
    chain_id: Annotated[
        int | None, typer.Option(min=1, max=2**53 - 1, help="Instead of a nektar.yaml's")
    ] = None,
    audience: Annotated[str | None, typer.Option(help="Instead of a nektar.yaml's")] = None,
    config: ConfigOption = None,
    directory: DirOption = None,
) -> None:
    """Mint a token to send telemetry with: the value of OTEL_EXPORTER_OTLP_HEADERS."""
    from cli.token import run

    run(role, sender, key, days, network, chain_id, audience, config, directory)


@app.command()
def slashings(
    config: ConfigOption = None,
    directory: DirOption = None,
    limit: Annotated[int, typer.Option(min=1, help="The first so many, pending ones before others")] = 50,
    json: JsonOption = False,
) -> None:
    """Requests to slash: until when each can be overruled, and what became of it."""
    from cli.ask import slashings as run

    run(config, directory, limit, json)


@app.command()
def coverage(config: ConfigOption = None, directory: DirOption = None, json: JsonOption = False) -> None:
    """Which blocks the store has, how well they were checked, and which are missing."""
    from cli.coverage import run

    run(config, directory, json)


@app.command()
def replay(
    config: ConfigOption = None,
    directory: DirOption = None,
    network: NetworkOption = None,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Make the evidence of all findings again, too, from the chain")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Fold the log again from its first record and compare with what was put out."""
    from cli.replay import replay as run

    run(config, directory, network, evidence, json)


@app.command()
def dead(
    config: ConfigOption = None,
    directory: DirOption = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many")] = 50,
    json: JsonOption = False,
) -> None:
    """What could not be read, and why."""
    from cli.ask import dead as run

    run(config, directory, limit, json)


@watchers.command("test")
def watchers_test(
    watcher: Annotated[str | None, typer.Argument(help="One watcher's name; all by default")] = None,
    config: ConfigOption = None,
    directory: DirOption = None,
) -> None:
    """Send each watcher a signed test event, and say what came back."""
    from cli.watchers import test as run

    run(watcher, config, directory)


@dashboards.callback()
def _dashboards() -> None:  # a group of one command would else be that command itself
    """What people see in Grafana."""


@dashboards.command("build")
def dashboards_build(
    out: Annotated[Path, typer.Option(help="Where they are written")] = Path("deploy/grafana"),
    sql: Annotated[
        str | None,
        typer.Option(help="HOST:PORT at which Grafana reaches `listen.sql`, by default its default"),
    ] = None,
) -> None:
    """Write boards, data source and provider, as Grafana provisions itself from them."""
    from cli.panels import build as run

    run(out, sql)


def main() -> None:
    """Entry point: run the command, and turn what a person can mend into one line."""
    # However a command is told to end, it ends what it has started. (Roles and supervisors have their own.)
    signal.signal(signal.SIGTERM, _interrupt)
    sys.unraisablehook = _interrupt_again
    try:
        status = app(args=sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.stdout.flush()
    except NektarError as error:
        fail(str(error), error.exit_code)
    except typer.Abort:
        sys.exit(130)
    except typer.TyperException as error:
        # The framework's own wording of a usage mistake names the option; it is not part of the base class.
        words = getattr(error, "format_message", error.__str__)()
        fail(f"{words} (`nektar --help` shows what there is)", 2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output has seen enough
        _drop_output()
        sys.exit(141)
    except OSError as error:
        # What the machine refuses is for a person to mend; without a name and a known reason it is our bug.
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _drop_output()
        fail(f"{error.filename or 'output'}: {error.strerror}; name another place, or make room there")
    sys.exit(status if isinstance(status, int) else 0)


def _drop_output() -> None:
    """Let what is still to be printed go nowhere, so that the interpreter's end does not fail on it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _interrupt_again(ignored: sys.UnraisableHookArgs) -> None:
    """Whoever is interrupted right after a fork is so in one of its hooks, from which nothing can be raised:
    Python drops the interrupt, and Ctrl-C would have done nothing."""
    if ignored.exc_type is KeyboardInterrupt:
        threading.Timer(AGAIN_SECONDS, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(ignored)


def fail(message: str, code: int = 1) -> None:
    """One line on stderr, and out."""
    print("nektar: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()

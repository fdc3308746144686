"""The command `nektar`: names, options and one way to fail. Each command imports what it needs when it runs.

Exit codes: 0 success; 1 it did not succeed, and one line on stderr says why; 2 the command or the
configuration was wrong; 130 Ctrl-C.
"""

from __future__ import annotations

import _thread
import errno
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import click

from nektar.errors import NektarError

# Long enough for the hook to be over.
AGAIN_SECONDS = 0.05


class _Commands(click.Group):
    """Listed in the order in which a person comes to need them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def app() -> None:
    """Indexes a Nektar Network, proves what went wrong, and tells the people who must act."""


_PATH = click.Path(path_type=Path)
_config = click.option("--config", type=_PATH, help="nektar.yaml; by default $NEKTAR_CONFIG or ./nektar.yaml")
_dir = click.option("--dir", "directory", type=_PATH, help="A data directory that holds its own nektar.yaml")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for programs")
_limit = click.option("--limit", type=click.IntRange(min=1), default=50, help="The newest so many")


@app.command()
@click.option("--seed", default=1, help="The run is a function of it")
@click.option("--operators", default=7, help="How many operators")
@click.option("--tasks", default=24, help="How many tasks")
@click.option("--reorgs", default=2, help="Random reorgs beside those of every run")
@click.option(
    "--kill", default="", show_default=False, help="Roles to kill -9 at a random moment: ROLE[,ROLE…]"
)
@click.option(
    "--keep", type=_PATH, default="build/demo", help="Where the run is left; an older one there is deleted"
)
@click.option("--stay", is_flag=True, help="Keep everything running until Ctrl-C")
def demo(seed: int, operators: int, tasks: int, reorgs: int, kill: str, keep: Path, stay: bool) -> None:
    """A whole Network on this machine, faults and all, and what was found."""
    from cli.demo import run

    run(seed=seed, operators=operators, tasks=tasks, reorgs=reorgs, kill=kill, keep=keep, stay=stay)


@app.command()
@click.option("--seed", default=1, help="Keys and tasks are a function of it")
@click.option("--operators", default=7, help="How many operators")
@click.option("--block-time", default=1.0, help="Seconds between blocks")
@click.option("--out", type=_PATH, default="build/devnet", help="Where nektar.yaml is written")
def devnet(seed: int, operators: int, block_time: float, out: Path) -> None:
    """Only the chain, contracts and operators, with tasks flowing; prints a nektar.yaml."""
    from cli.devnet import run

    run(seed=seed, operators=operators, block_time=block_time, out=out)


@app.command()
@click.argument("path", type=_PATH, default="nektar.yaml")
def init(path: Path) -> None:
    """Write a starter nektar.yaml, or PATH."""
    from cli.setup import init as run

    run(path)


@app.command()
@_config
@_dir
def check(config: Path | None, directory: Path | None) -> None:
    """Validate the configuration and reach everything it names."""
    from cli.setup import check as run

    run(config, directory)


@app.command()
@click.argument("roles", nargs=-1, metavar="[ROLE]...")
@_config
@_dir
def up(roles: tuple[str, ...], config: Path | None, directory: Path | None) -> None:
    """Run all roles (indexer, processors, store), or some; restart what dies."""
    from cli.up import run

    run(roles, config, directory)


@app.command()
@_config
@_dir
def migrate(config: Path | None, directory: Path | None) -> None:
    """Bring the store's schema up to date. Safe to run twice."""
    from cli.setup import migrate as run

    run(config, directory)


@app.command()
@click.argument("query")
@_config
@_dir
@click.option("--format", help="A ClickHouse format (CSV, JSONEachRow, …) instead of a table")
def sql(query: str, config: Path | None, directory: Path | None, format: str | None) -> None:
    """Ask the store in SQL: QUERY is a SELECT."""
    from cli.ask import sql as run

    run(query, config, directory, format)


@app.command()
@click.argument("task", required=False)
@_config
@_dir
@_limit
@_json
def tasks(task: str | None, config: Path | None, directory: Path | None, limit: int, as_json: bool) -> None:
    """Tasks and how they stand; one TASK (its hash, number or input) with all its duties."""
    from cli.ask import tasks as run

    run(task, config, directory, limit, as_json)


@app.command()
@_config
@_dir
@_json
def operators(config: Path | None, directory: Path | None, as_json: bool) -> None:
    """Operators, their stake, and how they kept their duties."""
    from cli.ask import operators as run

    run(config, directory, as_json)


@app.command()
@_config
@_dir
@_limit
@_json
def findings(config: Path | None, directory: Path | None, limit: int, as_json: bool) -> None:
    """Findings: which condition holds for whom, and how sure it is."""
    from cli.ask import findings as run

    run(config, directory, limit, as_json)


@app.command()
@_config
@_dir
@click.option("--network", help="Which Network, where there are several")
@_json
def replay(config: Path | None, directory: Path | None, network: str | None, as_json: bool) -> None:
    """Fold the log again from its first record and compare with what was put out."""
    from cli.setup import replay as run

    run(config, directory, network, as_json)


@app.command()
@_config
@_dir
@click.option("--limit", type=click.IntRange(min=1), default=50, help="At most so many")
@_json
def dead(config: Path | None, directory: Path | None, limit: int, as_json: bool) -> None:
    """What could not be read, and why."""
    from cli.ask import dead as run

    run(config, directory, limit, as_json)


def main() -> None:
    """Entry point: run the command, and turn what a person can mend into one line."""
    # However a command is told to end, it ends what it has started. (Roles and supervisors have their own.)
    signal.signal(signal.SIGTERM, _interrupt)
    sys.unraisablehook = _interrupt_again
    try:
        status = app(args=sys.argv[1:] or ["--help"], prog_name="nektar", standalone_mode=False)
        sys.stdout.flush()
    except NektarError as error:
        fail(str(error), error.exit_code)
    except click.ClickException as error:
        fail(f"{error.format_message()} (`nektar --help` shows what there is)", 2)
    except (click.Abort, KeyboardInterrupt):
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

"""`nektar devnet`: a chain with contracts, honest operators and tasks, until Ctrl-C."""

from __future__ import annotations

import random
import time
from pathlib import Path

import yaml

from cli.demo import NETWORK
from cli.reported import AUDIENCE, telemetry
from devnet.agent import Reports
from devnet.deploy import Terms
from devnet.home import POLL, Home
from devnet.plan import Plan
from devnet.scenes import GRACE, THRESHOLD, WINDOW
from nektar.config import Listen
from nektar.role import stop_on_signals

# A task every so many blocks: one is always open, and the chain does not fill with them.
BLOCKS_PER_TASK = 4
# A set that was not committed for long takes no tasks any more (`TaskManager.maxSetAge`).
BLOCKS_PER_SET = Terms().max_set_age // 2


def run(*, seed: int, operators: int, block_time: float, history: int, out: Path) -> None:
    """Until Ctrl-C or SIGTERM. What it runs on is left in `out`, with a nektar.yaml to start from."""
    out.mkdir(parents=True, exist_ok=True)
    stop = stop_on_signals()
    rng = random.Random(f"nektar-devnet-{seed}")  # noqa: S311  repeatable on purpose
    otlp = Listen().otlp
    with Home(Plan(seed, operators, ()), out, Reports(f"http://{otlp}", NETWORK, AUDIENCE)) as home:
        home.start(history)
        config = {
            "data_dir": ".",
            "providers": {"anvil": {"url": home.chain.url}},
            "networks": [
                {
                    "name": NETWORK,
                    "adapter": "nektar",
                    "chain_id": home.chain_id,
                    "rpc": ["anvil"],
                    "contracts": home.contracts,
                    "selector": home.selector,
                    "terms": home.terms,
                    "poll": POLL,
                }
            ],
            "listen": {"otlp": otlp},
            "telemetry": telemetry(home),
        }
        path = out / "nektar.yaml"
        text = "# Written by `nektar devnet`.\n" + yaml.safe_dump(config, sort_keys=False)
        path.write_text(text)
        print(text)
        print(f"# wrote {path}; next: nektar up --config {path}    (Ctrl-C ends the devnet)", flush=True)
        while not stop.wait(block_time):
            number, _ = home.chain.mine()
            home.check_sent()
            if number % BLOCKS_PER_SET == 0:
                home.send(home.admin, "operator_registry", "commitSet")
            if number % BLOCKS_PER_TASK == 0:
                n = rng.randrange(2, 1 << 40)
                home.send(
                    home.submitter,
                    "task_manager",
                    "submitTask",
                    home.task_type,
                    n,
                    WINDOW,
                    GRACE,
                    THRESHOLD,
                    THRESHOLD,
                )
                print(f"{time.strftime('%H:%M:%S')} block {number}: task {n}", flush=True)

"""Many seeds, and kill -9 of each role in turn: `make soak` (`ARGS='--seeds 3'` for a short one).

Each run is a `nektar demo` of its own; a failing one names its seed and leaves its data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from nektar.role import ROLES


def run(seed: int, kill: str, extra: list[str]) -> bool:
    """One demo; whether found equals truth. Prints a line."""
    keep = f"build/soak/{seed}-{kill}"
    command = [sys.executable, "-m", "cli.main", "demo", "--seed", str(seed), "--keep", keep]
    if kill:
        command += ["--kill", kill]
    Path(keep, "summary.json").unlink(missing_ok=True)
    started = time.monotonic()
    done = subprocess.run([*command, *extra], capture_output=True, text=True, check=False)
    line = f"seed {seed:>3} kill {kill or '-':<28} {time.monotonic() - started:5.1f} s  "
    summary = Path(keep) / "summary.json"
    if summary.exists():
        s = json.loads(summary.read_text())
        latency, to_webhook = s["latency_ms"]["block_to_store"], s["latency_ms"]["block_to_webhook"]
        line += (
            f"precision {s['precision']:.4f} recall {s['recall']:.4f} lost {s['lost']} "
            f"doubled {s['duplicated']} reorgs {s['reorgs']} kills {len(s['kills'])} "
            f"spans {s['spans']['stored']} of {s['spans']['sent']} "
            f"webhooks {s['webhooks']['verified']} of {s['webhooks']['due']} "
            f"to store p50 {latency['p50']:.0f} p99 {latency['p99']:.0f} ms "
            f"to webhook p50 {to_webhook['p50']:.0f} p99 {to_webhook['p99']:.0f} ms"
        )
    print(line if done.returncode == 0 else f"{line}\n  FAILED: {done.stderr.strip()[-500:]}", flush=True)
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--no-kills", action="store_true")
    options, extra = parser.parse_known_args()
    seeds = range(options.first, options.first + options.seeds)
    right = [run(seed, "", extra) for seed in seeds]
    if not options.no_kills:
        right += [run(seed, kill, extra) for seed in seeds for kill in (ROLES[seed % len(ROLES)],)]
        right += [run(seed, ",".join(ROLES), extra) for seed in seeds[: max(1, len(seeds) // 4)]]
    print(f"{sum(right)} passed, {len(right) - sum(right)} failed")
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())

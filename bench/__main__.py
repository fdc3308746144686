"""Measurements: `make bench` runs them all, `make bench ARGS=bus` one. Nothing here asserts."""

from __future__ import annotations

import argparse
import importlib

NAMES = ("bls", "bus", "decoding", "folds", "index", "late", "latency", "telemetry")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], default=NAMES)
    for name in parser.parse_args().names:
        print(f"== {name}", flush=True)
        importlib.import_module(f"bench.{name}").main()


if __name__ == "__main__":
    main()

# Everything a developer runs. Each target installs what it needs into .venv and node_modules by itself,
# and does nothing twice: the stamps below are newer than what they were made from.

SHELL := /bin/bash
PY := .venv/bin/python
ARGS ?=

.PHONY: help demo kafka test lint soak prove simulate thorough kill fuzz otelcol bench bench-growth bench-peers contracts lock clean

help:
	@echo "make demo     a whole Network on this machine, faults and all   (ARGS='--seed 7')"
	@echo "make kafka    an Apache Kafka until Ctrl-C; prints its URL      (needs Java 17 and Maven)"
	@echo "make test     the tests                                         (ARGS='-k fold')"
	@echo "make lint     formatting, types, floors"
	@echo "make soak     twenty seeds, and kill -9 of each role            (ARGS='--seeds 3')"
	@echo "make prove    every byte that a root covers, changed            (needs the corpora)"
	@echo "make simulate five hundred lives of an indexer, its chain and its providers"
	@echo "make thorough the tests, with many more seeds, and those that take a minute"
	@echo "make kill     an indexer killed at random moments, thirty runs on each bus; a collector, while the bus stands"
	@echo "make fuzz     a hundred thousand requests that no exporter sends"
	@echo "make otelcol  a stock OpenTelemetry Collector between SDKs and ours     (needs Go)"
	@echo "make bench    measurements"
	@echo "make bench-growth  the index at 10 k, 100 k and 1 M logs: speed and memory"
	@echo "make bench-peers   the index beside cryo, ethereum-etl and ponder: speed, and who notices lies (installs them)"

demo: .venv/ready node_modules/ready
	@.venv/bin/nektar demo $(ARGS)

# For `make demo ARGS='--bus kafka://…'`. ARGS='--nodes 3' for three brokers, --dir DIR to keep their data.
kafka: .venv/ready
	@exec $(PY) -m devnet.kafka $(ARGS)

test: .venv/ready node_modules/ready
	$(PY) -m pytest -n 2 -m "not slow" $(ARGS)

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

soak: .venv/ready node_modules/ready
	$(PY) -m tests.soak $(ARGS)

prove: .venv/ready
	$(PY) -m pytest -m slow tests/indexer/test_covered.py $(ARGS)

simulate: .venv/ready
	$(PY) -m pytest -m slow tests/indexer/test_simulation.py $(ARGS)

thorough: .venv/ready node_modules/ready
	NEKTAR_THOROUGH=1 $(PY) -m pytest -n 2 -m "not slow" $(ARGS)

kill: .venv/ready node_modules/ready
	$(PY) -m pytest -m slow tests/indexer/test_kills.py tests/indexer/test_collector_lives.py $(ARGS)

fuzz: .venv/ready
	$(PY) -m pytest -m slow tests/indexer/test_fuzz.py $(ARGS)

# What a Collector is made of takes minutes to compile the first time.
otelcol: .venv/ready
	$(PY) -m pytest -m slow tests/indexer/test_sdks.py $(ARGS)

bench: .venv/ready node_modules/ready
	$(PY) -m bench $(ARGS)

bench-growth: .venv/ready node_modules/ready
	$(PY) -m bench.growth $(ARGS)

# The peers are installed under build/peers, apart from .venv.
bench-peers: .venv/ready node_modules/ready
	$(PY) -m bench.peers $(ARGS)

# Compile the reference contracts again after a change to devnet/contracts.
contracts: .venv/ready node_modules/ready
	$(PY) -m devnet.compile

# A virtual environment with the first fitting Python, filled from the hash-locked requirements.
.venv/ready: requirements/lock.txt requirements/uv.txt pyproject.toml
	@python=""; \
	for candidate in python3.13 python3.12 python3.11 python3; do \
	  if $$candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; \
	  then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "nektar: expected Python 3.11, 3.12 or 3.13 on the PATH; found $$(python3 --version 2>&1). Install one and run make again." >&2; exit 1; fi; \
	$$python -m venv --clear .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@VIRTUAL_ENV=.venv .venv/bin/uv pip install --quiet --compile-bytecode --require-hashes -r requirements/lock.txt
	@VIRTUAL_ENV=.venv .venv/bin/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

node_modules/ready: package.json package-lock.json
	@node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)' 2>/dev/null || \
	  { echo "nektar: expected Node 20 or newer on the PATH (the devnet's chain comes from npm); found $$(node --version 2>/dev/null || echo none). Install it and run make again." >&2; exit 1; }
	@npm install --no-save --no-audit --no-fund --ignore-scripts --loglevel=error
	@touch $@

# Resolve the dependencies again. Run it by hand after a change to pyproject.toml.
lock:
	VIRTUAL_ENV=.venv .venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
	  --python-version 3.11 --extra dev pyproject.toml requirements/build.in -o requirements/lock.txt
	grep -A 100 '^uv==' requirements/lock.txt | awk 'NR == 1 || /^ / {print; next} {exit}' > requirements/uv.txt

clean:
	rm -rf .venv node_modules build

# `make demo` and `make test` need only Python >= 3.11 (with venv and pip), make and a network.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Not where the interpreter behind .venv is gone or too old, as after an upgrade of Python.
RUNS := $(shell $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo yes)
PARTS := contracts producers processors sinks
# uv installs in seconds what takes pip minutes; it comes from the same index as everything else, and
# does not read pip's settings by itself. Where it can't do the work, pip does it.
INDEX = $(shell $(BIN)/pip config get global.index-url 2>/dev/null)
UV = $(if $(INDEX),UV_DEFAULT_INDEX="$(INDEX)") $(BIN)/uv pip --quiet

# Compiles the hot loop where its sources changed: once, not in each process that wants it.
WARM_UP = $(BIN)/python -c 'from alpha_pulse.contracts.config import ProcessorConfig; from alpha_pulse.processors.kernel.warm_up import warm_up; warm_up(ProcessorConfig())'

# Without bytecode on disk every process compiles its libraries again: 3 s for ccxt alone.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: again secrets help demo test setup check audit faults nightly soak fuzz bench format lock clean

help:
	@echo "make demo    everything on this machine, candles moving; Ctrl-C ends it"
	@echo "make test    all tests"
	@echo "make check   ruff, strict mypy, import-linter"
	@echo "make audit   the pinned versions against known vulnerabilities (needs a network)"
	@echo "make faults  kills and failures in their long form"
	@echo "make nightly faults with 100,000 trades a kill scenario, an hour of soak, ten minutes of fuzz"
	@echo "make soak    MINUTES=60 of everything running and going wrong at random, and nothing lost"
	@echo "make fuzz    MINUTES=10 of bytes that nobody would send, into all that reads them"
	@echo "make bench   against peers; NAME=producers|processors|sinks|end_to_end|history|queries for one"
	@echo "make secrets passwords for compose.yaml, once, into secrets/"
	@echo "make setup   the environment only; then .venv/bin/alpha-pulse"

demo: setup
	$(BIN)/alpha-pulse demo $(ARGS)

# Most of a test's time is waiting, so four processes keep two cores busy; they share one Kafka and
# one ClickHouse. WORKERS=0 runs all in one process.
WORKERS ?= 4
test: setup
	@$(WARM_UP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# What holds a promise of time in the long form alone, besides tests/faults.
PROMISES := tests/producers/test_exchange_traps.py tests/end_to_end/test_up.py \
  tests/integration/test_operations.py tests/integration/test_security.py
# The long form of the fault tests; SEED=… repeats a run.
faults: setup
	ALPHA_PULSE_FAULTS=full $(if $(SEED),SEED=$(SEED)) $(BIN)/python -m pytest tests/faults tests/producers/exchanges/test_frames.py $(PROMISES) -s $(ARGS)

# All that is too long for a day: about two and a half hours, each part with a seed of its own.
nightly: setup
	TRADES=100000 $(MAKE) faults
	$(MAKE) soak MINUTES=60
	$(MAKE) fuzz MINUTES=10

# SEED=… has the same accidents at the same times; RATE=400 trades a second, SYMBOLS=8. SCENARIO=…
# is one of docs/faults.md instead of random accidents.
soak: setup
	$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED)) \
	  $(if $(RATE),--rate $(RATE)) $(if $(SYMBOLS),--symbols $(SYMBOLS)) \
	  $(if $(SCENARIO),--scenario "$(SCENARIO)") $(ARGS)

# SEED=… repeats a run. atheris has wheels for Linux on x86-64 only, so it is no part of the set-up.
fuzz: setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	$(BIN)/python tests/fuzz --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) $(ARGS)

# All, 40 minutes, or one: make bench NAME=producers ARGS=--keep
bench: setup
	$(BIN)/python -m benchmarks $(NAME) $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A finding that is not explained in SECURITY.md is an error; an answer that never came is said.
audit: setup
	$(BIN)/python .ci/audit.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(READY)

$(READY): $(if $(RUNS),,again) requirements/dev.txt requirements/uv.txt pyproject.toml $(PARTS:%=%/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "expected Python 3.11 or newer, found " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12")'
	@echo "Setting up $(VENV) (about a minute; once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(UV) install --python $(BIN)/python --require-hashes -r requirements/dev.txt \
	  || $(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation $(PARTS:%=-e ./%) -e .
	@$(BIN)/python -c 'import alpha_pulse.cli.main, alpha_pulse.producers.role, alpha_pulse.sinks.role'
	@$(WARM_UP)
	@touch $(READY)

# The pinned versions, with hashes and without any index's address (uv.lock would record it).
COMPILE = $(UV) compile --universal --python-version 3.11 --generate-hashes --no-header --upgrade \
  $(foreach part,$(PARTS),--no-emit-package alpha-pulse-$(part))
lock: setup
	$(COMPILE) contracts/pyproject.toml --extra kafka -o requirements/contracts.txt
	$(COMPILE) producers/pyproject.toml -o requirements/producers.txt
	$(COMPILE) processors/pyproject.toml -o requirements/processors.txt
	$(COMPILE) sinks/pyproject.toml -o requirements/sinks.txt
	$(COMPILE) pyproject.toml --extra embedded --extra sql -o requirements/application.txt
	$(COMPILE) pyproject.toml --extra embedded --extra sql --group dev -o requirements/dev.txt
	echo uv | $(COMPILE) - -o requirements/uv.txt
	$(COMPILE) requirements/fuzz.in -o requirements/fuzz.txt

# One line each. The folder keeps others out; the files can be read inside the containers.
SECRETS := clickhouse_admin clickhouse_writer clickhouse_reader grafana_admin
secrets:
	@mkdir -p -m 700 secrets
	@for name in $(SECRETS); do \
	  [ -e secrets/$$name ] || $(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(24), end="")' > secrets/$$name; \
	  chmod 644 secrets/$$name; \
	done
	@echo "secrets/ holds $(SECRETS)"

clean:
	rm -rf $(VENV) .alpha-pulse .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

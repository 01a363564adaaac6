# Everything runs from a virtual environment in .venv that the first target makes by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PARTS ?=
PEER ?=
ARGS ?=
# More workers than cores: the tests wait for processes and brokers as long as they compute.
JOBS ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types bench torture bundle lock format clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

setup: $(STAMP) ## make .venv with every pinned dependency and this project in it

# pip refuses hashes for a local project, so the dependencies come first and the project without any.
$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys, platform; ok = sys.version_info[:2] in ((3,11),(3,12),(3,13)) and platform.machine() in ("x86_64","aarch64"); sys.exit(None if ok else "shanmen needs Python 3.11-3.13 on x86-64 or aarch64 Linux (32-bit ARM has no wheels of several dependencies); this is Python %s on %s" % (platform.python_version(), platform.machine()))'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --only-binary :all: --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index -e .
	@# As an installation is: where Python may not write bytecode, each start would compile all of ours.
	$(BIN)/python -m compileall -q agent hub protocol devices
	@touch $@

demo: $(STAMP) ## a broker, a hub, an agent and a simulated site; ARGS="--for 60s --chaos"
	@$(BIN)/python -m devices.demo $(ARGS)

test: $(STAMP) ## the test suite (ARGS="-k name" to choose)
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal $(ARGS)

lint: $(STAMP) ## ruff: style, complexity, formatting
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(STAMP) ## ruff: write the formatting
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

types: $(STAMP) ## mypy --strict over the four packages
	@$(BIN)/mypy

bench: $(STAMP) ## figures against the reference and the bars (PARTS="reference …", PEER=thingsboard)
	@PEER="$(PEER)" $(BIN)/python -m tests.bench $(PARTS)

torture: $(STAMP) ## kills at named points, power-cut replay, mutants, long fuzzing (PARTS="kills powercut …")
	@$(BIN)/python -m tests.torture $(PARTS)

bundle: $(STAMP) ## dist/shanmen-bundle-<machine>.tar.gz: wheels, units, installer; needs no network later
	@$(BIN)/python packaging/bundle.py $(ARGS)

lock: $(STAMP) ## resolve the dependencies anew and write constraints.txt
	@$(BIN)/python packaging/lock.py

clean: ## remove what the targets made, the environment included
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# `make demo` and `make test` do everything on a fresh machine; `make help` lists the rest.
#
# PYTHON=/path/to/python3.12  which Python makes .venv (3.11, 3.12 or 3.13)
# JOBS=4                      processes that run the tests (default 2)
# OUT=folder                  where the demo goes (default demo)
# FUZZ_SECONDS=600                 how long `make fuzz` runs (default 60)

PYTHON ?= python3
JOBS ?= 2
OUT ?= demo
FUZZ_SECONDS ?= 60

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow fuzz lint format venv clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: $(READY)  ## Simulate two shops, train everything, write a report: minutes, no download
	@$(BIN)/utgrec demo --out $(OUT)

test: $(READY)  ## Run the tests
	@$(BIN)/python -m pytest -n $(JOBS)

test-slow: $(READY)  ## Run the tests that take minutes
	@$(BIN)/python -m pytest -m slow

fuzz: $(READY)  ## Fuzz the parsers with atheris (Linux); findings go to fuzz/
	@$(BIN)/python tests/fuzz/run.py --seconds $(FUZZ_SECONDS) --out fuzz

lint: $(READY)  ## Check style (ruff) and types (mypy, strict)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(READY)  ## Sort imports and format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

venv: $(READY)  ## Only make .venv and install everything into it

clean:  ## Remove .venv, caches and the demo
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist demo fuzz
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

# Made once, and again when the pins or the project's own requirements change.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
	  echo "UTGRec needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is" \
	    "$$($(PYTHON) --version 2>/dev/null || echo 'not there');" \
	    "say which to take: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  echo "Making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "Installing UTGRec and what it needs into $(VENV) (once; some minutes)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  -c constraints.txt -e '.[dev]'
	@touch $@

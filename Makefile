# Everything a person does here. CI calls the same targets.

PYTHON ?= python3
BIN := .venv/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# The versions that were tested with this Python; with one that is newer than all of them, the newest.
CONSTRAINTS := $(firstword $(wildcard constraints/python$(VERSION).txt) $(lastword $(sort $(wildcard constraints/python*.txt))))

.PHONY: help install demo test check docs kernels kills fuzz format quick reproduce results bench picture constraints clean

help:  ## Say what can be made.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(BIN)/charloom  ## Make .venv with charloom in it, and nothing that only developers need.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "charloom needs Python 3.11 or newer; $(PYTHON) is $(VERSION). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv

$(BIN)/charloom: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable .
	@touch $@

# Dependency groups need this pip.
PIP = 'pip>=25.1'

.venv/dev: $(BIN)/charloom
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable . --group dev
	@touch $@

.venv/bench: $(BIN)/charloom
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable . --group bench
	@touch $@

.venv/docs: $(BIN)/charloom
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable . --group docs
	@touch $@

demo: install  ## Train on a real book for about a minute, and read what the model writes.
	@scripts/demo

test: .venv/dev  ## Run the whole test suite.
	$(BIN)/python -m pytest -n auto --dist worksteal

check: .venv/dev  ## Check style, types, prose and the floors that imports must keep to.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/python scripts/check_prose.py
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/docs  ## Build the documentation into build/site, and check its links.
	$(BIN)/python scripts/cli_reference.py
	$(BIN)/zensical build --strict
	$(BIN)/python scripts/check_site.py

kernels:  ## Run the native kernels' own checks: other processors, and the sanitizers.
	@scripts/check-kernels

format: .venv/dev  ## Put the code into its style.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

kills: .venv/dev  ## Kill a run at 200 random moments, and go on with it each time; half an hour to an hour.
	$(BIN)/python -m tests.kills

fuzz: .venv/dev  ## Attack charloom with damaged files, absurd words, hostile requests and signals for SECONDS (600).
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

quick: install  ## Rerun a cut of every published experiment (or of STUDIES), in about two minutes.
	$(BIN)/charloom reproduce $(STUDIES) --quick --force --out build/quick

reproduce: install  ## Rerun every published experiment in full; hours, and it goes on where it was stopped.
	$(BIN)/charloom reproduce --full --out build/full

results: install  ## Write docs/results.md from docs/results.json; DIRS="..." takes more results in first.
	$(BIN)/python scripts/results.py $(DIRS)

bench: .venv/bench  ## Measure speed, memory, start-up and size beside PyTorch and Keras; half an hour, on Linux for x86-64.
	$(BIN)/python -m benchmarks

picture: install  ## Run the demo and draw it as docs/demo.svg.
	$(BIN)/python scripts/picture

constraints:  ## Refresh the pinned versions, for each Python that is here.
	scripts/refresh-constraints

clean:  ## Remove what these targets made.
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# What a developer runs. CI calls the same targets.

PYTHON ?= python3
BIN := .venv/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# The versions that were tested with this Python; with one that is newer than all of them, the newest.
CONSTRAINTS := $(firstword $(wildcard constraints/python$(VERSION).txt) $(lastword $(sort $(wildcard constraints/python*.txt))))

.PHONY: help install demo test test-docs check docs kernels kills fuzz format quick reproduce results bench picture wheels constraints clean

help:  ## List the targets.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(BIN)/charloom  ## Make .venv with charloom in it, without the developers' tools.

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

.venv/wheels: .venv/dev
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable . --group wheels
	@touch $@

.venv/docs: $(BIN)/charloom
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable . --group docs
	@touch $@

demo: install  ## Train on a real book for about a minute, and generate from it.
	@scripts/demo

test: .venv/dev  ## Run the whole test suite.
	$(BIN)/python -m pytest -n auto --dist worksteal

test-docs: .venv/dev  ## Run every command in the README and the documents.
	$(BIN)/python -m pytest -n auto --dist worksteal tests/documents

check: .venv/dev  ## Check style, types, prose and the layers of imports.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/python scripts/check_prose.py
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/docs  ## Build the documentation into build/site, and check its links.
	$(BIN)/python scripts/cli_reference.py
	$(BIN)/python scripts/http_reference.py
	$(BIN)/python scripts/settings_reference.py
	$(BIN)/zensical build --strict
	$(BIN)/python scripts/check_site.py

kernels:  ## Run the native kernels' own checks: other processors, and the sanitizers.
	@scripts/check-kernels

format: .venv/dev  ## Format the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

kills: .venv/dev  ## Kill a run at 200 random moments and resume it each time (up to an hour).
	$(BIN)/python -m tests.kills

fuzz: .venv/dev  ## Attack charloom with damaged files, absurd arguments, hostile requests and signals for SECONDS (600).
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

quick: install  ## Rerun a short version of every published experiment, or of STUDIES (two minutes).
	$(BIN)/charloom reproduce $(STUDIES) --quick --force --out build/quick

reproduce: install  ## Rerun every published experiment in full (hours; a stopped run resumes).
	$(BIN)/charloom reproduce --full --out build/full

results: install  ## Write docs/results.md from docs/results.json; DIRS="..." adds results first.
	$(BIN)/python scripts/results.py $(DIRS)

bench: .venv/bench  ## Measure speed, memory, start-up and size next to PyTorch, ONNX Runtime and Keras (an hour; Linux on x86-64).
	$(BIN)/python -m benchmarks

picture: install  ## Run the demo and draw it as docs/demo.svg.
	$(BIN)/python scripts/picture

wheels: .venv/wheels  ## Build the wheels with native kernels for Linux and macOS, or for SYSTEMS, into dist.
	$(BIN)/python scripts/wheels.py $(SYSTEMS)

constraints:  ## Refresh the pinned versions for each installed Python.
	scripts/refresh-constraints

clean:  ## Remove what these targets made.
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

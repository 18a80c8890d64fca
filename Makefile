# `make` lists the targets. Each one makes .venv first when it is missing or older than
# pyproject.toml or constraints.txt. Nothing outside this folder is changed.
#
#   ARGS=...    further words for the program:     make train ARGS='trainer.steps=100'
#                                                  make test ARGS='-k resume -x'
#   PYTHON=...  the interpreter .venv is made of:  make quick PYTHON=python3.13 VENV=.venv313
#   JOBS=...    test processes, two by default; each computes on one thread

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

VENV ?= .venv
JOBS ?= 2
ARGS ?=
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.made

PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist worksteal

.PHONY: help env train test quick slow mutants full cov lint format


help: ## This list
	@awk -F ' *## ' '/^[a-z]+:.*##/ {sub(/:.*/, "", $$1); printf "  make %-8s %s\n", $$1, $$2}' Makefile

env: $(STAMP) ## Install the project and its tools into .venv

train: $(STAMP) ## Train late_fusion on the built-in shapes, about a minute on 2 cores
	$(PY) -m mmnet.train model=late_fusion $(ARGS)

quick: $(STAMP) ## The tests that train nothing, under 2 minutes
	$(PYTEST) -m 'not train and not slow and not full' $(ARGS)

test: $(STAMP) ## All everyday tests, under 15 minutes
	$(PYTEST) -m 'not slow and not full' $(ARGS)

cov: $(STAMP) ## The same with a coverage report in htmlcov/
	$(PYTEST) -m 'not slow and not full' --cov --cov-report=term --cov-report=html $(ARGS)

slow: $(STAMP) ## Faults, mutations and studies, under 45 minutes
	$(PYTEST) -m 'slow and not full' $(ARGS)
	$(PY) tests/mutate.py

mutants: $(STAMP) ## Break the code on purpose, line by line: a test must notice each time
	$(PY) tests/mutate.py $(ARGS)

full: $(STAMP) ## The slow tests at the counts the project states, hours
	MMNET_FULL=1 $(PYTEST) -m 'slow or full' $(ARGS)

# The checks of .pre-commit-config.yaml, over every file that git does not ignore.
lint: $(STAMP) ## Style, types, security and secrets
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit -q -c pyproject.toml -r mmnet experiments
	git ls-files -z --cached --others --exclude-standard \
	| xargs -0 -r $(BIN)/detect-secrets-hook --no-verify --baseline .secrets.baseline

format: $(STAMP) ## Rewrite the code in the house style
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .


# A candidate counts when it runs: a shim may be on the PATH with nothing behind it.
$(STAMP): pyproject.toml constraints.txt
	@python="$(PYTHON)"; \
	for candidate in python3.11 python3.12 python3.13 python3 python; do \
	  [ -n "$$python" ] && break; \
	  "$$candidate" -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	    2>/dev/null && python="$$candidate" || true; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "No Python 3.11, 3.12 or 3.13 on the PATH; name one: make env PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	if ! $(PY) -c '' 2>/dev/null; then \
	  echo "Making $(VENV) with $$python"; \
	  if [ -e $(VENV)/pyvenv.cfg ]; then "$$python" -m venv --clear $(VENV); else "$$python" -m venv $(VENV); fi; \
	fi
	@echo "Installing mmnet[train,dev] into $(VENV); the first time this downloads torch"
	$(PY) -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[train,dev]'
	@touch $@

# Bare `make` says what there is. Each target does all of its own set-up.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
# Tests mostly wait, for processes to start and to die: a few at a time per core.
TESTS_AT_ONCE ?= 4

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

venv: $(STAMP)  ## make the virtual environment in .venv

$(STAMP): pyproject.toml
	@./scripts/make-venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@# pip compiles what it copies, but not what it only points at.
	$(PY) -m compileall -q src
	@touch $@

demo: $(STAMP)  ## run a real job, kill things in the middle, show that nothing is lost
	$(VENV)/bin/multihost demo

test: $(STAMP)  ## run all tests (they start what they need)
	@# Else each of the many processes compiles what was edited, where PYTHONDONTWRITEBYTECODE is set.
	$(PY) -m compileall -q src tests
	$(PY) -m pytest -n $(TESTS_AT_ONCE) --dist loadfile

check: $(STAMP)  ## lint, types, layers, generated documents
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) scripts/diagrams.py --check

bench: $(STAMP)  ## measure, beside multiprocessing in the same run
	$(PY) tests/bench/run.py

docs: $(STAMP)  ## regenerate the generated parts of the documents
	$(PY) scripts/diagrams.py

clean:  ## remove what the other targets made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help venv demo test check bench docs clean

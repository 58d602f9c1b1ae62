# GPT Store. `make run` starts the whole store, `make test` runs every check; both set up what they need.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

unexport PYTHONDONTWRITEBYTECODE # some images set it: the processes of a run would each compile every module again

VENV := .venv
PY := $(VENV)/bin/python
FOUND_PYTHON := $(firstword $(foreach name,$(PYTHON) python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)))

.PHONY: help run install install-test test lint typecheck messages pytest journeys soak pytest-postgresql journeys-postgresql clean

help:
	@echo "make run     set up and start the whole store (PORT=8000 HOST=127.0.0.1)"
	@echo "make test    set up and run every check and test"
	@echo "make lint typecheck messages pytest journeys pytest-postgresql journeys-postgresql    one part of it"
	@echo "make soak    kill the processes of a running store under its jobs (SOAK_KILLS=60 SOAK_SEED=1)"
	@echo "make clean   remove the environment and caches (var/ is kept: it holds your data)"

run: install
	@exec $(PY) manage.py up --prepare

# ------------------------------------------------------------------ environment

install: $(VENV)/.installed

$(VENV)/bin/python:
	@if [ -z "$(FOUND_PYTHON)" ]; then echo "Python 3.11, 3.12 or 3.13 is needed and none was found. Install it (Debian: apt-get install python3 python3-venv) and run make again." >&2; exit 1; fi
	"$(FOUND_PYTHON)" -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) else f"Python 3.11 to 3.13 is needed; $(FOUND_PYTHON) is {v[0]}.{v[1]}. Name another one: make run PYTHON=python3.11")'
	"$(FOUND_PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); echo "The environment could not be made; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing the store into $(VENV): about 0.6 GB to download, 1.5 GB on disk with the CPU build of torch (several GB where pip takes a CUDA build)."
	$(PY) -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt torch
	$(PY) -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e .
	touch $@

install-test: $(VENV)/.installed-test

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "Installing the test tools: about 0.2 GB."
	$(PY) -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[test]'
	tests/install_system_packages
	touch $@

# ------------------------------------------------------------------ checks

# Two parts at once, whose words come out in one piece each: the journeys mostly wait, for browsers and workers, and the others fill
# that time. No two parts with a stack of their own and no two with several processes meet.
test: lint messages
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=recurse IN_TURN=1 journeys-postgresql pytest-postgresql

ifdef IN_TURN
journeys-postgresql: | journeys
pytest-postgresql: | pytest
pytest: | typecheck
endif

lint: install-test
	@$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	git ls-files 'templates/*.html' | xargs $(VENV)/bin/djade --target-version 5.2 --check
	$(VENV)/bin/lint-imports

typecheck: install-test
	@$(VENV)/bin/mypy store inference tests

messages: install-test
	@$(PY) tests/check_messages.py

pytest: install-test
	@OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n 2 --dist loadgroup -m "not stack and not browser"

# Every actor's story on one running stack. What its processes commit stays in its database, so these have a run of their own.
# All of them on PostgreSQL: TEST_POSTGRESQL=1 make journeys
journeys: install-test
	@$(VENV)/bin/pytest -n 1 --dist loadgroup -m "stack or browser" tests/journeys

# Kills the processes of the store under running jobs, again and again: SOAK_KILLS=200 SOAK_SEED=7 make soak
soak: install-test
	@SOAK_KILLS=$${SOAK_KILLS:-60} $(VENV)/bin/pytest -n 0 tests/journeys/test_job_faults.py

# The tests that touch the database, once more on a real PostgreSQL that the tests start themselves; but for a thousand rows again and again,
# which are about the number of queries.
pytest-postgresql: install-test
	@TEST_POSTGRESQL=1 OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n 2 --dist loadgroup -m "not stack and not browser and not real_model" \
	  tests/accounts tests/batches tests/billing tests/catalog tests/generation tests/jobs tests/moderation tests/notifications tests/playground tests/ratings \
	  --ignore tests/jobs/test_thousand_jobs.py

# Of the stories, those that together meet every process and every kind of write, on PostgreSQL.
journeys-postgresql: install-test
	@TEST_POSTGRESQL=1 $(VENV)/bin/pytest -n 1 --dist loadgroup -m postgresql tests/journeys

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info

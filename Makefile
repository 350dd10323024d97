# sgi2v: `make demo` shows it, `make test` checks it, `make help` lists the rest.
# Needs make and Python 3.11 or newer; everything else goes into .venv.

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
TORCH   := 2.13.0
# One thread a test worker: on two cores that is faster than one worker with two threads.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

.DEFAULT_GOAL := help
.PHONY: help demo studio install test lint types unit long format clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */  make \1\t/' | expand -t 18

install: $(VENV)/.stamp-run  ## set up .venv with the command sgi2v in it

demo: $(VENV)/.stamp-run  ## generate a clip on the bundled model into out/ (CPU, under 3 minutes)
	$(BIN)/sgi2v demo --output out

studio: $(VENV)/.stamp-studio  ## open the studio on the bundled model (http://127.0.0.1:7860)
	$(BIN)/sgi2v studio

test: lint types unit  ## what CI checks, in a quarter of an hour on two cores

lint: $(VENV)/.stamp-test  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.stamp-test  ## mypy --strict over src, tests, experiments and benchmarks
	$(BIN)/mypy

unit: $(VENV)/.stamp-test  ## pytest, one worker a core, without those marked long
	$(ONE_THREAD) $(BIN)/pytest -n $(WORKERS) --dist worksteal --durations=15 -m "not long"

long: $(VENV)/.stamp-test  ## the tests marked long, before a release: kills at many moments, whole clips
	$(ONE_THREAD) $(BIN)/pytest -n $(WORKERS) --dist worksteal --durations=15 -m long

format: $(VENV)/.stamp-test  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv, out and the caches
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The stamps keep the set-up from being repeated; a changed pin or dependency undoes them.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "sgi2v needs Python 3.11 or newer, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)."; \
	  echo "Install one and name it, for example: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

# torch alone and by its exact version first: any wider request would fetch the newest build, gigabytes of it.
$(VENV)/.stamp-run: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.stamp-studio: $(VENV)/.stamp-run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[studio]'
	@touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp-run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

# make help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv test coverage demo benchmark lint format types docstrings docs notebooks figures clean

VENV ?= .venv
# The first interpreter that runs and is new enough.
PYTHON ?= $(firstword $(foreach name,python3 python3.11 python3.12 python3.13,$(shell \
	$(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
BIN := $(VENV)/bin
REQUIREMENTS := pyproject.toml setup.cfg constraints.txt
PYTEST_OPTIONS ?=
# One thread a test process, two processes: threads that fight for two cores cost more than they give. Not by way of
# NUMBA_NUM_THREADS, which MUMOTT does not survive: it asks for as many threads as there are cores.
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive MPLBACKEND=Agg

help: ## list these targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | \
		while IFS=$$'\t' read -r target text; do printf '  make %-11s %s\n' "$$target" "$$text"; done

# Bytecode is made of what is imported, when it is: of all that there is it takes longer than the rest.
export PIP_NO_COMPILE := 1

# A change of the requirements starts a new environment. torch first and alone: the constraint asks for the CPU build,
# which PyPI does not have for Linux, so that a pip that does not know where to find it fails here at once instead of
# downloading gigabytes of CUDA; PyTorch's own index has it.
$(BIN)/python: $(REQUIREMENTS)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch \
		|| $(BIN)/python -m pip install -q -c constraints.txt torch --extra-index-url https://download.pytorch.org/whl/cpu
	touch $@

$(VENV)/.for-%: $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@
$(VENV)/.for-tests: EXTRAS := dev,mumott,astra,deepinv,files,gpu,materials,viz,notebooks
$(VENV)/.for-notebooks: EXTRAS := notebooks,mumott,viz
$(VENV)/.for-demo: EXTRAS := mumott,viz
$(VENV)/.for-docs: EXTRAS := docs,mumott,viz
# The package alone; the runner is no neighbour.
$(VENV)/.for-nothing: $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e . pytest pytest-xdist hypothesis
	touch $@

venv: $(VENV)/.for-tests ## make ./.venv with everything that tests and examples use (once)

test: $(VENV)/.for-tests ## run the test suite
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_OPTIONS)

coverage: PYTEST_OPTIONS += --cov --cov-report=term --cov-fail-under=95
coverage: test ## run the test suite and measure its coverage, which takes half as long again

demo: $(VENV)/.for-demo ## from measured images and a simulated scan to tensor volumes and figures, in minutes
	OMP_WAIT_POLICY=passive $(BIN)/ddf-tomo demo

benchmark: $(VENV)/.for-tests ## measure speed and accuracy beside MUMOTT and others
	$(BIN)/python benchmarks/run.py

lint: $(VENV)/.for-tests ## look for mistakes: ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docstrings: $(VENV)/.for-tests ## run the examples in the docstrings
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n 2 --doctest-modules ddf_tomo $(PYTEST_OPTIONS)

docs: $(VENV)/.for-docs ## build the manual as a site, docs/_build/html/index.html
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

notebooks: $(VENV)/.for-notebooks ## run the tutorials; with their figures they go to notebooks/_executed
	$(BIN)/python .ci/notebooks.py --to notebooks/_executed

figures: $(VENV)/.for-tests ## draw the figures of the manual again
	$(BIN)/python docs/figures.py
	$(BIN)/python docs/figures_waves.py
	$(BIN)/python docs/figures_imaging.py

format: $(VENV)/.for-tests ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove environments, caches and what tests and demo wrote
	rm -rf $(VENV) .venv-bare build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* htmlcov \
		demo_output docs/_build docs/_generated notebooks/_executed
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Two commands do all set-up on a machine with Python 3.11 or newer: `make run` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DIR ?= tornado-backups-data
ARGS ?=

.PHONY: run demo test check lint types bench fuzz clean

# An environment of our own; made again when the dependencies change.
$(VENV)/runtime.stamp: setup.cfg
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip 'setuptools>=68' wheel
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-build-isolation --editable .
	touch $@

$(VENV)/test.stamp: $(VENV)/runtime.stamp
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[all]'
	touch $@

run: $(VENV)/runtime.stamp
	$(BIN)/tornado-backups quickstart --dir $(DIR) $(ARGS)

demo: $(VENV)/runtime.stamp
	$(BIN)/python -m tests.demo

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest $(ARGS)

check: lint types test

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/test.stamp
	$(BIN)/mypy

bench: $(VENV)/test.stamp
	$(BIN)/python -m benchmarks $(ARGS)

fuzz: $(VENV)/test.stamp
	$(BIN)/python -m tests.campaign $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

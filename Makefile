# Everything a fresh machine needs is Python 3.11 to 3.13 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test faults lint types clean

install: $(VENV)/.installed

# One install serves all targets; it is made again when the dependencies change.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/lrc demo --output-dir demo --force

test: install
	$(BIN)/python -m pytest

# Seven minutes of kills, signals, damage and full disks; prints the table of docs/reliability.md.
faults: install
	LRC_FAULTS=long $(BIN)/python -m pytest tests/faults

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

clean:
	rm -rf demo runs build dist *.egg-info src/*.egg-info

# Two commands on a fresh machine: `make train` and `make test`. Both make .venv first, and reuse it afterwards.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
INPUTS := pyproject.toml constraints.txt

.PHONY: train test coverage clean

train: $(VENV)/.installed
	$(VENV)/bin/python train.py model=hope optim=mixed_muon

test: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2

coverage: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --cov=nested_learning --cov-report=term

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(INPUTS) | $(VENV)/bin/python
	$(PIP) install -e . -c constraints.txt
	touch $@

$(VENV)/.installed-test: $(INPUTS) | $(VENV)/bin/python
	$(PIP) install -e '.[test]' -c constraints.txt
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

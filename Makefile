PYTHON ?= python3
VENV ?= .venv

.PHONY: setup check fast bench

setup:  ## a virtual environment with everything the tests need
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -c constraints.txt -e ".[test]"

check:  ## what CI runs
	bash .ci/run

fast:  ## unit and contract tests
	$(VENV)/bin/python -m pytest tests/unit tests/contract

bench:  ## speed of loading, training and prediction on the real data
	$(VENV)/bin/python benchmarks/speed.py

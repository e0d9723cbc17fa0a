PYTHON ?= python3
VENV ?= .venv

.PHONY: setup check fast nightly soak bench

setup:  ## a virtual environment with everything the tests need
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -c constraints.txt -e ".[test]"

check:  ## what CI runs
	bash .ci/run

fast:  ## unit and contract tests
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile tests/unit tests/contract

nightly:  ## the data gate on 2,000 damaged tables and two minutes of damaged files; 3,000 flipped bits
	YEAST_GET_EXAMPLES=2000 YEAST_GET_FUZZ_SECONDS=120 $(VENV)/bin/python -m pytest -s tests/contract/test_data_gate_property.py tests/contract/test_data_gate_fuzz.py
	YEAST_GET_HOSTILE=3000 $(VENV)/bin/python -m pytest tests/contract/test_hostile_files.py

soak:  ## a training that is killed at 30 random moments; YEAST_GET_SEED chooses others
	YEAST_GET_KILLS=30 $(VENV)/bin/python -m pytest tests/e2e/test_killed.py

bench:  ## training steps and the reading of tables, beside others
	$(VENV)/bin/python benchmarks/training_speed.py
	$(VENV)/bin/python benchmarks/data_gate.py

# tapreel: `make run` and `make test` are all a newcomer needs; both set everything up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Many tests wait for real processes, so there are more at work than cores; the longest are first.
PYTEST := -m pytest --numprocesses 6 --dist load --maxschedchunk 1
# Hundreds of processes start in a test run: where bytecode is not kept, each compiles all anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test faults setup check format coverage clean bench bench-tap

run: setup  ## start the receiver on this machine and place a demo call
	@$(BIN)/receiver serve --self-signed --demo

test: setup  ## the whole test suite
	$(BIN)/python $(PYTEST)

faults: setup  ## break everything that can break; SEEDS=200 is the long run
	@$(BIN)/python -m tests.faults

setup: $(READY)  ## make .venv with the versions pinned in constraints.txt

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dsp,test]'
	@touch $@

check: setup  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

coverage: setup  ## branch coverage of both packages, started processes included
	$(BIN)/coverage erase
	$(BIN)/coverage run $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95

CALLS ?= 150
SECONDS ?= 6

bench: setup  ## CPU per chunk, memory, delays: 5 minutes; BENCH='--json', '--markdown FILE'
	@$(BIN)/python -m tests.bench --calls $(CALLS) --seconds $(SECONDS) $(BENCH)

bench-tap: setup  ## what live listeners cost, and how late they hear: 1 minute
	@$(BIN)/python -m tests.bench.bench_tap

clean:
	rm -rf $(VENV) .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

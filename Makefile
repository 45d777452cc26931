# tapreel: `make run` and `make test` are all a newcomer needs; both set everything up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Many tests wait for real processes, so there are more at work than cores; the longest are first.
PYTEST := -m pytest --numprocesses 4 --dist loadscope
CORES := $(shell nproc 2>/dev/null || echo 2)
# Hundreds of processes start in a test run: where bytecode is not kept, each compiles all anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help run unit test test-console check format coverage faults accuracy bench bench-catalogue bench-tap setup clean

help:  ## print this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

run: setup  ## start the receiver on this machine and place a demo call; Ctrl-C ends it
	@$(BIN)/receiver serve --self-signed --demo --console

unit: setup  ## the tests that open no sockets and start no processes
	$(BIN)/python -m pytest -q --numprocesses $(CORES) -m 'not integration'

test: setup  ## all tests; TAPREEL_TEST_PATIENCE=3 waits three times as long for everything
	$(BIN)/python $(PYTEST)

test-console: export TAPREEL_SCREENSHOTS ?= $(CURDIR)/.screenshots
test-console: setup  ## the console in a browser; pictures of its pages are in .screenshots
	$(BIN)/python -m pytest --numprocesses $(CORES) tests/console

check: setup  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup  ## format, and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

coverage: setup  ## branch coverage of both packages, started processes included
	$(BIN)/coverage erase
	$(BIN)/coverage run $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95

faults: setup  ## break everything that can break; SEEDS=200 is the long run, FAULT=word a part
	@$(BIN)/python -m tests.faults

accuracy: setup  ## odd senders recorded, beside other ways to record; ACCURACY=--write: README
	@$(BIN)/python -m tests.accuracy $(ACCURACY)

CALLS ?= 150
SECONDS ?= 6

bench: setup  ## CPU per chunk, memory, delays: 5 minutes; BENCH='--json', '--markdown FILE'
	@$(BIN)/python -m tests.bench --calls $(CALLS) --seconds $(SECONDS) $(BENCH)

bench-catalogue: setup  ## finding recordings among a million: 20 minutes; CATALOGUE='--count 50000'
	@$(BIN)/python -m tests.bench.bench_catalogue $(CATALOGUE)

bench-tap: setup  ## what live listeners cost, and how late messages reach them: 1 minute
	@$(BIN)/python -m tests.bench.bench_tap

setup: $(READY)  ## make .venv with the versions pinned in constraints.txt

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dsp,test,console,postgres,oidc]'
	@touch $@

clean:  ## remove the environment and all caches
	rm -rf $(VENV) .screenshots .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

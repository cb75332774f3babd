# Every target installs what it needs; only Python 3.11 or later and make must be there first.
PYTHON ?= python3
VENV ?= .venv
BENCH_VENV ?= .venv-bench
DOCS_VENV ?= .venv-docs
# How many processes run tests at once: more than the two cores of CI, as tests wait for threads and for servers.
TEST_WORKERS ?= 3
DOCS_BUILT := docs/_build docs/gallery docs/reference/api docs/reference/command docs/tutorial/*.ipynb
OLDEST_PYTHON ?= python3.11
OLDEST_VENV ?= .venv-oldest
NEWEST_PYTHON ?= python3.13
NEWEST_VENV ?= .venv-newest
# Some containers forbid compiled files; without them, each process of a test run compiles all tests and the package.
unexport PYTHONDONTWRITEBYTECODE
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# What the oldest and the newest versions are tested with: arguments, frames, summaries, loaders, stores, snapshots, exports,
# pictures, reports, the client, the command; not what takes long: other engines, several processes, kills, inconsistent lists,
# browsers, the live view, brute force, all options of `check` and `--by`.
VERSION_TESTS = $(filter-out %_engines.py %_spark.py %_cluster.py %_processes.py %_kills.py %_inconsistent.py %_interrupted.py \
	%_page.py %_top.py %_brute_force.py %_check_and_changes.py %_grouping.py, \
	$(foreach name,analysis arguments frame_checks frames outcomes summaries timelines forecast check golden load pages store \
	files history export plots report cli,$(wildcard tests/test_$(name)*.py)))
VERSION_PYTEST = -m pytest -n $(TEST_WORKERS) --dist loadfile -m "not long and not spark and not docs" $(VERSION_TESTS)

.DEFAULT_GOAL := help
.PHONY: help demo docs test test-docs test-long test-spark test-oldest test-newest environments lint format bench \
	bench-runs lab notebooks clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "this Python cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.core: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once) ..."
	@$(BIN)/python $(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.notebooks: $(VENV)/.core
	@$(BIN)/python $(PIP_INSTALL) --editable '.[notebooks]'
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "Setting up what the checks need (once) ..."
	@$(BIN)/python $(PIP_INSTALL) --editable '.[dev]'
	@touch $@

$(VENV)/.spark: $(VENV)/.dev
	@$(BIN)/python $(PIP_INSTALL) --editable '.[dev,spark]'
	@touch $@

$(DOCS_VENV)/.made: pyproject.toml constraints.txt
	@echo "Setting up $(DOCS_VENV) (once) ..."
	@$(PYTHON) -m venv $(DOCS_VENV)
	@$(DOCS_VENV)/bin/python $(PIP_INSTALL) --editable '.[docs]'
	@touch $@

demo: $(VENV)/.core ## Pull a sandbox account and analyse it; no account needed
	@$(BIN)/qoderdata demo --out demo

lint: $(VENV)/.dev ## Check style, types and structure
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## Check everything: style, types, structure, tests; COVERAGE=--cov measures coverage too
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile -m "not long and not spark and not docs" $(COVERAGE)

test-long: $(VENV)/.dev ## Run the tests that take minutes: hundreds of killed processes, large sandboxes
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m "long and not alone"
	$(BIN)/python -m pytest -m "long and alone"

test-spark: $(VENV)/.spark ## Run the tests on Spark; needs Java 17
	$(BIN)/python -m pytest -m "spark"

docs: $(DOCS_VENV)/.made ## Build the documentation into docs/_build/html
	@rm -rf $(DOCS_BUILT)
	@$(DOCS_VENV)/bin/sphinx-build --fail-on-warning --keep-going --quiet --jobs auto docs docs/_build/html
	@echo "Open docs/_build/html/index.html in a browser"

test-docs: docs $(VENV)/.dev ## Build the documentation, and open every page of it in a browser
	$(BIN)/python -m pytest -n $(TEST_WORKERS) -m "docs"

$(OLDEST_VENV)/.made: pyproject.toml constraints-oldest.txt
	@echo "Setting up $(OLDEST_VENV) (once) ..."
	@$(OLDEST_PYTHON) -m venv $(OLDEST_VENV)
	@$(OLDEST_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints-oldest.txt --editable '.[tests]'
	@touch $@

test-oldest: $(OLDEST_VENV)/.made ## Run the main tests and the demo on the oldest supported versions
	$(OLDEST_VENV)/bin/python $(VERSION_PYTEST)
	$(OLDEST_VENV)/bin/qoderdata demo --out $(OLDEST_VENV)/demo >/dev/null

$(NEWEST_VENV)/.made: pyproject.toml constraints.txt
	@echo "Setting up $(NEWEST_VENV) (once) ..."
	@$(NEWEST_PYTHON) -m venv $(NEWEST_VENV)
	@$(NEWEST_VENV)/bin/python $(PIP_INSTALL) --editable '.[tests]'
	@touch $@

test-newest: $(NEWEST_VENV)/.made ## Run the main tests and the demo on the newest Python
	$(NEWEST_VENV)/bin/python $(VERSION_PYTEST)
	$(NEWEST_VENV)/bin/qoderdata demo --out $(NEWEST_VENV)/demo >/dev/null

environments: $(VENV)/.spark $(OLDEST_VENV)/.made $(NEWEST_VENV)/.made $(DOCS_VENV)/.made ## Install what all tests need

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.core ## Compare speed and memory with the alternatives
	@test -e $(BENCH_VENV)/.made || { $(PYTHON) -m venv $(BENCH_VENV) && touch $(BENCH_VENV)/.made; }
	@$(BENCH_VENV)/bin/python $(PIP_INSTALL) --editable . -r benchmarks/requirements.txt
	$(BENCH_VENV)/bin/python -m benchmarks.run

bench-runs: $(VENV)/.dev ## Measure 50 million runs on DuckDB and Dask; needs 3 GiB of disk
	$(BIN)/python -m benchmarks.runs

lab: $(VENV)/.notebooks ## Open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir=notebooks

notebooks: $(VENV)/.dev ## Run the notebooks, and store their outputs
	$(BIN)/python notebooks/run.py --write

clean: ## Remove what the other targets made
	rm -rf $(VENV) $(BENCH_VENV) $(DOCS_VENV) $(OLDEST_VENV) $(NEWEST_VENV) $(DOCS_BUILT) demo data/cache data/report.html .coverage \
		.mypy_cache .pytest_cache .ruff_cache .import_linter_cache

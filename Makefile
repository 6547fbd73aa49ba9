# lakelet: `make help` lists the targets. Everything is installed into .venv, nothing elsewhere.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Without compiling: only what is imported gets compiled, when it is. -c: the versions that were tested together.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile -c constraints.txt -e

# The checkout is the package itself: without this, `python script.py` at the root could import rooms by bare names.
export PYTHONSAFEPATH := 1

.DEFAULT_GOAL := help
.PHONY: help demo test slow lint format bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## which of some 3,200 real tables are contained in which others; a search of real texts
	$(BIN)/python benchmarks/demo.py

test: $(VENV)/.dev ## the default test suite
	$(BIN)/python -m pytest -n auto

slow: $(VENV)/.dev ## the tests marked slow
	$(BIN)/python -m pytest -n auto -m slow

lint: $(VENV)/.dev ## ruff and mypy, both strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## rewrite the sources as ruff formats them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev $(VENV)/.demo ## the benchmarks; their figures go to benchmarks/results/
	$(BIN)/python benchmarks/real_lake.py
	$(BIN)/python benchmarks/scale_lake.py --scale 1
	@# -: a benchmark that misses a figure says so and leaves with 1; the others run all the same
	-$(BIN)/python benchmarks/containment_real.py
	-$(BIN)/python benchmarks/containment_scale.py --scale 1
	-$(BIN)/python benchmarks/catalog_queries.py
	-$(BIN)/python benchmarks/catalog_commits.py
	-$(BIN)/python benchmarks/hash_kernels.py
	-$(BIN)/python benchmarks/parquet_layout.py
	-$(BIN)/python benchmarks/retirement_program.py
	-$(BIN)/python benchmarks/vector_kernels.py
	-$(BIN)/python benchmarks/retirement_real.py
	-$(BIN)/python benchmarks/retirement_scale.py
	-$(BIN)/python benchmarks/recipe_size.py
	-$(BIN)/python benchmarks/retirement_quarter.py

clean: ## everything that make and the tools made
	rm -rf $(VENV) build dist *.egg-info demo-lake .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
		echo "lakelet needs Python 3.11, 3.12 or 3.13; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)."; \
		echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.dev: $(VENV)/.python pyproject.toml constraints.txt
	$(INSTALL) '.[dev]'
	@touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml constraints.txt
	$(INSTALL) '.[demo]'
	@touch $@

# Each target sets up what it needs; `make` alone lists them.

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install frameworks up test check format bench clean

help:
	@echo "make up [ARGS=\"--port 9000\"]   start Serai on this machine"
	@echo "make test [ARGS=\"-k name\"]     run the tests"
	@echo "make check                      style, types, layers"
	@echo "make format                     put the style right"
	@echo "make bench [ARGS=C1]            measure, each figure beside its limit"
	@echo "make install                    only set up .venv"
	@echo "make frameworks                 add PyTorch and TensorFlow to it (2 GB)"
	@echo "make clean                      remove .venv and caches"

install: .venv/.installed

.venv/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Serai needs Python 3.11 or newer; this is $$($(PYTHON) -V). Choose another: make PYTHON=python3.12"; exit 1; }
	@test -e $@ || rm -rf .venv  # what an interrupted install left cannot be trusted
	@echo "· making a virtual environment in .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.13,<1"
	@echo "· installing Serai and what it needs (about 400 MB; once)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable ".[server,test,check]"
	@echo "· fetching models and packages of the first-party algorithms"
	@$(BIN)/python -m serai_gateway.build.prefetch
	@touch $@

frameworks: install
	@echo "· installing PyTorch and TensorFlow (about 2 GB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable ".[torch,tensorflow]"
	@echo "· a Serai that is running uses them from its next start on"

up: install
	@$(BIN)/serai up $(ARGS)

test: install
	@echo "· running the tests"
	@ORT_DISABLE_TELEMETRY=1 $(BIN)/python -m pytest $(ARGS)

check: install
	@$(BIN)/ruff format --check --quiet . || { echo "style: run make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/basedpyright --level error
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

format: install
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix .

bench: install
	@$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

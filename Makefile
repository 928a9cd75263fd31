# Start here: `make tune` and `make test`. Both set up .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The tested version of torch; with GPUs choose another wheel, e.g. TORCH="torch==2.13.0+cu130".
TORCH ?= torch==2.13.0
SUDO = $(shell test "$$(id -u)" = 0 || echo sudo)
APT_INSTALL = $(SUDO) apt-get update --quiet && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	apt-get install --yes --quiet --no-install-recommends

.PHONY: tune test lint unit setup sandbox browser docs clean

tune: setup ## Run the built-in sweep on the embedded testbed and write its report.
	$(BIN)/lorasweep tune --space lr,targets,rank

test: setup lint unit ## Everything CI runs.

setup: $(VENV)/.installed

# torch first and by itself, so that no other package chooses its build.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "$(TORCH)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# These need root or sudo, so no other target depends on them; tests report what is missing.
sandbox: ## Install bubblewrap, the sandbox for generated programs.
	command -v bwrap >/dev/null || { $(APT_INSTALL) bubblewrap; }

browser: ## Install Chromium, with which the tests open report.html.
	command -v chromium >/dev/null || { $(APT_INSTALL) chromium; }

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4

docs: setup ## Regenerate docs/cli.md, the table in docs/targets.md and the schema of analysis.json.
	$(BIN)/python docs/generate_cli.py
	$(BIN)/python docs/generate_schema.py
	$(BIN)/python docs/generate_targets.py

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

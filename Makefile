.DEFAULT_GOAL := help
.PHONY: help install run test coverage faults mutants lint fmt docs bench bench-peers schema lock clean

PORT ?= 8000
HOST ?= 127.0.0.1
KILLS ?= 250
VENV ?= .venv
BIN := $(VENV)/bin
DEVELOPMENT_EXTRAS := --extra build --extra lint --extra lock --extra mutants --extra test
DOCS_EXTRA := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")
export VENV

help: ## Show these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

install: $(VENV)/.installed ## Create the environment in .venv, with .venv/bin/pixyproxy

run: $(VENV)/.installed ## Set up everything, make a first picture and serve (PORT=8000)
	@HOST=$(HOST) PORT=$(PORT) exec scripts/run.sh

test: $(VENV)/.developed ## Run all tests; installs their dependencies (MariaDB, Redis, Chromium, Node)
	$(BIN)/python -m pytest

coverage: $(VENV)/.developed ## Run all tests and list the uncovered lines
	$(BIN)/python -m pytest --cov --cov-report=term

faults: $(VENV)/.developed ## Run the full fault and limit tests: KILLS=250 kills, 1,000 hang-ups, 10,000 connections
	FULL=1 KILLS=$(KILLS) $(BIN)/python -m pytest --no-cov --timeout=7200 -o faulthandler_timeout=7260 \
	  tests/faults tests/web/rate_limits/test_limits.py tests/web/test_openapi.py tests/web/middleware/test_request_log.py \
	  tests/web/private/test_budgets.py

mutants: $(VENV)/.developed ## Run mutation tests on code that money and data depend on; list surviving mutants
	$(BIN)/python scripts/mutants.py $(MUTANTS)

lint: $(VENV)/.developed ## Check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(VENV)/.developed ## Format the code and apply automatic fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv-docs/.installed ## Build the documentation site in site/, in an environment of its own
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

bench: $(VENV)/.developed ## Measure start, memory and generation, compared with a direct upstream call
	$(BIN)/python -m benchmarks

bench-peers: $(VENV)/.developed .venv-peers/.installed ## Measure compared with LiteLLM, in a separate environment
	$(BIN)/python -m benchmarks.peers

schema: $(VENV)/.installed ## Render sql/schema.*.sql and docs/openapi.json
	$(BIN)/pixyproxy migrate --sql mysql > sql/schema.mysql.sql
	$(BIN)/pixyproxy migrate --sql sqlite > sql/schema.sqlite.sql
	$(BIN)/python scripts/render_openapi.py > docs/openapi.json

lock: $(VENV)/.developed ## Pin the latest releases in requirements*.lock
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-strip-extras --no-header --no-annotate --no-emit-index-url \
	  --no-emit-find-links --python-version 3.11 --extra build pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-strip-extras --no-header --no-annotate --no-emit-index-url \
	  --no-emit-find-links --python-version 3.11 $(DEVELOPMENT_EXTRAS) -c requirements.lock pyproject.toml -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-header --no-annotate --no-emit-index-url \
	  --no-emit-find-links --python-version 3.11 tests/clients/requirements.in -o tests/clients/requirements.txt
	$(BIN)/python -c '$(DOCS_EXTRA)' | $(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --python-version 3.11 - -o docs/requirements.txt

clean: ## Remove the environment and caches; keep data and pictures
	rm -rf $(VENV) .venv-peers .venv-docs .tools site mutants .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage*

$(VENV)/.installed: requirements.lock pyproject.toml
	@scripts/install.sh requirements.lock
	@touch $@

$(VENV)/.developed: requirements-dev.lock pyproject.toml
	@scripts/install.sh requirements-dev.lock
	@touch $@ $(VENV)/.installed

.venv-peers/.installed: benchmarks/peers/requirements.txt | $(VENV)/.developed
	@echo "Installing $< …"
	@$(BIN)/python -m venv .venv-peers
	@echo '*' > .venv-peers/.gitignore
	@.venv-peers/bin/pip install -qq --disable-pip-version-check -r $<
	@touch $@

.venv-docs/.installed: docs/requirements.txt | $(VENV)/.installed
	@echo "Installing $< …"
	@$(BIN)/python -m venv .venv-docs
	@echo '*' > .venv-docs/.gitignore
	@.venv-docs/bin/pip install -qq --disable-pip-version-check --no-deps --require-hashes -r $<
	@.venv-docs/bin/pip check --disable-pip-version-check >/dev/null
	@touch $@

# Everything a developer types. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help run test faults fuzz timing mutants bench load trace size check screenshots clean

PORT ?= 5000
TESTS ?= tests
MINUTES ?= 10
REQUESTS ?= 50000
BIN := .venv/bin
# The first Python on this machine that is new enough.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

run: .venv/installed ## Install, migrate, and serve http://127.0.0.1:5000 (PORT=... for another)
	@$(BIN)/flask db upgrade
	@$(BIN)/flask run --port $(PORT)

test: .venv/installed-dev ## Run every test but the faults (TESTS=tests/users for some)
	@$(BIN)/python -m pytest -n 3 --ignore=tests/faults $(TESTS)

faults: .venv/installed-dev ## Break everything in turn (RECORD=1 writes docs/evidence/faults.md)
	@$(BIN)/python -m pytest -n 3 tests/faults

fuzz: .venv/installed-dev ## Send random requests and sequences of them (REQUESTS=50000; `make test` includes a few hundred)
	@REQUESTS=$(REQUESTS) $(BIN)/python -m pytest -n 2 tests/fuzz

timing: .venv/installed-dev ## Measure whether response times reveal who has an account (RECORD=1 writes docs/evidence/timing.md)
	@$(BIN)/python -m benchmarks.timing

mutants: .venv/installed-dev ## Check that tests detect small changes of the code (RECORD=1 writes docs/evidence/mutants.md, AGAIN=1 tests only functions that changed)
	@$(if $(AGAIN),,rm -rf mutants)
	@$(BIN)/python -m mutmut run --max-children 3
	@$(BIN)/python -m benchmarks.mutants

bench: .venv/installed-dev ## Measure delivery and claims, 5 minutes (RECORD=1 writes docs/evidence/delivery.md and claims.md)
	@$(BIN)/python -m benchmarks.delivery; delivery=$$?; $(BIN)/python -m benchmarks.claims && exit $$delivery

load: .venv/installed-dev ## Let visitors use the site for a minute and MINUTES=10 more (RECORD=1 writes docs/evidence/load.md)
	@$(BIN)/python -m locust --run-time $$(($(MINUTES) * 60 + 60))s

trace: .venv/installed-dev ## Print the files and functions that one password reset uses
	@$(BIN)/python -m benchmarks.trace

size: ## Print how much code there is
	@$(PYTHON) -m benchmarks.size

check: .venv/installed-dev ## Lint and check the types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

screenshots: .venv/installed-dev ## Take the pictures of docs/pictures in a real browser
	@$(BIN)/python -m docs.screenshots

clean: ## Remove what was installed and cached (not instance/, which holds your data)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache mutants
	find . -name __pycache__ -not -path './instance/*' -prune -exec rm -rf {} +

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "pwreset needs Python 3.11 or newer."; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

.venv/installed: requirements.txt | .venv/bin/python
	@echo "Installing into .venv ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/installed-dev: requirements-dev.txt requirements-scale.txt .venv/installed
	@echo "Installing what the tests need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

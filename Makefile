# Everything a developer types. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help run test faults fuzz timing mutants bench load check screenshots clean

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

faults: .venv/installed-dev ## Break everything in turn, and write what was seen into docs/reliability.md
	@$(BIN)/python -m pytest -n 3 tests/faults

fuzz: .venv/installed-dev ## Send odd requests and live through odd stories (REQUESTS=50000; of `make test` a part)
	@REQUESTS=$(REQUESTS) $(BIN)/python -m pytest -n 2 tests/fuzz

timing: .venv/installed-dev ## Measure whether time tells who has an account (RECORD=1 writes docs/security.md)
	@$(BIN)/python -m benchmarks.timing $(if $(RECORD),--record)

mutants: .venv/installed-dev ## Change the code in small ways and see that tests notice (RECORD=1 writes docs/security.md, AGAIN=1 skips what did not change)
	@$(BIN)/python -m benchmarks.mutants $(if $(RECORD),--record) $(if $(AGAIN),--again)

bench: .venv/installed-dev ## Measure delivery and claims, 5 minutes (RECORD=1 writes docs/performance.md)
	@$(BIN)/python -m benchmarks.delivery $(if $(RECORD),--record); delivery=$$?; \
	$(BIN)/python -m benchmarks.claims $(if $(RECORD),--record) && exit $$delivery

load: .venv/installed-dev ## Serve visitors as fast as it goes (MINUTES=10, RECORD=1 writes docs/performance.md)
	@$(BIN)/python -m benchmarks.load --minutes $(MINUTES) $(if $(RECORD),--record)

check: .venv/installed-dev ## Lint and check the types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

screenshots: .venv/installed-dev ## Take the pictures of docs/pictures in a real browser
	@$(BIN)/python -m docs.screenshots

clean: ## Remove what was installed and cached (not instance/, which holds your data)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
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

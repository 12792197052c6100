# Needs Python 3.11 to 3.14 and make; gets everything else itself, into .tools/ and .venv/.
#   make PYTHON=python3.12 test     builds .venv with that Python (otherwise: the newest found)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
EVERY_CORE := --numprocesses=auto --maxprocesses=8 --dist=loadfile
# The interpreter's name is part of the stamp, so that asking for another one rebuilds .venv.
STAMP := .venv/.installed$(if $(PYTHON),-$(notdir $(PYTHON)))
# Large, so that only those get it who need it.
TORCH := .venv/.torch
HYPHA := .venv/.hypha

.PHONY: help demo demo-train test unit coverage integration nightly check lint format types imports lock picture clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

demo: $(STAMP) ## run a real Ray cluster here: from zero workers to some, real work, and back to zero
	@$(BIN)/heliostat demo

demo-train: $(STAMP) $(TORCH) ## train here while workers come and go: 1, 2, 3, 2 members, and a picture of it
	@$(BIN)/heliostat train-demo --auto

test: unit integration ## run the unit tests and the integration tests

unit: $(STAMP) $(TORCH) ## run the unit tests on every core
	$(BIN)/pytest tests/unit $(EVERY_CORE)

coverage: $(STAMP) $(TORCH) ## run the unit tests and tell how much of each file they cover (takes longer)
	$(BIN)/pytest tests/unit $(EVERY_CORE) --cov --cov-report=term

integration: $(STAMP) $(TORCH) $(HYPHA) ## run the tests that start real Ray and other real servers
	$(BIN)/pytest tests/integration

nightly: $(STAMP) $(TORCH) $(HYPHA) ## run what is too long for every change: long tests, more examples, other Ray versions
	$(BIN)/python -m tools.nightly

check: lint types imports ## lint, types, direction of imports, lock file

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python tools/neutral_lock.py --check
	$(BIN)/uv lock --check --offline --quiet

format: $(STAMP) ## format the code, and mend what ruff can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports --no-logo

picture: $(STAMP) ## draw docs/architecture.svg anew
	$(BIN)/python tools/architecture.py

lock: $(STAMP) ## lock the newest packages that fit pyproject.toml (UPGRADE=--upgrade), with no registry named
	$(BIN)/uv lock $(UPGRADE)
	$(BIN)/python tools/neutral_lock.py

clean: ## remove everything that make made
	rm -rf .venv .tools .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage htmlcov dist build
	find src tests tools -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): uv.lock pyproject.toml tools/environment.py
	@python=$$(sh tools/pick-python $(PYTHON)) && "$$python" tools/environment.py $(if $(PYTHON),--pinned)
	@touch $@

$(TORCH): $(STAMP) tools/torch_cpu.py tools/beside_lock.py
	@python=$$(sh tools/pick-python $(PYTHON)) && "$$python" -m tools.torch_cpu
	@touch $@

$(HYPHA): $(STAMP) tools/hypha_server.py tools/beside_lock.py tools/hypha-server.txt
	@python=$$(sh tools/pick-python $(PYTHON)) && "$$python" -m tools.hypha_server
	@touch $@

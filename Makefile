# Two commands matter: `make serve` and `make test`. `make` alone lists them all.
#
# Both make .venv once, from Python 3.11 or later and constraints.txt, and install again only when
# pyproject.toml or constraints.txt change. On a machine without an NVIDIA GPU torch comes as a CPU
# build; where pip's index has none, TORCH_INDEX=URL names one that does. Tests run in JOBS processes,
# each of which may have a whole cluster up (5 GiB); those marked `alone` run one by one after them.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
GPU_PYTHON ?= python3
TORCH := torch==$(shell sed -n 's/^torch==//p' constraints.txt)
TORCH_INDEX ?=
PIP_LOUD := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
PIP := $(PIP_LOUD) -qq
MODEL ?=
ARGS ?=
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
TOGETHER := $(PYTEST) --numprocesses $(JOBS) --dist loadfile
# Code for CUDA runs on a card that the CPU plays; some of these tests whenever tests run.
ON_A_CARD := $(TOGETHER) -p tests.simulated.plugin
CARD_TESTS := tests/simulated tests/transfer tests/engine/test_cuda.py tests/cluster/test_on_a_card.py \
	$(addprefix tests/models/test_,cuda.py every_family.py varlen.py fused.py)
# What pytest says where no test was chosen.
NONE := 5
# What these need lies in environments of their own, below .venvs, which take gigabytes; those that
# CLIENTS does not name are left out.
OPTIONAL := not clients and not openapi and not page and not deploy
CLIENTS ?= clients node aiperf evalscope guidellm
ENVIRONMENTS := $(if $(TORCH_INDEX),PIP_EXTRA_INDEX_URL=$(TORCH_INDEX)) \
	$(BIN)/python -m tests.clients.environments

.PHONY: help venv serve test test-slow test-simulated test-clients test-openapi test-page test-ray lint bench bench-peers gpu-check deploy-check clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

serve: $(VENV)/.core ## a whole cluster on this machine; MODEL=folder for a model of yours
	@$(BIN)/epd serve $(MODEL) $(ARGS)

test: lint ## lint, types, rooms, and every test that is neither slow nor for a real GPU
	@$(TOGETHER) -m "not slow and not gpu and not alone and $(OPTIONAL)" $(ARGS) || [ $$? = $(NONE) ]
	@$(PYTEST) -m "alone and not slow and not gpu and $(OPTIONAL)" $(ARGS) || [ $$? = $(NONE) ]
	@$(ON_A_CARD) -m "simulated and not slow" $(ARGS) || [ $$? = $(NONE) ]

test-simulated: $(VENV)/.dev ## tests for a GPU on one that the CPU plays, ten minutes
	@$(ON_A_CARD) -m "gpu and not slow" $(CARD_TESTS) $(ARGS)

test-slow: $(VENV)/.dev ## the tests that take minutes
	@$(TOGETHER) -m "slow and not gpu and not alone and $(OPTIONAL)" $(ARGS) || [ $$? = $(NONE) ]
	@$(PYTEST) -m "alone and slow and not gpu and $(OPTIONAL)" $(ARGS) || [ $$? = $(NONE) ]

test-clients: $(VENV)/.dev ## stock clients and load tools; makes their environments in .venvs
	@$(ENVIRONMENTS) $(CLIENTS)
	@$(PYTEST) -m clients tests/clients $(ARGS)

test-openapi: $(VENV)/.dev ## made-up requests by the OpenAPI document; makes their environment
	@$(ENVIRONMENTS) openapi
	@$(PYTEST) -m openapi tests/openapi $(ARGS)

test-page: $(VENV)/.dev ## the page in headless Chromium, which the system has; makes its environment
	@$(BIN)/python -m tests.page.chromium
	@$(ENVIRONMENTS) page
	@$(PYTEST) -m page tests/page $(ARGS)

lint: $(VENV)/.dev ## ruff, mypy, import-linter
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports > $(VENV)/rooms.log || { cat $(VENV)/rooms.log; exit 1; }

bench: $(VENV)/.dev ## parts without the model, against their floors and committed figures
	@$(BIN)/python -m bench.micro $(ARGS) > $(VENV)/bench.json

bench-peers: $(VENV)/.dev ## vLLM and transformers on this CPU beside us, 20 minutes; makes their environments
	@$(ENVIRONMENTS) vllm transformers
	@$(BIN)/python -m bench.peers --out .venvs/peers.json --page .venvs/peers.md $(ARGS)

gpu-check: ## tests and measurements on a CUDA GPU, with the torch found here; 10 minutes at most
	@$(or $(shell command -v $(GPU_PYTHON)),$(PYTHON)) .ci/gpu_check.py $(ARGS)

test-ray: $(VENV)/.dev ## roles as actors of a real Ray cluster; makes its environment
	@$(ENVIRONMENTS) ray
	@$(PYTEST) tests/launch/test_ray.py tests/cluster/test_ray.py $(ARGS)

deploy-check: $(VENV)/.dev ## launch/, docker/ and dashboards against schemas and linters; installs as the image does
	@$(ENVIRONMENTS) deploy
	@$(BIN)/python -m tests.debian
	@$(PYTEST) tests/deploy $(ARGS)

venv: $(VENV)/.dev ## .venv with everything for development

clean: ## remove .venv and caches
	@rm -rf $(VENV) .venv-gpu .venvs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "epd needs Python 3.11 or later: make PYTHON=/path/to/python3"; exit 1; }
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

# First of all, so that nothing installed later chooses another build of it.
$(VENV)/.torch: constraints.txt | $(BIN)/python
	@echo "installing $(TORCH)"
	@if nvidia-smi -L >/dev/null 2>&1; then $(PIP) "$(TORCH)"; \
	elif $(PIP) "$(TORCH)+cpu" 2>/dev/null; then :; \
	elif $(PIP_LOUD) --dry-run "$(TORCH)" 2>&1 | grep -q 'nvidia-'; then \
		echo "This machine has no NVIDIA GPU, but pip's index has torch only with CUDA (gigabytes)."; \
		echo "Name an index with CPU builds, as pytorch's own pages give it: make TORCH_INDEX=URL"; \
		exit 1; \
	else $(PIP) "$(TORCH)"; fi
	@touch $@

$(VENV)/.core: pyproject.toml constraints.txt $(VENV)/.torch
	@echo "installing epd"
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "installing the development tools"
	@$(PIP) -e '.[dev]'
	@touch $@

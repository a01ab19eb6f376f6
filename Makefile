# Each target sets up what it needs; `make demo` and `make test` are all that a newcomer has to know.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WHEEL_VENV := .venv-wheel
SOLO_VENV := .venv-solo
SOLO_BIN := $(SOLO_VENV)/bin
SOLO_INSTALLED := $(SOLO_VENV)/.installed
FUZZ_VENV := .venv-fuzz
FUZZ_INSTALLED := $(FUZZ_VENV)/.installed
FUZZ_RUNS ?= 1000000
# A checkout of solo-learn's newest code to test instead of the release that is installed, 1.0.2.
SOLO_LEARN ?=
# Of make soak: kills of the server, and due steps with faults.
ROUNDS ?= 20
STEPS ?= 100000
# First on the path, for child processes, too.
AGAINST_SOLO := OMP_NUM_THREADS=1 SOLO_LEARN="$(abspath $(SOLO_LEARN))" PYTHONPATH="$(abspath $(SOLO_LEARN))"
# Without these, a pinned test is only as good as the day's newest release of something else.
CONSTRAINTS := -c constraints.txt

.PHONY: demo test test-browser soak fuzz test-matrix test-solo table-solo bench bench-alerts paper lint test-wheel \
	clean

demo: $(INSTALLED)
	$(BIN)/python -m examples.demo

# One thread a worker: several workers of several threads would only get in each other's way.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

# The report in a real headless Chromium (apt-get install chromium); screenshots in build/report-shots.
test-browser: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/browser

# Long runs with a server that is killed and other faults: half an hour. A few minutes: make soak ROUNDS=3 STEPS=5000
soak: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.soak $(ROUNDS) $(STEPS)

# Malformed input, by atheris: half an hour; what is found is left in build/fuzz. Shorter: make fuzz FUZZ_RUNS=20000
fuzz: $(FUZZ_INSTALLED)
	@for target in keys options journal; do \
		PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(FUZZ_VENV)/bin/python -W ignore tests/fuzz/run.py $$target $(FUZZ_RUNS) \
			|| exit 1; done

# The oldest versions that pyproject.toml promises, each in an environment of its own: make test-matrix MATRIX=mlflow
MATRIX ?= core lightning pytorch-lightning mlflow
test-matrix:
	@for name in $(MATRIX); do OMP_NUM_THREADS=1 $(PYTHON) tests/matrix/run.py $$name -q -n auto --maxprocesses 4 || exit 1; done

# The real solo-learn, which needs torchvision: make test-solo SOLO_LEARN=/path/to/solo-learn
test-solo: $(SOLO_INSTALLED)
	$(AGAINST_SOLO) $(SOLO_BIN)/pytest tests/solo -n 2 --dist worksteal

# The table of docs/solo_learn.md.
table-solo: $(SOLO_INSTALLED)
	@$(AGAINST_SOLO):. $(SOLO_BIN)/python -W ignore tests/solo/table.py

# docs/speed.md and its figure, on a machine that does nothing else: an hour. Some of it: make bench PARTS="thread runs"
bench: $(INSTALLED)
	$(BIN)/python -W ignore -m benchmarks $(PARTS)

# docs/paper: the experiments of the method's paper, and ours beside them, in a quarter of an hour. Some of them:
# make paper PARTS="desiderata gaussian"
paper: $(INSTALLED)
	$(BIN)/python -W ignore -m benchmarks.paper $(PARTS)

# docs/alert_benchmark.md and its figure: 170 runs, ten minutes. The tables again, of the runs that are
# there: make bench-alerts REPLAY=--replay
bench-alerts: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.alerting $(REPLAY)

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
	cd build/wheel-test/tests && rm -r browser fuzz matrix soak integrations solo
	cd build/wheel-test && ../../$(WHEEL_VENV)/bin/python -P -m pytest tests

clean:
	rm -rf $(VENV) $(WHEEL_VENV) $(SOLO_VENV) $(FUZZ_VENV) .venv-matrix-* build dist demo-results *.egg-info

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another one by: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) -e ".[dev]"
	@touch $@

$(FUZZ_INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(FUZZ_VENV)
	$(FUZZ_VENV)/bin/python -m pip install --quiet $(CONSTRAINTS) -e ".[fuzz]"
	@touch $@

# Neither asks for what it pins: solo-learn's are of 2022, torchvision's a CUDA build of torch. The .pth: tests/solo/site.
$(SOLO_INSTALLED): pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(SOLO_VENV)
	$(SOLO_BIN)/python -m pip install --quiet $(CONSTRAINTS) -e ".[test-solo]"
	$(SOLO_BIN)/python -m pip install --quiet $(CONSTRAINTS) --no-deps solo-learn torchvision
	printf '%s\n' "$(CURDIR)/tests/solo/site" "import torchvision_schemas" \
		> $$($(SOLO_BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torchvision_schemas.pth
	@touch $@

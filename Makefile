# Every target works alone, from a fresh clone with only Python 3.11 or newer.
#
#   make demo        prune a prompt on the bundled model, and check what came of it
#   make test        lint and all tests that need neither data nor a network
#   make test-fast   without lint and without tests marked slow: whole runs, figures, processes
#   make test-real   tests on real data: the folder that SOFTPRUNE_DATA names
#   make lint        ruff and mypy
#   make bench       the benchmarks; ROUNDS=1 for a shorter look (docs/benchmarks.md)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY_DEMO := $(VENV)/.installed-demo
READY := $(VENV)/.installed
READY_BENCH := $(VENV)/.installed-bench
DATA := $(abspath $(or $(SOFTPRUNE_DATA),$(wildcard ../shared/data)))
BENCHMARKS := single_step candidates memory growth paired whole_search criteria real_encoder real_lm gpu_decoders half_size

# A worker takes whole files, whose fixtures are made once, in the order of conftest.py: slow ones first.
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test all-tests test-fast test-real lint bench
.DELETE_ON_ERROR:

demo: $(READY_DEMO)
	rm -rf runs/demo
	$(BIN)/softprune run demo --out runs/demo
	$(BIN)/python scripts/check_demo.py runs/demo

# mypy has one core busy for a minute: beside the tests, not before them.
test: $(READY)
	$(MAKE) -j 2 lint all-tests

all-tests: $(READY)
	$(BIN)/python -m pytest -m "not real" $(WORKERS)

test-fast: $(READY)
	$(BIN)/python -m pytest -m "not slow and not real" $(WORKERS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-real: $(READY_BENCH)
	@test -n "$(DATA)" && test -d "$(DATA)" || \
		{ echo "make test-real: set SOFTPRUNE_DATA to the folder with the real data (found: '$(DATA)')" >&2; exit 2; }
	SOFTPRUNE_DATA="$(DATA)" $(BIN)/python -m pytest -m real -n 2 --dist worksteal

bench: $(READY_BENCH)
	@set -e; for name in $(BENCHMARKS); do echo "== $$name"; SOFTPRUNE_DATA="$(DATA)" \
		$(BIN)/python benchmarks/$$name.py $(if $(ROUNDS),--rounds $(ROUNDS)); done

$(READY_DEMO): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "softprune needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[demo]'
	touch $@

$(READY): $(READY_DEMO)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

$(READY_BENCH): $(READY)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,bench]'
	touch $@

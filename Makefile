# Everything a fresh machine with Python 3.11 to 3.13 and make needs: `make demo`, `make test`. For every change: `make check`.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
DEMO ?= demo

.PHONY: demo check test lint types tests clean

demo: .venv/installed
	@$(BIN)/humeris demo -o $(DEMO)

check: PYTEST += -m "not slow and not many"
check: lint types tests

test: PYTEST += --durations=20
test: lint types tests

lint: .venv/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/developing
	@mkdir -p .typecheck && ln -sfn .. .typecheck/humeris
	MYPYPATH=.typecheck $(BIN)/mypy -p humeris.cache -p humeris.extract -p humeris.classify -p humeris.commands -m humeris.cli -m humeris

tests: .venv/developing
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST)

.venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "humeris needs Python 3.11, 3.12 or 3.13: none of python3, python3.13, python3.12 and python3.11 is one; name yours with make PYTHON=..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/developing: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv .typecheck .pytest_cache .ruff_cache build *.egg-info demo

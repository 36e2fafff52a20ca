# make demo: the quick start.  make test: format, lint, types, tests on two processes of one thread each.
# make long: the tests that make test leaves out (whole runs, further processes, every page, tiny studies, the wheel).
# make docs: the pages, into site/ (python -m http.server -d site shows them, with the search).
# What takes longer than a person waits: make mutations (faults put into the code: does a test see each?), make mutants
# FILE=bayesdd/ROOM/FILE.py (which changes of a line does no test see?), make coverage (lines that tests run), make
# versions (make test's tests on every Python from 3.11 that is found, with the newest packages).
# All make .venv first where it is missing or stale.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
FILE ?= bayesdd/numerics/pareto.py
TESTS ?= $(subst bayesdd/,tests/,$(dir $(FILE)))test_$(patsubst _%,%,$(notdir $(FILE)))
VERSIONS ?= 3.11 3.12 3.13

.PHONY: demo test long docs coverage mutants mutations versions

demo: $(STAMP)
	$(BIN)/python -m studies.quickstart

test: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m "not long"

long: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m long

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

coverage: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pytest-cov
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup --cov=bayesdd --cov-report=term:skip-covered

mutations: $(STAMP)
	$(BIN)/python tests/mutations.py

mutants: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check mutmut
	rm -rf .mutations && git clone --quiet . .mutations
	printf '\n[tool.mutmut]\npaths_to_mutate = ["$(FILE)"]\ntests_dir = ["$(TESTS)"]\nalso_copy = ["bayesdd", "models", "studies", "tests"]\n' >> .mutations/pyproject.toml
	cd .mutations && OMP_NUM_THREADS=1 ../$(BIN)/python -m mutmut run && ../$(BIN)/python -m mutmut results

versions:
	for version in $(VERSIONS); do \
		if "python$$version" -c '' 2>/dev/null; then \
			"python$$version" -m venv ".venv-$$version" && \
			".venv-$$version/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[test]' && \
			OMP_NUM_THREADS=1 ".venv-$$version/bin/python" -m pytest -n 2 --dist loadgroup -m "not long" || exit 1; \
		else echo "python$$version is not here: not tested"; fi; \
	done

$(STAMP): pyproject.toml constraints.txt bayesdd/__init__.py
	@test -x $(BIN)/python || "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "bayesdd needs Python 3.11 or later, and '$(PYTHON)' is missing or older: run make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

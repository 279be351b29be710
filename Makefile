# Every target sets up what it needs. `make demo` and `make test` are the first two things to try.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The demo needs the package alone, which is there in a minute; where everything is installed already, that will do.
DEMO := $(if $(wildcard $(READY)),$(VENV),.venv-light)
NEW_ENOUGH := $(PYTHON) -c 'import sys; \
	sys.exit(sys.version_info < (3, 11) and "anomalens needs Python 3.11 or newer; set PYTHON=...")'

.PHONY: demo demo-solar test lint docs docs-version release-check bench torture clean

demo: $(DEMO)/.ready
	$(DEMO)/bin/python examples/hazelnuts.py

# Photographs that may not be used commercially; see NOTICE.
demo-solar: $(READY)
	$(BIN)/python examples/solar_cells.py

test: $(READY)
	$(BIN)/python -m slipcover -m pytest -n 2
	@awk 'END {print $$4 " % of " $$2 " lines are reached by the tests; coverage.txt names the others"}' coverage.txt

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The site, in the folder site; fails where a page or a link leads nowhere. `.venv/bin/mkdocs serve` shows it while it is written.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The site as it is at this version, committed to the branch gh-pages beside those of other versions; nothing is pushed.
docs-version: .venv-release/.ready
	NO_MKDOCS_2_WARNING=1 PATH=$(CURDIR)/.venv-release/bin:$$PATH mike deploy --config-file mkdocs.versions.yml --update-aliases \
		$$(.venv-release/bin/python -c 'import anomalens; print(anomalens.__version__)') latest
	PATH=$(CURDIR)/.venv-release/bin:$$PATH mike set-default --config-file mkdocs.versions.yml latest

# What a release is made of, in dist/: wheel, archive and notes, looked at as a package index would. Nothing is uploaded.
release-check: .venv-release/.ready
	rm -rf dist
	.venv-release/bin/python -m build
	.venv-release/bin/python -m twine check --strict dist/*
	.venv-release/bin/python .ci/release_notes.py

# Kill, damage and mislead everything for ten minutes; fails where anything is lost, hangs or is not said in one line.
torture: $(READY)
	$(BIN)/python tests/torture.py

# Those that need no data; the others (pipeline, scale and all in lab/benchmarks) say what they take with --help.
bench: $(READY)
	for name in tower inference backbone metrics transport training runtime; do \
		$(BIN)/python benchmarks/$$name.py || exit 1; done

# constraints.txt pins every version. pip takes torch as it finds it: a CPU build where one is at hand, else with CUDA.
$(READY): pyproject.toml lab/pyproject.toml constraints.txt
	$(NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' -e 'lab[dev]'
	touch $(READY)

.venv-light/.ready: pyproject.toml constraints.txt
	$(NEW_ENOUGH)
	$(PYTHON) -m venv .venv-light
	.venv-light/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch .venv-light/.ready

.venv-release/.ready: pyproject.toml constraints.txt
	$(NEW_ENOUGH)
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[release]'
	touch .venv-release/.ready

clean:
	rm -rf $(VENV) .venv-light .venv-release demo dist site coverage.txt .pytest_cache .mypy_cache .ruff_cache

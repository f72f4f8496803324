# Two commands for newcomers: `make demo` and `make test`. PYTHON chooses the interpreter (3.11 or later).
PYTHON ?= python3
PIP_INSTALL = .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint bench clean

demo: .venv/demo
	.venv/bin/python -m tools.demo

test: .venv/test tests/node_modules lint
	.venv/bin/python -m pytest -n auto

lint: .venv/test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: .venv/test
	.venv/bin/python -m benchmarks.whole_path
	.venv/bin/python -m benchmarks.checking
	.venv/bin/python -m benchmarks.workers
	.venv/bin/python -m benchmarks.service_load
	.venv/bin/python -m benchmarks.panel
	.venv/bin/python -m benchmarks.scale --rows 1000 10000
	.venv/bin/python -m benchmarks.hosted
	.venv/bin/python -m benchmarks.year
	@if [ -n "$$VOICEPRINT_NB_SPEECH" ]; then .venv/bin/python -m benchmarks.quality && \
	  .venv/bin/python -m benchmarks.engine; \
	  else echo "Quality is not measured: set VOICEPRINT_NB_SPEECH to a folder of labelled speech."; fi

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "voiceprint_nb needs Python 3.11 or later; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/demo: .venv/bin/python pyproject.toml constraints.txt
	$(PIP_INSTALL) --editable '.[analysis,cloud,parquet,serve]'
	@touch $@

.venv/test: .venv/demo
	$(PIP_INSTALL) --editable '.[test]'
	@touch $@

tests/node_modules: tests/package.json tests/package-lock.json
	@npm ci --prefix tests --ignore-scripts --no-audit --no-fund --silent --fetch-retries=1 && touch $@ \
	  || echo "Without npm and its registry, the tests against Prism and with axe are skipped."

clean:
	rm -rf .venv tests/node_modules demo-output build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# Everything a developer does, by name. `make` alone lists the targets.
export PYTHONSAFEPATH := 1
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BUNDLE := reports/static/pages.js

.DEFAULT_GOAL := help
.PHONY: help setup demo notebook test lint typecheck check bench lock clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

setup: $(STAMP) $(BUNDLE)  ## create .venv with everything in it

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python .packaging/frontend.py --get-node
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(STAMP)

$(BUNDLE): .packaging/frontend.py $(wildcard reports/frontend/*.json reports/frontend/*.mjs reports/frontend/src/*.ts reports/frontend/src/*/*.ts) | $(STAMP)
	$(BIN)/python .packaging/frontend.py --get-node
	touch $(BUNDLE)

demo: setup  ## dissect the built-in classifier; ends with the path of the report
	$(BIN)/microtome audit builtin:scenes-cnn scenes:2000 --layers 'block?,block4:rotated' --tau 0.04,0.005 --out runs/demo
	$(BIN)/microtome importance runs/demo --layer block5 --limit 1000 --no-report
	$(BIN)/microtome report runs/demo

notebook: demo  ## run the tour over runs/demo and write docs/tour.ipynb
	$(BIN)/python .packaging/notebook.py docs/tour.py docs/tour.ipynb

test: setup  ## run the tests
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

lint: setup  ## ruff: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: setup  ## strict mypy over the packages, strict TypeScript over the scripts of pages
	mkdir -p build/ns && ln -sfn ../.. build/ns/microtome
	cd build/ns && ../../$(BIN)/mypy --config-file ../../pyproject.toml
	$(BIN)/python .packaging/frontend.py --get-node --check

check: lint typecheck test  ## what continuous integration runs

bench: setup  ## measure speed and memory; writes build/bench/NAME.json (BENCH="audit --quick" for less)
	PYTHONPATH=. $(BIN)/python -m benchmarks $(BENCH)

lock:  ## resolve requirements.lock anew (needs uv)
	uv pip compile --universal --python-version 3.11 --group dev --extra timm pyproject.toml \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file requirements.lock

clean:  ## remove what was built, and keep runs/
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# make demo | make test | make lint | make bench — each creates what it needs from a clean clone.
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: demo test lint bench docs clean format
.DEFAULT_GOAL := help

help:
	@echo "make demo   train three priors on real digits, restore damaged ones, write demo/report.html"
	@echo "make test   the whole test suite"
	@echo "make lint   ruff, pyright and the import contract of the house"
	@echo "make bench  the benchmarks; results in benchmarks/results/"
	@echo "make docs   the pictures and tables of README and docs"

$(STAMP): pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $(STAMP)

demo: $(STAMP)
	$(PY) -m oneprior demo --out demo

test: $(STAMP)
	$(THREADS) $(PY) -m pytest

lint: $(STAMP)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports

format: $(STAMP)
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

# The pictures of the README and of the tutorials, the tables of docs/benchmarks.md and docs/restore.md.
docs: demo
	cp demo/pictures/restored_half.png docs/pictures/restoration.png
	cp demo/pictures/samples.png docs/pictures/samples.png
	cp demo/pictures/zoo_chest.png docs/pictures/zoo-chest.png
	$(PY) -m benchmarks tables
	$(PY) docs/make.py

bench: $(STAMP)
	$(PY) -m benchmarks

clean:
	rm -rf $(VENV) demo .pytest_cache .ruff_cache

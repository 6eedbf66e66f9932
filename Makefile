# make run     set up, then run the whole loop offline (the pocket profile)
# make test    set up, then run every test
# make check   format, lint, types, import layers, the package's shape
# make browser install Chromium for the tests of the pages, where it is missing (Debian, as root)
# make proof   the slow proofs; figures go to docs/proof.md
# make clean   remove the virtual environment and caches; results stay
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help run test check browser proof clean
help:
	@sed -n 's/^# make /make /p' Makefile

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "llamaduo needs Python 3.11 or newer: make PYTHON=python3.12 run"; exit 2; }
	@echo "Setting up .venv (a few minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

run: .venv/ready
	@$(BIN)/llamaduo run

test: .venv/ready
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

check: .venv/ready
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python benchmarks/shape.py

browser:
	@command -v chromium chromium-browser google-chrome > /dev/null || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium > /dev/null; } || \
	  echo "No Chromium could be installed: the tests of the pages in a browser will be skipped."

proof: .venv/ready
	@$(BIN)/python benchmarks/startup.py
	@$(BIN)/python benchmarks/pocket_run.py
	@$(BIN)/python benchmarks/loop_overhead.py
	@$(BIN)/python benchmarks/pocket_grid.py
	@$(BIN)/python benchmarks/service_calls.py
	@$(BIN)/python benchmarks/render.py
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[bench]"
	@$(BIN)/python benchmarks/dedup.py
	@$(BIN)/python benchmarks/decontaminate.py
	@$(BIN)/python benchmarks/train_throughput.py
	@$(BIN)/python benchmarks/infer_throughput.py
	@$(BIN)/python benchmarks/kills.py
	@$(BIN)/python benchmarks/kills.py --mutants
	@$(BIN)/python benchmarks/sweep.py
	@$(BIN)/python benchmarks/study_kills.py
	@$(BIN)/python benchmarks/transformers_serve.py
	@$(BIN)/python benchmarks/page.py
	@$(BIN)/python benchmarks/report.py
	@$(BIN)/python benchmarks/intervals.py
	@$(BIN)/python benchmarks/rehearsals.py
	@$(BIN)/python benchmarks/judge_economy.py
	@$(BIN)/llamaduo run train.quantization=nf4 study=proof
	@LLAMADUO_TRAINING_KILLS=20 $(BIN)/python -m pytest tests/training/test_checkpoints.py -s
	@LLAMADUO_BUDGET_CASES=200 $(BIN)/python -m pytest tests/service/test_budget_under_kills.py -s

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

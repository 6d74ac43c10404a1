# One command each. Every target that needs the environment makes it first; a second `make install` takes a second.
.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-long lint format clean
.NOTPARALLEL:

BIN := .venv/bin
ARGS ?=
# One more than two cores: it works where the tests of the sandbox wait.
JOBS ?= 3
FAST := -m "not gpu and not engine and not long" -n $(JOBS) --dist loadfile

# Where Python may not keep compiled modules, every process of a run or a test compiles torch and the rest anew: 5 to 10 s.
unexport PYTHONDONTWRITEBYTECODE

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install:  ## set up .venv (PYTHON=python3.12 picks the interpreter, ENGINE=cpu|gpu the engine)
	@bash deploy/install.sh

demo: install  ## run the shipped recipe `arithmetic` (ARGS="key=value …" changes it)
	$(BIN)/rayzero train arithmetic $(ARGS)

# Exit status 5: ARGS left no such test. The engine tests take all cores, one after the other.
test: lint  ## lint, then every test that needs no GPU (ARGS goes to pytest)
	$(BIN)/python -m pytest $(FAST) $(ARGS) || [ $$? -eq 5 ]
	$(BIN)/python -m pytest -m "engine and not gpu and not long" $(ARGS) || [ $$? -eq 5 ]

test-fast: install  ## only the tests without Ray, vLLM and DeepSpeed, JOBS (3) at a time
	$(BIN)/python -m pytest $(FAST) $(ARGS)

test-long: install  ## what `test` leaves out: jobs on several hosts for minutes, a real Slurm
	$(BIN)/python -m pytest -m "long and not gpu" $(ARGS)

lint: install  ## ruff, format check, mypy, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/codespell

format: install  ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove what install and the tools made; runs/ and a .venv of your own stay
	@if [ -e .venv ] && [ ! -e .venv/.rayzero-env ]; then echo "clean: .venv was not made by make install, left alone"; \
	else rm -rf .venv; fi
	@rm -rf build rayzero.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find $(wildcard rollout learner rewards orchestrator deploy tests) -name __pycache__ -type d -prune -exec rm -rf {} +

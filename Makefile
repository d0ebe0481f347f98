# Two commands for a newcomer: `make demo` and `make test`. Each builds what it needs.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.venv-localstack/ready: localstack/requirements.txt
	$(PYTHON) -m venv .venv-localstack
	.venv-localstack/bin/pip install --quiet --disable-pip-version-check -r localstack/requirements.txt
	touch $@

demo: .venv/ready .venv-localstack/ready  ## robots upload, pixsift curates, a snapshot appears (IMAGES=dir for your photos)
	$(BIN)/pixsift demo $(if $(IMAGES),--images "$(IMAGES)")

test: .venv/ready .venv-localstack/ready  ## run the tests (under 10 minutes on 2 cores)
	$(BIN)/pytest -m "not full and not long" -n 2 --dist loadfile

test-full: .venv/ready .venv-localstack/ready  ## the long fault, race and fuzz counts as well
	$(BIN)/pytest -m "not long"

test-kills: .venv/ready  ## kill real consumers five hundred times
	$(BIN)/pytest -m long

check: .venv/ready  ## lint, format, types, import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/ready  ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/ready  ## measure beside peers; figures go to bench-results/
	$(BIN)/python tests/bench/run.py

bench-million: .venv/ready  ## k-center with a million rows as well: minutes more, 2 GB of memory
	$(BIN)/python tests/bench/run.py kcenter -- million

synth: .venv/ready  ## synthesize the CloudFormation templates with CDK
	$(BIN)/python infra/app.py

up: .venv/ready .venv-localstack/ready  ## start the local loop and leave it running
	$(BIN)/pixsift up

down: .venv/ready  ## stop what `make up` started
	$(BIN)/pixsift down

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: demo test test-full test-kills check format bench bench-million synth up down help

# Two commands for a newcomer: `make demo` and `make test`. Each builds what it needs.
PYTHON ?= python3
BIN := .venv/bin
# PyPI's torch for Linux is built for CUDA: about 3 GB. PyTorch's own index has CPU builds of 200 MB.
# Where it does not answer within 3 s, or when this is empty, torch comes from pip's own index.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

PIP_INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check
LOCKED := --no-deps --require-hashes

.DEFAULT_GOAL := help

.venv/ready: pyproject.toml constraints.txt requirements/demo.lock
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) $(LOCKED) -r requirements/demo.lock
	@if $(BIN)/python requirements/answers.py "$(TORCH_INDEX)"; then \
	  $(PIP_INSTALL) --no-deps -c constraints.txt --index-url "$(TORCH_INDEX)" torch || true; \
	else echo "torch comes from pip's own index: $(TORCH_INDEX) does not answer"; fi
	$(PIP_INSTALL) -c constraints.txt -e '.[cpu,local,server]'
	touch $@

.venv/ready-for-tests: .venv/ready requirements/test.lock
	$(PIP_INSTALL) $(LOCKED) -r requirements/test.lock
	$(PIP_INSTALL) -c constraints.txt -e '.[dev]'
	touch $@

.venv-localstack/ready: requirements/localstack.lock
	$(PYTHON) -m venv .venv-localstack
	.venv-localstack/bin/pip install --quiet --disable-pip-version-check $(LOCKED) -r requirements/localstack.lock
	touch $@

.venv-ministack/ready: requirements/ministack.lock
	$(PYTHON) -m venv .venv-ministack
	.venv-ministack/bin/pip install --quiet --disable-pip-version-check $(LOCKED) -r requirements/ministack.lock
	touch $@

console: .venv/ready  ## build the web console (left out where npm's registry does not answer)
	@$(BIN)/python services/pixsift_server/console/build.py

demo: .venv/ready .venv-localstack/ready console  ## robots upload, pixsift curates, a snapshot appears (IMAGES=dir for your photos)
	$(BIN)/pixsift demo $(if $(IMAGES),--images "$(IMAGES)")

# Three workers for two cores: many tests wait for processes. In the order of the folders, as the
# longest files come first that way.
test: .venv/ready-for-tests .venv-localstack/ready .venv-ministack/ready console  ## run the tests
	$(BIN)/pytest -m "not full and not long and not image" -n 3 --dist loadfile --no-loadscope-reorder

test-full: .venv/ready-for-tests .venv-localstack/ready .venv-ministack/ready console  ## the long fault, race and fuzz counts as well
	PIXSIFT_TEST_THOROUGH=1 $(BIN)/pytest -m "not long and not image"

test-kills: .venv/ready-for-tests  ## kill real consumers five hundred times
	$(BIN)/pytest -m long

test-image: .venv/ready-for-tests  ## build both images and run them as documented (root, debootstrap, buildah, podman)
	$(BIN)/pytest -m image tests/image

check: .venv/ready-for-tests  ## lint, format, types, import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/ready-for-tests  ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/ready-for-tests  ## measure beside peers; figures go to bench-results/
	$(BIN)/python tests/bench/run.py

bench-million: .venv/ready-for-tests  ## k-center with a million rows as well: minutes more, 2 GB of memory
	$(BIN)/python tests/bench/run.py kcenter -- million

device-pack:  ## the wheels a GPU machine without a network needs, below 64 MB, in build/device-pack
	$(PYTHON) tests/bench/device/pack.py pack build/device-pack

device-bench:  ## on a GPU machine: everything a GPU changes, in 8 minutes (docs/gpu.md; PYTHON=... with torch)
	PYTHON=$(PYTHON) tests/bench/device.sh

synth: .venv/ready-for-tests  ## synthesize the CloudFormation templates with CDK
	$(BIN)/python infra/app.py --write-local

templates: .venv/ready-for-tests  ## the templates of the example stages, for releases and Terraform, in build/templates
	rm -rf build/templates
	for stage in dev prod; do \
	  PIXSIFT_STAGE=$$stage CDK_OUTDIR=build/templates/$$stage $(BIN)/python infra/app.py || exit 1; \
	done
	find build/templates -type f ! -name '*.template.json' -delete

lock:  ## write requirements/*.lock anew, after a change of pyproject.toml or constraints.txt
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
	.venv-lock/bin/python requirements/lock.py

up: .venv/ready .venv-localstack/ready console  ## start the local loop and leave it running
	$(BIN)/pixsift up

down: .venv/ready  ## stop what `make up` started
	$(BIN)/pixsift down

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: console demo test test-full test-kills test-image check format bench bench-million device-pack device-bench synth templates lock up down help

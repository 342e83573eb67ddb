# Everything one ever types. CI runs the same targets (.ci/run).
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Where the machine sets it, each of the many processes of a test run would compile all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

VENV ?= .venv
SCRATCH ?= .scratch
# The commit whose contracts `make lint` must not break; see tools/check_contracts.sh.
BASE ?=

PY := $(VENV)/bin/python
# Stamps: set-up runs again only when what it installs from has changed.
DEV := $(VENV)/.installed-dev
EMBEDDED := $(VENV)/.installed-embedded
# The development environment holds all that the demonstration needs.
# Apart from the rest: the linter of manifests brings eighty packages of its own.
K8S := $(SCRATCH)/kubernetes
# What builds images, without a network, and Python's version in them.
BUILD ?= buildah build --pull-never --network none
BUILDER ?=
RUNTIME ?=
UNPINNED ?=
IMAGE_PYTHON ?= 3.11
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
RUNNABLE := $(if $(wildcard $(DEV)),$(DEV),$(EMBEDDED))

.PHONY: help setup tools programs demo up test test-fault test-k8s lint contracts types proto proto-check conformance k8s-check images sbom release bench configuration promises requirements audit clean

help: ## List the targets
	@if [ -t 1 ]; then bold=$$'\033[1m' plain=$$'\033[0m'; else bold= plain=; fi; \
	awk -F ':.*## ' -v bold="$$bold" -v plain="$$plain" \
	  '/^[a-z0-9-]+:.*## / { printf "  %s%-13s%s %s\n", bold, $$1, plain, $$2 }' $(MAKEFILE_LIST)

setup: $(DEV) ## Make .venv with everything that development needs

$(DEV): requirements/dev.txt requirements/build.txt pyproject.toml tools/setup_environment.sh tools/find_python.sh
	tools/setup_environment.sh $(VENV) requirements/dev.txt requirements/build.txt
	@touch $@

$(EMBEDDED): requirements/embedded.txt requirements/build.txt pyproject.toml tools/setup_environment.sh tools/find_python.sh
	tools/setup_environment.sh $(VENV) requirements/embedded.txt requirements/build.txt
	@touch $@

$(K8S)/.installed: requirements/kubernetes.txt tools/setup_tools.sh tools/find_python.sh
	tools/setup_tools.sh $(K8S) requirements/kubernetes.txt
	@touch $@

tools: $(K8S)/.installed $(SCRATCH)/sbom/.installed programs ## Install what k8s-check, sbom and test would otherwise install first

programs: ## Install the Debian packages that test needs
	@tools/need_programs.sh

$(SCRATCH)/sbom/.installed: requirements/sbom.txt tools/setup_tools.sh tools/find_python.sh
	tools/setup_tools.sh $(SCRATCH)/sbom requirements/sbom.txt
	@touch $@

demo: $(RUNNABLE) ## Show real searches permitted, refused and proved, on this machine
	$(VENV)/bin/countersign demo

up: $(RUNNABLE) ## Run every part on this machine until Ctrl-C
	$(VENV)/bin/countersign up

test: $(DEV) programs ## Run all suites but lint's house rules (the fault suite in its short form)
	@# Four at a time: most tests wait for processes. A file's tests stay together, in order; files begin in
	@# the order of their folders, so that not the long ones of a few tests are left for the end.
	$(PY) -m pytest -n 4 --dist loadfile --no-loadscope-reorder --ignore tests/tidy

test-fault: $(DEV) programs ## Run the fault suite in its long form
	@# What the last two lines repeat more often is left out of the first.
	$(PY) -m pytest -v --durations 10 tests/fault tests/property tests/integration/test_machine.py --fault-rounds 25 \
	  --ignore tests/fault/test_ledger_killed.py --ignore tests/fault/test_exchange.py
	$(PY) -m pytest tests/fault/test_ledger_killed.py --fault-rounds 200
	$(PY) -m pytest tests/fault/test_exchange.py --fault-rounds 200

test-k8s: $(DEV) ## Deploy the single-node overlay to the cluster of KUBECONFIG and search through it
	@PATH="$(abspath $(VENV))/bin:$(abspath $(K8S))/bin:$$PATH" tools/test_k8s.sh

lint: $(DEV) contracts ## Check style, contracts, imports and the house rules
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/lint-imports
	$(PY) -m pytest -q tests/tidy

contracts: $(DEV) ## Lint the contracts and compare them with the last release (or BASE=commit)
	@PATH="$(abspath $(VENV))/bin:$$PATH" tools/check_contracts.sh $(SCRATCH)/contracts "$(BASE)"

types: $(DEV) ## Check the types, strictly
	$(VENV)/bin/mypy

proto: $(DEV) ## Write the Python beside each contract, and docs/reference.md
	@PATH="$(abspath $(VENV))/bin:$$PATH" tools/write_generated.sh proto docs/reference.md $(SCRATCH)/proto

proto-check: $(DEV) ## Fail if what follows from the contracts is stale
	@PATH="$(abspath $(VENV))/bin:$$PATH" tools/check_generated.sh $(SCRATCH)/proto-check

conformance: $(DEV) ## Try the directives on the catalogue of cases from real rules, and print the table
	$(PY) tools/conformance.py

k8s-check: $(DEV) $(K8S)/.installed ## Render the manifests; check schemas, policies, names and flows
	$(K8S)/bin/python tools/check_manifests.py 1.34 1.37
	$(PY) -m pytest -q tests/k8s/test_manifests.py tests/k8s/test_configuration.py tests/k8s/test_reader_gateway.py

images: $(DEV) ## Build both images, offline, from BUILDER and RUNTIME (each NAME@sha256:...)
	@[[ "$(BUILDER)$(RUNTIME)" == *@sha256:*@sha256:* || "$(UNPINNED)" == yes ]] \
	  || { echo "make images BUILDER=NAME@sha256:... RUNTIME=NAME@sha256:... (deploy/images/README.md)" >&2; exit 2; }
	tools/image_context.sh $(VENV) $(SCRATCH)/images
	for target in services connector; do \
	  $(BUILD) --build-arg BUILDER="$(BUILDER)" --build-arg RUNTIME="$(RUNTIME)" --target $$target \
	    --tag countersign/$$target:$(VERSION) --file $(SCRATCH)/images/Containerfile $(SCRATCH)/images; \
	done

sbom: $(SCRATCH)/sbom/.installed ## List what the images hold, as CycloneDX in dist/
	$(SCRATCH)/sbom/bin/python tools/write_sbom.py requirements/run.txt $(IMAGE_PYTHON) dist/countersign-services.cdx.json
	$(SCRATCH)/sbom/bin/python tools/write_sbom.py requirements/connector.txt $(IMAGE_PYTHON) dist/countersign-connector.cdx.json

release: $(DEV) $(SCRATCH)/sbom/.installed ## Build wheel, image definition, manifests, SBOMs and checksums into dist/
	$(PY) tools/release.py dist $(SCRATCH)/sbom/bin/python $(IMAGE_PYTHON)

bench: $(DEV) ## Measure searches and appends beside their bare counterparts
	$(PY) bench/ledger_appends.py
	$(PY) bench/ledger_api.py
	$(PY) bench/ledger_queries.py
	$(PY) bench/ledger_verify.py
	$(PY) bench/search.py
	$(PY) bench/decisions.py
	$(PY) bench/replay.py

configuration: $(DEV) ## Write into docs/configuration.md what every setting is
	$(PY) tools/generate_configuration.py

promises: $(DEV) ## Write into docs/promises.md which tests prove what
	$(PY) tools/list_promises.py

requirements: ## Pin every dependency anew, by hash (needs uv)
	tools/pin_requirements.sh

audit: $(DEV) ## Ask the package index for known weaknesses of what we pin
	$(VENV)/bin/pip-audit --disable-pip --require-hashes -r requirements/embedded.txt

clean: ## Remove what the tools left (the environment stays: rm -r .venv)
	rm -rf $(SCRATCH) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find bench proto services tests tools -name __pycache__ -prune -exec rm -rf {} +

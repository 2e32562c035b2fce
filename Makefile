# Everything here sets up what it needs: only Python 3.11+ and make have to be there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= auto
BUILDER ?= $(firstword $(shell command -v docker podman buildah 2>/dev/null))
BASE ?= python:3.12-slim
REGISTRY ?= multipick
TAG ?= dev
CODE := cli epp sim operator manifests tests bench

.PHONY: demo test conformance parity mutations faults e2e e2e-kind e2e-cluster lint fmt proto manifests images clean
.DEFAULT_GOAL := test

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "multipick needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(VENV)/.ready  ## Envoy, Valkey, a picker and simulated pods on this machine
	$(BIN)/multipick demo $(ARGS)

test: lint  ## every test that this machine can run, but those on a whole cluster
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup tests/unit tests/contract tests/protocol tests/integration tests/parity

conformance: $(VENV)/.ready  ## the protocol, one line a requirement, each with its tests (part of `make test`)
	$(BIN)/python -m pytest -q -n $(WORKERS) -p tests.protocol.conformance $(addprefix tests/,protocol unit/app unit/decision unit/extproc unit/pods) $(ARGS)

parity: $(VENV)/.ready  ## token ids against a real vLLM on this machine's CPUs (6 GB of it in ~/.cache, some minutes a family)
	$(BIN)/python -m tests.parity $(ARGS)

mutations: $(VENV)/.ready  ## 100,000 requests with something wrong in them, to a picker
	PYTHONPATH=tests/helpers $(BIN)/python -m mutations $(ARGS)

faults: $(VENV)/.ready  ## everything that can break, broken under traffic; bench/results/faults.json
	MULTIPICK_FAULTS=1 $(BIN)/python -m pytest tests/faults $(ARGS)

e2e: $(VENV)/.ready  ## whole pools on a real one-node cluster (Linux, root), or on the one that KUBECONFIG names
	MULTIPICK_E2E=1 $(BIN)/python -m pytest tests/e2e

e2e-kind: $(VENV)/.ready  ## the same on a kind cluster (docker, kind)
	env -u KUBECONFIG MULTIPICK_E2E=kind $(BIN)/python -m pytest tests/e2e

e2e-cluster: $(VENV)/.ready  ## the one-node cluster alone, kept until interrupted
	cd tests/e2e && ../../$(BIN)/python -m cluster.homes

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CODE)

fmt: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(VENV)/.ready  ## regenerate the modules of epp/multipick_epp/proto from proto/
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=epp/multipick_epp/proto --pyi_out=epp/multipick_epp/proto $(notdir $(wildcard proto/*.proto))

manifests: $(VENV)/.ready  ## regenerate the CRD and install.yaml from the operator's types and the chart
	$(BIN)/python manifests/render.py

images:  ## operator and picker, with docker, podman or buildah
	@test -n "$(BUILDER)" || { echo "make images needs docker, podman or buildah"; exit 1; }
	$(BUILDER) build -f docker/epp.Dockerfile --build-arg BASE=$(BASE) -t $(REGISTRY)/epp:$(TAG) .
	$(BUILDER) build -f docker/operator.Dockerfile --build-arg BASE=$(BASE) -t $(REGISTRY)/operator:$(TAG) .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Everything here sets up what it needs: only Python 3.11+ and make have to be there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= auto

.PHONY: demo test lint fmt proto clean
.DEFAULT_GOAL := test

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "multipick needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(VENV)/.ready  ## Envoy, Valkey, a picker and simulated pods on this machine
	$(BIN)/multipick demo $(ARGS)

test: lint  ## every test that this machine can run
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup tests

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy cli epp sim tests bench

fmt: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(VENV)/.ready  ## regenerate the modules of epp/multipick_epp/proto from proto/
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=epp/multipick_epp/proto --pyi_out=epp/multipick_epp/proto $(notdir $(wildcard proto/*.proto))

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

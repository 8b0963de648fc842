# Every target makes what it needs, says what it does, skips what is there, and can be interrupted and run again.

PYTHON ?= python3
SET ?= starter
WEIGHTS ?= auto
PRECISION ?= fp32
TRITON_ARGS ?=
MEMORY ?=
PLAN_ARGS ?=
STACK_ARGS ?=
SMOKE_ARGS ?=
GPU_CHECK_ARGS ?=
BENCH_ARGS ?=
CHAOS ?= hostile
CHAOS_ARGS ?=
GUARD_ARGS ?=
PARITY ?= short
# Your own catalogue: its accelerators go into the config.pbtxt files (docs/tensorrt.md).
CATALOGUE ?= $(or $(GATEWAY_CATALOGUE),$(wildcard catalogue))
OWN_CATALOGUE = $(if $(CATALOGUE),--catalogue '$(CATALOGUE)')
TEST_PROCESSES ?= 4
# Tests of whole services and commands (restarts, full disks, several Tritons, dashboards, benchmarks, pages
# in a browser), and of the decoder of videos: `make test-system` runs them.
SYSTEM_TESTS = tests/behaviour/operation tests/deploy tests/benchmarks tests/page \
  tests/app/process/test_shutdown.py tests/app/api/routes/test_out_of_memory.py tests/app/api/server/test_tls.py \
  tests/app/commands/test_smoke.py tests/app/commands/predict/test_predict.py tests/app/media/video
# Videos in numbers and from elsewhere: lists and folders, buckets, URLs, bulk runs whose workers, drivers and
# nodes are killed. `make test-bulk` runs them.
BULK_TESTS = tests/bulk tests/app/videos/stores tests/app/videos/sources tests/app/videos/test_analyst.py \
  tests/app/commands/test_analyze_buckets.py tests/app/commands/test_analyze_jobs.py \
  tests/app/commands/test_verify.py tests/behaviour/videos/test_analyze_lists.py
# Several gateways and Tritons, Redis, PostgreSQL and buckets, each part of which is killed. `make test-cluster` runs them.
CLUSTER_TESTS = tests/cluster
# The pages' blocks of code, run as a reader would: `make test-docs` runs them.
DOCS_TESTS = tests/docs
PYTEST = .venv/bin/pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder \
  -m 'not export and not reference and not containers and not wheel'
EXTRAS ?= embedded,redis
URL ?= http://127.0.0.1:8080
# Python keeps the bytecode of a module at its first import (`--no-compile` below counts on that). Without it every process of
# the tests, and every start of the gateway, would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE
PIP = -m pip install --disable-pip-version-check
SAY = @printf '\033[1m==> %s\033[0m\n'

.DEFAULT_GOAL := help
.PHONY: help run serve models repository triton gpu-check smoke test test-system test-bulk test-cluster test-client client-wheel test-wheel test-containers test-export lint lint-containers settings format bench bench-matrix clean

# `make help` prints what follows `##`: of a target its description, on a line of its own a heading.
help: ## this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^## / { print "\n" substr($$0, 4) } \
	  /^[a-z][a-z-]*:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- virtual environments: a stamp is written when an installation is complete ---

.venv/.serve: pyproject.toml setup.py constraints.txt
	$(SAY) 'installing the gateway into .venv (about 1 minute)'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@.venv/bin/python $(PIP) --no-compile --only-binary :all: -c constraints.txt -e '.[starter]'
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

# The Python client's wheel, without the service; tests of client/ start the service of .venv.
.venv-client/.complete: client/tests/requirements.txt constraints.txt
	$(SAY) 'installing what the tests of the Python client need into .venv-client (about 1 minute)'
	@test -x .venv-client/bin/python || $(PYTHON) -m venv .venv-client
	@.venv-client/bin/python $(PIP) -q -c constraints.txt -r client/tests/requirements.txt
	@touch $@

.PHONY: .venv-clients
.venv-clients: .venv-clients/.complete

.PHONY: .venv-triton
.venv-triton:
	@$(PYTHON) deploy/local/triton.py --setup

.venv-docs/.complete: deploy/site/requirements.txt
	$(SAY) 'installing Zensical and mkdocstrings into .venv-docs (about 20 seconds)'
	@test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python $(PIP) -q -r deploy/site/requirements.txt
	@.venv-docs/bin/python $(PIP) -q --no-deps --target .venv-docs/mermaid --upgrade mermaidx==0.10.1 # carries Mermaid's own script
	@touch $@

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

## Use it

OTHER_FAMILIES = !detect
IN_PRECISION = --precision '$(PRECISION)' --catalogue "$${GATEWAY_CATALOGUE:-catalogue}"
STARTER = $(foreach size,320 640 960,triton/models/yolo11n_$(size)/1/weights.json)

run: .venv/.serve ## install, build the starter models and serve them on the embedded engine
	$(SAY) 'models: the starter set (yolo11n at 320, 640 and 960)'
	@if [ '$(origin WEIGHTS)' = file ] && ls $(STARTER) >/dev/null 2>&1; then echo 'already built'; \
	 else $(MAKE) --no-print-directory models SET=starter; fi
	@$(MAKE) --no-print-directory serve

serve: .venv/.serve ## serve the models that are built (`run` without the build)
	$(SAY) 'serving (Ctrl-C ends it)'
	@GATEWAY_VARIANT=$${GATEWAY_VARIANT:-n} exec .venv/bin/gateway serve

# YOLO11 is made without PyTorch. The other families need it, and the starter set has none of them.
models: .venv/.serve ## SET=starter|baseline|all WEIGHTS=auto|pretrained|random|DIR PRECISION=fp32|fp16: build models into triton/models
	$(SAY) 'models: SET=$(SET) WEIGHTS=$(WEIGHTS), YOLO11'
	@.venv/bin/python -P -m export models --set '$(SET)' --weights '$(WEIGHTS)' --families detect $(IN_PRECISION)
ifneq ($(SET),starter)
	@$(MAKE) --no-print-directory .venv-export/.complete
	$(SAY) 'models: SET=$(SET) WEIGHTS=$(WEIGHTS), the other families'
	@.venv-export/bin/python -P -m export models --set '$(SET)' --weights '$(WEIGHTS)' --families '$(OTHER_FAMILIES)' $(IN_PRECISION)
endif

repository: .venv/.dev ## write every config.pbtxt and preprocess graph from routing/branches.toml
	@.venv/bin/python -P -m export repository $(OWN_CATALOGUE)

triton: .venv-triton $(if $(MEMORY),.venv/.serve) ## a real Triton on this CPU, without Docker, over triton/models (MEMORY=6GiB: the branches that fit, PLAN_ARGS; TRITON_ARGS)
	$(SAY) 'Triton: gRPC on 8001, HTTP on 8000, metrics on 8002 (Ctrl-C ends it)'
	@$(if $(MEMORY),models=$$(.venv/bin/gateway plan --memory '$(MEMORY)' $(PLAN_ARGS) --format triton-args) || exit; )\
	exec $(PYTHON) deploy/local/triton.py $(if $(MEMORY),$$models) $(TRITON_ARGS)

gpu-check: .venv/.dev ## run every branch on the GPU: latency, memory beside the plan, what fits (GPU_CHECK_ARGS)
	@mkdir -p out
	@.venv/bin/gateway gpu-check --json out/gpu-check.json --picture out/gpu-check.png $(GPU_CHECK_ARGS)

smoke: .venv/.serve ## check what is being served: liveness, models, two inferences per branch (SMOKE_ARGS)
	@.venv/bin/gateway smoke $(SMOKE_ARGS)

.PHONY: stack
stack: .venv/.dev .venv-triton redis-server prometheus ## Triton, the gateway (2 workers), Redis and Prometheus, without Docker (STACK_ARGS)
	@exec .venv/bin/python deploy/local/stack.py $(STACK_ARGS)

.PHONY: client
client: .venv-clients ## URL=…: a Python client from the OpenAPI of a running gateway (clients/README.md)
	@.venv-clients/bin/openapi-python-client generate --url '$(URL)/openapi.json' \
	  --config clients/openapi-python-client.yaml --output-path out/gateway-client --overwrite --fail-on-warning

## Change it

test: .venv/.dev .venv-triton .venv-clients redis-server ## the test suite; starts and stops its own Triton and Redis (TEST_PROCESSES)
	$(SAY) 'tests (TEST_PROCESSES=$(TEST_PROCESSES) side by side; a file stays in one process)'
	@$(PYTEST) $(SYSTEM_TESTS:%=--ignore=%) $(BULK_TESTS:%=--ignore=%) $(CLUSTER_TESTS:%=--ignore=%) $(DOCS_TESTS:%=--ignore=%)

test-system: .venv/.dev .venv-triton redis-server haproxy prometheus chromium ## whole services: restarts, full disks, several Tritons, dashboards, benchmarks, the decoder of videos, the pages in a browser (about 9 minutes)
	$(SAY) 'tests of whole services (TEST_PROCESSES=$(TEST_PROCESSES) side by side)'
	@$(PYTEST) $(SYSTEM_TESTS)

test-bulk: .venv/.dev .venv-triton redis-server ## many videos: buckets, URLs, and bulk runs whose workers, nodes and drivers are killed, on this machine and on Ray (about 5 minutes)
	$(SAY) 'many videos: buckets, URLs, and bulk runs whose workers, nodes and drivers are killed (about 5 minutes)'
	@$(PYTEST) $(BULK_TESTS)

test-cluster: .venv/.dev .venv-triton redis-server haproxy prometheus ## several gateways and Tritons, Redis, PostgreSQL and buckets, each part of which is killed (about 5 minutes)
	$(SAY) 'several gateways over several Tritons, each part of which is killed (about 5 minutes)'
	@$(PYTEST) $(CLUSTER_TESTS)

test-docs: .venv/.dev docs chromium ## every block of code of README, tutorials and pages, and the built site in a browser (about 3 minutes)
	$(SAY) 'the blocks of code of the pages, and the site (TEST_PROCESSES=$(TEST_PROCESSES) side by side)'
	@$(PYTEST) --dist load $(DOCS_TESTS)

.PHONY: test-fast
test-fast: .venv/.dev ## the tests that start no server and no other program (about 70 s): the inner loop
	@.venv/bin/pytest --fast -q -n 2 --dist loadfile -m 'not export and not reference' $(DOCS_TESTS:%=--ignore=%)

client-wheel: .venv-client/.complete ## the wheel of the Python client (client/README.md): out/client
	@rm -rf client/build client/src/*.egg-info out/client
	@.venv-client/bin/python -m build --wheel --no-isolation --outdir out/client client >/dev/null
	@rm -rf client/build client/src/*.egg-info
	@ls out/client/*.whl

test-client: .venv/.dev client-wheel ## the Python client: its wheel, installed into .venv-client, against a real gateway (about 2 minutes)
	$(SAY) 'the Python client: its wheel in .venv-client, against a real gateway (about 2 minutes)'
	@.venv-client/bin/python $(PIP) -q --force-reinstall --no-deps out/client/*.whl
	@cd client && ../.venv-client/bin/python -m pytest

test-wheel: .venv/.dev .venv-release/.complete .venv-supply/.complete ## the wheel, installed beside other packages and run, and a release, tried out (about 2 minutes)
	$(SAY) 'the wheel in an environment of its own, and a release of a scratch clone (about 2 minutes)'
	@.venv/bin/pytest -m wheel tests/packaging

test-containers: .venv/.dev ## build the image by hand from the Dockerfile and run it as its user (root, about 3 minutes)
	$(SAY) 'the image, built by hand from the lines of the Dockerfile (about 3 minutes; needs root)'
	@.venv/bin/pytest -m containers tests/deploy

test-export: .venv/.dev .venv-export/.parity ## the exporters and the parity with the reference (installs PyTorch and Ultralytics; PARITY)
	$(SAY) 'export tests'
	@GATEWAY_PARITY='$(PARITY)' .venv-export/bin/python -P -m pytest -o pythonpath=tests/helpers -m export tests/export
	$(SAY) 'parity with the reference (skipped where the reference data is absent)'
	@.venv/bin/pytest -m reference

lint: .venv/.dev ## ruff, mypy, the generated configurations, the Dockerfiles, compose.yaml, the manifests of KubeRay and the Helm chart
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/vulture
	@.venv/bin/python -P -m export repository --check
	@.venv/bin/python deploy/supply/wheels.py
	@$(MAKE) --no-print-directory lint-containers

lint-containers: .venv/.dev ## the Dockerfiles, compose.yaml, the manifests of KubeRay and the Helm chart alone
	@.venv/bin/hadolint Dockerfile deploy/kuberay/Dockerfile
	@.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
	@.venv/bin/check-jsonschema --schemafile deploy/kuberay/schema.json deploy/kuberay/job-embedded.yaml deploy/kuberay/cluster-triton.yaml
	@.venv/bin/python -m deploy.helm.lint

.PHONY: hooks
hooks: .venv/.dev ## have git run the commands of `lint` before each commit, those that look at what it changes
	@.venv/bin/pre-commit install

format: .venv/.dev ## fix what ruff can fix, and format
	@.venv/bin/ruff check --fix -q . ; .venv/bin/ruff format .

settings: .venv/.dev ## write docs/settings.md
	@.venv/bin/gateway config --markdown > docs/settings.md

.PHONY: docs docs-serve
docs: .venv/.serve .venv-docs/.complete ## the documentation site, strictly: out/site/html/index.html
	$(SAY) 'the documentation site: out/site/html/index.html'
	@.venv/bin/python -m deploy.site.assemble --mermaid .venv-docs/mermaid/mermaidx/assets/mermaid.js
	@.venv-docs/bin/zensical build --strict --clean

docs-serve: docs ## the documentation site on http://127.0.0.1:8000 (`make docs` in another shell brings changes)
	@exec .venv-docs/bin/zensical serve --dev-addr 127.0.0.1:8000

## Measure it, break it

bench: .venv/.dev .venv-triton ## one detect-shaped call on Triton: gRPC bytes beside shared memory
	@.venv/bin/python -m benchmarks.speed.transport

bench-matrix: .venv/.dev ## time every branch that is READY on every target (BENCH_ARGS): docs/benchmarks/README.md
	$(SAY) 'every branch that is READY, every way to it: docs/benchmarks/README.md (BENCH_ARGS=…)'
	@.venv/bin/gateway bench $(BENCH_ARGS)

.PHONY: bench-speed bench-sizes bench-guard
bench-speed: .venv/.dev .venv-triton ## the gateway beside the limit and seven peers (12 minutes): docs/benchmarks/speed.md
	$(SAY) 'the gateway beside the limit, a bare ASGI app and seven peers (installs them; then 12 minutes): docs/benchmarks/speed.md'
	@.venv/bin/python -m benchmarks.speed --targets all --write speed $(BENCH_ARGS)

bench-sizes: .venv/.dev .venv-triton ## every family at every size (10 minutes): docs/benchmarks/sizes.md
	$(SAY) 'every family at every size beside the limit, a bare ASGI app and a plain service (10 minutes): docs/benchmarks/sizes.md'
	@.venv/bin/python -m benchmarks.speed --targets limit,bare,ours,plain --cases all --rounds 3 --write sizes $(BENCH_ARGS)

bench-guard: .venv/.dev .venv-triton ## compare with the committed ratios of docs/benchmarks/speed.json (GUARD_ARGS=--short: 1 minute)
	$(SAY) 'has the gateway become slower than docs/benchmarks/speed.json? (GUARD_ARGS=--short: 1 minute)'
	@.venv/bin/python -m benchmarks.speed.regression $(GUARD_ARGS)

.PHONY: bench-growth
bench-growth: .venv/.dev .venv-triton ## cost by picture, callers, prompts, boxes, workers and video length (GROWTH_ARGS=--quick)
	$(SAY) 'how cost grows (about 4 minutes): docs/benchmarks/growth.md (GROWTH_ARGS=--quick)'
	@.venv/bin/python -c 'import matplotlib' 2>/dev/null || .venv/bin/pip install -q -c constraints.txt 'matplotlib>=3.9'
	@.venv/bin/python -m benchmarks.growth --json docs/benchmarks/growth.json --plot docs/benchmarks $(GROWTH_ARGS)

.PHONY: chaos
chaos: .venv/.dev .venv-triton redis-server haproxy .venv-fuzz/.complete ## CHAOS=hostile|hostile_memory|kills|cluster|soak|mixed|overload|fuzz|openapi_fuzz|bulk_crash (docs/survival.md)
	$(SAY) 'tests/chaos/$(CHAOS).py $(CHAOS_ARGS) (docs/survival.md says what each proves)'
	@PYTHONPATH=tests/helpers .venv/bin/python -m tests.chaos.$(CHAOS) $(CHAOS_ARGS)

## What is in the image, and where it comes from (needs the network, so `make test` runs none of it)

.PHONY: lock sbom audit images wheels
wheels: .venv-supply/.complete ## check that the starter's packages have wheels for macOS and ARM64
	@.venv-supply/bin/python deploy/supply/wheels.py

lock: .venv-supply/.complete ## versions and hashes of every package of the image (SECURITY.md)
	$(SAY) 'deploy/docker/locks: versions and hashes of every package of the image'
	@.venv-supply/bin/python deploy/supply/lock.py

sbom: .venv-supply/.complete ## a CycloneDX list of what is in the image: out/sbom.cdx.json (EXTRAS)
	@mkdir -p out
	@$(PYTHON) deploy/docker/requirements.py '$(EXTRAS)' > out/requirements.txt
	@.venv-supply/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	  --of JSON -o out/sbom.cdx.json out/requirements.txt
	@$(PYTHON) deploy/supply/sbom.py out/sbom.cdx.json

.PHONY: release
release: .venv-release/.complete .venv-supply/.complete ## VERSION=1.2.3 DRY_RUN=1: archive, wheel, SBOM, digests; without DRY_RUN the tag too (docs/release.md)
	$(SAY) 'release $(VERSION): checks, archive, wheel, parts list, digests, tag (docs/release.md); nothing is pushed'
	@.venv-release/bin/python deploy/supply/release.py '$(VERSION)' $(if $(DRY_RUN),--dry-run)

audit: .venv-supply/.complete ## look the locked versions up in the advisory databases
	@.venv-supply/bin/python deploy/supply/audit.py

images: ## digests of the base images, and the lines of .env that pin them
	@$(PYTHON) deploy/supply/images.py fill
	@$(PYTHON) deploy/supply/images.py env

## Programs that the tests and the stack start, unpacked into .build without root

.PHONY: redis-server
redis-server: ## Redis
	@deploy/local/redis.sh

.PHONY: haproxy
haproxy: ## HAProxy
	@deploy/local/haproxy.sh

.PHONY: chromium
chromium: ## Chromium
	@deploy/local/chromium.sh

.PHONY: prometheus
prometheus: ## Prometheus
	@deploy/local/prometheus.sh

## Tidy up

clean: ## remove the virtual environments and caches, keep the models
	rm -rf build dist client/build .venv .venv-client .venv-clients .venv-export .venv-triton .venv-fuzz .venv-peers .venv-supply .venv-release .venv-docs .build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

# Muster. `make` alone lists what there is.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO ?= go
# The version is the one Go stamps from git (a tag, or the commit).
BUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -ldflags '-s -w'
# How long the whole test run may take, and what to run.
TEST_TIMEOUT ?= 30m
PKG ?= ./...
# make test builds gVisor (3 to 6 minutes, once, outside the tree) to test its
# sandboxes too; TEST_GVISOR=0 leaves them out.
TEST_GVISOR ?= 1
# make test builds a Kubernetes control plane (10 to 15 minutes, once, outside
# the tree) to test against; MUSTER_KUBE_TESTS=0 leaves those tests out.
MUSTER_KUBE_TESTS ?= 1
export MUSTER_KUBE_TESTS
# Benchmarks: one round says little; BENCH_COUNT=10 and benchstat say more.
BENCH_COUNT ?= 3
BENCH_ARGS ?=

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: up
up: ## Install what is missing, build, start a fleet here and run a first task
	@scripts/setup.sh up
	@$(MAKE) --no-print-directory build
	@scripts/up.sh

.PHONY: test
test: ## Install what the tests need, then vet and run every test with the race detector
	@scripts/setup.sh test
	$(GO) vet $(PKG)
	@if [ "$(MUSTER_KUBE_TESTS)" = 0 ]; then echo "MUSTER_KUBE_TESTS=0: tests against a Kubernetes control plane are skipped"; \
	else tools/install.sh controlplane >/dev/null; tools/install.sh agent-sandbox-controller >/dev/null; fi
	@runsc=; if [ "$(TEST_GVISOR)" != 0 ]; then runsc=$$(tools/install.sh runsc); fi; set -x; \
	MUSTER_RUNSC=$$runsc $(GO) test -race -timeout $(TEST_TIMEOUT) $(PKG)
	@if [ "$(PKG)" = ./... ]; then $(MAKE) --no-print-directory test-modules; fi

# Modules of their own, whose dependencies are none of Muster's.
MODULES := test/helm test/web tools/image
.PHONY: test-modules
test-modules:
	@# -count=1: what they look at is outside of their modules, where the test cache does not look.
	@for m in $(MODULES); do (set -x; cd $$m && $(GO) vet ./... && $(GO) test -count=1 -race -timeout $(TEST_TIMEOUT) ./...); done

.PHONY: generate
generate: ## Write what follows from the sources: deploy/crds
	$(GO) generate ./tools/crdgen

.PHONY: build
build: ## Build bin/muster and bin/muster-runner (static)
	$(BUILD) -o bin/muster ./cmd/muster
	$(BUILD) -o bin/muster-runner ./cmd/muster-runner

.PHONY: lint
lint: ## gofmt, go vet, golangci-lint with the import rules, govulncheck
	@tools/lint.sh

.PHONY: bench
bench: ## Run the benchmarks, beside runc, bwrap and docker where installed
	@scripts/setup.sh test
	$(GO) test -run '^$$' -bench . -benchmem -count $(BENCH_COUNT) ./internal/...
	@$(MAKE) --no-print-directory build
	$(GO) run ./test/bench $(BENCH_ARGS)

.PHONY: bench-policy
bench-policy: build ## Compare the sizing policies on every trace in TRACES (default ../shared/traces)
	@scripts/bench-policy.sh

.PHONY: fmt
fmt: ## Format the code
	gofmt -w $$(find . -name '*.go' -not -path './.git/*')

.PHONY: tidy
tidy: ## Tidy go.mod and verify the modules
	$(GO) mod tidy
	$(GO) mod verify

.PHONY: gvisor
gvisor: ## Build runsc (gVisor) into bin/, so that `runtime: auto` uses it
	@mkdir -p bin
	@install -m 0755 "$$(tools/install.sh runsc)" bin/runsc
	@echo "bin/runsc is there; the next make up uses it"

# Where to push the image, registry/repository:tag; empty: nowhere.
PUSH ?=
PLATFORMS ?= linux/amd64,linux/arm64

.PHONY: image
image: ## Make dist/muster-image.tar without a daemon; PUSH=registry/repo:tag pushes it
	cd tools/image && $(GO) run . -platforms '$(PLATFORMS)' -push '$(PUSH)'

.PHONY: manifests
manifests: ## Make deploy/manifests, and the chart's copies of CRDs and dashboards
	cd test/helm && $(GO) run ./render

.PHONY: clean
clean: ## Remove what was built here (data directories stay)
	rm -rf bin dist

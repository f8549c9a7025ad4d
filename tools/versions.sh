# Versions of the tools that are not part of the program, pinned here and
# nowhere else. Each is built from its Go module; none weighs on go.mod.
# shellcheck shell=bash disable=SC2034
GOLANGCI_LINT_MODULE=github.com/golangci/golangci-lint/v2/cmd/golangci-lint
GOLANGCI_LINT_VERSION=v2.15.0
GOVULNCHECK_MODULE=golang.org/x/vuln/cmd/govulncheck
GOVULNCHECK_VERSION=v1.9.0
RUNC_MODULE=github.com/opencontainers/runc
RUNC_VERSION=v1.5.2
RUNSC_MODULE=gvisor.dev/gvisor/runsc
RUNSC_VERSION=v0.0.0-20260905035102-160fafc42237

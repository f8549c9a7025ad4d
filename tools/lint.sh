#!/usr/bin/env bash
# The checks of `make lint`, cheapest first. All run; the exit code is that of
# the worst.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
status=0

say() { printf '\n== %s\n' "$*"; }

say gofmt
unformatted=$(find . -name '*.go' -not -path './.git/*' -print0 | xargs -0 gofmt -l)
if [ -n "$unformatted" ]; then
	printf 'not formatted (run `make fmt`):\n%s\n' "$unformatted"
	status=1
fi

say go vet
go vet ./... || status=1

if command -v shellcheck >/dev/null; then
	say shellcheck
	shellcheck -x -S warning .ci/run scripts/*.sh tools/*.sh || status=1
fi

say golangci-lint
if lint=$(tools/install.sh golangci-lint); then
	"$lint" version
	"$lint" run --allow-parallel-runners ./... || status=1
else
	echo "golangci-lint could not be built"
	status=1
fi

say govulncheck
if vuln=$(tools/install.sh govulncheck); then
	out=$("$vuln" ./... 2>&1)
	code=$?
	# 3 means vulnerabilities were found; other failures here mean that its
	# database cannot be reached, which is no verdict on the code.
	case $code in
	0) echo "no known vulnerability is reachable" ;;
	3)
		echo "$out"
		status=1
		;;
	*) printf 'NOT CHECKED: govulncheck could not run, usually because its database is out of reach:\n%s\n' "$(tail -n 3 <<<"$out")" ;;
	esac
else
	echo "NOT CHECKED: govulncheck could not be built"
fi

exit $status

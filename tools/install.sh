#!/usr/bin/env bash
# Builds one pinned tool from its Go module and prints the path of the binary.
# Binaries are kept outside the tree, by version, and built once.
#
#   tools/install.sh golangci-lint|govulncheck|runc|runsc
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/versions.sh
. "$here/versions.sh"

tool=${1:?usage: tools/install.sh golangci-lint|govulncheck|runc|runsc}
tags=
cgo=0
case $tool in
golangci-lint) module=$GOLANGCI_LINT_MODULE version=$GOLANGCI_LINT_VERSION cost="3 to 6 minutes on 2 cores, once" ;;
govulncheck) module=$GOVULNCHECK_MODULE version=$GOVULNCHECK_VERSION cost="half a minute, once" ;;
runsc) module=$RUNSC_MODULE version=$RUNSC_VERSION cost="3 to 6 minutes on 2 cores, 90 MB, once" ;;
runc)
	module=$RUNC_MODULE version=$RUNC_VERSION cost="a minute, once"
	cgo=1 tags=seccomp # runc enters namespaces in C, and filters system calls through libseccomp
	;;
*)
	echo "tools/install.sh: $tool is not one of golangci-lint, govulncheck, runc, runsc" >&2
	exit 2
	;;
esac

cache=${MUSTER_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/muster/tools}
dir=$cache/$tool-$version-$(go env GOVERSION)
if [ ! -x "$dir/$tool" ]; then
	echo "building $tool $version from its Go module into $dir ($cost)" >&2
	mkdir -p "$dir"
	# Outside the tree, so that the module's own go.mod counts and not ours.
	(cd "$dir" && CGO_ENABLED=$cgo GOBIN="$dir" GOFLAGS='' go install -trimpath -tags "$tags" "$module@$version" >&2)
fi
echo "$dir/$tool"

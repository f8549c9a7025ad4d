#!/usr/bin/env bash
# Builds one pinned tool from its Go module and prints the path of the binary.
# Binaries are kept outside the tree, by version, and built once.
#
#   tools/install.sh golangci-lint|govulncheck|runc|runsc|controlplane|agent-sandbox-controller
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/versions.sh
. "$here/versions.sh"

names="golangci-lint, govulncheck, runc, runsc, controlplane, agent-sandbox-controller"
tool=${1:?usage: tools/install.sh NAME, one of $names}
package= # of a module in this tree
ldflags="-s -w"
crds=
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
# The next two are modules of their own in this tree: what version they have is
# in their go.mod.
controlplane) # etcd, the servers of Kubernetes and kwok as one program
	module=$here/../test/kube/controlplane package=. cost="about 10 minutes on 2 cores, 150 MB, once"
	release=$(awk '$1 == "k8s.io/kubernetes" {print $2}' "$module/go.mod")
	IFS=. read -r major minor _ <<<"${release#v}"
	for p in k8s.io/component-base/version k8s.io/client-go/pkg/version; do # what /version says
		ldflags+=" -X $p.gitVersion=$release -X $p.gitMajor=$major -X $p.gitMinor=$minor"
	done
	;;
agent-sandbox-controller) # with its CRDs beside it
	module=$here/../test/kube/agentsandbox package=sigs.k8s.io/agent-sandbox/cmd/agent-sandbox-controller
	crds=sigs.k8s.io/agent-sandbox cost="2 to 4 minutes on 2 cores, 60 MB, once"
	;;
*)
	echo "tools/install.sh: $tool is not one of $names" >&2
	exit 2
	;;
esac

if [ -n "$package" ]; then
	version=$(cd "$module" && cat go.mod go.sum ./*.go | sha256sum | cut -c1-16)
fi
cache=${MUSTER_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/muster/tools}
dir=$cache/$tool-$version-$(go env GOVERSION)

build() {
	local new=$dir/.new
	mkdir -p "$new"
	if [ -z "$package" ]; then
		# Outside the tree, so that the module's own go.mod counts and not ours.
		(cd "$dir" && CGO_ENABLED=$cgo GOBIN="$new" GOFLAGS='' go install -trimpath -tags "$tags" "$module@$version" >&2)
	else
		(cd "$module" && CGO_ENABLED=0 GOFLAGS='' GOWORK=off go build -trimpath -buildvcs=false -ldflags "$ldflags" -o "$new/$tool" "$package" >&2)
	fi
	if [ -n "$crds" ]; then
		mkdir -p "$dir/crds"
		install -m 0644 "$(cd "$module" && GOFLAGS='' go list -m -f '{{.Dir}}' "$crds")"/k8s/crds/*.yaml "$dir/crds/"
	fi
	mv "$new/$tool" "$dir/$tool" # whole or not at all
	rm -rf "$new"
}

if [ ! -x "$dir/$tool" ]; then
	mkdir -p "$dir"
	# Who comes while somebody else builds it waits for that.
	exec 9>"$dir/.lock"
	if command -v flock >/dev/null 2>&1; then flock 9; fi
	if [ ! -x "$dir/$tool" ]; then
		echo "building $tool $version from its Go module into $dir ($cost)" >&2
		build
	fi
fi
echo "$dir/$tool"

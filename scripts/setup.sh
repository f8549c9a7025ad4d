#!/usr/bin/env bash
# Finds out what this machine lacks, says what it will install and how, and
# only then does it.
#
#   scripts/setup.sh up      what running a fleet needs
#   scripts/setup.sh test    what the tests need on top
#
# GVISOR=1 also builds gVisor's runsc from its Go module (some minutes, once).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
what=${1:?usage: scripts/setup.sh up|test}
case $what in
up | test) ;;
*)
	echo "usage: scripts/setup.sh up|test" >&2
	exit 2
	;;
esac

say() { printf 'setup: %s\n' "$*"; }
has() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

if [ "$(uname -s)" != Linux ]; then
	say "this is $(uname -s); sandboxes need Linux"
	exit 1
fi
if ! command -v go >/dev/null 2>&1; then
	say "Go is missing; install Go $(awk '$1 == "go" {print $2}' go.mod) or newer (https://go.dev/doc/install), then run this again"
	exit 1
fi

# How packages can be installed, if at all.
apt=()
if command -v apt-get >/dev/null 2>&1; then
	if [ "$(id -u)" = 0 ]; then
		apt=(env DEBIAN_FRONTEND=noninteractive apt-get)
	elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
		apt=(sudo -n env DEBIAN_FRONTEND=noninteractive apt-get)
	fi
fi

# Packages of servers start them; the tests only want the programs. What tells
# Debian's packages not to is /usr/sbin/policy-rc.d (exit code 101).
policy=/usr/sbin/policy-rc.d
root=()
[ ${#apt[@]} -eq 0 ] || [ "${apt[0]}" != sudo ] || root=(sudo -n)
held=
hold_services() {
	[ ${#services[@]} -gt 0 ] && [ ! -e $policy ] || return 0
	say "their services (${services[*]}) are not started, and not at boot either"
	printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
	"${root[@]}" chmod 0755 $policy
	held=1
	trap release_services EXIT
}
release_services() {
	[ -n "$held" ] || return 0
	held=
	"${root[@]}" rm -f $policy
	if command -v systemctl >/dev/null 2>&1; then
		"${root[@]}" systemctl disable "${services[@]}" >/dev/null 2>&1 || true
	fi
}

packages=()
# need PROGRAM PACKAGE: the package is wanted where the program is missing.
need() { has "$1" || packages+=("$2"); }
# server PROGRAM PACKAGE: the same, for a package that would start a service.
services=()
server() { has "$1" || { packages+=("$2"); services+=("$2"); }; }

need git git
need mkfs.ext4 e2fsprogs
[ -s /etc/ssl/certs/ca-certificates.crt ] || packages+=(ca-certificates)
runtime() { has runc || has crun || has runsc || [ -x bin/runc ] || [ -x bin/crun ] || [ -x bin/runsc ]; }
if [ "$what" = test ]; then
	need runc runc
	need crun crun
	need bwrap bubblewrap
	need curl curl
	need newuidmap uidmap
	need gcc gcc
	# A browser that the tests look at the dashboard with.
	has chromium || has chromium-browser || has google-chrome || packages+=(chromium)
	echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1 || packages+=(libc6-dev)
	# Servers of queues, which tests start for themselves on ports of their own.
	server redis-server redis-server
	server rabbitmq-server rabbitmq-server
	server nats-server nats-server
	server prometheus prometheus
	compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || {
		packages+=(postgresql)
		services+=(postgresql)
	}
elif ! runtime; then
	packages+=(runc)
fi

if [ ${#packages[@]} -gt 0 ]; then
	if [ ${#apt[@]} -gt 0 ]; then
		say "missing here: ${packages[*]}"
		say "installing with: ${apt[*]} install --no-install-recommends ${packages[*]}"
		"${apt[@]}" -qq update
		hold_services
		"${apt[@]}" -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
		release_services
		say "installed: ${packages[*]}"
	else
		say "missing here: ${packages[*]}"
		say "they cannot be installed: that takes apt-get and root (or sudo without a password)"
		say "to install them by hand: sudo apt-get install ${packages[*]}"
	fi
fi
if ! has git; then
	say "git is still missing, and tasks clone repositories with it"
	exit 1
fi

if [ "${GVISOR:-0}" = 1 ] && ! has runsc && [ ! -x bin/runsc ]; then
	say "GVISOR=1: building runsc from its Go module into bin/runsc (minutes, once)"
	mkdir -p bin
	install -m 0755 "$(tools/install.sh runsc)" bin/runsc
fi

# Without packages, build a runtime. runc needs a C compiler and libseccomp's
# headers; gVisor is pure Go, and the stronger of the two.
if ! runtime; then
	mkdir -p bin
	if has gcc && has pkg-config && pkg-config --exists libseccomp; then
		say "no OCI runtime here: building runc from its Go module into bin/runc"
		install -m 0755 "$(tools/install.sh runc)" bin/runc
	else
		say "no OCI runtime here, and no libseccomp headers to build runc with:"
		say "building gVisor's runsc from its Go module into bin/runsc (minutes, once)"
		install -m 0755 "$(tools/install.sh runsc)" bin/runsc
	fi
fi

if [ "$(id -u)" != 0 ]; then
	say "not root: sandboxes run rootless. Limits of memory, CPU, processes and disk are"
	say "weaker or absent then, and so is the network mode open; docs/security.md lists it."
fi

#!/usr/bin/env bash
# Starts a fleet on this machine, runs a first task in it and leaves the fleet
# running until Ctrl-C. A second start goes on from the data directory.
#
#   MUSTER_HOME     data directory (default: /var/lib/muster for root, else
#                   ~/.local/state/muster)
#   MUSTER_LISTEN   address of the API (default 127.0.0.1:7433; port 0: any)
#   MUSTER_FLEET    your own fleet file instead of examples/fleet.yaml
#   UP_ONCE=1       stop after the first task, with its exit code
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -n "${MUSTER_HOME:-}" ]; then
	home=$MUSTER_HOME
elif [ "$(id -u)" = 0 ]; then
	home=/var/lib/muster
else
	home=${XDG_STATE_HOME:-$HOME/.local/state}/muster
fi
[ -d "$home" ] || (umask 077 && mkdir -p "$home")
home=$(cd "$home" && pwd)
export MUSTER_HOME=$home
muster=$PWD/bin/muster
log=$home/up.log
server= # process id of the fleet, if this script started it

title() { printf '\n--- %s\n' "$*"; }
show() {
	printf '\n$ muster %s\n' "$*"
	"$muster" "$@"
}

# stop ends the fleet and returns its exit code. A second Ctrl-C is handed on:
# the fleet then stops without waiting for anything.
# shellcheck disable=SC2317  # called by traps
stop() {
	local code=0
	[ -n "$server" ] || return 0
	trap 'kill -TERM "$server" 2>/dev/null' INT TERM HUP
	if kill -0 "$server" 2>/dev/null; then
		printf '\nstopping the fleet; make up goes on from %s next time\n' "$home"
		kill -TERM "$server"
	fi
	while kill -0 "$server" 2>/dev/null; do
		wait "$server" || code=$?
	done
	server=
	return $code
}

# repository ORIGIN DIR makes the bare repository the first task clones.
repository() {
	local origin=$1 dir=$2 tree
	[ ! -d "$dir" ] || return 0
	tree=$(mktemp -d)
	cp -R "$origin/." "$tree"
	git -C "$tree" init -q -b main
	git -C "$tree" add -A
	git -C "$tree" -c user.name=Muster -c user.email=muster@localhost -c commit.gpgsign=false \
		commit -q -m 'A greeting, with a test'
	git clone -q --bare "$tree" "$dir.new"
	rm -rf "$tree"
	chmod -R go+rX "$dir.new"
	mv "$dir.new" "$dir"
}

start() {
	# Not in the data directory: nothing of that may be shown to agents.
	local fixtures=$PWD/.cache/fixtures
	mkdir -p "$fixtures"
	chmod 0755 "$fixtures"
	repository examples/fixture/greeter "$fixtures/greeter.git"
	install -m 0755 examples/fixture/agent.sh "$fixtures/agent.sh"

	local fleet=${MUSTER_FLEET:-}
	if [ -z "$fleet" ]; then
		fleet=$home/example-fleet.yaml
		sed "s|/srv/muster/fixtures|$fixtures|" examples/fleet.yaml >"$fleet"
	fi
	local args=(up --data "$home" --fleet "$fleet" --runner "$PWD/bin/muster-runner"
		--listen "${MUSTER_LISTEN:-127.0.0.1:7433}")
	if compgen -G 'bin/run[cs]*' >/dev/null || [ -x bin/crun ]; then
		args+=(--runtimes "$PWD/bin")
	fi
	local since
	since=$(date -u +%Y-%m-%dT%H:%M:%SZ)
	title "Starting the fleet"
	printf '$ muster %s\n' "${args[*]}"
	rm -f "$home/address"
	# In a session of its own, so that Ctrl-C reaches it once, through stop.
	setsid "$muster" "${args[@]}" >>"$log" 2>&1 </dev/null &
	server=$!
	trap 'stop || true; exit 130' INT
	trap 'stop || true; exit 143' TERM HUP
	trap 'stop || true' EXIT

	local deadline=$((SECONDS + 90))
	until [ -s "$home/address" ] && "$muster" fleet >/dev/null 2>&1; do
		if ! kill -0 "$server" 2>/dev/null || [ $SECONDS -ge $deadline ]; then
			echo "the fleet did not start; the end of $log says:" >&2
			tail -n 20 "$log" >&2
			echo 'hint: bin/muster doctor tells what this machine lacks' >&2
			exit 1
		fi
		sleep 0.1
	done
	# A warm start is what users will mostly have, so show that. Should none
	# become ready, the task will say why.
	while [ $SECONDS -lt $deadline ] && kill -0 "$server" 2>/dev/null &&
		! "$muster" events --kind sandbox_ready --since "$since" 2>/dev/null | grep -q sandbox_ready; do
		sleep 0.1
	done
}

# link is the address that signs a browser in, as the last start printed it.
link() {
	grep -o 'http[^ ]*/#signin=[A-Z0-9]*' "$log" 2>/dev/null | tail -n 1 || true
}

first_task() {
	title "A first task: clone a repository, let a scripted agent mend it, take the patch"
	printf '$ muster submit -f examples/first-task.yaml\n'
	local id
	id=$("$muster" submit -f examples/first-task.yaml)
	echo "$id"
	show logs -f "$id"
	local code=0
	"$muster" wait "$id" >/dev/null || code=$?
	show task "$id"
	show patch "$id"
	title "What the fleet did, and why"
	show events
	show explain "$id"
	show fleet
	if [ $code = 0 ]; then
		echo "$id" >"$home/first-task"
	else
		printf '\nthe first task ended with exit code %s; `muster explain %s` says why\n' "$code" "$id"
	fi
	return $code
}

mine=1
resumed=
[ ! -e "$home/first-task" ] || resumed=1
if [ -s "$home/address" ] && "$muster" fleet >/dev/null 2>&1; then
	mine=
	echo "a fleet is running on $home already; using it"
else
	start
fi

code=0
if [ -n "$resumed" ] && [ "${UP_ONCE:-0}" != 1 ]; then
	title "Going on from $home"
	show fleet
	show tasks
else
	first_task || code=$?
fi

title "The fleet is up"
cat <<END
address  $(cat "$home/address")
browser  $(link)   (signs in once, within 15 minutes of the start; then: $muster token)
token    $home/token   (the command line reads it itself)
data     $home
log      $log

In another terminal$([ "$home" = /var/lib/muster ] || [ "$home" = "$HOME/.local/state/muster" ] || printf ', after: export MUSTER_HOME=%s' "$home"):

  $muster submit --follow -- sh -c 'echo hello from a sandbox'
  $muster events -f
END

if [ "${UP_ONCE:-0}" = 1 ] || [ -z "$mine" ]; then
	exit $code
fi
printf '\nCtrl-C stops it.\n'
trap 'trap - EXIT; stop; exit $?' INT TERM HUP # being stopped is no failure now
wait "$server" || code=$?
server=
echo "the fleet has stopped; the end of $log says:" >&2
tail -n 5 "$log" >&2
exit $code

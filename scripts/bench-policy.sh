#!/usr/bin/env bash
# Prints what every policy costs, and how long tasks wait, on each trace of
# TRACES (files or folders; default ../shared/traces), through the real binary.
# Traces that are known by name are scaled as their README says.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
muster=${MUSTER:-bin/muster}
traces=${TRACES:-../shared/traces}
status=0 found=0

for place in $traces; do
	if [ -d "$place" ]; then
		files=("$place"/*.csv "$place"/*.csv.gz)
	else
		files=("$place")
	fi
	for file in "${files[@]}"; do
		[ -e "$file" ] || continue
		found=1
		case $(basename "$file") in
		copilot_agent.csv*) scale=(--from 2025-05-19 --warmup-until 2025-06-02 --to 2025-06-23 --copies 40 --jitter 3600) ;;
		philly.csv*) scale=(--from 2017-09-25 --warmup-until 2017-10-09 --to 2017-12-11 --max-duration 7200) ;;
		itp.csv*) scale=(--warmup-until 2021-03-18 --max-duration 7200) ;;
		*) scale=() ;;
		esac
		printf '\n$ muster simulate --trace %s %s\n' "$file" "${scale[*]} ${SIMULATE_ARGS:-}"
		# shellcheck disable=SC2086 # arguments of the user's
		"$muster" simulate --trace "$file" "${scale[@]}" ${SIMULATE_ARGS:-} || status=1
	done
done
if [ "$found" = 0 ]; then
	echo "bench-policy: no trace in $traces; set TRACES to files or folders of .csv or .csv.gz" >&2
	exit 2
fi
exit $status

#!/usr/bin/env bash
# Runs make targets one after the other, stops at the first that fails, and prints
# how long each took.
set -euo pipefail
cd "$(dirname "$0")/.."

times=""
trap 'printf "\n%-8s %s\n" step seconds; printf "%b" "$times"' EXIT
for step in "$@"; do
	printf '\n=== make %s\n' "$step"
	begin=$SECONDS
	if ! make --no-print-directory "$step"; then
		times+=$(printf '%-8s %5d  FAILED' "$step" $((SECONDS - begin)))'\n'
		exit 1
	fi
	times+=$(printf '%-8s %5d' "$step" $((SECONDS - begin)))'\n'
done
times+=$(printf '%-8s %5d' total $SECONDS)'\n'

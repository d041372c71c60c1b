#!/usr/bin/env bash
# Fuzzes every target of the given packages. Arguments: the time for each, then the packages.
set -euo pipefail
cd "$(dirname "$0")/.."
fuzztime=$1
shift

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for pkg in "$@"; do
	for target in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
		echo "=== $pkg $target"
		if go test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" -fuzzminimizetime 200x "$pkg" 2>&1 | tee "$log"; then
			continue
		fi
		# The go command sometimes reports that the time is over as if it were a failure of the target.
		if grep -q 'context deadline exceeded' "$log" && ! grep -q -e 'Failing input' -e panic "$log"; then
			echo "the time was over; no failure was found"
			continue
		fi
		exit 1
	done
done

#!/usr/bin/env bash
# Measures Sluice beside mosquitto, in turn in the same run, with the load generator
# mqload; and then what Sluice keeps when it is killed. Arguments: the folder of mqload's
# source, rounds, seconds per run. Prints one table per scenario.
set -euo pipefail
cd "$(dirname "$0")/.."
source=$1 rounds=${2:-3} seconds=${3:-4}
export PATH="$PATH:/usr/sbin:/sbin"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

(cd "$source" && go build -o "$dir/mqload" .)
make --no-print-directory build
sluice="$PWD/bin/sluice run --listen 127.0.0.1:{port} --data {dir}"
mosquitto="mosquitto -c {conf:$PWD/deploy/compare/mosquitto.conf}"
cloud="mosquitto -c {conf:$PWD/deploy/compare/cloud.conf}"
edge="$PWD/bin/sluice run -c {conf:$PWD/deploy/compare/edge.toml}"
cd "$dir"

both() { # scenario and its flags
	printf '\n### %s\n' "$*"
	./mqload compare --rounds "$rounds" --with mosquitto="$mosquitto" --with sluice="$sluice" "$@" 2>>mqload.log
}
alone() { # scenario and its flags
	printf '\n### %s\n' "$*"
	./mqload "$@"
}

both p2p --qos 0 --ahead 1000 -d "${seconds}s"
both p2p --qos 1 -d "${seconds}s"
both p2p --qos 2 -d "${seconds}s"
both fanout -d "${seconds}s"
both latency --qos 1 -d "${seconds}s"
both idle
both churn -d "${seconds}s" --settle 8s
alone churn --ids 1 --id bill --workers 1 --recv 0 --die close,rst --max 2000 --name sluice --broker "$sluice"
alone churn --ids 8 --workers 64 -d 20s --settle 8s --name sluice --broker "$sluice"
alone offline --kill --name mosquitto --broker "$cloud"
alone offline --kill --name sluice --broker "$sluice"
alone offline --kill-during -m 20000 --name sluice --broker "$sluice"
for outage in none down cut kill; do
	alone bridge --outage "$outage" --name sluice --broker "$edge" --upstream "$cloud"
done
alone bridge --outage cut --kill-edge --name sluice --broker "$edge" --upstream "$cloud"

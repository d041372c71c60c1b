#!/usr/bin/env bash
# Shows the promise: an acknowledged message is not lost. A gateway takes this machine's
# own readings and bridges them to a cloud broker (a mosquitto); the cloud goes away; the
# gateway is killed with SIGKILL in mid-stream; both come back. At the end, every message that
# was acknowledged must be in the cloud.
# Needs bin/sluice and mosquitto with its clients; uses loopback and a temporary directory.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"

gateway=${GATEWAY_PORT:-18830}
cloud=${CLOUD_PORT:-18840}
dir=$(mktemp -d)
touch "$dir"/{cloud,reader,sensor,sluice}.log
pids=()
finish() {
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	for pid in "${pids[@]}"; do await "process $pid ends" gone "$pid"; done
	rm -rf "$dir"
}
cat >"$dir/gateway.toml" <<TOML
data_dir = "$dir/data"
[[listener]]
address = "127.0.0.1:$gateway"
[[bridge]]
name          = "cloud"
address       = "tcp://127.0.0.1:$cloud"
bridge_bit    = true
reconnect_max = "2s"
[[bridge.route]]
direction     = "out"
filter        = "sensors/#"
remote_prefix = "plant7/"
TOML
cat >"$dir/cloud.conf" <<CONF
listener $cloud 127.0.0.1
allow_anonymous true
user $(id -un)
persistence true
persistence_location $dir/
max_queued_messages 0
CONF

await() { # what, command...
	local what=$1
	shift
	for _ in $(seq 300); do
		if "$@"; then return; fi
		sleep 0.1
	done
	echo "gave up waiting: $what" >&2
	tail -n 20 "$dir"/*.log >&2
	exit 1
}
background() { # log file, command...: runs it, and leaves its process id in $started
	local log=$1
	shift
	stdbuf -oL "$@" </dev/stdin >>"$dir/$log" 2>&1 &
	started=$!
	pids+=("$started")
	disown # or bash would report it when it is killed
}
trap finish EXIT
answers() { mosquitto_pub -p "$1" -t demo/probe -n -i demo-probe 2>/dev/null; }
gone() { ! kill -0 "$1" 2>/dev/null; }
start_sluice() {
	background sluice.log bin/sluice run -c "$dir/gateway.toml"
	sluice=$started
	await "sluice answers" answers "$gateway"
}
start_cloud() {
	background cloud.log mosquitto -c "$dir/cloud.conf"
	mosquitto=$started
	await "mosquitto answers" answers "$cloud"
}

# Messages are numbered in their payloads; mosquitto_pub gives them packet ids in the same order, from 1.
readings() {
	for number in $(seq 60000); do
		read -r load _ </proc/loadavg
		echo "$number load=$load"
	done
}
acknowledged() { sed -n 's/.*received PUBACK (Mid: \([0-9]*\).*/\1/p' "$dir/sensor.log" | sort -u; }
arrived() { sed -n 's/^\([0-9]*\) load=.*/\1/p' "$dir/reader.log"; }
count() { "$1" | wc -l; }
at_least() { [ "$(count "$1")" -ge "$2" ]; }
missing() { comm -23 <(acknowledged) <(arrived | sort -u) | wc -l; }
none_missing() { [ "$(missing)" -eq 0 ]; }

echo "1. a cloud (mosquitto, port $cloud) with somebody who listens, and a gateway (sluice, port $gateway)"
start_cloud
background reader.log mosquitto_sub -p "$cloud" -t 'plant7/sensors/#' -q 1 -i demo-reader -c -d
await "the listener has subscribed" grep -q SUBACK "$dir/reader.log"
start_sluice
echo "2. a sensor publishes readings with QoS 1"
background sensor.log mosquitto_pub -p "$gateway" -t sensors/load -q 1 -l -i demo-sensor -d < <(readings 2>/dev/null)
sensor=$started
await "readings arrive" at_least arrived 300
echo "3. the uplink is cut: $(count acknowledged) acknowledged, $(count arrived) in the cloud"
kill "$mosquitto"
await "mosquitto is gone" gone "$mosquitto"
await "readings are taken without uplink" at_least acknowledged $(($(count acknowledged) + 500))
kill -9 "$sluice"
await "sluice is gone" gone "$sluice"
kill "$sensor" 2>/dev/null || true
await "the sensor is gone" gone "$sensor"
echo "4. kill -9 in mid-stream: $(count acknowledged) acknowledged, $(count arrived) in the cloud"
echo "5. both come back"
start_cloud
start_sluice
await "everything acknowledged is in the cloud" none_missing
echo
printf '%-28s %6d\n' acknowledged "$(count acknowledged)" "of these lost" "$(missing)" \
	"arrived in the cloud" "$(arrived | sort -u | wc -l)" "of these more than once" "$(arrived | sort | uniq -d | wc -l)"

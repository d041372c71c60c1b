#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: a C compiler for the race
# detector, mosquitto as the other broker, node for MQTT.js. Prints nothing if all is
# there.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin" # where Debian puts mosquitto

need() { # command, packages
	local command=$1
	shift
	command -v "$command" >/dev/null || missing+=("$@")
}
missing=()
need gcc gcc libc6-dev
need mosquitto mosquitto
need mosquitto_pub mosquitto-clients
need node nodejs
need npm npm
need mkfs.ext4 e2fsprogs

if [ ${#missing[@]} -gt 0 ]; then
	as_root=()
	if [ "$(id -u)" -ne 0 ]; then
		as_root=(sudo)
	fi
	if ! command -v apt-get >/dev/null || { [ ${#as_root[@]} -gt 0 ] && ! command -v sudo >/dev/null; }; then
		echo "The tests need these programs. Please install what holds them (named as in Debian): ${missing[*]}" >&2
		exit 1
	fi
	echo "installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	"${as_root[@]}" apt-get update -q
	"${as_root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"
	if [[ " ${missing[*]} " == *" mosquitto "* ]] && [ -d /run/systemd/system ]; then
		# Debian starts it as a service, on the port that Sluice wants.
		"${as_root[@]}" systemctl disable --now mosquitto
	fi
fi

# MQTT.js and what it needs, as locked.
for lock in $(find cmd -name node_modules -prune -o -name package-lock.json -print); do
	folder=$(dirname "$lock")
	if [ ! -e "$folder/node_modules/.package-lock.json" ] || [ "$lock" -nt "$folder/node_modules/.package-lock.json" ]; then
		npm ci --prefix "$folder" --no-audit --no-fund
	fi
done

#!/usr/bin/env bash
# Builds dist/sluice-linux-* for every machine that is supported. Argument: the version.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:-dev}

mkdir -p dist
for target in arm/6 arm/7 arm64 amd64; do
	arch=${target%/*}
	arm=""
	if [ "$arch" = arm ]; then arm=${target#*/}; fi
	out=dist/sluice-linux-$arch${arm:+v$arm}
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch GOARM=$arm go build -trimpath -ldflags "-s -w -X main.version=$version" -o "$out" ./cmd/sluice
	printf '%-24s %9d bytes\n' "$out" "$(stat -c %s "$out")"
done

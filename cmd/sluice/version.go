package main

import (
	"fmt"
	"io"
	"runtime"
)

// version is set by the linker: -X main.version=...
var version = "dev"

// versionCmd is `sluice version`.
type versionCmd struct{}

// Run prints version, platform and compiler on one line.
func (versionCmd) Run(out io.Writer) error {
	_, err := fmt.Fprintf(out, "sluice %s %s/%s %s\n", version, runtime.GOOS, runtime.GOARCH, runtime.Version())
	return err
}

// Command sluice is the broker: `sluice run` serves, `sluice check` says what is
// wrong with a configuration, `sluice version` names the build.
//
// Exit status: 0 after an orderly end, 1 when something failed that was asked
// for rightly, 2 when the command line or the configuration is wrong.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kong"

	"sluice/configs"
)

// The exit statuses.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// commands are the subcommands; each has a Run method.
type commands struct {
	Run     runCmd     `cmd:"" help:"Run the broker until SIGTERM or an interrupt."`
	Check   checkCmd   `cmd:"" help:"Check a configuration and the files that it names, and change nothing."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

func main() { os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr)) }

// execute carries out a command line and returns the exit status. Asked for help it
// ends the process.
func execute(args []string, stdout, stderr io.Writer) int {
	parser, err := kong.New(&commands{},
		kong.Name("sluice"),
		kong.Description("An MQTT broker for the edge that loses nothing it has acknowledged."),
		kong.Writers(stdout, stderr),
		kong.BindTo(stdout, (*io.Writer)(nil)),
	)
	if err != nil {
		panic(fmt.Sprintf("BUG: command line: %v", err))
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "sluice: %v\nTry 'sluice --help'.\n", err)
		return exitUsage
	}
	if err := command.Run(); err != nil {
		return report(err, stderr)
	}
	return exitOK
}

// report writes an error and returns the exit status for it.
func report(err error, stderr io.Writer) int {
	var problems configs.Problems
	if errors.As(err, &problems) {
		fmt.Fprintln(stderr, err) // one line each, beginning with the file
		return exitUsage
	}
	fmt.Fprintf(stderr, "sluice: %v\n", err)
	return exitFailure
}

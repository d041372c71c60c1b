// Command sluice is the broker: `sluice run` serves, `sluice check` says what is
// wrong with a configuration, `sluice passwd` and `sluice acl` look after its
// users and what they may do, `sluice status` asks a running broker how it is, `sluice
// store` looks after its store, `sluice bridge` after its bridges, `sluice version` names the build.
//
// Exit status: 0 after an orderly end, and where the answer is yes; 1 when something
// failed that was asked for rightly, and where the answer is no; 2 when the command
// line, the configuration or a file that it names is wrong; 3 when no broker runs there.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/alecthomas/kong"

	"sluice/broker/auth"
	"sluice/configs"
)

// The exit statuses.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	exitNobody  = 3
)

// commands are the subcommands; each has a Run method.
type commands struct {
	Run     runCmd     `cmd:"" help:"Run the broker until SIGTERM or an interrupt."`
	Check   checkCmd   `cmd:"" help:"Check a configuration and the files that it names, and change nothing."`
	Passwd  passwdCmd  `cmd:"" help:"Add a user to a password file, change its password, or remove it."`
	ACL     aclCmd     `cmd:"" name:"acl" help:"Ask an ACL file."`
	Status  statusCmd  `cmd:"" help:"Ask the running broker how it is."`
	Store   storeCmd   `cmd:"" help:"Look after the store."`
	Bridge  bridgeCmd  `cmd:"" help:"Look after the bridges."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

func main() { os.Exit(execute(os.Args[1:], &console{os.Stdin, os.Stdout, os.Stderr})) }

// execute carries out a command line and returns the exit status. Asked for help it
// ends the process.
func execute(args []string, c *console) int {
	parser, err := kong.New(&commands{},
		kong.Name("sluice"),
		kong.Description("An MQTT broker for the edge that loses nothing it has acknowledged."),
		kong.Writers(c.out, c.err),
		kong.BindTo(c.out, (*io.Writer)(nil)),
		kong.Bind(c),
		kong.Vars{"iterations": strconv.Itoa(auth.IterationsDefault), "iterations_max": strconv.Itoa(auth.IterationsMax)},
	)
	if err != nil {
		panic(fmt.Sprintf("BUG: command line: %v", err))
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(c.err, "sluice: %v\nTry 'sluice --help'.\n", err)
		return exitUsage
	}
	if err := command.Run(); err != nil {
		return report(err, c.err)
	}
	return exitOK
}

// report writes an error and returns the exit status for it.
func report(err error, stderr io.Writer) int {
	var status exitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	var problems configs.Problems
	var files wrongFiles
	if errors.As(err, &problems) || errors.As(err, &files) {
		fmt.Fprintln(stderr, err) // one line each, beginning with the file
		return exitUsage
	}
	fmt.Fprintf(stderr, "sluice: %v\n", err)
	return exitFailure
}

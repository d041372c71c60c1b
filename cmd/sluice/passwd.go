package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sluice/broker/auth"
)

// passwdCmd is `sluice passwd`. Its short flags and the order of its arguments are
// those of mosquitto_passwd, for hands and scripts that know it.
type passwdCmd struct {
	Create     bool   `short:"c" xor:"what" help:"Create FILE, which must not be there yet."`
	Delete     bool   `short:"D" xor:"what" help:"Take USER out of FILE."`
	Check      bool   `xor:"what" help:"Say whether a password is that of USER: exit status 0 if so, 1 if not. FILE is not changed."`
	Batch      bool   `short:"b" help:"Take the password from the command line. Everybody on this machine can see it there while the program runs, and the shell remembers it: better pipe it in."`
	Scram      bool   `help:"Store it for SCRAM-SHA-256, with which a client never sends the password; a client that sends it can still log in. mosquitto cannot read such lines."`
	Iterations int    `placeholder:"N" help:"How much work one login is: for the broker, and for somebody who has stolen FILE. Default ${iterations}, at most ${iterations_max}."`
	File       string `arg:"" type:"path" help:"The password file (auth.password_file)."`
	User       string `arg:"" help:"The user name."`
	Password   string `arg:"" optional:"" help:"With -b only."`
}

// Help explains what the flags do not.
func (*passwdCmd) Help() string {
	return "Adds USER to FILE or gives it a new password, which is asked for twice, or read from standard input if that is no terminal. " +
		"The other lines, comments and their order stay. FILE is replaced in one step and keeps owner and permissions; " +
		"a new one can be read by its owner only, who has to be the user that Sluice runs as. A running broker takes the new file by itself."
}

// Run changes or checks one user.
func (p *passwdCmd) Run(c *console) error {
	if err := p.validate(); err != nil {
		return err
	}
	switch {
	case p.Check:
		return p.check(c)
	case p.Delete:
		return p.remove(c)
	}
	return p.set(c)
}

func (p *passwdCmd) validate() error {
	switch {
	case p.Batch && p.Delete:
		return errors.New("-D needs no password")
	case p.Batch && p.Password == "":
		return errors.New("-b: the password is missing after USER")
	case !p.Batch && p.Password != "":
		return errors.New("a password on the command line is taken with -b only")
	case badText(p.Password):
		return errors.New("the password is not UTF-8, which does not pass through the command line: pipe it in")
	case len(p.Password) > passwordBytesMax:
		return errPasswordTooLong
	case p.Iterations < 0 || p.Iterations > auth.IterationsMax:
		return fmt.Errorf("--iterations: found %d, allowed 1 to %d", p.Iterations, auth.IterationsMax)
	case p.Scram && p.Iterations > 0 && p.Iterations < scramIterationsMin:
		return fmt.Errorf("--iterations: found %d, allowed %d and more with --scram: clients refuse less", p.Iterations, scramIterationsMin)
	}
	return checkUser(p.User)
}

// scramIterationsMin is what RFC 7677, 4 asks for.
const scramIterationsMin = 4096

// checkUser tells why no client can have that user name, or no line of the file.
func checkUser(user string) error {
	switch {
	case user == "" || len(user) > 65535:
		return fmt.Errorf("a user name has 1 to 65535 bytes, this one %d", len(user))
	case badText(user) || strings.ContainsRune(user, ':') || strings.ContainsFunc(user, unicode.IsControl):
		return fmt.Errorf("user name %q: allowed is UTF-8 without ':' and control characters", user)
	}
	return nil
}

// badText says whether an argument was not UTF-8: the parser of the command line has
// then put U+FFFD in its place.
func badText(s string) bool { return !utf8.ValidString(s) || strings.ContainsRune(s, utf8.RuneError) }

func (p *passwdCmd) password(c *console, twice bool) ([]byte, error) {
	if p.Batch {
		return []byte(p.Password), nil
	}
	return c.readPassword("Password for "+p.User, twice)
}

// open parses the password file. Lines that are wrong are said, and stay.
func (p *passwdCmd) open(text []byte, c *console) *auth.PasswordFile {
	file, err := auth.ParsePasswordFile(&auth.File{Name: p.File, Data: text})
	if err != nil {
		fmt.Fprintf(c.err, "warning: the broker will not take this file as it is:\n%v\n", err)
	}
	return file
}

func (p *passwdCmd) set(c *console) error {
	if _, err := os.Stat(p.File); p.Create == (err == nil) { // said before somebody types a password twice
		return edit(p.File, p.Create, func(old []byte) ([]byte, error) { return old, nil })
	}
	password, err := p.password(c, true)
	if err != nil {
		return err
	}
	verifier := auth.HashPassword
	if p.Scram {
		verifier = auth.ScramVerifier
	}
	line := verifier(password, p.Iterations, nil)
	done := "added"
	err = edit(p.File, p.Create, func(old []byte) ([]byte, error) {
		file := p.open(old, c)
		if slices.Contains(file.Users(), p.User) {
			done = "has a new password"
		}
		err := file.Set(p.User, line)
		return file.Bytes(), err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "%s: user %q %s\n", p.File, p.User, done)
	return err
}

func (p *passwdCmd) remove(c *console) error {
	err := edit(p.File, false, func(old []byte) ([]byte, error) {
		file := p.open(old, c)
		if !file.Delete(p.User) {
			return nil, fmt.Errorf("%s: there is no user %q", p.File, p.User)
		}
		return file.Bytes(), nil
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "%s: user %q removed\n", p.File, p.User)
	return err
}

// check logs in as a client would. That the file cannot be used is status 2, so
// that it is not taken for a wrong password.
func (p *passwdCmd) check(c *console) error {
	text, err := os.ReadFile(p.File)
	if err != nil {
		return wrongFiles{err}
	}
	rules, err := auth.New(&auth.Sources{Methods: []string{auth.ByPassword}, Passwords: &auth.File{Name: p.File, Data: text}})
	if err != nil {
		return wrongFiles{err}
	}
	password, err := p.password(c, false)
	if err != nil {
		return err
	}
	_, err = rules.Authenticate(&auth.Credentials{Username: p.User, HasUsername: true, Password: password, HasPassword: true}, time.Now())
	if err != nil {
		fmt.Fprintf(c.out, "%s: wrong: user %q has another password, or is not there\n", p.File, p.User)
		return exitStatus(exitFailure)
	}
	_, err = fmt.Fprintf(c.out, "%s: right\n", p.File)
	return err
}

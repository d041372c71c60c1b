package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pty opens a pseudo terminal: what a person has, and what the program has.
func pty(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

// prompts passes on to type what the program has asked for, once for each prompt.
type prompts struct {
	mu     sync.Mutex
	text   bytes.Buffer
	person *os.File
	typed  []string
}

func (p *prompts) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if strings.HasSuffix(string(b), ": ") && len(p.typed) > 0 {
		if _, err := p.person.WriteString(p.typed[0]); err != nil {
			return 0, err
		}
		p.typed = p.typed[1:]
	}
	return p.text.Write(b)
}

func TestTerminal(t *testing.T) {
	for _, test := range []struct {
		name  string
		typed []string
		want  string
		err   string
	}{
		{"the same twice", []string{"secret\r", "secret\n"}, "secret", ""},
		{"corrected", []string{"wrong\x15sä\x7f\x7fsecreä\x7ft\r", "x\x7f\x7fsecret\r"}, "secret", ""},
		{"two different ones", []string{"secret\r", "secert\r"}, "", "two different"},
		{"interrupted", []string{"sec\x03"}, "", "interrupted"},
		{"interrupted at the second", []string{"secret\r", "\x04"}, "", "interrupted"},
		{"an arrow", []string{"sec\x1b[A\r"}, "", "no character"},
		{"nothing", []string{"\r"}, "", "is empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			person, program := pty(t)
			before, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			said := &prompts{person: person, typed: test.typed}
			c := &console{in: program, out: said, err: said}
			type answer struct {
				password []byte
				err      error
			}
			done := make(chan answer, 1)
			go func() {
				password, err := c.readPassword("Password", true)
				done <- answer{password, err}
			}()
			var got answer
			select {
			case got = <-done:
			case <-time.After(10 * time.Second):
				_ = person.Close() // the reader gets an error
				t.Fatalf("no answer; said: %q", said.text.String())
			}
			if test.err == "" && (got.err != nil || string(got.password) != test.want) || test.err != "" && (got.err == nil || !strings.Contains(got.err.Error(), test.err)) {
				t.Errorf("got %q, %v", got.password, got.err)
			}
			after, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
			if err != nil || *after != *before {
				t.Errorf("the terminal stays changed: %v\n%+v\n%+v", err, before, after)
			}
			// Prompts went elsewhere: what comes out here is the echo of what was typed.
			fd := int(person.Fd()) // makes it blocking, so once only
			if err := unix.SetNonblock(fd, true); err != nil {
				t.Fatal(err)
			}
			echo := make([]byte, 100)
			if n, err := unix.Read(fd, echo); err != unix.EAGAIN {
				t.Errorf("the terminal has shown %q, %v", echo[:max(n, 0)], err)
			}
		})
	}
}

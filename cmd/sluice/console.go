package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// DESIGN. A password is typed without being shown: the terminal gives each key as
// it is pressed, also the one for an interrupt, and what erases is done here.
// So no signal can end the program while the terminal is silent, except one from
// outside.

// console is where a command reads and writes.
type console struct {
	in  io.Reader
	out io.Writer // what was asked for
	err io.Writer // prompts and warnings
}

// exitStatus ends the program with that status; all has been said.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// wrongFiles are problems of files that the configuration names, one on each line, each
// beginning with the file.
type wrongFiles struct{ error }

// passwordBytesMax is the longest password of CONNECT (MQTT5 3.1.3.6).
const passwordBytesMax = 65535

var (
	errInterrupted     = errors.New("interrupted; nothing was changed")
	errPasswordTooLong = fmt.Errorf("the password has more than %d bytes", passwordBytesMax)
	errPasswordEmpty   = errors.New("the password is empty")
)

// readPassword asks for a password: on a terminal without showing it, and twice if
// twice; otherwise it takes the first line of what comes in.
func (c *console) readPassword(prompt string, twice bool) ([]byte, error) {
	terminal, ok := c.terminal()
	if !ok {
		return firstLine(c.in)
	}
	password, err := c.ask(terminal, prompt+": ")
	if err != nil || !twice {
		return password, err
	}
	again, err := c.ask(terminal, prompt+" again: ")
	if err == nil && !bytes.Equal(password, again) {
		err = errors.New("these are two different passwords; nothing was changed")
	}
	return password, err
}

// terminal returns the terminal that in is.
func (c *console) terminal() (*os.File, bool) {
	file, ok := c.in.(*os.File)
	if !ok {
		return nil, false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return file, err == nil
}

// firstLine reads a line without its end.
func firstLine(in io.Reader) ([]byte, error) {
	line, err := bufio.NewReader(io.LimitReader(in, passwordBytesMax+3)).ReadBytes('\n')
	if err != nil && err != io.EOF {
		return nil, err
	}
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	switch {
	case len(line) == 0:
		return nil, errPasswordEmpty
	case len(line) > passwordBytesMax:
		return nil, errPasswordTooLong
	}
	return line, nil
}

// ask reads one line of keys from a terminal that does not show them.
func (c *console) ask(terminal *os.File, prompt string) (password []byte, err error) {
	fd := int(terminal.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	silent := *before
	silent.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
	silent.Iflag |= unix.ICRNL
	silent.Cc[unix.VMIN], silent.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, unix.IoctlSetTermios(fd, unix.TCSETS, before))
		fmt.Fprintln(c.err)
	}()
	fmt.Fprint(c.err, prompt)
	for key := make([]byte, 1); ; {
		if _, err := io.ReadFull(terminal, key); err != nil {
			return nil, err
		}
		switch k := key[0]; {
		case k == '\n' || k == '\r':
			if len(password) == 0 {
				return nil, errPasswordEmpty
			}
			return password, nil
		case k == before.Cc[unix.VINTR] || k == before.Cc[unix.VQUIT] || k == before.Cc[unix.VEOF]:
			return nil, errInterrupted
		case k == before.Cc[unix.VERASE] || k == '\b' || k == 0x7f:
			password = withoutLast(password)
		case k == before.Cc[unix.VKILL]:
			password = nil
		case k < ' ':
			return nil, errors.New("a key that is no character (an arrow, a tab); nothing was changed")
		case len(password) == passwordBytesMax:
			return nil, errPasswordTooLong
		default:
			password = append(password, k)
		}
	}
}

// withoutLast takes off the last character of UTF-8.
func withoutLast(text []byte) []byte {
	for len(text) > 0 {
		last := text[len(text)-1]
		text = text[:len(text)-1]
		if last&0xC0 != 0x80 { // not a continuation
			break
		}
	}
	return text
}

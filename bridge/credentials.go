package bridge

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// DESIGN. Who we are is asked anew for each dial (Options.Credentials), so that a
// password file that was exchanged, or a command that fetches tokens, needs nobody to
// tell us. A password that is a token says until when it holds; from that a link knows
// when to renew it (renew.go). Nothing here checks a token: that is the upstream's.

// Login is who we are towards the upstream.
type Login struct {
	Username string    // "": none
	Password string    // "": none
	Expires  time.Time // when the upstream stops believing the password; zero: never, or nobody knows
}

// describe says who it is, without the password.
func (l *Login) describe() string {
	text := fmt.Sprintf("user %q, a password of %d bytes", l.Username, len(l.Password))
	if !l.Expires.IsZero() {
		text += ", a token that expires at " + l.Expires.UTC().Format(time.RFC3339)
	}
	return text
}

// login returns what to log in with now.
func (o *Options) login(ctx context.Context) (Login, error) {
	if o.Credentials == nil {
		return Login{Username: o.Username, Password: o.Password}, nil
	}
	return o.Credentials(ctx)
}

// ReadLogin returns Credentials whose password is what read returns, such as the content
// of a file.
func ReadLogin(username string, read func() (string, error)) func(context.Context) (Login, error) {
	return func(context.Context) (Login, error) {
		password, err := read()
		if err != nil {
			return Login{}, err
		}
		return Login{username, password, tokenExpiry(password)}, nil
	}
}

const (
	commandOutputMax = 65535           // the longest password (MQTT5 3.1.3.6); paho cuts longer ones
	commandGrace     = 2 * time.Second // for what a command that was killed left running
	commandErrorMax  = 200             // of what it said
)

// CommandLogin returns Credentials whose password is what a command prints, without the
// line end at its end. The command is no shell's; it is killed after the timeout.
func CommandLogin(username string, command []string, timeout time.Duration) func(context.Context) (Login, error) {
	return func(ctx context.Context) (Login, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		password, err := runCommand(ctx, command)
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return Login{}, fmt.Errorf("%s: not done within %v", command[0], timeout)
		case err != nil:
			return Login{}, fmt.Errorf("%s: %w", command[0], err)
		}
		return Login{username, password, tokenExpiry(password)}, nil
	}
}

func runCommand(ctx context.Context, command []string) (string, error) {
	said, complained := head{max: commandOutputMax}, head{max: commandErrorMax}
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	c.Stdout, c.Stderr, c.WaitDelay = &said, &complained, commandGrace
	if err := c.Run(); err != nil {
		if line, _, _ := strings.Cut(complained.String(), "\n"); line != "" {
			err = fmt.Errorf("%w: %q", err, line)
		}
		return "", err
	}
	if said.more {
		return "", fmt.Errorf("it prints more than %d bytes", commandOutputMax)
	}
	password := strings.TrimSuffix(strings.TrimSuffix(said.String(), "\n"), "\r")
	if password == "" {
		return "", errors.New("it prints nothing")
	}
	return password, nil
}

// head keeps the beginning of what is written to it. It has no other methods of a
// buffer, lest somebody fill it by these.
type head struct {
	kept bytes.Buffer
	max  int
	more bool
}

func (h *head) String() string { return h.kept.String() }

func (h *head) Write(p []byte) (int, error) {
	keep := min(len(p), h.max-h.kept.Len())
	h.more = h.more || keep < len(p)
	h.kept.Write(p[:keep])
	return len(p), nil
}

// tokenExpiry returns when a token expires, if the password is one that says so: a JWT
// with exp (RFC 7519 4.1.4), or a shared access signature with se.
func tokenExpiry(password string) time.Time {
	if fields, ok := strings.CutPrefix(password, sasPrefix); ok {
		values, err := url.ParseQuery(fields)
		if err != nil {
			return time.Time{}
		}
		se, err := strconv.ParseInt(values.Get("se"), 10, 64)
		if err != nil {
			return time.Time{}
		}
		return unixTime(float64(se))
	}
	parts := strings.Split(password, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}
	}
	var claims struct {
		Exp float64 `json:"exp"`
	}
	if json.Unmarshal(body, &claims) != nil {
		return time.Time{}
	}
	return unixTime(claims.Exp)
}

// unixTime is zero for what is no plausible time.
func unixTime(seconds float64) time.Time {
	const year9999 = 253402300799
	if seconds <= 0 || seconds > year9999 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0)
}

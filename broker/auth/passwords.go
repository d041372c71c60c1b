package auth

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// DESIGN. PasswordFile keeps every line as it is, comments, order and line
// ends included, so that a tool that changes one user leaves the rest of a
// file kept by hand alone.

// PasswordFile is a password file for editing. It belongs to one goroutine.
type PasswordFile struct {
	lines []passwordLine
}

type passwordLine struct {
	raw      string    // with its line end
	user     string    // "": a comment or nothing
	verifier *verifier // nil: no valid one
}

// ParsePasswordFile reads a password file. The PasswordFile can be used for
// editing even if there are errors: lines that are wrong stay until their user
// is set or deleted.
func ParsePasswordFile(f *File) (*PasswordFile, error) {
	var p problems
	file := parsePasswords(f, &p)
	return file, p.err()
}

func parsePasswords(f *File, p *problems) *PasswordFile {
	file := &PasswordFile{}
	type userKind struct {
		user string
		kind kind
	}
	seen := map[userKind]int{}
	n := 0
	for raw := range strings.Lines(string(f.Data)) {
		n++
		l := passwordLine{raw: raw}
		if n == 1 {
			raw = strings.TrimPrefix(raw, "\ufeff")
		}
		text := strings.TrimSpace(raw)
		if text != "" && text[0] != '#' {
			user, rest, ok := strings.Cut(text, ":")
			var err error
			switch {
			case !ok || user == "":
				err = errors.New("the line is not user:hash")
			default:
				l.user = user
				l.verifier, err = parseVerifier(rest)
			}
			switch {
			case err != nil && l.user != "":
				p.add(f.Name, n, "user %s: %w", shown(l.user), err)
			case err != nil:
				p.add(f.Name, n, "%w", err)
			}
			if err != nil {
				l.verifier = nil
			} else if first, twice := seen[userKind{user, l.verifier.kind}]; twice {
				p.add(f.Name, n, "user %s has a password of this kind in line %d already", shown(user), first)
			} else {
				seen[userKind{user, l.verifier.kind}] = n
			}
		}
		file.lines = append(file.lines, l)
	}
	return file
}

// Set gives a user these verifiers, as HashPassword and ScramVerifier make
// them, in place of all it had: an old password of another kind does not stay
// behind. A new user is added at the end.
func (p *PasswordFile) Set(user string, verifiers ...string) error {
	if err := checkUser(user); err != nil {
		return err
	}
	if len(verifiers) == 0 {
		return errors.New("a user needs a password")
	}
	var set []passwordLine
	for _, s := range verifiers {
		v, err := parseVerifier(s)
		if err != nil {
			return err
		}
		for _, l := range set {
			if l.verifier.kind == v.kind {
				return errors.New("a user has one password of each kind")
			}
		}
		set = append(set, passwordLine{raw: user + ":" + s + "\n", user: user, verifier: v})
	}
	kept := make([]passwordLine, 0, len(p.lines)+len(set))
	for _, l := range p.lines {
		if l.user != user {
			kept = append(kept, l)
			continue
		}
		kept, set = append(kept, set...), nil
	}
	if n := len(kept); len(set) > 0 && n > 0 && !strings.HasSuffix(kept[n-1].raw, "\n") {
		kept[n-1].raw += "\n"
	}
	p.lines = append(kept, set...)
	return nil
}

// checkUser tells why a name cannot stand in a password file.
func checkUser(user string) error {
	switch {
	case user == "":
		return errors.New("the user name is empty")
	case len(user) > 65535:
		return errors.New("the user name is longer than 65535 bytes")
	case strings.ContainsAny(user, ":\r\n\x00"):
		return fmt.Errorf("user name %s contains a colon, a line end or a zero byte", shown(user))
	case user[0] == '#' || strings.HasPrefix(user, "\ufeff") || strings.TrimSpace(user) != user:
		return fmt.Errorf("user name %s begins with # or has white space around it", shown(user))
	}
	return nil
}

// Delete removes all lines of a user, and tells whether there were any.
func (p *PasswordFile) Delete(user string) bool {
	kept := p.lines[:0]
	for _, l := range p.lines {
		if l.user != user || user == "" {
			kept = append(kept, l)
		}
	}
	deleted := len(kept) < len(p.lines)
	p.lines = kept
	return deleted
}

// Users are the users in the order of their first lines.
func (p *PasswordFile) Users() []string {
	var users []string
	seen := map[string]bool{}
	for _, l := range p.lines {
		if l.user != "" && !seen[l.user] {
			seen[l.user] = true
			users = append(users, l.user)
		}
	}
	return users
}

// Bytes is the file as it is to be written.
func (p *PasswordFile) Bytes() []byte {
	var b bytes.Buffer
	for _, l := range p.lines {
		b.WriteString(l.raw)
	}
	return b.Bytes()
}

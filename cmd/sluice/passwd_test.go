package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// sluice carries out a command line and returns status and output.
func sluice(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = execute(args, &console{strings.NewReader(stdin), &out, &err})
	return code, out.String(), err.String()
}

func content(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The life of a password file: made, added to, changed, checked, taken from. What a person
// wrote into it stays.
func TestPasswd(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "users")
	run := func(want int, part, stdin string, args ...string) {
		t.Helper()
		code, stdout, stderr := sluice(stdin, append([]string{"passwd"}, args...)...)
		if code != want || !strings.Contains(stdout+stderr, part) {
			t.Errorf("%q: exit status %d, want %d with %q\n%s%s", args, code, want, part, stdout, stderr)
		}
	}
	run(1, "-c creates it", "x\n", file, "ann")
	run(0, `user "ann" added`, "secret of ann\nnot read\n", "-c", "--iterations", "7", file, "ann")
	run(1, "leave out -c", "x\n", "-c", file, "ann")
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if got := content(t, file); !strings.HasPrefix(got, "ann:$7$7$") {
		t.Error(got)
	}
	commented := "# mine\n\n" + content(t, file) + "# end\n"
	if err := os.WriteFile(file, []byte(commented), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	run(0, `user "bob" added`, "", "-b", "--scram", "--iterations", "4096", file, "bob", "secret of bob")
	run(0, `user "cy d" added`, "", "-b", "--iterations", "1", file, "cy d", "c")
	run(0, `user "ann" has a new password`, "new\r\n", "--iterations", "2", file, "ann")
	lines := strings.Split(content(t, file), "\n")
	for i, want := range []string{"# mine", "", "ann:$7$2$", "# end", "bob:SCRAM-SHA-256$4096:", "cy d:$7$1$", ""} {
		if len(lines) != 7 || !strings.HasPrefix(lines[i], want) || (want == "") != (lines[i] == "") {
			t.Fatalf("line %d of %q, want %q", i, lines, want)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
	run(0, "right", "new", "--check", file, "ann")
	run(0, "right", "secret of bob\n", "--check", file, "bob")
	run(1, "wrong", "secret of ann\n", "--check", file, "ann")
	run(1, "wrong", "new\n", "--check", file, "nobody")
	run(2, "no such file", "new\n", "--check", file+"2", "ann")
	run(0, `user "bob" removed`, "", "-D", file, "bob")
	run(1, `there is no user "bob"`, "", "-D", file, "bob")
	run(1, "wrong", "secret of bob\n", "--check", file, "bob")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("files are left: %v, %v", entries, err)
	}
}

func TestPasswdRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	for _, test := range []struct {
		part, stdin string
		args        []string
	}{
		{"without ':' and control", "x\n", []string{"-c", file, "a:b"}},
		{"without ':' and control", "x\n", []string{"-c", file, "a\nb"}},
		{"without ':' and control", "x\n", []string{"-c", file, "a\xffb"}},
		{"begins with #", "x\n", []string{"-c", file, "#a"}},
		{"1 to 65535 bytes", "x\n", []string{"-c", file, ""}},
		{"1 to 65535 bytes", "x\n", []string{"-c", file, strings.Repeat("a", 65536)}},
		{"is empty", "\n", []string{"-c", file, "a"}},
		{"is empty", "", []string{"-c", file, "a"}},
		{"more than 65535", strings.Repeat("x", 65536) + "\n", []string{"-c", file, "a"}},
		{"with -b only", "", []string{"-c", file, "a", "b"}},
		{"missing after USER", "", []string{"-c", "-b", file, "a"}},
		{"not UTF-8", "", []string{"-c", "-b", file, "a", "b\xff"}},
		{"needs no password", "", []string{"-b", "-D", file, "a", "b"}},
		{"allowed 1 to 500000", "x\n", []string{"-c", "--iterations", "500001", file, "a"}},
		{"allowed 4096 and more", "x\n", []string{"-c", "--scram", "--iterations", "4095", file, "a"}},
		{"can't be used together", "x\n", []string{"-c", "-D", file, "a"}},
	} {
		code, stdout, stderr := sluice(test.stdin, append([]string{"passwd"}, test.args...)...)
		if code == 0 || stdout != "" || !strings.Contains(stderr, test.part) {
			t.Errorf("%.60q: exit status %d, want %q\n%s%s", test.args, code, test.part, stdout, stderr)
		}
		if _, err := os.Stat(file); err == nil {
			t.Fatalf("%.60q has made a file", test.args)
		}
	}
	if code, _, stderr := sluice("", "passwd", "-D", file, "a"); code != 1 || !strings.Contains(stderr, "is not there") {
		t.Errorf("%d, %s", code, stderr)
	}
}

// A longest password passes through a pipe whole.
func TestPasswdLongest(t *testing.T) {
	file, longest := filepath.Join(t.TempDir(), "users"), strings.Repeat("x", 65535)
	if code, _, stderr := sluice(longest+"\r\n", "passwd", "-c", file, "a"); code != 0 {
		t.Fatal(stderr)
	}
	if code, stdout, _ := sluice(longest, "passwd", "--check", file, "a"); code != 0 {
		t.Error(stdout)
	}
	if code, _, _ := sluice(longest[1:], "passwd", "--check", file, "a"); code != 1 {
		t.Errorf("exit status %d for a shorter one", code)
	}
}

// A broken line of another user is said, and stays; a link stays a link.
func TestPasswdLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "users"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("old:plain text\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := sluice("", "passwd", "-b", link, "new", "pw")
	if code != 0 || !strings.Contains(stderr, "warning: the broker will not take this file") || !strings.Contains(stderr, "link:1: ") || strings.Contains(stderr, "plain text") {
		t.Errorf("exit status %d: %s", code, stderr)
	}
	if got := content(t, file); !strings.HasPrefix(got, "old:plain text\nnew:$7$") {
		t.Error(got)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("%v, %v", info, err)
	}
}

// Two that add users at once do not lose one.
func TestPasswdAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const users = 20
	var wg sync.WaitGroup
	for i := range users {
		wg.Go(func() {
			if code, _, stderr := sluice("", "passwd", "-b", "--iterations", "1", file, string(rune('a'+i)), "pw"); code != 0 {
				t.Error(stderr)
			}
		})
	}
	wg.Wait()
	if got := strings.Count(content(t, file), "\n"); got != users {
		t.Errorf("%d users of %d are left", got, users)
	}
}

func TestACLTest(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	acl := file("acl", "topic read public/#\nuser panel\ntopic sensors/#\ntopic deny sensors/secret\npattern write sensors/%u/%c\n")
	broken := file("broken", "topic read\n")
	config := file("f.toml", "[auth]\nacl_file = \""+acl+"\"\n")
	none := file("none.toml", "")
	for _, test := range []struct {
		code int
		part string
		args []string
	}{
		{0, "yes: " + acl + ":1: topic read public/#", []string{"--acl", acl, "receive", "public/a"}},
		{1, "no: no rule allows it", []string{"--acl", acl, "publish", "public/a"}},
		{0, "acl:3: topic sensors/#", []string{"--acl", acl, "--user", "panel", "publish", "sensors/a"}},
		{1, "acl:4: topic deny sensors/secret", []string{"-c", config, "--user", "panel", "receive", "sensors/secret"}},
		{0, "acl:3", []string{"--acl", acl, "--user", "panel", "subscribe", "sensors/+"}},
		{0, "(sensors/s1/c1)", []string{"--acl", acl, "--user", "s1", "--client", "c1", "publish", "sensors/s1/c1"}},
		{1, "no: ", []string{"--acl", acl, "--user", "s1", "--client", "c1", "publish", "sensors/s1/c2"}},
		{0, "everything is allowed", []string{"-c", none, "publish", "a"}},
		{2, "broken:1: ", []string{"--acl", broken, "publish", "a"}},
		{2, "no such file", []string{"--acl", broken + "2", "publish", "a"}},
		{2, `"a/+": `, []string{"--acl", acl, "publish", "a/+"}},
		{2, `"a/#/b": `, []string{"--acl", acl, "subscribe", "a/#/b"}},
		{2, "missing flags", []string{"publish", "a"}},
		{2, "must be one of", []string{"--acl", acl, "read", "a"}},
	} {
		code, stdout, stderr := sluice("", append([]string{"acl", "test"}, test.args...)...)
		if code != test.code || !strings.Contains(stdout+stderr, test.part) || (code == 2) != (stdout == "") {
			t.Errorf("%q: exit status %d, want %d with %q\n%s%s", test.args, code, test.code, test.part, stdout, stderr)
		}
	}
}

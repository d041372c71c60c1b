package bridge

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func jwt(claims string) string {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	return part(`{"alg":"RS256"}`) + "." + part(claims) + "." + part("signature")
}

func TestTokenExpiry(t *testing.T) {
	for token, want := range map[string]int64{
		jwt(`{"exp":1800000000}`):   1800000000,
		jwt(`{"exp":1.8e9}`):        1800000000,
		jwt(`{"iat":1}`):            0,
		jwt(`{"exp":-1}`):           0,
		jwt(`{"exp":1e300}`):        0,
		jwt(`{"exp":"1800000000"}`): 0,
		jwt(`[]`):                   0,
		"a.b.c":                     0,
		"a.%%%.c":                   0,
		"hunter2":                   0,
		"":                          0,
		"SharedAccessSignature sr=h%2fdevices%2fd&sig=a%2bb%3d&se=1800000000": 1800000000,
		"SharedAccessSignature se=x":                                          0,
		"SharedAccessSignature %zz":                                           0,
	} {
		got := tokenExpiry(token)
		if want == 0 && !got.IsZero() || want != 0 && got.Unix() != want {
			t.Errorf("%s: %v, want %d", token, got, want)
		}
	}
}

func script(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "command")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestPasswordCommand(t *testing.T) {
	token := jwt(`{"exp":1800000000}`)
	run := func(timeout time.Duration, command ...string) (Login, error) {
		return CommandLogin("me", command, timeout)(t.Context())
	}
	got, err := run(time.Minute, script(t, `printf '%s\r\n' "$1"; echo noise >&2`), token)
	if err != nil || got.Username != "me" || got.Password != token || got.Expires.Unix() != 1800000000 {
		t.Errorf("%+v %v", got, err)
	}
	for what, c := range map[string]struct{ script, want string }{
		"fails":  {"echo secret; echo 'no key here' >&2; echo more >&2; exit 3", `exit status 3: "no key here"`},
		"silent": {"true", "prints nothing"},
		"long":   {"head -c 70000 /dev/zero", "more than 65535 bytes"},
	} {
		if got, err := run(time.Minute, script(t, c.script)); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") || got.Password != "" {
			t.Errorf("%s: %+v %v", what, got, err)
		}
	}
	if _, err := run(time.Minute, "/nonexistent/command"); err == nil {
		t.Error("a command that is not there")
	}
	start := time.Now()
	if _, err := run(50*time.Millisecond, script(t, "sleep 600 & sleep 600")); err == nil || !strings.Contains(err.Error(), "not done within 50ms") {
		t.Errorf("a command that hangs: %v", err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := CommandLogin("me", []string{script(t, "sleep 600")}, time.Minute)(ctx); err == nil {
		t.Error("a command of a bridge that is closed")
	}
}

// The example was computed with another implementation (Python).
func TestSASToken(t *testing.T) {
	s := SAS{Resource: "hub.azure-devices.net/devices/gw 1", Key: base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef")), Lifetime: time.Hour}
	now := time.Unix(1799996400, 5)
	login := s.Login("hub.azure-devices.net/gw 1/?api-version=2021-04-12", func() time.Time { return now })
	got, err := login(t.Context())
	if err != nil || got.Expires.Unix() != 1800000000 || !tokenExpiry(got.Password).Equal(got.Expires) {
		t.Errorf("%+v %v", got, err)
	}
	const want = "SharedAccessSignature sr=hub.azure-devices.net%2Fdevices%2Fgw+1&sig=2xhzLagmOa5xu4l8SYpVBrxu4bLdh7%2Bm5VDYPAZ1Nm0%3D&se=1800000000"
	if got.Password != want {
		t.Errorf("got  %s\nwant %s", got.Password, want)
	}
	s.Policy = "device policy"
	if got, _ := s.Login("u", func() time.Time { return now })(t.Context()); got.Password != want+"&skn=device+policy" {
		t.Errorf("got  %s", got.Password)
	}
	now = time.Unix(100, 0)
	if _, err := login(t.Context()); err == nil || !strings.Contains(err.Error(), "1970-01-01T00:01:40Z, so it was never set") {
		t.Errorf("in 1970: %v", err)
	}
	for _, bad := range []SAS{{}, {Resource: "r", Key: "%", Lifetime: time.Hour}, {Resource: "r", Key: "YQ==", Lifetime: time.Second}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
}

func TestRenewAt(t *testing.T) {
	got := time.Unix(1800000000, 0)
	for life, want := range map[time.Duration]time.Duration{
		time.Hour:        5 * time.Minute,
		24 * time.Hour:   5 * time.Minute,
		10 * time.Minute: time.Minute,
		2 * time.Minute:  30 * time.Second,
		40 * time.Second: 20 * time.Second,
	} {
		if left := got.Add(life).Sub(renewAt(got, got.Add(life))); left != want {
			t.Errorf("life %v: renewed with %v left, want %v", life, left, want)
		}
	}
	if left := got.Sub(renewAt(time.Unix(5, 0), got)); left != renewMargin {
		t.Errorf("clock that was set since: %v left", left)
	}
}

// A password that expires is renewed in time, under load, and nothing is lost or sent
// twice; no connection is made with the old one.
func TestRenewalLosesNothing(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	oracle(t, local, up)
	o := testOptions(local, up.addr(), outAll)
	var n atomic.Int64
	o.Credentials = func(context.Context) (Login, error) {
		return Login{"me", fmt.Sprintf("token %d", n.Add(1)), time.Now().Add(400 * time.Millisecond)}, nil
	}
	b := startBridge(t, o)
	for i := 0; b.Status().Links < 4; i++ {
		publishRound(local, 1, i)
		time.Sleep(time.Millisecond) // the pace of the traffic
		if i > 60000 {
			t.Fatalf("%+v", b.Status())
		}
	}
	eventually(t, "the session is empty", func() bool { return local.open() == 0 })
	_ = b.Close()
	eventually(t, "a goodbye of each connection", func() bool { up.mu.Lock(); defer up.mu.Unlock(); return up.goodbyes == up.connects })
	up.with(func() {
		seen := map[string]bool{}
		for _, m := range up.got {
			if seen[m.payload] {
				t.Errorf("%s came twice", m.payload)
			}
			seen[m.payload] = true
		}
	})
	if st := b.Status(); st.LastError != "" || st.Sent != st.Acked {
		t.Errorf("%+v", st)
	}
}

// Without a better password a link stays as it is; nor does it leave by a clock that was
// never set.
func TestRenewalInVain(t *testing.T) {
	for what, c := range map[string]struct {
		again func(old Login) (Login, error)
		asked bool
		clock func(time.Time) time.Time
	}{
		"the same":  {func(old Login) (Login, error) { return old, nil }, true, nil},
		"none":      {func(Login) (Login, error) { return Login{}, errors.New("no token today") }, true, nil},
		"1970":      {func(old Login) (Login, error) { return old, nil }, false, func(now time.Time) time.Time { return now.AddDate(-60, 0, 0) }},
		"expired":   {func(old Login) (Login, error) { return old, nil }, false, func(now time.Time) time.Time { return now.AddDate(1, 0, 0) }},
		"far ahead": {func(old Login) (Login, error) { return old, nil }, false, func(now time.Time) time.Time { return now.AddDate(-1, 0, 0) }},
	} {
		local, up := newFakeLocal(t), newFakeUpstream(t)
		o := testOptions(local, up.addr(), outAll)
		if c.clock != nil {
			o.Now = func() time.Time { return c.clock(time.Now()) }
		}
		var asked atomic.Int64
		first := Login{"me", "token", time.Now().Add(200 * time.Millisecond)}
		o.Credentials = func(context.Context) (Login, error) {
			if asked.Add(1) == 1 {
				return first, nil
			}
			return c.again(first)
		}
		b := startBridge(t, o)
		eventually(t, what+": up", inState(b, StateUp))
		if c.asked {
			eventually(t, what+": asked", func() bool { return asked.Load() > 1 })
		}
		end := time.Now().Add(300 * time.Millisecond)
		eventually(t, what+": the expiry is over", func() bool { return time.Now().After(end) })
		if st := b.Status(); st.Links != 1 || st.State != StateUp || !c.asked && asked.Load() != 1 {
			t.Errorf("%s: asked %d times, %+v", what, asked.Load(), st)
		}
		_ = b.Close()
	}
}

// A file that was exchanged counts from the next dial on.
func TestPasswordIsReadForEachDial(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	o := testOptions(local, up.addr(), outAll)
	var password atomic.Pointer[string]
	set := func(s string) { password.Store(&s) }
	set("one")
	o.Credentials = ReadLogin("me", func() (string, error) { return *password.Load(), nil })
	b := startBridge(t, o)
	eventually(t, "up", inState(b, StateUp))
	set("two")
	up.cutAll()
	eventually(t, "up again", func() bool { return b.Status().Links == 2 })
	up.with(func() {
		if string(up.lastHi.Password) != "two" {
			t.Errorf("CONNECT %+v", up.lastHi)
		}
	})
}

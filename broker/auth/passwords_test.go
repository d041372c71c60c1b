package auth

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"sluice/broker/mqtt"
)

// What mosquitto_passwd of mosquitto 2.0.11 writes: alice "secret", bob
// "hunter2", carol "legacy" with -H sha512.
const mosquittoPasswords = `alice:$7$101$j2B/t7lAGNJju0Ed$Vsv8vpIKfPLj7fJJCybM9/TQJdFXYs4XYQ4gAChIfNMussU4zeS6AlQwMxFVrB6NRBwQA/u7k8JSvH8icb+MBA==
bob:$7$101$/hAgYqLNOld/Snh5$AM/gTmrv60V+F8KeFX2La4CHTWkKqKSkE8FW1L055Y6JDsPcTepB5TD62Q1M6+XuxgBX8X3au/avLj4g5TsQdQ==
carol:$6$0owRab0SVLEKZtZC$7Gci7mZQrBLkGQ4plWdJlxjlsxH3+alUNjZWl0mmTcgf2unoQsb2TCQWkUjnlVVjZ4rIDHneHZvamj9EkFZgJg==
`

func rulesWith(t testing.TB, passwords string) *Rules {
	t.Helper()
	r, err := New(&Sources{Passwords: &File{Name: "passwd", Data: []byte(passwords)}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func login(user, password string) *Credentials {
	return &Credentials{ClientID: "c", Username: user, HasUsername: true, Password: []byte(password), HasPassword: true}
}

func expectIn(t *testing.T, r *Rules, c *Credentials, user, by string) {
	t.Helper()
	id, err := r.Authenticate(c, noon)
	if err != nil || id.User != user || id.By != by {
		t.Errorf("%q: %+v %v, want user %q by %q", c.Username, id, err, user, by)
	}
}

func expectOut(t *testing.T, r *Rules, c *Credentials, reason mqtt.Reason) {
	t.Helper()
	id, err := r.Authenticate(c, noon)
	e, ok := err.(*Error)
	if id != nil || !ok || e.Reason != reason || e.Text == "" {
		t.Errorf("%q: %+v %v, want reason %v", c.Username, id, err, reason)
	}
	if e != nil && len(c.Password) > 3 && strings.Contains(e.Text, string(c.Password)) {
		t.Errorf("the text shows the password: %s", e.Text)
	}
}

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func TestPasswordsOfMosquittoAreAccepted(t *testing.T) {
	r := rulesWith(t, mosquittoPasswords)
	for user, password := range map[string]string{"alice": "secret", "bob": "hunter2", "carol": "legacy"} {
		expectIn(t, r, login(user, password), user, "password")
		expectOut(t, r, login(user, password+"x"), mqtt.BadUserNameOrPassword)
		expectOut(t, r, login(user, ""), mqtt.BadUserNameOrPassword)
	}
	expectOut(t, r, login("dave", "secret"), mqtt.BadUserNameOrPassword)
	expectOut(t, r, login("", "secret"), mqtt.BadUserNameOrPassword)
}

func TestEveryKindOfVerifier(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("pw"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]string{
		"PBKDF2": HashPassword([]byte("pw"), 10, nil),
		"bcrypt": string(hash), "bcrypt 2b": strings.Replace(string(hash), "$2a$", "$2b$", 1), "bcrypt 2y": strings.Replace(string(hash), "$2a$", "$2y$", 1),
		"SCRAM": ScramVerifier([]byte("pw"), 10, nil),
	} {
		t.Run(name, func(t *testing.T) {
			r := rulesWith(t, "u:"+v+"\n")
			expectIn(t, r, login("u", "pw"), "u", "password")
			expectOut(t, r, login("u", "wr0ng"), mqtt.BadUserNameOrPassword)
		})
	}
}

// Salt and iterations of alice's line give mosquitto's hash, byte by byte.
func TestHashPasswordIsMosquittos(t *testing.T) {
	line, _, _ := strings.Cut(mosquittoPasswords, "\n")
	v, err := parseVerifier(strings.TrimPrefix(line, "alice:"))
	if err != nil {
		t.Fatal(err)
	}
	if got := "alice:" + HashPassword([]byte("secret"), v.iterations, v.salt); got != line {
		t.Errorf("%s\nwant %s", got, line)
	}
	if a, b := HashPassword([]byte("x"), 1, nil), HashPassword([]byte("x"), 1, nil); a == b {
		t.Error("two salts are the same")
	}
	if got := HashPassword([]byte("x"), 0, nil); !strings.HasPrefix(got, fmt.Sprintf("$7$%d$", IterationsDefault)) {
		t.Error(got)
	}
}

// An old line of another kind must not be a second password.
func TestAUserHasOnePassword(t *testing.T) {
	r := rulesWith(t, "u:"+ScramVerifier([]byte("old"), 10, nil)+"\nu:"+HashPassword([]byte("new"), 10, nil)+"\n")
	expectIn(t, r, login("u", "new"), "u", "password")
	expectOut(t, r, login("u", "old"), mqtt.BadUserNameOrPassword)
}

func TestPasswordFileErrorsNameFileAndLineAllAtOnce(t *testing.T) {
	good := HashPassword([]byte("pw"), 10, nil)
	scram := ScramVerifier([]byte("pw"), 10, nil)
	_, err := New(&Sources{Passwords: &File{Name: "pw", Data: []byte(strings.Join([]string{
		"plain:topsecret",   // 1
		"nocolon-topsecret", // 2
		":" + good,          // 3
		"a:$7$0$AAAA$AAAA",  // 4
		"b:" + strings.Replace(good, "$10$", "$500001$", 1), // 5
		"c:$7$10$AAAA$AAAA",                   // 6
		"d:$7$10$!!!!$AAAA",                   // 7
		"e:$6$$AAAA",                          // 8
		"f:$2b$15$" + strings.Repeat("a", 53), // 9
		"g:$2a$10$short",                      // 10
		"h:SCRAM-SHA-256$4096:AAAA$AAAA:AAAA", // 11
		"i:" + strings.Replace(scram, "$10:", "$9999999999:", 1), // 12
		"ok:" + good,                          // 13
		"ok:" + good,                          // 14
		"j:$2x$10$" + strings.Repeat("a", 53), // 15
		"# comment", "",
	}, "\n"))}})
	if err == nil {
		t.Fatal("no error")
	}
	text := err.Error()
	for _, want := range []string{
		"pw:1: user \"plain\": the password is not hashed; write the line with `sluice passwd`", "pw:2: the line is not user:hash", "pw:3: ",
		"pw:4: user \"a\": the number of iterations", "pw:5: user \"b\": 500001 iterations: at most 500000", "pw:6: user \"c\": the hash has 3 bytes, not 64",
		"pw:7: user \"d\": the salt is not base64", "pw:8: user \"e\": the salt has 0 bytes", "pw:9: user \"f\": bcrypt cost 15: at most 14", "pw:10: ",
		"pw:11: user \"h\": the StoredKey has 3 bytes", "pw:12: user \"i\": the number of iterations", "pw:14: user \"ok\" has a password of this kind in line 13", "pw:15: ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("missing: %s", want)
		}
	}
	if strings.Contains(text, "topsecret") {
		t.Error("the errors show a password")
	}
	if t.Failed() {
		t.Log(text)
	}
}

// Somebody who measures must not learn who exists: the time of an unknown user
// is that of the hash of somebody who does.
func TestUnknownUserTakesAsLongAsAWrongPassword(t *testing.T) {
	r := rulesWith(t, "u:"+HashPassword([]byte("pw"), 100_000, nil)+"\n")
	best := func(user string) time.Duration {
		shortest := time.Hour
		for range 4 {
			start := time.Now()
			expectOut(t, r, login(user, "wr0ng"), mqtt.BadUserNameOrPassword)
			shortest = min(shortest, time.Since(start))
		}
		return shortest
	}
	if known, unknown := best("u"), best("nobody"); unknown < known/2 {
		t.Errorf("known %v, unknown %v", known, unknown)
	}
}

func TestSettingAPasswordLeavesTheRestAlone(t *testing.T) {
	const file = "# keep me\r\n\r\nalice:old\n  bob : broken\n# and me\nalice:$6$also$old\nzoe:x"
	p, err := ParsePasswordFile(&File{Name: "f", Data: []byte(file)})
	if err == nil {
		t.Fatal("no error")
	}
	if string(p.Bytes()) != file {
		t.Fatalf("changed by nothing: %q", p.Bytes())
	}
	if got := p.Users(); !slices.Equal(got, []string{"alice", "bob ", "zoe"}) {
		t.Errorf("users: %q", got)
	}
	a, s := HashPassword([]byte("n"), 10, nil), ScramVerifier([]byte("n"), 10, nil)
	if err := p.Set("alice", a, s); err != nil {
		t.Fatal(err)
	}
	if err := p.Set("new", a); err != nil {
		t.Fatal(err)
	}
	want := "# keep me\r\n\r\nalice:" + a + "\nalice:" + s + "\n  bob : broken\n# and me\nzoe:x\nnew:" + a + "\n"
	if got := string(p.Bytes()); got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
	for _, user := range []string{"bob ", "zoe"} {
		if !p.Delete(user) || p.Delete(user) {
			t.Errorf("%q was not deleted once", user)
		}
	}
	expectIn(t, rulesWith(t, string(p.Bytes())), login("alice", "n"), "alice", "password")
}

func TestSetRefusesWhatTheFileCannotHold(t *testing.T) {
	good := HashPassword([]byte("pw"), 10, nil)
	for _, user := range []string{"", "a:b", "a\nb", "#a", " a", "a\x00", "\ufeffa", strings.Repeat("x", 65536)} {
		if err := new(PasswordFile).Set(user, good); err == nil {
			t.Errorf("%.10q accepted", user)
		}
	}
	for _, v := range [][]string{nil, {"plain"}, {good, good}} {
		if err := new(PasswordFile).Set("u", v...); err == nil {
			t.Errorf("%q accepted", v)
		}
	}
}

func BenchmarkHashPassword(b *testing.B) {
	for _, n := range []int{101, IterationsDefault} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				HashPassword([]byte("password"), n, []byte("saltsaltsalt"))
			}
		})
	}
}

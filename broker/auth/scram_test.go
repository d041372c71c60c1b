package auth

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/xdg-go/scram"

	"sluice/broker/mqtt"
)

// The exchange of RFC 7677 section 3.
const (
	vectorFirst  = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
	vectorReply  = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
	vectorFinal  = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	vectorAnswer = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
)

func vectorRules(t testing.TB) *Rules {
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	return rulesWith(t, "user:"+ScramVerifier([]byte("pencil"), 4096, salt)+"\nplain:"+HashPassword([]byte("x"), 10, []byte("salt"))+"\n")
}

func begin(t testing.TB, r *Rules, username string) *Exchange {
	t.Helper()
	e, err := r.Begin("SCRAM-SHA-256", &Credentials{Username: username, HasUsername: username != ""}, noon)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func vectorExchange(t testing.TB) *Exchange {
	e := begin(t, vectorRules(t), "")
	e.nonce = []byte("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
	return e
}

func TestScramVectorOfRFC7677(t *testing.T) {
	e := vectorExchange(t)
	if reply, done, err := e.Step([]byte(vectorFirst)); string(reply) != vectorReply || done || err != nil {
		t.Fatalf("%s %v %v\nwant %s", reply, done, err, vectorReply)
	}
	if e.Identity() != nil || e.User() != "user" {
		t.Fatalf("before the end: %+v %q", e.Identity(), e.User())
	}
	if reply, done, err := e.Step([]byte(vectorFinal)); string(reply) != vectorAnswer || !done || err != nil {
		t.Fatalf("%s %v %v\nwant %s", reply, done, err, vectorAnswer)
	}
	if id := e.Identity(); id == nil || id.User != "user" || id.By != "scram" {
		t.Fatalf("%+v", id)
	}
	if _, done, err := e.Step([]byte(vectorFinal)); done || err == nil {
		t.Error("a step after the end")
	}
}

// A CONNECT without authentication data is answered by an AUTH without, once.
func TestScramMayBeginEmpty(t *testing.T) {
	e := vectorExchange(t)
	if reply, done, err := e.Step(nil); len(reply) != 0 || done || err != nil {
		t.Fatalf("%s %v %v", reply, done, err)
	}
	if reply, _, err := e.Step([]byte(vectorFirst)); string(reply) != vectorReply || err != nil {
		t.Fatalf("%s %v", reply, err)
	}
	e = vectorExchange(t)
	e.Step(nil)
	if _, _, err := e.Step(nil); err == nil {
		t.Error("empty twice")
	}
}

func TestScramRefuses(t *testing.T) {
	last := func(from, to string) []string {
		return []string{vectorFirst, strings.Replace(vectorFinal, from, to, 1)}
	}
	for name, x := range map[string]struct {
		messages []string
		reason   mqtt.Reason
	}{
		"channel binding":               {[]string{"p=tls-unique,,n=user,r=abc"}, mqtt.NotAuthorized},
		"another flag":                  {[]string{"x,,n=user,r=abc"}, mqtt.NotAuthorized},
		"no header":                     {[]string{"n=user,r=abc"}, mqtt.NotAuthorized},
		"somebody else":                 {[]string{"n,a=root,n=user,r=abc"}, mqtt.NotAuthorized},
		"broken authorization":          {[]string{"n,b=user,n=user,r=abc"}, mqtt.NotAuthorized},
		"mandatory extension":           {[]string{"n,,m=x,n=user,r=abc"}, mqtt.NotAuthorized},
		"no user":                       {[]string{"n,,n=,r=abc"}, mqtt.NotAuthorized},
		"broken escape":                 {[]string{"n,,n=a=2Db,r=abc"}, mqtt.NotAuthorized},
		"no nonce":                      {[]string{"n,,n=user"}, mqtt.NotAuthorized},
		"empty nonce":                   {[]string{"n,,n=user,r="}, mqtt.NotAuthorized},
		"blank in nonce":                {[]string{"n,,n=user,r=a b"}, mqtt.NotAuthorized},
		"too long":                      {[]string{"n,,n=user,r=" + strings.Repeat("a", scramBytesMax)}, mqtt.NotAuthorized},
		"wrong proof":                   {last("p=d", "p=e"), mqtt.BadUserNameOrPassword},
		"short proof":                   {last("p=dHzb", "p="), mqtt.NotAuthorized},
		"no proof":                      {[]string{vectorFirst, "c=biws,r=x"}, mqtt.NotAuthorized},
		"another nonce":                 {last("r=rO", "r=rX"), mqtt.NotAuthorized},
		"the client's nonce only":       {[]string{vectorFirst, "c=biws,r=rOprNGfwEbeRWgbNEkqO,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="}, mqtt.NotAuthorized},
		"another header than the first": {last("c=biws", "c=eSws"), mqtt.NotAuthorized},
		"a header changed on the way":   {[]string{"y" + vectorFirst[1:], vectorFinal}, mqtt.NotAuthorized},
		"an empty end":                  {[]string{vectorFirst, ""}, mqtt.NotAuthorized},
	} {
		t.Run(name, func(t *testing.T) {
			e := vectorExchange(t)
			for i, m := range x.messages {
				_, done, err := e.Step([]byte(m))
				if done {
					t.Fatal("done")
				}
				if i < len(x.messages)-1 {
					if err != nil {
						t.Fatal(err)
					}
					continue
				}
				if err, ok := err.(*Error); !ok || err.Reason != x.reason {
					t.Errorf("%v", err)
				}
			}
			if _, done, err := e.Step([]byte(vectorFinal)); done || err == nil || e.Identity() != nil {
				t.Error("a refused exchange goes on")
			}
		})
	}
}

func TestScramIsOfferedOnlyWithScramLines(t *testing.T) {
	only, err := New(&Sources{Passwords: &File{Data: []byte("user:" + ScramVerifier([]byte("x"), 10, nil))}, Methods: []string{"certificate"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		r      *Rules
		method string
	}{
		"another method":      {vectorRules(t), "SCRAM-SHA-1"},
		"no SCRAM lines":      {rulesWith(t, mosquittoPasswords), "SCRAM-SHA-256"},
		"no password file":    {rulesOf(t, ""), "SCRAM-SHA-256"},
		"passwords not asked": {only, "SCRAM-SHA-256"},
	} {
		if _, err := x.r.Begin(x.method, &Credentials{}, noon); err == nil || err.(*Error).Reason != mqtt.BadAuthenticationMethod {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestScramUserNameOfConnectMustBeTheSame(t *testing.T) {
	if _, _, err := begin(t, vectorRules(t), "user").Step([]byte(vectorFirst)); err != nil {
		t.Error(err)
	}
	if _, _, err := begin(t, vectorRules(t), "other").Step([]byte(vectorFirst)); err == nil || err.(*Error).Reason != mqtt.BadUserNameOrPassword {
		t.Errorf("%v", err)
	}
}

// An unknown user, and one without a SCRAM line, are shown a salt that stays
// the same and is nobody's, and fail where a wrong password does.
func TestScramDoesNotTellWhoExists(t *testing.T) {
	r, same := vectorRules(t), vectorRules(t)
	salts := map[string]bool{}
	for _, user := range []string{"nobody", "plain", "other"} {
		replyOf := func(r *Rules) string {
			reply, done, err := begin(t, r, "").Step([]byte("n,,n=" + user + ",r=abc"))
			if done || err != nil {
				t.Fatal(err)
			}
			_, rest, _ := strings.Cut(string(reply), ",")
			return rest
		}
		first := replyOf(r)
		if again := replyOf(same); again != first {
			t.Errorf("%s: %s, then %s", user, first, again)
		}
		salt, cost, _ := strings.Cut(first, ",")
		raw, err := base64.StdEncoding.DecodeString(salt[2:])
		if cost != "i=4096" || err != nil || len(raw) != 16 || salts[salt] {
			t.Errorf("%s: %s", user, first)
		}
		salts[salt] = true
		if _, err := converse(t, begin(t, r, ""), user, "pencil"); err == nil || err.(*Error).Reason != mqtt.BadUserNameOrPassword {
			t.Errorf("%s: %v", user, err)
		}
	}
}

// With a secret of the caller's, a changed password file does not give unknown
// users away.
func TestScramSaltsOfUnknownUsersOutliveAReload(t *testing.T) {
	replies := map[string]bool{}
	for _, other := range []string{"a", "b"} {
		r, err := New(&Sources{Secret: []byte("stays"), Passwords: &File{Data: []byte(other + ":" + ScramVerifier([]byte("x"), 10, nil))}})
		if err != nil {
			t.Fatal(err)
		}
		reply, _, err := begin(t, r, "").Step([]byte("n,,n=nobody,r=abc"))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(reply), ",")
		replies[rest] = true
	}
	if len(replies) != 1 {
		t.Errorf("%v", replies)
	}
}

// converse lets another implementation log in.
func converse(t *testing.T, e *Exchange, user, password string) (*Identity, error) {
	t.Helper()
	client, err := scram.SHA256.NewClient(user, password, "")
	if err != nil {
		t.Fatal(err)
	}
	talk := client.NewConversation()
	var reply []byte
	for done := false; !done; {
		m, err := talk.Step(string(reply))
		if err != nil {
			t.Fatal(err)
		}
		if reply, done, err = e.Step([]byte(m)); err != nil {
			return nil, err
		}
	}
	if _, err := talk.Step(string(reply)); err != nil || !talk.Valid() {
		t.Errorf("the client does not believe the server: %v", err)
	}
	return e.Identity(), nil
}

func TestScramWithAnotherClient(t *testing.T) {
	const user, password = "a,b=c é", "pass wörd,=x"
	r := rulesWith(t, user+":"+ScramVerifier([]byte(password), 4096, nil)+"\n")
	id, err := converse(t, begin(t, r, user), user, password)
	if err != nil || id.User != user {
		t.Errorf("%+v %v", id, err)
	}
	if _, err := converse(t, begin(t, r, ""), user, "wr0ng"); err == nil {
		t.Error("a wrong password is accepted")
	}
	expectIn(t, r, login(user, password), user, "password")
}

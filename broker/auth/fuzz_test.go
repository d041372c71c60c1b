package auth

import (
	"bytes"
	"strings"
	"testing"
)

// Any file is refused, or gives permits of which Can, Explain and Covers agree.
func FuzzACL(f *testing.F) {
	f.Add([]byte(busyACL), "u", "c", []byte("dev/u/x"))
	f.Add([]byte("topic deny #\npattern subscribe %c/+/%u\ntopic read $SYS/#"), "+", "a/b", []byte("$share/g/#"))
	f.Add([]byte("user\ntopic\n#\n\xff\x00 pattern % %u"), "", "", []byte(""))
	f.Fuzz(func(t *testing.T, acl []byte, user, client string, topic []byte) {
		r, err := New(&Sources{ACL: &File{Name: "f", Data: acl}})
		if err != nil {
			if n := strings.Count(err.Error(), "\n"); n > problemsMax*2 {
				t.Fatalf("%d lines of errors", n)
			}
			return
		}
		for _, user := range []string{user, "", "u"} {
			p := r.Permit(&Identity{User: user}, client)
			for _, a := range []Action{Publish, Receive, Subscribe} {
				ok, why := p.Explain(a, topic)
				if got := p.Can(a, topic); got != ok {
					t.Fatalf("%s %q: Can %v, Explain %v %q", a, topic, got, ok, why)
				}
			}
			if len(topic) > 0 && checkFilter(topic) == nil && p.Covers(topic) && !p.Can(Subscribe, topic) {
				if _, any := p.find(maySubscribe, func(*rule) bool { return true }); any == nil {
					t.Fatalf("%q is covered but cannot be subscribed to", topic)
				}
			}
		}
	})
}

// Any file comes out as it went in, and can be edited.
func FuzzPasswordFile(f *testing.F) {
	f.Add([]byte(mosquittoPasswords), "alice")
	f.Add([]byte("# x\r\nu:"+ScramVerifier([]byte("x"), 1, nil)+"\nu:$2a$10$\n\xff:\x00"), "u")
	verifier := HashPassword([]byte("pw"), 1, []byte("salt"))
	f.Fuzz(func(t *testing.T, data []byte, user string) {
		file := &File{Name: "f", Data: data}
		p, err := ParsePasswordFile(file)
		if !bytes.Equal(p.Bytes(), data) {
			t.Fatalf("%q became %q", data, p.Bytes())
		}
		if _, err2 := New(&Sources{Passwords: file}); (err == nil) != (err2 == nil) {
			t.Fatalf("%v, but %v", err, err2)
		}
		if p.Set(user, verifier) != nil {
			return
		}
		again, _ := ParsePasswordFile(&File{Data: p.Bytes()})
		n := 0
		for _, l := range again.lines {
			if l.user == user {
				n++
			}
		}
		if n != 1 {
			t.Fatalf("user %q has %d lines in %q", user, n, p.Bytes())
		}
		if !again.Delete(user) || again.Delete(user) {
			t.Fatalf("user %q was not deleted", user)
		}
	})
}

// Nobody comes in without the password, whatever is sent.
func FuzzScram(f *testing.F) {
	f.Add([]byte(vectorFirst), []byte(vectorFinal))
	f.Add([]byte("y,a=user,n=user,r=x,ext"), []byte("c=eSxhPXVzZXIs,r=x,p=AAAA"))
	f.Add([]byte(""), []byte("n,,n==2C=3D,r=!"))
	r := vectorRules(f)
	f.Fuzz(func(t *testing.T, first, second []byte) {
		e, err := r.Begin("SCRAM-SHA-256", &Credentials{}, noon)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range [][]byte{first, second, second} {
			reply, done, err := e.Step(m)
			if done || e.Identity() != nil {
				t.Fatal("came in")
			}
			if len(reply) > 2*scramBytesMax || err != nil && reply != nil {
				t.Fatalf("%d bytes, %v", len(reply), err)
			}
		}
	})
}

// Nobody comes in without the key, whatever is sent.
func FuzzJWT(f *testing.F) {
	o := secretOptions()
	o.PublicKeys = []File{{Name: "k", Data: pemOf(f, signers()["ES256"])}}
	r := tokenRules(f, o)
	f.Add([]byte("eyJhbGciOiJub25lIn0.eyJzdWIiOiJkZXYiLCJleHAiOjE5MDAwMDAwMDB9."))
	f.Add([]byte("eyJhbGciOiJIUzI1NiIsImtpZCI6W119.eyJzdWIiOiJkZXYifQ.AAAA"))
	f.Add([]byte(sign(f, "HS256", []byte("another"), nil, claimsWith(nil))))
	f.Fuzz(func(t *testing.T, token []byte) {
		id, err := r.Authenticate(login("u", string(token)), noon)
		if e, ok := err.(*Error); id != nil || !ok || len(e.Text) > 200 {
			t.Fatalf("%+v %v", id, err)
		}
	})
}

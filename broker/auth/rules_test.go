package auth

import (
	"strings"
	"testing"

	"sluice/broker/mqtt"
)

func TestChain(t *testing.T) {
	passwords := &File{Name: "pw", Data: []byte("u:" + HashPassword([]byte("pw"), 10, nil) + "\n")}
	nothing := &Credentials{ClientID: "c"}
	empty := login("", "")
	wrong, right := login("u", "wr0ng"), login("u", "pw")
	cert := func(c Credentials) *Credentials { c.CertificateUser = "dev"; return &c }
	anon := func(c Credentials) *Credentials { c.Anonymous = true; return &c }
	const in0, bad, not = mqtt.Success, mqtt.BadUserNameOrPassword, mqtt.NotAuthorized
	for _, x := range []struct {
		name    string
		s       Sources
		c       *Credentials
		user    string
		by      string
		refused mqtt.Reason
		cheap   bool
	}{
		{"nothing is configured, nobody is let in", Sources{}, nothing, "", "", not, true},
		{"nothing is configured, anonymous listener", Sources{}, anon(*nothing), "", "anonymous", in0, true},
		{"an unproved name is worth nothing", Sources{}, anon(*right), "", "anonymous", in0, true},
		{"an unproved name is refused where anonymous is not allowed", Sources{}, right, "", "", not, true},
		{"right password", Sources{Passwords: passwords}, right, "u", "password", in0, false},
		{"wrong password", Sources{Passwords: passwords}, wrong, "", "", bad, false},
		{"wrong password does not become anonymous", Sources{Passwords: passwords}, anon(*wrong), "", "", bad, false},
		{"no password", Sources{Passwords: passwords}, anon(*login("u", "")), "", "", bad, true},
		{"nothing shown", Sources{Passwords: passwords}, nothing, "", "", not, true},
		{"nothing shown, anonymous listener", Sources{Passwords: passwords}, anon(*nothing), "", "anonymous", in0, true},
		{"empty name and password are nothing", Sources{Passwords: passwords}, anon(*empty), "", "anonymous", in0, true},
		{"a certificate overrides the user name", Sources{Passwords: passwords}, cert(*wrong), "dev", "certificate", in0, true},
		{"a certificate alone", Sources{}, cert(*nothing), "dev", "certificate", in0, true},
		{"a certificate on an anonymous listener", Sources{}, anon(*cert(*nothing)), "dev", "certificate", in0, true},
		{"a certificate does not count where it is not asked for", Sources{Passwords: passwords, Methods: []string{"password"}}, cert(*wrong), "", "", bad, false},
		{"password before certificate", Sources{Passwords: passwords, Methods: []string{"password", "certificate"}}, cert(*right), "u", "password", in0, false},
		{"password before certificate, wrong", Sources{Passwords: passwords, Methods: []string{"password", "certificate"}}, cert(*wrong), "dev", "certificate", in0, false},
		{"no methods although there are passwords", Sources{Passwords: passwords, Methods: []string{}}, right, "", "", not, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			r, err := New(&x.s)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Cheap(x.c); got != x.cheap {
				t.Errorf("Cheap: %v", got)
			}
			if x.refused != in0 {
				expectOut(t, r, x.c, x.refused)
			} else {
				expectIn(t, r, x.c, x.user, x.by)
			}
		})
	}
}

func TestMethodsThatCannotBe(t *testing.T) {
	_, err := New(&Sources{Methods: []string{"password", "jwt", "certificate", "kerberos", "certificate"}, ACL: &File{Name: "acl", Data: []byte("junk")}})
	for _, want := range []string{`"password" needs a password file`, `"jwt" needs keys`, `"kerberos" is not one of`, `"certificate" is there twice`, "acl:1:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("missing %s in %v", want, err)
		}
	}
}

func TestPermitOfNobodyIsABug(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	rulesOf(t, "").Permit(nil, "c")
}

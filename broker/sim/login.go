package sim

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/broker/auth"
	"sluice/broker/mqtt"
)

// DESIGN. In some runs clients have to say who they are: each device is of one
// of three users, by password or SCRAM. Whoever judges passwords takes his time,
// or is too busy; the listener lets nobody in who shows nothing. Now and then a
// device has a wrong password: its CONNECT must not be accepted, and what it
// sent behind it must never be seen. And an impostor, who has proved to be somebody
// else, comes with the client id of a device: he must not get its session, nor
// end it.

const (
	users       = 3
	scramMethod = "SCRAM-SHA-256"
	iterations  = 2 // of password hashes: what they cost is not tested here
	salt        = "saltsaltsalt"
)

func (d *device) secret() string { return secretOf(d.user) }

func secretOf(user string) string { return "secret of " + user }

// passwords are the users of all runs. The first has no line for SCRAM, the last
// no other.
var passwords = sync.OnceValue(func() []byte {
	var b strings.Builder
	for i := range users + 2 {
		name := [users + 2]string{"user-0", "user-1", "user-2", "hostile", "probe"}[i]
		if i != users-1 {
			fmt.Fprintf(&b, "%s:%s\n", name, auth.HashPassword([]byte(secretOf(name)), iterations, []byte(salt)))
		}
		if i == 1 || i == 2 {
			fmt.Fprintf(&b, "%s:%s\n", name, auth.ScramVerifier([]byte(secretOf(name)), iterations, []byte(salt)))
		}
	}
	return []byte(b.String())
})

// guardOptions are strict, and soon forgive.
func guardOptions() auth.GuardOptions {
	o := auth.DefaultGuardOptions()
	o.FailuresMax, o.Window, o.RefuseFor = 5, 3*time.Second, 2*time.Second
	o.SlowMin, o.SlowMax = 20*time.Millisecond, time.Second
	o.EntriesMax = 64
	return o
}

var errBusy = errors.New("simulated overload")

// offload is worker.Options.Offload.
func (h *host) offload(f func()) error {
	w := h.w
	if !w.healing && w.chance(w.cfg.busy) {
		return errBusy
	}
	h.later(pick(w, time.Millisecond, 100*time.Millisecond, 2*time.Second, 15*time.Second), func(bool) {
		w.note("judge", "host", 0, 0, "")
		f()
	})
	return nil
}

// wall is the wall clock of the broker's machine.
func (w *World) wall() time.Time { return time.Unix(1_700_000_000, int64(w.now)) }

// identify puts into a CONNECT who the device is, or with l.wrong what must not
// do.
func (d *device) identify(l *link, p *mqtt.Connect) {
	w := d.w
	if d.user == "" {
		return
	}
	user, secret := d.user, d.secret()
	if l.wrong {
		switch w.rng.IntN(5) {
		case 0:
			user = "nobody"
		case 1:
			secret = secretOf("probe")
		case 2:
			secret = ""
		case 3:
			user = ""
		default:
			secret += "x"
		}
	}
	if d.version == mqtt.V5 && (d.user == "user-1" || d.user == "user-2") && w.chance(0.4) {
		if l.wrong && (user == d.user && secret == d.secret()) {
			secret = "no"
		}
		if user == "" {
			user = "nobody"
		}
		l.scram = &scramClient{user: user, secret: secret, nonce: "nonce" + strconv.Itoa(w.opened)}
		p.Props.AuthMethod, p.Props.AuthData = []byte(scramMethod), l.scram.first()
		return
	}
	p.HasUsername, p.Username = user != "", []byte(user)
	p.HasPassword, p.Password = secret != "", []byte(secret)
}

// scramClient is the client's side of SCRAM-SHA-256 (RFC 5802).
type scramClient struct {
	user, secret, nonce string
	signature           string // what the server must show
	done                bool
}

func (c *scramClient) bare() string  { return "n=" + c.user + ",r=" + c.nonce }
func (c *scramClient) first() []byte { return []byte("n,," + c.bare()) }

// final answers the server's challenge; nil if that is wrong.
func (c *scramClient) final(challenge string) []byte {
	f := strings.Split(challenge, ",")
	if len(f) != 3 || !strings.HasPrefix(f[0], "r="+c.nonce) || !strings.HasPrefix(f[1], "s=") || !strings.HasPrefix(f[2], "i=") {
		return nil
	}
	s, err := base64.StdEncoding.DecodeString(f[1][2:])
	n, err2 := strconv.Atoi(f[2][2:])
	if err != nil || err2 != nil || n > 1000 {
		return nil
	}
	salted, err := pbkdf2.Key(sha256.New, c.secret, s, n, sha256.Size)
	if err != nil {
		return nil
	}
	without := "c=biws," + f[0]
	message := c.bare() + "," + challenge + "," + without
	key := hmac256(salted, "Client Key")
	stored := sha256.Sum256(key)
	proof := hmac256(stored[:], message)
	for i := range proof {
		proof[i] ^= key[i]
	}
	c.signature = "v=" + base64.StdEncoding.EncodeToString(hmac256(hmac256(salted, "Server Key"), message))
	return []byte(without + ",p=" + base64.StdEncoding.EncodeToString(proof))
}

func hmac256(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// onAuth takes an AUTH from the broker.
func (l *link) onAuth(a *mqtt.Auth) {
	l.d.w.note("< AUTH", l.name, int64(a.Reason), 0, "")
	c := l.scram
	if c == nil || c.done || a.Reason != mqtt.ContinueAuthentication || string(a.Props.AuthMethod) != scramMethod {
		l.fail("protocol", "AUTH with reason %#x, method %q", uint8(a.Reason), a.Props.AuthMethod)
	}
	c.done = true
	final := c.final(string(a.Props.AuthData))
	if final == nil {
		l.fail("scram", "challenge %q", a.Props.AuthData)
	}
	r := mqtt.Auth{Reason: mqtt.ContinueAuthentication}
	r.Props.AuthMethod, r.Props.AuthData = []byte(scramMethod), final
	l.send("AUTH", 0, mqtt.AppendAuth(nil, &r))
}

// judgeLogin: CONNACK 0 is for those only who have shown the right thing, and the
// server shows that it knows it, too.
func (l *link) judgeLogin(p *mqtt.Connack) {
	if l.wrong {
		l.fail("let in", "CONNACK 0 with a wrong password")
	}
	if l.scram != nil && (string(p.Props.AuthMethod) != scramMethod || string(p.Props.AuthData) != l.scram.signature) {
		l.fail("scram", "the server's signature is %q, expected %q", p.Props.AuthData, l.scram.signature)
	}
	if l.will != nil {
		if ever, _ := l.d.allowedTo(l.opened, toWrite, l.will.topic); !ever {
			l.fail("forbidden", "CONNACK 0 with a will on %q, which %s may not publish", l.will.topic, l.d.user)
		}
	}
	l.d.w.counts.Logins++
}

// onRefused takes a CONNACK that refuses.
func (l *link) onRefused(code byte) {
	d, c := l.d, &l.d.w.cfg
	ok := func(r mqtt.Reason) bool {
		if l.version == mqtt.V5 {
			return code == byte(r)
		}
		return code == r.Connack311()
	}
	forbidden := false
	if l.will != nil {
		_, always := d.allowedTo(l.opened, toWrite, l.will.topic)
		forbidden = !always && ok(mqtt.NotAuthorized)
	}
	busy := c.busy > 0 && !l.healed
	if !c.auth || d.user == "" ||
		!(forbidden || l.wrong && (ok(mqtt.BadUserNameOrPassword) || ok(mqtt.NotAuthorized)) ||
			ok(mqtt.ServerBusy) && busy || ok(mqtt.ConnectionRateExceeded) && c.wrong > 0 ||
			ok(mqtt.ClientIDNotValid) && d.imposed(l)) {
		l.fail("refused", "CONNACK with code %#x, wrong password: %v", code, l.wrong)
	}
	l.refused = true
	l.excuse |= turnedAway
	d.w.counts.Refused++
	if l.will != nil {
		l.will.voided = true
	}
}

// mayBeRefused tells whether there is any reason to refuse the CONNECT.
func (l *link) mayBeRefused() bool {
	c := &l.d.w.cfg
	return l.d.user != "" && (l.wrong || c.busy > 0 && !l.healed || c.wrong > 0 || c.acl && l.will != nil || l.d.imposed(l))
}

// imposed tells whether an impostor may have the client id.
func (d *device) imposed(l *link) bool {
	for _, m := range d.impostors {
		if m.s.closedAt == 0 || m.s.closedAt > l.opened {
			return true
		}
	}
	return false
}

// pipeline sends something behind a CONNECT that must be refused.
func (l *link) pipeline() {
	d := l.d
	p := d.w.newPub(d, pick(d.w, plainTopics...), 0)
	p.voided, p.first, p.sends, p.fresh = true, d.w.next(), 1, 1
	m := mqtt.Publish{Topic: []byte(p.topic), Payload: p.payload()}
	l.send("PUBLISH", p.n, mqtt.AppendPublish(nil, &m, l.version))
}

// impostor comes with the client id of a device, as another user, and leaves.
type impostor struct {
	d       *device
	version mqtt.Version
	s       *sock
	in      []byte
}

// impose makes an impostor come.
func (d *device) impose() {
	w := d.w
	if d.user == "" || !w.host.up || len(d.impostors) > 0 && d.impostors[len(d.impostors)-1].s.closedAt == 0 {
		return
	}
	m := &impostor{d: d, version: pick(w, mqtt.V311, mqtt.V5)}
	d.impostors = append(d.impostors, m)
	m.s = w.open(m)
	other := "hostile"
	c := mqtt.Connect{Version: m.version, Clean: true, ClientID: []byte(d.id), HasUsername: true, Username: []byte(other),
		HasPassword: true, Password: []byte(secretOf(other))}
	if m.version == mqtt.V5 {
		c.Clean = w.chance(0.5)
	}
	m.s.send(w, mqtt.AppendConnect(nil, &c))
	w.counts.Impostors++
}

// String names the impostor in the trace.
func (m *impostor) String() string  { return "as " + m.d.id }
func (m *impostor) ended(bool)      {}
func (m *impostor) arrived(int)     {}
func (m *impostor) reluctant() bool { return false }

func (m *impostor) receive(b []byte) {
	w := m.d.w
	m.in = append(m.in, b...)
	h, n, err := mqtt.ParseHeader(m.in, 0)
	if err != nil {
		w.fail("codec", "the broker sends what is no packet: %v", err)
	}
	if n == 0 || len(m.in) < n+h.Remaining || m.s.gone {
		return
	}
	var p mqtt.Connack
	if h.Type == mqtt.CONNACK {
		err = mqtt.DecodeConnack(&p, m.in[n:n+h.Remaining], m.version)
	}
	if err != nil || h.Type != mqtt.CONNACK || p.SessionPresent {
		w.fail("impostor", "%v with session present %v, error %v, for another user with the client id %s", h.Type, p.SessionPresent, err, m.d.id)
	}
	w.note("< CONNACK", m.String(), int64(p.Code), 0, "")
	m.s.leave()
}

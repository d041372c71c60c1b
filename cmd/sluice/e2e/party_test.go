package e2e

import (
	"crypto/tls"
	"fmt"
	"hash/crc32"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	paho5lib "github.com/eclipse/paho.golang/paho"
	paho311lib "github.com/eclipse/paho.mqtt.golang"

	"sluice/cmd/sluice/e2e/rig"
)

// party is a client of some library, as far as all libraries have the same.
type party interface {
	subscribe(filter string, qos byte)
	publish(topic string, payload []byte, qos byte, retain bool)
	// inbox has a line for each message, see note.
	inbox() *inbox[string]
	// present tells whether the broker had its session.
	present() bool
	leave()
}

// partyOptions say what a party is.
type partyOptions struct {
	id      string
	durable bool
	will    string // topic; "": none
}

// library makes parties that connect to a URL and log in.
type library struct {
	name    string
	connect func(t testing.TB, url string, config *tls.Config, o partyOptions) party
}

var libraries = []library{{"paho311", connect311}, {"paho5", connect5}}

// note is a message in one line. A long payload is given by its sum.
func note(topic string, payload []byte, qos byte, retained bool) string {
	s := fmt.Sprintf("%s %s qos%d", topic, digest(payload), qos)
	if retained {
		s += " retained"
	}
	return s
}

func digest(payload []byte) string {
	const longest = 64
	if len(payload) <= longest {
		return string(payload)
	}
	return fmt.Sprintf("%d bytes %08x", len(payload), crc32.ChecksumIEEE(payload))
}

// party311 is paho.mqtt.golang.
type party311 struct {
	t       testing.TB
	c       paho311lib.Client
	in      inbox[string]
	session bool
}

func connect311(t testing.TB, url string, config *tls.Config, o partyOptions) party {
	t.Helper()
	p := &party311{t: t}
	opt := paho311lib.NewClientOptions().AddBroker(url).SetClientID(o.id).SetAutoReconnect(false).SetTLSConfig(config).
		SetUsername(user).SetPassword(password).SetCleanSession(!o.durable).SetConnectTimeout(patience).
		SetDefaultPublishHandler(func(_ paho311lib.Client, m paho311lib.Message) {
			p.in.put(note(m.Topic(), m.Payload(), m.Qos(), m.Retained()))
		})
	if o.will != "" {
		opt.SetWill(o.will, "gone", 1, false)
	}
	p.c = paho311lib.NewClient(opt)
	token := p.c.Connect()
	complete(t, token)
	p.session = token.(*paho311lib.ConnectToken).SessionPresent()
	t.Cleanup(p.leave)
	return p
}

func (p *party311) subscribe(filter string, qos byte) { complete(p.t, p.c.Subscribe(filter, qos, nil)) }

func (p *party311) publish(topic string, payload []byte, qos byte, retain bool) {
	complete(p.t, p.c.Publish(topic, qos, retain, payload))
}

func (p *party311) inbox() *inbox[string] { return &p.in }

func (p *party311) present() bool { return p.session }

func (p *party311) leave() {
	const grace = 250 * time.Millisecond // for what the library still has to write
	p.c.Disconnect(uint(grace.Milliseconds()))
}

// party5 is paho.golang, over the connections of the rig: the library leaves
// dialling to its user.
type party5 struct {
	*client5
	in inbox[string]
}

func connect5(t testing.TB, url string, config *tls.Config, o partyOptions) party {
	t.Helper()
	p := &party5{}
	p.client5 = paho5(t, "", o.id, func(cfg *paho5lib.ClientConfig, cp *paho5lib.Connect) {
		conn, err := rig.Dial(within(t), url, config)
		must(t, err)
		cfg.Conn = packets.NewThreadSafeConn(conn) // the library writes a packet by several calls
		cfg.OnPublishReceived = []func(paho5lib.PublishReceived) (bool, error){func(r paho5lib.PublishReceived) (bool, error) {
			p.in.put(note(r.Packet.Topic, r.Packet.Payload, r.Packet.QoS, r.Packet.Retain))
			return true, nil
		}}
		login5(user, password)(cfg, cp)
		if o.durable {
			durable5(1000)(cfg, cp)
		}
		if o.will != "" {
			cp.WillMessage = &paho5lib.WillMessage{Topic: o.will, Payload: []byte("gone"), QoS: 1}
		}
	})
	return p
}

// login5 sets user and password.
func login5(user, password string) func(*paho5lib.ClientConfig, *paho5lib.Connect) {
	return func(_ *paho5lib.ClientConfig, cp *paho5lib.Connect) {
		cp.Username, cp.UsernameFlag, cp.Password, cp.PasswordFlag = user, true, []byte(password), true
	}
}

func (p *party5) subscribe(filter string, qos byte) {
	p.client5.subscribe(0, paho5lib.SubscribeOptions{Topic: filter, QoS: qos})
}

func (p *party5) publish(topic string, payload []byte, qos byte, retain bool) {
	p.client5.publish(&paho5lib.Publish{Topic: topic, Payload: payload, QoS: qos, Retain: retain})
}

func (p *party5) inbox() *inbox[string] { return &p.in }

func (p *party5) present() bool { return p.connack.SessionPresent }

func (p *party5) leave() {
	must(p.t, p.Disconnect(&paho5lib.Disconnect{}))
	<-p.Done()
}

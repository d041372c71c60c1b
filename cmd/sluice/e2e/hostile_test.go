package e2e

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// TestHostileFirstBytes: whoever does not begin with a CONNECT is closed, at
// once or after the time that there is for it, and cannot make the broker hold
// memory by what it declares.
func TestHostileFirstBytes(t *testing.T) {
	t.Parallel()
	b := startGateway(t, &rig.Gateway{Binary: plainBinary, Config: "[limits]\nconnect_timeout = \"2s\"\n"})
	control := b.control()
	attacks := map[string]string{
		"a CONNECT of 256 MiB":             "\x10\xff\xff\xff\x7f",
		"a length without end":             "\x10\xff\xff\xff\xff\xff",
		"a PUBLISH of 256 MiB":             "\x30\xff\xff\xff\x7f",
		"a packet type that there is not":  "\x00\x00",
		"a CONNECT just above the limit":   "\x10\xff\xff\x01",
		"TLS":                              "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"HTTP":                             "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"half of a CONNECT, and silence":   "\x10\x20\x00\x04MQ",
		"silence":                          "",
		"an unknown protocol":              "\x10\x0c\x00\x04AMQP\x04\x02\x00\x00\x00\x00",
		"a client id longer than CONNECT":  "\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\xff\xffab",
		"a PINGREQ before CONNECT":         "\xc0\x00",
		"a will that says it is 64 KiB":    "\x10\x14\x00\x04MQTT\x04\x06\x00\x00\x00\x01a\x00\x01t\xff\xffab",
		"a property length beyond the end": "\x10\x0f\x00\x04MQTT\x05\x02\x00\x00\xff\xff\x7f\x00\x00",
	}
	b.attack(attacks, 100) // buffers and pools grow to what the work needs
	before := b.quiet()
	b.attack(attacks, 1000)
	after := b.quiet()
	control.finish()
	t.Logf("before %v, after %v", before, after)
	if after.Descriptors > before.Descriptors {
		t.Errorf("descriptors: %d before, %d after", before.Descriptors, after.Descriptors)
	}
	const growthMax = 8 << 20
	if grown := after.HeapBytes - before.HeapBytes; grown > growthMax {
		t.Errorf("%d KiB more than before", grown>>10)
	}
}

// attack opens n connections, writes each of the attacks on its share of them, and
// waits until the broker has closed all.
func (b *broker) attack(attacks map[string]string, n int) {
	b.t.Helper()
	var tasks sync.WaitGroup
	slots := make(chan struct{}, 8) // dialling at once
	for what, bytes := range attacks {
		for range n / len(attacks) {
			tasks.Go(func() {
				slots <- struct{}{}
				c, err := net.Dial("tcp", b.Addr())
				<-slots
				if err != nil {
					b.t.Errorf("%s: %v", what, err)
					return
				}
				defer func() { _ = c.Close() }()
				_, _ = c.Write([]byte(bytes)) // it may be closed meanwhile
				if !(rawConn{c, b.t}).closed(patience) {
					b.t.Errorf("%s: still open", what)
				}
			})
		}
	}
	tasks.Wait()
}

// TestHostileClients: who is connected and then breaks the rules is closed, MQTT 5
// clients are told why, and nobody else notices.
func TestHostileClients(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	control := b.control()
	for packet, want := range map[string]mqtt.Reason{
		"\x36\x05\x00\x01a\x00\x01\x00":        mqtt.MalformedPacket, // QoS 3
		"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00": mqtt.ProtocolError,   // a second CONNECT, once complete
		"\x30\x04\x00\x01#\x00":                mqtt.TopicNameInvalid,
		"\x82\x03\x00\x01\x00":                 mqtt.ProtocolError, // no filter
		"\x82\x07\x00\x00\x00\x00\x01a\x00":    mqtt.ProtocolError, // packet id 0
		"\xf1\x00":                             mqtt.MalformedPacket,
		"\x30\xff\xff\xff\x7f":                 mqtt.PacketTooLarge,
		"\x20\x03\x00\x00\x00":                 mqtt.ProtocolError, // CONNACK from a client
		"\x30\x05\x00\x02\xff\xfe\x00":         mqtt.MalformedPacket,
	} {
		for range 20 {
			c := raw(t, b.Addr(), "bad")
			if strings.HasPrefix(packet, "\x10") {
				packet = string(mqtt.AppendConnect(nil, &mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: []byte("bad")}))
			}
			c.send([]byte(packet))
			if got := c.disconnected(); got != want {
				t.Errorf("% x: disconnected with %v, want %v", packet, got, want)
			}
			if !c.closed(patience) {
				t.Errorf("% x: still open", packet)
			}
			must(t, c.Close())
		}
	}
	control.finish()
}

// TestSlowReader: a subscriber that reads nothing costs the broker a bounded
// amount of memory, and nobody else a message.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	b := startGateway(t, &rig.Gateway{Binary: plainBinary})
	control := b.control()
	stuck := raw(t, b.Addr(), "stuck")
	stuck.send(mqtt.AppendSubscribe(nil, &mqtt.Subscribe{PacketID: 1, Filters: []mqtt.SubscribeFilter{{Filter: []byte("test")}}}, mqtt.V5))
	if h, _ := stuck.packet(); h.Type != mqtt.SUBACK {
		t.Fatalf("%v instead of SUBACK", h.Type)
	}
	before := b.quiet()
	stop := b.flood("test")
	pass(3 * time.Second)
	stop()
	after := b.quiet()
	control.finish()
	t.Logf("before %v, after %v", before, after)
	const growthMax = 16 << 20 // output_bytes_max is 1 MiB
	if grown := after.HeapBytes - before.HeapBytes; grown > growthMax {
		t.Errorf("%d KiB more than before", grown>>10)
	}
}

package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"

	"sluice/broker/mqtt"
)

// DESIGN. gate5 is what guard does for MQTT 5, whose packets cannot be judged by their
// first bytes: it reads each as a whole, with our own strict decoder, before the
// library sees it. The library's decoder takes lengths and properties as they come.
//
// It also keeps the library's queue of messages empty. That queue holds as many
// messages as the receive maximum, of any size, and beyond every budget; so a PUBLISH is
// let through only when the one before has been taken over (turn). Meanwhile nothing
// else is read either, as in 3.1.1.
//
// What the upstream says beside messages ends here: the CONNACK is kept for its limits,
// a refusal and a DISCONNECT become the error that the connection ends with.
type gate5 struct {
	g  *guard
	in frames

	// These belong to the library's reading goroutine.
	rest    []byte // of the packet that is being handed out
	body    []byte // what follows rest
	greeted bool   // CONNACK has passed

	hello mqtt.Connack // of the CONNACK; its properties that are bytes are not kept

	turn chan struct{} // one element: the next PUBLISH may pass

	// Of the PUBLISH that passed last. Whoever has it reads them before giving the
	// turn back.
	pub     mqtt.Publish
	props   []byte // what belongs to the message
	scratch [5]byte
}

// errNot5 is that the upstream does not speak MQTT 5, for all that can be seen.
var errNot5 = errors.New("the upstream does not speak MQTT 5")

// v5 makes the guard judge packets as of MQTT 5. It is called before anybody reads.
func (g *guard) v5() *gate5 {
	g.five = &gate5{g: g, in: frames{src: g.in, max: g.maxBytes}, turn: make(chan struct{}, 1)}
	g.five.turn <- struct{}{}
	return g.five
}

// read hands out the next bytes of packets that were judged.
func (r *gate5) read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		r.rest, r.body = r.body, nil
	}
	if len(r.rest) == 0 {
		h, body, err := r.in.next()
		if err == nil {
			err = r.check(h, body)
		}
		if err != nil {
			return 0, err
		}
		r.rest = binary.AppendUvarint(append(r.scratch[:0], byte(h.Type)<<4|h.Flags), uint64(h.Remaining)) // the encoding of lengths is the same (MQTT5 1.5.5)
		r.body = body
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *gate5) check(h mqtt.Header, body []byte) error {
	bad := func(why any) error {
		return fmt.Errorf("packet from the upstream refused: type %d, %d bytes: %v", h.Type, h.Remaining, why)
	}
	if r.greeted != (h.Type != mqtt.CONNACK) {
		return bad("CONNACK comes first and once")
	}
	var err error
	switch h.Type {
	case mqtt.CONNACK:
		err = r.greet(body)
		r.greeted = true
		if err != nil {
			return err
		}
	case mqtt.PUBLISH:
		err = r.publish(h, body)
	case mqtt.PUBACK:
		var a mqtt.Ack
		err = mqtt.DecodeAck(&a, h.Type, body, mqtt.V5)
	case mqtt.SUBACK:
		var s mqtt.Suback
		err = mqtt.DecodeSuback(&s, h.Type, body, mqtt.V5)
		switch {
		case err != nil:
		case len(s.Codes) != 1:
			err = errors.New("one code was due, for one filter")
		case r.g.subacks.Add(-1) < 0:
			err = errors.New("none was due")
		}
	case mqtt.PINGRESP:
		if h.Remaining != 0 {
			err = errors.New("malformed")
		}
	case mqtt.DISCONNECT:
		var d mqtt.Disconnect
		if err = mqtt.DecodeDisconnect(&d, body, mqtt.V5); err == nil {
			return fmt.Errorf("the upstream disconnects us: %v%s", d.Reason, reasonText(d.Props.ReasonString))
		}
	default:
		err = errors.New("not for this client")
	}
	if err != nil {
		return bad(err)
	}
	return nil
}

// reasonText writes a reason string behind a reason.
func reasonText(s []byte) string {
	if len(s) == 0 {
		return ""
	}
	return fmt.Sprintf(" (%.200q)", s)
}

// greet reads a CONNACK. Servers of 3.1.1 answer in their own way, with two bytes
// [MQTT3.1.1 3.1.2-2].
func (r *gate5) greet(body []byte) error {
	if len(body) == 2 && body[1] != 0 && body[1] <= connack3Max {
		e := &connackError{version: mqtt.V311, code: body[1]}
		if body[1] == 1 {
			return fmt.Errorf("%w: %w", errNot5, e)
		}
		return e
	}
	if err := mqtt.DecodeConnack(&r.hello, body, mqtt.V5); err != nil {
		return fmt.Errorf("packet from the upstream refused: CONNACK: %w", err)
	}
	if r.hello.Code != 0 {
		e := &connackError{version: mqtt.V5, code: r.hello.Code, text: string(r.hello.Props.ReasonString)}
		if mqtt.Reason(r.hello.Code) == mqtt.UnsupportedProtocolVersion {
			return fmt.Errorf("%w: %w", errNot5, e)
		}
		return e
	}
	p := &r.hello.Props
	if p.AuthMethod != nil {
		return errors.New("packet from the upstream refused: CONNACK with an authentication method that we did not ask for [MQTT5 3.2.2.3.17]")
	}
	p.AssignedClientID, p.ResponseInfo, p.ServerReference, p.ReasonString, p.User = nil, nil, nil, nil, nil // alias the read buffer
	return nil
}

// publish waits until the message before was taken over.
func (r *gate5) publish(h mqtt.Header, body []byte) error {
	var p mqtt.Publish
	if err := mqtt.DecodePublish(&p, h.Flags, body, mqtt.V5); err != nil {
		return err
	}
	switch {
	case p.QoS > 1:
		return errors.New("QoS above the one subscribed")
	case p.TopicAlias != 0:
		return errors.New("a topic alias, which we did not allow [MQTT-3.3.2-9]")
	}
	select {
	case <-r.turn:
	case <-r.g.dead:
		return errUplinkClosed // the guard has its own
	}
	r.props = mqtt.AppendForwardProps(nil, &p)
	r.pub = mqtt.Publish{HasMessageExpiry: p.HasMessageExpiry, ExpirySeconds: p.ExpirySeconds}
	return nil
}

// done gives the turn back.
func (r *gate5) done() { r.turn <- struct{}{} }

// limits are those of the CONNACK.
func (r *gate5) limits() upLimits {
	p := &r.hello.Props
	l := upLimits{version: mqtt.V5, receiveMax: receiveMaxAny, packetBytes: mqtt.PacketBytesMax, qosMax: 2, retain: !p.RetainUnavailable}
	if p.ReceiveMax > 0 {
		l.receiveMax = int(p.ReceiveMax)
	}
	if n := p.MaxPacketBytes; n > 0 && n < mqtt.PacketBytesMax {
		l.packetBytes = int(n)
	}
	if p.HasMaxQoS {
		l.qosMax = uint8(p.MaxQoS)
	}
	return l
}

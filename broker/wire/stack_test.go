package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// echo serves one connection as the worker would, and sends back what comes.
func echo(c *end, l Layer) error {
	defer c.out.close()
	buf, plain := make([]byte, 3000), make([]byte, 0, 3000)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		got, inErr := l.In(plain[:0], buf[:n])
		wire, outErr := []byte(nil), error(nil)
		if len(got) > 0 || l.Pending() && inErr == nil {
			wire, outErr = l.Out(nil, got)
		}
		if inErr != nil {
			wire = l.Close(wire)
		}
		if _, err = c.Write(wire); err != nil || inErr != nil || outErr != nil {
			return err
		}
	}
}

// interop runs a client of another make against layers.
func interop(t *testing.T, url string, dial func(far *end, near *end, done chan<- error) (net.Conn, error)) {
	done := make(chan error, 1)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	connect := func(context.Context, string, string) (net.Conn, error) {
		near, far := newEnds()
		return dial(far, near, done)
	}
	transport.DialContext, transport.DialTLSContext = connect, connect
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{"mqtt"},
		CompressionMode: websocket.CompressionContextTakeover})
	if err != nil {
		t.Fatal(err)
	}
	if c.Subprotocol() != "mqtt" {
		t.Errorf("sub-protocol %q", c.Subprotocol())
	}
	stream := websocket.NetConn(ctx, c, websocket.MessageBinary)
	for _, n := range []int{1, 125, 126, 5000, 200_000} {
		want := pattern(n)
		wrote := make(chan error, 1)
		go func() { _, err := stream.Write(want); wrote <- err }()
		got := make([]byte, n)
		if _, err := io.ReadFull(stream, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
	}
	pong := make(chan error, 1)
	go func() { pong <- c.Ping(ctx) }()
	go func() { _, _ = stream.Read(make([]byte, 1)) }()
	if err := <-pong; err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("server: %v", err)
	}
}

func TestInteropWebSocket(t *testing.T) {
	interop(t, "ws://broker/mqtt", func(far, near *end, done chan<- error) (net.Conn, error) {
		go func() { done <- echo(far, NewWebSocket(&WebSocketOptions{Path: "/mqtt"})) }()
		return near, nil
	})
}

func TestInteropStack(t *testing.T) {
	eachVersion(t, func(t *testing.T, server, client *tls.Config) {
		interop(t, "wss://broker/mqtt", func(far, near *end, done chan<- error) (net.Conn, error) {
			go func() {
				l := NewTLS(far, nil, server)
				if err := l.Handshake(context.Background()); err != nil {
					done <- err
					return
				}
				l.Detach()
				done <- echo(far, NewStack(l, NewWebSocket(&WebSocketOptions{Path: "/mqtt"})))
			}()
			return tls.Client(near, client), nil
		})
	})
}

// stacked gives WebSocket over TLS after the upgrade.
func stacked(t testing.TB, server, client *tls.Config) (*pair, *Stack) {
	p := newPair(t, server, client)
	s := NewStack(p.layer, NewWebSocket(&WebSocketOptions{}))
	if _, err := s.In(nil, p.write([]byte(goodRequest))); err != nil || !s.Pending() {
		t.Fatal(err)
	}
	out, err := s.Out(nil, nil)
	if err != nil || s.Pending() {
		t.Fatal(err)
	}
	if got, err := p.receive(out); string(got) != goodAnswer || err != nil {
		t.Fatalf("%q %v", got, err)
	}
	return p, s
}

// All chunk sizes, and a dst that is too small, has bytes, or is not there.
func TestStackIn(t *testing.T) {
	eachVersion(t, func(t *testing.T, server, client *tls.Config) {
		r := rand.New(rand.NewPCG(7, 8))
		p, s := stacked(t, server, client)
		for range 50 {
			var wire, want []byte
			for range 5 {
				part := pattern(r.IntN(3000))
				wire = append(wire, p.write(frame(0x82, string(part)))...)
				want = append(want, part...)
			}
			scratch, got := make([]byte, r.IntN(3000)), []byte(nil)
			for len(wire) > 0 {
				n := min(1+r.IntN(4000), len(wire))
				had := r.IntN(len(scratch) + 1)
				if r.IntN(2) == 0 {
					had = 0
				}
				out, err := s.In(scratch[:had], wire[:n])
				if err != nil || had > 0 && !bytes.Equal(out[:had], scratch[:had]) {
					t.Fatal(err)
				}
				got = append(got, out[had:]...)
				wire = wire[n:]
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("got %d bytes of %d", len(got), len(want))
			}
		}
	})
}

func TestStackClose(t *testing.T) {
	eachVersion(t, func(t *testing.T, server, client *tls.Config) {
		p, s := stacked(t, server, client)
		if got, err := p.receive(s.Close(nil)); string(got) != "\x88\x02\x03\xe8" || err != io.EOF {
			t.Fatalf("%q %v", got, err)
		}

		// The data before both ends come, the WebSocket's end is the error.
		p, s = stacked(t, server, client)
		wire := p.write(frames(frame(0x82, "DISCONNECT"), frame(0x81, "")))
		_ = p.client.CloseWrite()
		got, err := s.In(nil, append(wire, p.sent()...))
		if _, ok := err.(*CloseError); string(got) != "DISCONNECT" || !ok {
			t.Fatalf("%q %v", got, err)
		}
		if got, err := p.receive(s.Close(nil)); string(got) != "\x88\x02\x03\xeb" || err != io.EOF {
			t.Fatalf("%q %v", got, err)
		}

		p, s = stacked(t, server, client)
		wire = p.write(frame(0x82, "x"))
		wire[len(wire)-1] ^= 1
		if _, err = s.In(nil, wire); err == nil {
			t.Fatal("corrupted record")
		}
		if got, err := p.receive(s.Close(nil)); len(got) != 0 || err == nil || err == io.EOF {
			t.Fatalf("%q %v", got, err)
		}
	})
}

// The buffer that Out borrows is never the caller's.
func TestStackPlain(t *testing.T) {
	s := NewStack(Plain{}, Plain{})
	for range 100 {
		src := []byte("abc")
		if b, err := s.Out(nil, src[:0]); len(b) != 0 || err != nil {
			t.Fatal(err)
		}
		if b, err := s.Out(nil, src); string(b) != "abc" || err != nil {
			t.Fatalf("%q %v", b, err)
		}
		other := NewStack(Plain{}, open(t, &WebSocketOptions{}))
		if _, err := other.Out(nil, []byte("xyz")); err != nil || string(src) != "abc" {
			t.Fatalf("%q %v", src, err)
		}
	}
	if b, err := s.In(nil, []byte("in")); string(b) != "in" || err != nil || s.Pending() || len(s.Close(nil)) != 0 {
		t.Fatalf("%q %v", b, err)
	}
}

package bridge

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	socks "golang.org/x/net/proxy"
)

// DESIGN. A proxy is one more step between TCP and TLS: the connection goes to the
// proxy, which is asked for one to the upstream, and is then as good as that. The
// upstream's name is resolved by the proxy. TLS is spoken with the upstream, so a proxy
// sees nothing but where it goes; over tcp:// and ws:// it sees everything.

// proxyServer is a parsed Options.Proxy.
type proxyServer struct {
	scheme         string // http or socks5
	host, port     string
	user, password string
}

// proxyPorts are the schemes with their ports by custom.
var proxyPorts = map[string]string{"http": "3128", "socks5": "1080"}

// parseProxy never repeats in an error what could be a password.
func parseProxy(s string) (p proxyServer, err error) {
	u, err := url.Parse(s)
	if err != nil {
		return p, errors.New("proxy is no URL")
	}
	p = proxyServer{scheme: u.Scheme, host: u.Hostname(), port: u.Port(), user: u.User.Username()}
	p.password, _ = u.User.Password()
	port, known := proxyPorts[p.scheme]
	switch {
	case !known:
		return p, errors.New("proxy: need http://[user:password@]host[:3128] or socks5://[user:password@]host[:1080]")
	case p.host == "":
		return p, errors.New("proxy has no host")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return p, errors.New("proxy has more than host and port")
	case p.scheme == "socks5" && (len(p.user) > 255 || len(p.password) > 255):
		return p, errors.New("proxy: user and password have at most 255 bytes each with socks5 (RFC 1929)")
	}
	if p.port == "" {
		p.port = port
	}
	return p, nil
}

// proxyAnswerMax bounds what a proxy may say before the connection is ours.
const proxyAnswerMax = 16 << 10

// dialProxy connects to an address by way of a proxy.
func dialProxy(ctx context.Context, o *Options, at address, told trace) (net.Conn, error) {
	p, err := parseProxy(o.Proxy)
	if err != nil {
		return nil, &stepError{stepProxy, err}
	}
	conn, err := dialTCP(ctx, o, p.host, p.port, told)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	ask := p.connect
	if p.scheme == "socks5" {
		ask = p.socks5
	}
	err = ask(ctx, conn, at.hostPort())
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, &stepError{stepProxy, err}
	}
	told.tell(stepProxy, "%s proxy %s connects us to %s", p.scheme, net.JoinHostPort(p.host, p.port), at.hostPort())
	return conn, nil
}

// connect asks an HTTP proxy (RFC 9110 9.3.6).
func (p *proxyServer) connect(_ context.Context, conn net.Conn, to string) error {
	ask := "CONNECT " + to + " HTTP/1.1\r\nHost: " + to + "\r\n"
	if p.user != "" {
		ask += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(p.user+":"+p.password)) + "\r\n"
	}
	if _, err := conn.Write([]byte(ask + "\r\n")); err != nil {
		return err
	}
	in := bufio.NewReader(io.LimitReader(conn, proxyAnswerMax))
	answer, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return fmt.Errorf("no answer to CONNECT: %w", err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("it answers %.100q", answer.Status)
	}
	if in.Buffered() > 0 {
		return errors.New("somebody speaks before we do, which no upstream does")
	}
	return nil
}

// socks5 asks a SOCKS proxy (RFC 1928, RFC 1929).
func (p *proxyServer) socks5(ctx context.Context, conn net.Conn, to string) error {
	var who *socks.Auth
	if p.user != "" {
		who = &socks.Auth{User: p.user, Password: p.password}
	}
	d, err := socks.SOCKS5("tcp", net.JoinHostPort(p.host, p.port), who, openConn{conn})
	if err != nil {
		return err
	}
	// What is returned is conn in a wrapping that has read no byte too many.
	_, err = d.(socks.ContextDialer).DialContext(ctx, "tcp", to)
	var inner *net.OpError
	if errors.As(err, &inner) {
		err = inner.Err
	}
	return err
}

// openConn is a dialer whose connection is there already.
type openConn struct{ net.Conn }

func (c openConn) Dial(string, string) (net.Conn, error) { return c.Conn, nil }

func (c openConn) DialContext(context.Context, string, string) (net.Conn, error) { return c.Conn, nil }

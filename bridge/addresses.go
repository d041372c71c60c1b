package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// DESIGN. Which address is dialled. addresses belongs to the supervisor: it asks
// for the current one, and tells how it went. Between the addresses of one round
// the wait is short; only when all have failed it becomes longer (Bridge.run).
//
// In order, the first address is the primary: a link that has lived starts the
// search from there again, and while a link is up with another one, the primary is
// dialled now and then, TCP and TLS only. If that succeeds, the link is drained and
// left for it. When the primary then does not hold, because it takes connections but
// is no broker, the next look at it comes later, up to returnMax.

// Failover tells in which order the addresses of an upstream are dialled.
type Failover string

// The orders.
const (
	FailoverOrder      Failover = "order"       // the first is the primary, the others are for when it fails
	FailoverRoundRobin Failover = "round-robin" // all are equal: always the next one
)

// returnMax is the longest wait between two looks at the primary.
const returnMax = time.Hour

var errPrimaryBack = errors.New("the primary address can be reached again")

type addresses struct {
	all     []address
	mode    Failover
	every   time.Duration // between looks at the primary; 0: none
	at      int           // the one to dial
	failed  int           // dialled in vain since the last link that held
	returns int           // returns to the primary in a row that did not hold
	back    bool          // the one to dial is the primary, returned to
}

func newAddresses(o *Options) *addresses {
	a := &addresses{mode: o.Failover, every: o.ReturnToPrimary}
	for _, s := range o.addresses() {
		one, err := parseAddress(s)
		if err != nil {
			panic("BUG: bridge: address that was not validated: " + err.Error())
		}
		a.all = append(a.all, one)
	}
	return a
}

func (a *addresses) current() address { return a.all[a.at] }

// lost notes that the current address failed, or that its link was lost; held: it
// had lived for StableAfter. It reports whether all addresses have failed in a row.
func (a *addresses) lost(held bool) (round bool) {
	if held {
		a.failed = 0
		if a.at == 0 {
			a.returns = 0
		}
	} else if a.back {
		a.returns++
	}
	a.back = false
	a.failed++
	round = a.failed%len(a.all) == 0
	switch {
	case a.mode == FailoverOrder && held:
		a.at = 0
	default:
		a.at = (a.at + 1) % len(a.all)
	}
	return round
}

// primaryBack makes the primary the current one.
func (a *addresses) primaryBack() { a.at, a.failed, a.back = 0, 0, true }

// look is how often a link with the current address looks at the primary; 0: never.
func (a *addresses) look() time.Duration {
	if a.mode != FailoverOrder || a.at == 0 || a.every <= 0 {
		return 0
	}
	every := a.every
	for range a.returns {
		if every = 2 * every; every >= returnMax {
			return max(returnMax, a.every)
		}
	}
	return every
}

// interfaceNameMax is IFNAMSIZ of Linux, with the zero at the end.
const interfaceNameMax = 16

// addresses returns all of them, the primary first.
func (o *Options) addresses() []string { return append([]string{o.Address}, o.MoreAddresses...) }

func (o *Options) validateAddresses() error {
	var errs []error
	for _, s := range o.addresses() {
		if _, err := parseAddress(s); err != nil {
			errs = append(errs, err)
		}
	}
	if o.Proxy != "" {
		if _, err := parseProxy(o.Proxy); err != nil {
			errs = append(errs, err)
		}
	}
	if len(o.Interface) >= interfaceNameMax && net.ParseIP(o.Interface) == nil {
		errs = append(errs, fmt.Errorf("interface %q: need a name of at most %d bytes, or an address", o.Interface, interfaceNameMax-1))
	}
	if o.Failover != FailoverOrder && o.Failover != FailoverRoundRobin {
		errs = append(errs, fmt.Errorf("failover %q: need order or round-robin", o.Failover))
	}
	if o.ReturnToPrimary < 0 {
		errs = append(errs, fmt.Errorf("return to primary %v: must not be negative", o.ReturnToPrimary))
	}
	return errors.Join(errs...)
}

// address is a parsed one of Options.
type address struct {
	scheme string // tcp, tls, ws or wss
	host   string // without port
	port   string
	path   string // of ws and wss
	query  string // likewise; it may be a secret
}

// addressKinds are the schemes, with what they mean.
var addressKinds = map[string]struct {
	tls, ws bool
	port    string // by default
}{
	"tcp": {port: "1883"},
	"tls": {tls: true, port: "8883"},
	"ws":  {ws: true, port: "80"},
	"wss": {tls: true, ws: true, port: "443"},
}

// defaultPath is where brokers take WebSockets by custom.
const defaultPath = "/mqtt"

// hostPort is where to dial.
func (a address) hostPort() string { return net.JoinHostPort(a.host, a.port) }

// String returns the address as a URL, without its query.
func (a address) String() string { return a.scheme + "://" + a.hostPort() + a.path }

// url is the whole of it.
func (a address) url() string {
	if a.query == "" {
		return a.String()
	}
	return a.String() + "?" + a.query
}

func (a address) tls() bool { return addressKinds[a.scheme].tls }

func (a address) ws() bool { return addressKinds[a.scheme].ws }

// parseAddress never repeats the address in an error where it could hold a
// password.
func parseAddress(s string) (address, error) {
	u, err := url.Parse(s)
	if err != nil {
		return address{}, errors.New("address is no URL")
	}
	if u.User != nil {
		return address{}, errors.New("address has credentials in it; use username and password")
	}
	kind, known := addressKinds[u.Scheme]
	if !known {
		return address{}, fmt.Errorf("address %q: need tcp://, tls://, ws:// or wss://", s)
	}
	a := address{scheme: u.Scheme, host: u.Hostname(), port: u.Port()}
	if a.port == "" {
		a.port = kind.port
	}
	if a.host == "" {
		return address{}, fmt.Errorf("address %q has no host", s)
	}
	if kind.ws && u.Fragment == "" {
		if a.path, a.query = u.EscapedPath(), u.RawQuery; a.path == "" {
			a.path = defaultPath
		}
		return a, nil
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return address{}, fmt.Errorf("address %q has more than host and port", s)
	}
	return a, nil
}

// lookAtPrimary starts a goroutine that tells watch when the primary can be reached
// again; it ends with the link. It does nothing if that is no question.
func (l *link) lookAtPrimary(where *addresses) {
	every := where.look()
	if every == 0 {
		return
	}
	primary := where.all[0]
	l.wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-l.done:
				return
			}
			if l.reaches(primary) {
				l.primaryBack.Store(true)
				return
			}
		}
	})
}

// reaches dials an address, TCP and TLS only, and hangs up.
func (l *link) reaches(a address) bool {
	ctx, cancel := l.context(l.opts.ConnectTimeout)
	defer cancel()
	_, raw, err := openSocket(ctx, l.opts, a, nil)
	if err != nil {
		return false
	}
	_ = raw.Close()
	return true
}

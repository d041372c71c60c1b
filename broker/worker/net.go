package worker

import (
	"net/netip"

	"sluice/platform"
	"sluice/platform/mono"
)

// Net is what a worker needs of the operating system. The simulator has its
// own.
type Net interface {
	Add(fd int, tag platform.Tag, writable bool) error
	AddListener(fd int, tag platform.Tag) error
	Modify(fd int, tag platform.Tag, readable, writable bool) error
	AwaitHangup(fd int, tag platform.Tag, writable bool) error // Modify, for one that is not read but must be seen to leave
	Remove(fd int) error
	Accept(fd int) (conn int, remote netip.AddrPort, err error)
	Read(fd int, b []byte) (int, error)
	Write(fd int, b []byte) (int, error)
	CloseFD(fd int) error

	// Wait waits for events until the deadline (0: none), or until Wake.
	Wait(dst []platform.Event, deadline mono.Time) (n int, woken bool, err error)
	// Wake makes Wait return. It may be called from any goroutine.
	Wake()
	Close() error
}

// linux is the Net of a real worker.
type linux struct{ *platform.Poller }

// NewNet opens a Net on the operating system.
func NewNet() (Net, error) {
	p, err := platform.NewPoller()
	if err != nil {
		return nil, err
	}
	return linux{p}, nil
}

func (linux) Accept(fd int) (int, netip.AddrPort, error) { return platform.Accept(fd) }
func (linux) Read(fd int, b []byte) (int, error)         { return platform.Read(fd, b) }
func (linux) Write(fd int, b []byte) (int, error)        { return platform.Write(fd, b) }
func (linux) CloseFD(fd int) error                       { return platform.CloseFD(fd) }

package rig

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Cloud is a mosquitto that stands for the broker upstream. It keeps its
// sessions over Stop and Start, not over a kill: what it acknowledged is safe
// only with the former.
type Cloud struct {
	Dir string
	// Config says who may come in. Default: everybody.
	Config string
	// Host is where it runs and listens. nil: here, on 127.0.0.1.
	Host *Host
	*Process
	port int
}

// FindMosquitto gives the path of the mosquitto broker; distributions put it
// where not every user's PATH looks.
func FindMosquitto() (string, error) {
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("mosquitto is not installed: apt-get install mosquitto, or the package of that name of your distribution")
}

// Start runs mosquitto, at the same address each time, and waits until it
// answers.
func (c *Cloud) Start() error {
	if c.Host != nil {
		return c.Host.Do(c.start)
	}
	return c.start()
}

func (c *Cloud) start() error {
	program, err := FindMosquitto()
	if err != nil {
		return err
	}
	if c.port == 0 {
		if c.port, err = Port(); err != nil {
			return err
		}
	}
	access := c.Config
	if access == "" {
		access = "allow_anonymous true\n"
	}
	// As root it would become another user, who cannot write here.
	text := fmt.Sprintf("listener %d %s\nuser root\npersistence true\npersistence_location %s/\n"+
		"max_queued_messages 0\nmax_inflight_messages 1000\nset_tcp_nodelay true\nlog_dest stderr\n%s", c.port, c.ip(), c.Dir, access)
	file := filepath.Join(c.Dir, "mosquitto.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	if c.Process, err = Start("mosquitto", program, "-c", file); err != nil {
		return err
	}
	for end := time.Now().Add(startMax); ; {
		conn, err := net.DialTimeout("tcp4", c.Addr(), time.Second)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-c.Done():
			return fmt.Errorf("mosquitto ended:\n%s", c.Log())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(end) {
			c.Kill()
			return fmt.Errorf("mosquitto does not listen:\n%s", c.Log())
		}
	}
}

// Addr is where it listens.
func (c *Cloud) Addr() string { return fmt.Sprintf("%s:%d", c.ip(), c.port) }

func (c *Cloud) ip() string {
	if c.Host != nil {
		return c.Host.IP.String()
	}
	return "127.0.0.1"
}

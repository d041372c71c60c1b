package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a child process with everything that it has written to stdout and
// stderr. It does not outlive us, and a Ctrl-C at our terminal does not reach it.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and all of its output is in log
	err  error         // of its end; valid after done

	mu   sync.Mutex
	log  []byte
	more chan struct{} // closed and replaced when log has grown
}

// Start starts a program. name is for messages.
func Start(name, program string, args ...string) (*Process, error) {
	return startIn(name, nil, program, args...)
}

// startIn is Start with more in the environment.
func startIn(name string, env []string, program string, args ...string) (*Process, error) {
	p := &Process{name: name, cmd: exec.Command(program, args...), done: make(chan struct{}), more: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Write takes the output of the program.
func (p *Process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, b...)
	close(p.more)
	p.more = make(chan struct{})
	return len(b), nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Log is what the process has written so far.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.log)
}

// Await waits until the process has written a line that ok takes.
func (p *Process) Await(within time.Duration, ok func(line string) bool) error {
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	for at := 0; ; {
		ended := false
		select {
		case <-p.done:
			ended = true // so what is in log now is all
		default:
		}
		p.mu.Lock()
		text, more := string(p.log[at:]), p.more
		p.mu.Unlock()
		for line, rest, whole := strings.Cut(text, "\n"); whole; line, rest, whole = strings.Cut(rest, "\n") {
			if ok(line) {
				return nil
			}
			at += len(line) + 1
		}
		if ended {
			return fmt.Errorf("%s ended (%v) before it was ready:\n%s", p.name, p.err, p.Log())
		}
		select {
		case <-more:
		case <-p.done:
		case <-timeout.C:
			return fmt.Errorf("%s was not ready after %v:\n%s", p.name, within, p.Log())
		}
	}
}

// Signal sends a signal.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends the process with SIGKILL and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// Stop ends the process with SIGTERM. The error says that it took longer than
// within, and was then killed, or that its exit code was not 0.
func (p *Process) Stop(within time.Duration) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.done:
	case <-time.After(within):
		p.Kill()
		return fmt.Errorf("%s had not ended %v after SIGTERM", p.name, within)
	}
	if p.err != nil {
		return fmt.Errorf("%s ended with %w", p.name, p.err)
	}
	return nil
}

// ExitCode waits for the end of the process and gives its exit code, -1 if a
// signal ended it.
func (p *Process) ExitCode() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

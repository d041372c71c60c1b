package platform

import (
	"net"
	"path/filepath"
	"testing"
)

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify(NotifyReady); err != nil {
		t.Errorf("without a service manager: %v", err)
	}
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@sluice-platform-test-" + filepath.Base(t.TempDir())} {
		manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		must(t, err)
		defer manager.Close()
		t.Setenv("NOTIFY_SOCKET", name)
		must(t, Notify(NotifyReady))
		buf := make([]byte, 64)
		n, err := manager.Read(buf)
		must(t, err)
		if string(buf[:n]) != "READY=1" {
			t.Errorf("%s: the manager got %q", name, buf[:n])
		}
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	if Notify(NotifyReady) == nil {
		t.Error("a manager that is not there: no error")
	}
}

package e2e

import (
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestMQTTJS runs the scenarios of mqttjs.mjs. node and npm must be there.
func TestMQTTJS(t *testing.T) {
	t.Parallel()
	installMQTTJS(t)
	b := start(t, "")
	for _, scenario := range []string{"pubsub", "reconnect", "offline", "will"} {
		for _, version := range []int{3, 4, 5} {
			t.Run(scenario+"/v"+strconv.Itoa(version), func(t *testing.T) {
				t.Parallel()
				began := time.Now()
				out, err := exec.Command("node", "mqttjs.mjs", scenario, strconv.Itoa(version), "mqtt://"+b.Addr()).CombinedOutput()
				if err != nil {
					t.Errorf("after %v: %v\n%s", time.Since(began), err, out)
				}
			})
		}
	}
}

// installing keeps two tests from installing at once.
var installing sync.Mutex

// installMQTTJS installs the library where it is missing, as package-lock.json pins it.
func installMQTTJS(t testing.TB) {
	t.Helper()
	installing.Lock()
	defer installing.Unlock()
	installed := exec.Command("node", "--input-type=module", "-e", "await import('mqtt')")
	if err := installed.Run(); err != nil {
		out, err := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund").CombinedOutput()
		if err != nil {
			t.Fatalf("install MQTT.js: %v\n%s", err, out)
		}
	}
}

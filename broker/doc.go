// Package broker is the facade of the MQTT broker: it joins store, workers and
// listeners, starts them in order and stops them in the reverse one. What it
// joins is in its subdirectories; who uses it is cmd/sluice.
package broker

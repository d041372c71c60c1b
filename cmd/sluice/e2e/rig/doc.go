// Package rig runs what the end-to-end tests and the demo are made of: Sluice
// and mosquitto as processes, a network between them that can fail, MQTT
// clients that keep their half of a session over crashes of the broker, and an
// account of what was acknowledged and what arrived.
//
// Nothing here knows anything of the inside of the broker but its codec.
package rig

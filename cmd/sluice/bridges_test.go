package main

import (
	"testing"
	"time"

	"sluice/broker/session"
	"sluice/configs"
	"sluice/persist"
)

func bridgeConfig(t *testing.T) *configs.Config {
	t.Helper()
	c := configs.Default()
	n, age, policy := 1000, configs.Duration(time.Hour), "drop-oldest"
	c.Bridges = []configs.Bridge{{Name: "cloud", Queues: []configs.BridgeQueue{
		{Share: 1}, {Name: "alarms", Priority: 5, Share: 1}, {Name: "video", Share: 1, MessagesMax: &n, AgeMax: &age, Policy: &policy},
	}}}
	return c
}

// A queue of a bridge has the limits that it sets, and no others.
func TestBridgeClasses(t *testing.T) {
	got := bridgeClasses(bridgeConfig(t))
	if len(got) != 1 || len(got[0].ClientIDs) != 1 || got[0].ClientIDs[0] != "$bridge/cloud/video" {
		t.Fatalf("classes %+v", got)
	}
	want := session.Queue{QueueLimits: persist.QueueLimits{Messages: 1000, AgeSeconds: 3600, Policy: persist.DropOldest}}
	if got[0].Queue != want {
		t.Errorf("limits %+v, want %+v", got[0].Queue, want)
	}
}

// Each key changes the fingerprint; the same configuration has the same one.
func TestBridgeFingerprint(t *testing.T) {
	base := func() string { return fingerprint(&bridgeConfig(t).Bridges[0], "secret", "host") }()
	again := bridgeConfig(t).Bridges[0]
	if fingerprint(&again, "secret", "host") != base {
		t.Error("the same configuration has another fingerprint")
	}
	for what, change := range map[string]func(*configs.Bridge){
		"address": func(b *configs.Bridge) { b.Address = configs.Addresses{"tcp://h"} },
		"share":   func(b *configs.Bridge) { b.Queues[1].Share = 2 },
		"limit":   func(b *configs.Bridge) { *b.Queues[2].MessagesMax = 1001 },
		"queue":   func(b *configs.Bridge) { b.Queues = b.Queues[:2] },
		"route":   func(b *configs.Bridge) { b.Routes = []configs.Route{{}} },
		"alpn":    func(b *configs.Bridge) { b.ALPN = []string{"x"} },
	} {
		b := bridgeConfig(t).Bridges[0]
		change(&b)
		if fingerprint(&b, "secret", "host") == base {
			t.Errorf("%s does not change the fingerprint", what)
		}
	}
	if fingerprint(&again, "other", "host") == base || fingerprint(&again, "secret", "other") == base {
		t.Error("password and host name do not change the fingerprint")
	}
}

package bridge

import (
	"context"
	"testing"
	"time"

	"sluice/broker/mqtt"

	"go.uber.org/zap"
)

// BenchmarkDrain is a backlog that leaves, message by message: payloads of 50 bytes, a
// window of 100, both brokers in the same process.
func BenchmarkDrain(b *testing.B) {
	for _, c := range []struct {
		name     string
		protocol Protocol
		aliases  int
	}{{"3.1.1", Protocol311, 0}, {"5", Protocol5, 0}, {"5 with aliases", Protocol5, 10}} {
		b.Run(c.name, func(b *testing.B) {
			local, up := newFakeLocal(b), newFakeUpstream(b)
			up.connack = mqtt.Properties{TopicAliasMax: 10}
			o := testOptions(local, up.addr(), outAll)
			o.Protocol, o.TopicAliases = c.protocol, c.aliases
			x, err := New(o, zap.NewNop())
			if err == nil {
				err = x.Start(context.Background())
			}
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = x.Close() }()
			payload := string(make([]byte, 50))
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				local.publish("plant/7/line/3/machine/12/temperature", payload, 1, false)
			}
			for local.open() > 0 {
				time.Sleep(100 * time.Microsecond)
			}
		})
	}
}

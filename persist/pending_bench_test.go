package persist

import (
	"testing"

	"sluice/broker/mqtt"
)

// BenchmarkCancelled is the healthy broker: each message is acknowledged by
// its receiver before a commit. One op is an enqueue and its dequeue.
func BenchmarkCancelled(b *testing.B) {
	p := NewPending(0, 1)
	var batch Batch
	batch.Add(Op{Kind: OpPutSession, Sess: &Session{ID: 1}})
	p.Submit(&batch, 0, nil)
	p.Committed(p.Take(), nil, nil)
	msg := &mqtt.Message{Topic: []byte("a/b"), Payload: make([]byte, 100)}
	const turn = 100
	settled := 0
	var scratch [4]Settlement
	count := func(list []Settlement) {
		for _, s := range list {
			settled += len(s.Tokens)
		}
	}
	seqs := make([]uint64, 0, turn)
	b.ReportAllocs()
	for i := 0; i < b.N; i += turn {
		batch.Reset()
		for j := range turn {
			batch.Begin(Token{Index: uint32(j)})
			batch.Enqueue(1, msg, 1, false, nil)
			batch.End()
		}
		list, _ := p.Submit(&batch, int64(i), scratch[:0])
		count(list)
		seqs = seqs[:0]
		for j := range batch.Ops {
			seqs = append(seqs, batch.Ops[j].Seq)
		}
		batch.Reset()
		for _, seq := range seqs {
			batch.Dequeue(1, seq)
		}
		list, _ = p.Submit(&batch, int64(i), scratch[:0])
		count(list)
	}
	if w := p.Waiting(); w.Ops != 0 || settled < b.N {
		b.Fatalf("%d settled of %d; %+v", settled, b.N, w)
	}
}

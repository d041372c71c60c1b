package persist

import "sluice/broker/mqtt"

// OpKind says what an Op does.
type OpKind uint8

// The kinds of Op. Unless said otherwise an op on a session that the store
// does not know has no effect.
const (
	// OpPutSession creates the session or replaces its record (Session).
	OpPutSession OpKind = iota + 1
	// OpDeleteSession removes the session with its subscriptions, queue and
	// inbound ids, and cancels what is pending for it.
	OpDeleteSession
	// OpAttach and OpDetach tell whether the session has a connection. They
	// are never written; they let the store guess whether an Enqueue will
	// soon be cancelled. OpAttach may say in Seq how many messages at the
	// front of the queue the session holds at most, in flight or to be sent
	// next: DropOldest leaves these alone as long as the session is attached.
	OpAttach
	OpDetach
	// OpPutSubscription adds or replaces Sub of session ID; by Sub.Filter.
	OpPutSubscription
	// OpDeleteSubscription removes Sub.Filter of session ID.
	OpDeleteSubscription
	// OpEnqueue appends Entry (its Seq is set by Submit) to queue ID.
	OpEnqueue
	// OpDequeue removes Seq from queue ID: QoS 1 was acknowledged, QoS 2 is
	// complete, or the message was dropped.
	OpDequeue
	// OpRelease marks Seq of queue ID as released: QoS 2, PUBREC came. The
	// message is forgotten, the sequence number stays until OpDequeue.
	OpRelease
	// OpPutInbound and OpDeleteInbound add and remove PacketID in the set of
	// QoS 2 packet ids received from session ID.
	OpPutInbound
	OpDeleteInbound
	// OpPutRetained stores Entry.Msg as the retained message of its topic.
	OpPutRetained
	// OpDeleteRetained removes the retained message of Entry.Msg.Topic.
	OpDeleteRetained
	// OpPutWill stores Will as the will of session ID, whose delay is running;
	// OpDeleteWill forgets it: it has been published, or the client is back.
	OpPutWill
	OpDeleteWill
	// OpExpire is an OpDequeue of a message that is too old for its queue. It
	// is for stores.
	OpExpire
)

// Op is one change. Which fields mean something depends on Kind.
type Op struct {
	Kind     OpKind
	PacketID uint16
	group    int32  // index into the batch's groups, or -1
	ID       uint64 // session
	Seq      uint64 // OpDequeue, OpRelease: which; OpEnqueue: result
	Entry    Entry
	Sess     *Session
	Sub      *Subscription
	Will     *Will
}

// Batch collects the ops of one turn of a worker. The zero value is ready;
// Reset makes it empty and keeps the memory.
type Batch struct {
	Ops    []Op
	Owner  int  // the worker to which settlements go
	Urgent bool // commit as soon as the committer is free: somebody waits for a session or subscription
	tokens []Token
	open   int32 // index+1 of the group that ops are added to, 0: none

	// Refused is set by Submit: the groups that are, or will be, settled with ErrFull or
	// ErrQueueFull, in their order.
	Refused []Refusal
}

// Refusal is a group of which nothing is stored. Ops may be added to another batch
// to try again; they are valid until Reset.
type Refusal struct {
	Token Token
	First int // its ops are Batch.Ops[First:End]
	End   int
	Err   error
}

// Reset empties the batch for another turn of the same owner.
func (b *Batch) Reset() {
	clear(b.Ops)
	b.Ops, b.tokens, b.open, b.Urgent, b.Refused = b.Ops[:0], b.tokens[:0], 0, false, b.Refused[:0]
}

// Begin opens a group: the ops added until End belong to it, and t is named
// once they are all settled.
func (b *Batch) Begin(t Token) {
	b.tokens = append(b.tokens, t)
	b.open = int32(len(b.tokens))
}

// End closes the group. A group without ops settles at once.
func (b *Batch) End() { b.open = 0 }

// Add appends an op, to the open group if there is one, and gives its index.
func (b *Batch) Add(op Op) int {
	op.group = b.open - 1
	b.Ops = append(b.Ops, op)
	return len(b.Ops) - 1
}

// Enqueue appends a message to queue id; see OpEnqueue.
func (b *Batch) Enqueue(id uint64, msg *mqtt.Message, qos mqtt.QoS, retain bool, subIDs []uint32) int {
	return b.Add(Op{Kind: OpEnqueue, ID: id, Entry: Entry{Msg: msg, QoS: qos, Retain: retain, SubIDs: subIDs}})
}

// Dequeue removes a message from queue id; see OpDequeue.
func (b *Batch) Dequeue(id, seq uint64) { b.Add(Op{Kind: OpDequeue, ID: id, Seq: seq}) }

// Empty tells whether there is nothing to submit.
func (b *Batch) Empty() bool { return len(b.Ops) == 0 && len(b.tokens) == 0 }

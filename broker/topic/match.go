package topic

// DESIGN. A Match goes down the trie level by level with the list of all nodes
// whose filters agree so far; there are few unless wildcards are many. Each
// level of the topic is looked at, and hashed if a table needs it, only once.

// Hits is what a Match found. The zero value is ready; reused, it does not
// allocate. One goroutine uses it at a time.
type Hits struct {
	// Subs are the subscriptions, valid until the next Match with these Hits.
	// Of each share group there is one, marked Shared.
	Subs []Subscription

	// Overlap tells that more than one filter or share group contributed: the
	// same Subscriber may be there more than once. False: each is there once.
	Overlap bool

	sources     int     // filters and share groups that contributed
	nodes, next []*node // the nodes of this level and of the next
}

// Match finds the subscriptions whose filters match a topic name that has
// passed CheckName, in an order that depends only on the calls before.
func (x *Index) Match(topic []byte, h *Hits) {
	h.Subs, h.sources = h.Subs[:0], 0
	h.nodes = append(h.nodes[:0], &x.root)
	// Wildcards at the first level do not match a topic that begins with $ [MQTT-4.7.2-1].
	wild := len(topic) == 0 || topic[0] != '$'
	for more := true; more && len(h.nodes) > 0; wild = true {
		var l hashed
		l.level, topic, more = cutLevel(topic)
		h.descend(&l, wild)
	}
	for _, n := range h.nodes {
		h.take(n)
		if b := n.bulk.Load(); b != nil {
			if c := b.multi.Load(); c != nil { // "sport/#" matches "sport" (MQTT5 4.7.1.2)
				h.take(c)
			}
		}
	}
	h.Overlap = h.sources > 1
}

// descend takes the "#" children of the nodes and goes on with those children
// that match the level.
func (h *Hits) descend(l *hashed, wild bool) {
	h.next = h.next[:0]
	for _, n := range h.nodes {
		b := n.bulk.Load()
		if b == nil {
			continue
		}
		step()
		if wild {
			if c := b.multi.Load(); c != nil {
				h.take(c)
			}
			if c := b.single.Load(); c != nil {
				h.next = append(h.next, c)
			}
		}
		step()
		if c := b.child(l); c != nil {
			h.next = append(h.next, c)
		}
	}
	h.nodes, h.next = h.next, h.nodes
}

// take adds the subscriptions at n.
func (h *Hits) take(n *node) {
	b := n.bulk.Load()
	start := len(h.Subs)
	step()
	if b == nil {
		if one := n.one.Load(); one != nil {
			h.Subs = append(h.Subs, *one)
		}
	} else {
		// A subscriber can move from one to the roster, or back, by leaving and
		// coming again. When one did not change meanwhile, nobody was seen twice.
		for {
			one := n.one.Load()
			if one != nil {
				h.Subs = append(h.Subs, *one)
			}
			step()
			h.Subs = b.subs.Load().appendTo(h.Subs)
			step()
			if n.one.Load() == one {
				break
			}
			h.Subs = h.Subs[:start]
		}
	}
	if len(h.Subs) > start {
		h.sources++
	}
	if b == nil {
		return
	}
	if p := b.group.Load(); p != nil {
		for _, g := range *p {
			step()
			if s, ok := g.pick(); ok {
				h.Subs = append(h.Subs, s)
				h.sources++
			}
		}
	}
}

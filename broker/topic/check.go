package topic

import "fmt"

// Check walks the whole index and returns the first broken invariant, or nil.
// It waits for writers and keeps them waiting. For tests and the simulator.
func (x *Index) Check() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	subs, err := x.root.check()
	if err == nil && subs != x.count.Load() {
		err = fmt.Errorf("index holds %d subscriptions and counts %d", subs, x.count.Load())
	}
	return err
}

// check returns the number of subscriptions at n and below. What it says of a
// child begins with the level of the child.
func (n *node) check() (subs int64, err error) {
	if n.one.Load() != nil {
		subs++
	}
	b := n.bulk.Load()
	if b == nil {
		return subs, nil
	}
	if b.empty() {
		return 0, fmt.Errorf(": empty bulk")
	}
	own, err := b.checkSubs(n.one.Load())
	if err != nil {
		return 0, fmt.Errorf(": %w", err)
	}
	subs += own
	children, err := b.children()
	if err != nil {
		return 0, fmt.Errorf(": %w", err)
	}
	for _, c := range children {
		if c.empty() {
			return 0, fmt.Errorf("/%s: empty node", c.level.String())
		}
		if n.get(c.level.bytes()) != c {
			return 0, fmt.Errorf("/%s: not found by its level", c.level.String())
		}
		k, err := c.check()
		if err != nil {
			return 0, fmt.Errorf("/%s%w", c.level.String(), err)
		}
		subs += k
	}
	return subs, nil
}

// checkSubs checks what is subscribed at the node itself, beside one.
func (b *bulk) checkSubs(one *Subscription) (subs int64, err error) {
	r := b.subs.Load()
	if r != nil {
		if subs, err = r.check(); err != nil {
			return 0, err
		}
		if one != nil && r.find(one.Subscriber) != nil {
			return 0, fmt.Errorf("subscriber %d is there twice", one.Subscriber)
		}
	}
	p := b.group.Load()
	if p == nil {
		return subs, nil
	}
	if len(*p) == 0 {
		return 0, fmt.Errorf("empty list of groups")
	}
	for i, g := range *p {
		if i > 0 && (*p)[i-1].name >= g.name {
			return 0, fmt.Errorf("groups %s, %s: not sorted", (*p)[i-1].name, g.name)
		}
		r := g.members.Load()
		if r == nil {
			return 0, fmt.Errorf("group %s: empty", g.name)
		}
		k, err := r.check()
		if err != nil {
			return 0, fmt.Errorf("group %s: %w", g.name, err)
		}
		subs += k
	}
	return subs, nil
}

// children lists the children, and checks where they are.
func (b *bulk) children() (all []*node, err error) {
	if c := b.single.Load(); c != nil {
		all = append(all, c)
	}
	if c := b.multi.Load(); c != nil {
		all = append(all, c)
	}
	few := 0
	for i := range b.few {
		if c := b.few[i].Load(); c != nil {
			all = append(all, c)
			few++
		}
	}
	t := b.table.Load()
	if t == nil {
		return all, nil
	}
	if few > 0 {
		return nil, fmt.Errorf("%d children beside the table", few)
	}
	live, tombs := 0, 0
	for i := range t.hashes {
		c := t.nodes[i].Load()
		switch h := t.hashes[i].Load(); {
		case h == slotTomb:
			tombs++
		case h >= slotUsed && c != nil:
			live++
			all = append(all, c)
		}
		if (t.hashes[i].Load() >= slotUsed) != (c != nil) {
			return nil, fmt.Errorf("slot %d: hash %#x, node %p", i, t.hashes[i].Load(), c)
		}
	}
	if live == 0 || live != t.live || live+tombs != t.used || 4*t.used > 3*len(t.hashes) {
		return nil, fmt.Errorf("table of %d slots: %d children, %d tombstones; live %d, used %d", len(t.hashes), live, tombs, t.live, t.used)
	}
	return all, nil
}

func (r *roster) check() (subs int64, err error) {
	if (r.many == nil) == (r.few == nil) || len(r.many) == 1 {
		return 0, fmt.Errorf("roster of %d chunks beside one of %d", len(r.many), len(r.few))
	}
	var all []Subscription
	for i := range r.many {
		if n := len(*r.many[i].Load()); n == 0 || n > chunkMax {
			return 0, fmt.Errorf("chunk of %d subscriptions", n)
		}
	}
	all = r.appendTo(all)
	for i := 1; i < len(all); i++ {
		if all[i-1].Subscriber >= all[i].Subscriber {
			return 0, fmt.Errorf("subscribers %d, %d: not sorted", all[i-1].Subscriber, all[i].Subscriber)
		}
	}
	return int64(len(all)), nil
}

package topic

import (
	"slices"
	"strings"
	"sync/atomic"
)

// DESIGN. A shared subscription "$share/group/filter" (MQTT5 4.8.2) is kept
// at the node of its filter, with the groups there. Of each group a Match
// hits one member: the members take turns, by a counter that all readers
// advance. Members marked Away are passed over while a look at some others
// finds one that is there; a message waits for one of them only if not.
//
// The list of groups at a node is copied when a group comes or goes, not when
// a member does: a filter has few groups, each for another kind of consumer.

type group struct {
	name    string
	turn    atomic.Uint32
	members atomic.Pointer[roster] // non-empty
}

// pick returns the member whose turn it is; false if the group was given up
// meanwhile.
func (g *group) pick() (Subscription, bool) {
	r := g.members.Load()
	if r == nil {
		return Subscription{}, false
	}
	s := r.at(g.turn.Add(1) - 1)
	for i := 0; i < awayTries && s.Marks&Away != 0; i++ {
		if other := r.at(g.turn.Add(1) - 1); other.Marks&Away == 0 {
			return other, true
		}
	}
	return s, true
}

// awayTries is how many members are looked at in the place of one that is away:
// all of any group that people make, and a bound for those they do not.
const awayTries = 32

// groups returns the groups of the node and where name is or would be among
// them.
func (b *bulk) groups(name string) (all []*group, i int, found bool) {
	if p := b.group.Load(); p != nil {
		all = *p
	}
	i, found = slices.BinarySearchFunc(all, name, func(g *group, name string) int { return strings.Compare(g.name, name) })
	return all, i, found
}

// putShared adds s to a group. Writer only.
func (n *node) putShared(name string, s Subscription) (existed bool) {
	b := n.grow()
	all, i, found := b.groups(name)
	if found {
		g := all[i]
		var r *roster
		r, existed = g.members.Load().put(s)
		g.members.Store(r)
		return existed
	}
	g := &group{name: strings.Clone(name)}
	r, _ := (*roster)(nil).put(s)
	g.members.Store(r)
	all = slices.Insert(slices.Clone(all), i, g)
	b.group.Store(&all)
	return false
}

// removeShared takes subscriber out of a group. Writer only.
func (n *node) removeShared(name string, subscriber uint64) (existed bool) {
	b := n.bulk.Load()
	if b == nil {
		return false
	}
	all, i, found := b.groups(name)
	if !found {
		return false
	}
	r, existed := all[i].members.Load().remove(subscriber)
	all[i].members.Store(r)
	step()
	if r != nil {
		return existed
	}
	if len(all) == 1 {
		b.group.Store(nil)
	} else {
		all = slices.Delete(slices.Clone(all), i, i+1)
		b.group.Store(&all)
	}
	n.shrink()
	return true
}

// Pick gives the member of a share group whose turn it is, as a Match would;
// false if the group has none. The filter is that of a shared subscription.
func (x *Index) Pick(filter string) (Subscription, bool) {
	name, rest, _ := SplitShare(filter)
	n := &x.root
	for level, left, more := []byte(nil), []byte(rest), true; more; {
		level, left, more = cutLevel(left)
		if n = n.get(level); n == nil {
			return Subscription{}, false
		}
	}
	b := n.bulk.Load()
	if b == nil {
		return Subscription{}, false
	}
	all, i, found := b.groups(name)
	if !found {
		return Subscription{}, false
	}
	return all[i].pick()
}

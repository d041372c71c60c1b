package persist

// DESIGN. A group is what a worker waits for before it acknowledges. It counts
// the ops that are neither on disk nor cancelled; the op that brings the count
// to zero settles it. Groups live in one slice and are named by their index,
// so that an op refers to its group with four bytes and the collector sees no
// pointers. Index 0 means "no group".

// Settlement is what Events.Settled is to be called with.
type Settlement struct {
	Owner  int
	Tokens []Token
	Err    error
}

type group struct {
	token Token
	owner int
	bytes int64  // message bytes charged to the pending set until the group is settled
	left  int32  // ops not settled, plus one while Submit is adding ops
	slow  int32  // ops not taken yet that nobody is likely to cancel soon
	gen   uint32 // value of Pending.gen when the group was made
	next  int32  // next free group
}

type settledGroup struct {
	owner int
	token Token
	err   error
}

// groups is the arena, and the list of what was settled since the last collect.
type groups struct {
	all     []group
	free    int32  // first free group, 0: none
	waiting int    // groups in use
	slow    int    // groups in use with slow > 0
	slowed  uint64 // how often a group became slow
	settled []settledGroup
}

// open makes a group that is kept from settling by one more release.
func (gs *groups) open(owner int, token Token, gen uint32) int32 {
	i := gs.free
	if i == 0 {
		if len(gs.all) == 0 {
			gs.all = append(gs.all, group{})
		}
		gs.all = append(gs.all, group{})
		i = int32(len(gs.all) - 1)
	} else {
		gs.free = gs.all[i].next
	}
	gs.all[i] = group{token: token, owner: owner, left: 1, gen: gen}
	gs.waiting++
	return i
}

// close settles group i and frees its place.
func (gs *groups) close(i int32, err error) {
	g := &gs.all[i]
	if g.slow > 0 {
		gs.slow--
	}
	gs.settled = append(gs.settled, settledGroup{owner: g.owner, token: g.token, err: err})
	*g = group{next: gs.free}
	gs.free = i
	gs.waiting--
	if gs.waiting == 0 && len(gs.all) > groupsKept {
		gs.all, gs.free = nil, 0
	}
}

// groupsKept is how many groups' memory (64 bytes each) is kept for the next burst.
const groupsKept = 4096

func (gs *groups) addSlow(i int32) {
	if i == 0 {
		return
	}
	g := &gs.all[i]
	if g.slow == 0 {
		gs.slow++
		gs.slowed++
	}
	g.slow++
}

func (gs *groups) subSlow(i int32) {
	if i == 0 || gs.all[i].slow == 0 {
		return
	}
	gs.all[i].slow--
	if gs.all[i].slow == 0 {
		gs.slow--
	}
}

// forgetSlow is for a group whose ops have been taken.
func (gs *groups) forgetSlow(i int32) {
	if i != 0 && gs.all[i].slow > 0 {
		gs.all[i].slow = 0
		gs.slow--
	}
}

// collect appends what was settled, one Settlement for each owner and error,
// owners in the order in which they came first.
func (gs *groups) collect(dst []Settlement) []Settlement {
	rest := gs.settled
	for len(rest) > 0 {
		owner, err := rest[0].owner, rest[0].err
		n := 0
		for i := range rest {
			if rest[i].owner == owner && rest[i].err == err {
				n++
			}
		}
		tokens := make([]Token, 0, n)
		others := rest[:0]
		for _, s := range rest {
			if s.owner == owner && s.err == err {
				tokens = append(tokens, s.token)
			} else {
				others = append(others, s)
			}
		}
		dst = append(dst, Settlement{Owner: owner, Tokens: tokens, Err: err})
		rest = others
	}
	gs.settled = gs.settled[:0]
	return dst
}

package bridge

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// named are options of one of several bridges, each with a local broker of its own.
func named(local *fakeLocal, name, upstream, fingerprint string) Options {
	o := testOptions(local, upstream, outAll)
	if id := "$bridge/" + name; local.id != id { // before anybody is there
		local.id = id
	}
	o.Name, o.Fingerprint, o.Backlog = name, fingerprint, local.backlog
	return o
}

func TestSetTouchesOnlyWhatIsDifferent(t *testing.T) {
	var locals []*fakeLocal
	for range 4 {
		locals = append(locals, newFakeLocal(t))
	}
	up, up2 := newFakeUpstream(t), newFakeUpstream(t)
	logs, log := observed()
	s := NewSet(log)
	defer s.Close()
	apply := func(want string, options ...Options) {
		t.Helper()
		c, err := s.Apply(context.Background(), options)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(c); got != want {
			t.Errorf("changes are %s, want %s", got, want)
		}
		if c.Any() != (len(c.Added)+len(c.Changed)+len(c.Removed) > 0) {
			t.Error("Any")
		}
	}
	state := func(name string) (st Status) {
		for _, st := range s.Status() {
			if st.Name == name {
				return st
			}
		}
		return st
	}
	refuses := newFakeUpstream(t)
	refuses.connackCode = 3 // c never comes up
	a, b, c := named(locals[0], "a", up.addr(), "1"), named(locals[1], "b", up.addr(), "1"), named(locals[2], "c", refuses.addr(), "1")
	apply("{[a b c] [] [] []}", a, b, c)
	eventually(t, "a and b are up", func() bool { return state("a").State == StateUp && state("b").State == StateUp })
	locals[2].publish("s/0", "waits", 1, false)

	b.Fingerprint, b.Address = "2", up2.addr()
	apply("{[d] [b] [c] [a]}", named(locals[3], "d", up.addr(), "1"), b, a)
	eventually(t, "b is up again", func() bool { return state("b").State == StateUp && state("d").State == StateUp })
	if st := state("a"); st.Links != 1 || st.State != StateUp {
		t.Errorf("a was touched: %+v", st)
	}
	locals[0].with(func() {
		if locals[0].goodbyes != 1 { // of Start
			t.Errorf("a said goodbye %d times", locals[0].goodbyes)
		}
	})
	locals[1].publish("s/0", "to the new one", 1, false)
	eventually(t, "b carries to its new upstream", func() bool { return len(up2.messages()["up/s/0"]) == 1 })
	if lines := logs.FilterMessageSnippet("not configured any more").All(); len(lines) != 1 || lines[0].ContextMap()["messages"] != int64(1) || lines[0].ContextMap()["bridge"] != "c" {
		t.Errorf("logged %+v", lines)
	}
	apply("{[c] [] [d] [a b]}", a, b, named(locals[2], "c", up2.addr(), "1"))
	eventually(t, "c carries what it had queued", func() bool { return len(up2.messages()["up/s/0"]) == 2 })
}

func TestSetJudgesBeforeItActs(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	s := NewSet(zap.NewNop())
	defer s.Close()
	good := named(local, "a", up.addr(), "1")
	if _, err := s.Apply(context.Background(), []Options{good}); err != nil {
		t.Fatal(err)
	}
	bad := good
	bad.Fingerprint, bad.ClientID = "2", ""
	for what, options := range map[string][]Options{"client id is empty": {bad}, "twice": {good, good}} {
		if c, err := s.Apply(context.Background(), options); err == nil || !strings.Contains(err.Error(), what) || c.Any() {
			t.Errorf("%s: %v, %v", what, c, err)
		}
	}
	if st := s.Status(); len(st) != 1 || st[0].State == StateStopped {
		t.Errorf("status %+v", st)
	}
}

// A bridge that cannot be started is missing, and is tried again.
func TestSetStartsAgain(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	s := NewSet(zap.NewNop())
	local.refuseDial = true
	o := named(local, "a", up.addr(), "1")
	if _, err := s.Apply(context.Background(), []Options{o}); err == nil {
		t.Error("no error although the local broker is away")
	}
	local.with(func() { local.refuseDial = false })
	if c, err := s.Apply(context.Background(), []Options{o}); err != nil || len(c.Added) != 1 {
		t.Errorf("%v, %v", c, err)
	}
	_ = s.Close()
	if _, err := s.Apply(context.Background(), []Options{o}); err == nil {
		t.Error("a closed set starts bridges")
	}
}

// A bridge is removed and added a hundred times under load: nothing is lost, nothing stays.
func TestSetReloadsUnderLoad(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	oracle(t, local, up)
	fds := openFDs(t)
	s := NewSet(zap.NewNop())
	for i := range 100 {
		o := named(local, "a", up.addr(), fmt.Sprint(i))
		if _, err := s.Apply(context.Background(), []Options{o}); err != nil {
			t.Fatal(err)
		}
		publishRound(local, 3, i)
		if i%10 == 9 {
			eventually(t, "acknowledged", func() bool { return local.open() == 0 })
		}
	}
	expectOrder(t, up.messages(), 3, 100)
	_ = s.Close()
	eventually(t, "as many descriptors as before", func() bool { return openFDs(t) <= fds })
}

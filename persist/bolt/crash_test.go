package bolt

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"
)

// DESIGN. Power cuts on a disk with a volatile cache. A store runs, with its
// writes and syncs going through a model of the disk: what was synced is on
// the platter, what was written since is in the cache, and of that a cut keeps
// any sectors, and loses the others. At random moments within commits we make
// the image that a cut would leave, open it as a store, and look whether all
// is there that had been settled at that moment; the store runs on. Now and
// then a sync fails, after which the pages written since the last one are
// clean in the page cache and may never reach the platter; or the process is
// killed before its last sync, and the next goes on from the page cache.
//
// The controls are a store that does not sync and a disk that lies about it:
// both must be found to lose data.

const sector = 512

type diskWrite struct {
	off  int64
	data []byte
}

// platter is the model of the disk.
type platter struct {
	rnd     *rand.Rand
	durable []byte
	cache   []diskWrite
	lies    bool
}

func (d *platter) write(b []byte, off int64) {
	d.cache = append(d.cache, diskWrite{off, append([]byte(nil), b...)})
}

func (d *platter) put(img []byte, w diskWrite) []byte {
	if end := int(w.off) + len(w.data); end > len(img) {
		img = append(img, make([]byte, end-len(img))...)
	}
	copy(img[w.off:], w.data)
	return img
}

func (d *platter) sync() {
	if d.lies {
		return
	}
	for _, w := range d.cache {
		d.durable = d.put(d.durable, w)
	}
	d.cache = nil
}

// failSync is a sync that fails: what was in the cache is clean, and on the
// platter or not.
func (d *platter) failSync() {
	d.durable = d.cut()
	d.cache = nil
}

// cut gives what is on the platter after a cut.
func (d *platter) cut() []byte {
	img := append([]byte(nil), d.durable...)
	mode := d.rnd.IntN(4)
	for _, w := range d.cache {
		switch {
		case mode == 0 || mode == 1 && d.rnd.IntN(2) == 0: // none at all, or not this one
			continue
		case mode == 2 || mode == 1: // as it is
			img = d.put(img, w)
			continue
		}
		for at := 0; at < len(w.data); at += sector { // torn
			if d.rnd.IntN(2) == 0 {
				img = d.put(img, diskWrite{w.off + int64(at), w.data[at:min(at+sector, len(w.data))]})
			}
		}
	}
	return img
}

var (
	powerCuts = flag.Int("cuts", 600, "number of power cuts")
	powerSeed = flag.Uint64("cutseed", 1, "what they depend on")
)

// No cut loses what was settled.
func TestPowerCuts(t *testing.T) {
	cuts := *powerCuts
	r := newRack(t, *powerSeed)
	r.faults = true
	start := time.Now()
	r.run(cuts)
	if len(r.lost) > 0 {
		t.Fatalf("%d of %d cuts: %s", len(r.lost), r.cuts, r.lost[0])
	}
	if r.cuts < cuts || r.last < 100 || r.failed == 0 || r.kills == 0 {
		t.Fatalf("%d cuts, %d groups settled, %d syncs failed, %d kills: the test shows nothing", r.cuts, r.last, r.failed, r.kills)
	}
	t.Logf("%d cuts in %v, %d groups settled, %d syncs failed, %d kills", r.cuts, time.Since(start), r.last, r.failed, r.kills)
}

// A store that does not sync, and a disk that lies, lose data.
func TestPowerCutControls(t *testing.T) {
	for _, noSync := range []bool{true, false} {
		r := newRack(t, 2)
		r.noSync, r.disk.lies = noSync, !noSync
		r.run(100)
		if len(r.lost) == 0 {
			t.Fatalf("without sync %v: %d cuts lost nothing", noSync, r.cuts)
		}
		t.Logf("without sync %v: %d of %d cuts lost data", noSync, len(r.lost), r.cuts)
	}
}

package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
)

// DESIGN. bbolt trusts its file: a damaged page makes it panic, in a goroutine
// of its own where nobody can recover, or loop, or touch memory beyond the end
// of the file. So before it gets to see a file, we read it by the published
// format: every page that can be reached is where it says it is, is reached
// once, has its elements within itself and its keys in order, and only buckets
// that we know are there. Values are not looked at: each has its checksum,
// and a damaged one costs only itself.
//
// After a crash this reads the whole file once, which bbolt then does again, to
// find the free pages, from the page cache. A file that was closed properly and
// is bigger than checkAllBytes gets a look at its ends only.

// checkAllBytes is the size of a file, properly closed, up to which it is
// checked in full: well under a second on the slowest cards.
const checkAllBytes = 8 << 20

// The format of bbolt's pages (little-endian on all systems that Go supports
// and Linux runs on, but for some that are not gateways).
const (
	pageHead      = 16
	elemHead      = 16
	bucketHead    = 16
	flagBranch    = 1
	flagLeaf      = 2
	flagMeta      = 4
	flagFreelist  = 16
	metaMagic     = 0xED0CDAED
	metaVersion   = 2
	metaBytes     = 64
	noFreelist    = math.MaxUint64
	maxTreeLevels = 32
)

// damageError says that the file is not what bbolt wrote.
type damageError struct{ reason string }

func (e *damageError) Error() string { return "damaged store file: " + e.reason }

func damaged(format string, args ...any) error {
	return &damageError{reason: fmt.Sprintf(format, args...)}
}

// isDamage tells whether err says that the file is damaged.
func isDamage(err error) bool {
	var d *damageError
	return errors.As(err, &d)
}

// fileMeta is a meta page.
type fileMeta struct {
	pageSize, root, freelist, high, txid uint64
}

// checker walks through a file.
type checker struct {
	f     io.ReaderAt
	size  int64
	meta  fileMeta
	seen  []uint64 // a bit for each page that was reached
	bufs  [][]byte // one page for each level
	names map[string]bool

	endsOnly bool // read no more than the bucket of buckets
}

// checkFile gives a damageError if the file is damaged, and tells whether it
// was closed properly.
func checkFile(f io.ReaderAt, size int64) (clean bool, err error) {
	c := &checker{f: f, size: size, names: make(map[string]bool)}
	if err := c.readMeta(); err != nil {
		return false, err
	}
	clean = c.meta.freelist != noFreelist
	if c.meta.high < 4 || int64(c.meta.high) > size/int64(c.meta.pageSize) {
		return clean, damaged("%d pages of %d bytes expected, the file has %d bytes", c.meta.high, c.meta.pageSize, size)
	}
	c.seen = make([]uint64, c.meta.high/64+1)
	c.seen[0] = 3 // the meta pages
	if clean {
		if err := c.checkFreelist(); err != nil {
			return clean, err
		}
	}
	c.endsOnly = clean && size > checkAllBytes
	if err := c.checkTree(c.meta.root, nil, nil, 0, true); err != nil {
		return clean, err
	}
	for _, name := range bucketNames[:bucketsFirst] {
		if !c.names[string(name)] && len(c.names) > 0 {
			return clean, damaged("no bucket %q", name)
		}
	}
	return clean, nil
}

// readMeta takes the newer of the meta pages that are valid, as bbolt does.
func (c *checker) readMeta() error {
	found := false
	try := func(at int64) {
		if m, ok := c.metaAt(at); ok && (!found || m.txid > c.meta.txid) {
			c.meta, found = m, true
		}
	}
	try(0)
	if found {
		try(int64(c.meta.pageSize))
	} else {
		for i := range 7 { // 1 KiB to 64 KiB
			try(1024 << i)
		}
	}
	if !found {
		return damaged("no valid meta page")
	}
	return nil
}

func (c *checker) metaAt(at int64) (m fileMeta, ok bool) {
	var b [pageHead + metaBytes]byte
	if _, err := c.f.ReadAt(b[:], at); err != nil {
		return m, false
	}
	le, p := binary.LittleEndian, b[pageHead:]
	sum := fnv.New64a()
	sum.Write(p[:56])
	if le.Uint32(p) != metaMagic || le.Uint32(p[4:]) != metaVersion || le.Uint64(p[56:]) != sum.Sum64() {
		return m, false
	}
	m = fileMeta{
		pageSize: uint64(le.Uint32(p[8:])), root: le.Uint64(p[16:]),
		freelist: le.Uint64(p[32:]), high: le.Uint64(p[40:]), txid: le.Uint64(p[48:]),
	}
	return m, m.pageSize >= 1024 && m.pageSize <= 64<<10 && m.pageSize&(m.pageSize-1) == 0 && m.high < 1<<48
}

// page reads a page with its overflow into the buffer of a level.
func (c *checker) page(id uint64, level int) (p []byte, flags uint16, count int, err error) {
	if id < 2 || id >= c.meta.high {
		return nil, 0, 0, damaged("page %d of %d", id, c.meta.high)
	}
	var head [pageHead]byte
	if _, err := c.f.ReadAt(head[:], int64(id*c.meta.pageSize)); err != nil {
		return nil, 0, 0, damaged("page %d: %v", id, err)
	}
	le := binary.LittleEndian
	flags, count = le.Uint16(head[8:]), int(le.Uint16(head[10:]))
	pages := uint64(le.Uint32(head[12:])) + 1
	if le.Uint64(head[:]) != id || id+pages > c.meta.high {
		return nil, 0, 0, damaged("page %d says that it is page %d, of %d pages", id, le.Uint64(head[:]), pages)
	}
	for i := id; i < id+pages; i++ {
		if c.seen[i/64]>>(i%64)&1 != 0 {
			return nil, 0, 0, damaged("page %d is used twice", i)
		}
		c.seen[i/64] |= 1 << (i % 64)
	}
	for len(c.bufs) <= level {
		c.bufs = append(c.bufs, nil)
	}
	n := pages * c.meta.pageSize
	if n > math.MaxInt32 {
		return nil, 0, 0, damaged("page %d has %d bytes", id, n)
	}
	if uint64(cap(c.bufs[level])) < n {
		c.bufs[level] = make([]byte, n)
	}
	p = c.bufs[level][:n]
	if _, err := c.f.ReadAt(p, int64(id*c.meta.pageSize)); err != nil {
		return nil, 0, 0, damaged("page %d: %v", id, err)
	}
	return p, flags, count, nil
}

// checkFreelist checks the list of free pages: in order, each once.
func (c *checker) checkFreelist() error {
	p, flags, count, err := c.page(c.meta.freelist, 0)
	if err != nil {
		return err
	}
	p, n := p[pageHead:], uint64(count)
	if flags != flagFreelist {
		return damaged("page %d is not a list of free pages", c.meta.freelist)
	}
	if count == 0xFFFF { // the number did not fit and is the first in the list
		n, p = binary.LittleEndian.Uint64(p), p[8:]
	}
	if n > uint64(len(p)/8) {
		return damaged("list of %d free pages in %d bytes", n, len(p))
	}
	last := uint64(1)
	for i := range n {
		id := binary.LittleEndian.Uint64(p[i*8:])
		if id <= last || id >= c.meta.high || c.seen[id/64]>>(id%64)&1 != 0 {
			return damaged("free page %d after %d", id, last)
		}
		c.seen[id/64] |= 1 << (id % 64)
		last = id
	}
	return nil
}

// checkTree checks the tree whose root is page id, in which low is the first
// key and all are less than high (nil: not known). bbolt finds the place of a
// page in its parent by the first key, so that must be exact. In the bucket of
// buckets (top) the values are buckets.
func (c *checker) checkTree(id uint64, low, high []byte, level int, top bool) error {
	if level > maxTreeLevels {
		return damaged("tree of %d levels", level)
	}
	p, flags, count, err := c.page(id, level)
	if err != nil {
		return err
	}
	if flags != flagBranch && flags != flagLeaf || count == 0 && (flags == flagBranch || low != nil) {
		return damaged("page %d of kind %d with %d elements", id, flags, count)
	}
	return c.checkElems(p, flags == flagLeaf, count, low, high, level, top)
}

// elem is an element of a page.
type elem struct {
	key, value []byte
	bucket     bool
	child      uint64
}

// elemAt reads element i of a page of count elements.
func elemAt(p []byte, leaf bool, count, i int) (e elem, ok bool) {
	at := pageHead + i*elemHead
	if i >= count || pageHead+count*elemHead > len(p) {
		return e, false
	}
	le, h := binary.LittleEndian, p[at:]
	var pos, ksize, vsize uint64
	if leaf {
		if le.Uint32(h) > 1 {
			return e, false
		}
		e.bucket = le.Uint32(h) == 1
		pos, ksize, vsize = uint64(le.Uint32(h[4:])), uint64(le.Uint32(h[8:])), uint64(le.Uint32(h[12:]))
	} else {
		pos, ksize, e.child = uint64(le.Uint32(h)), uint64(le.Uint32(h[4:])), le.Uint64(h[8:])
	}
	pos += uint64(at)
	if pos < uint64(pageHead+count*elemHead) || ksize == 0 || pos+ksize+vsize > uint64(len(p)) {
		return e, false
	}
	e.key, e.value = p[pos:pos+ksize], p[pos+ksize:pos+ksize+vsize]
	return e, true
}

// checkElems checks the elements of a page, and the trees below them.
func (c *checker) checkElems(p []byte, leaf bool, count int, low, high []byte, level int, top bool) error {
	e, ok := elemAt(p, leaf, count, 0)
	for i := range count {
		if !ok {
			return damaged("element %d of %d is not within its page", i, count)
		}
		upper, next, nextOK := high, elem{}, true
		if i+1 < count {
			next, nextOK = elemAt(p, leaf, count, i+1)
			upper = next.key
		}
		if i == 0 && low != nil && !bytes.Equal(e.key, low) || upper != nil && bytes.Compare(e.key, upper) >= 0 {
			return damaged("key %x is out of order", e.key)
		}
		var err error
		switch {
		case !leaf:
			err = c.checkTree(e.child, e.key, upper, level+1, top)
		case top:
			err = c.checkBucket(e, level)
		case e.bucket:
			err = damaged("bucket %x within a bucket", e.key)
		}
		if err != nil {
			return err
		}
		e, ok = next, nextOK
	}
	return nil
}

// checkBucket checks an element of the bucket of buckets.
func (c *checker) checkBucket(e elem, level int) error {
	known := false
	for _, name := range bucketNames {
		known = known || bytes.Equal(name, e.key)
	}
	if !known || !e.bucket || len(e.value) < bucketHead {
		return damaged("unknown bucket %x", e.key)
	}
	c.names[string(e.key)] = true
	id := binary.LittleEndian.Uint64(e.value)
	if id != 0 {
		if c.endsOnly {
			return nil
		}
		return c.checkTree(id, nil, nil, level+1, false)
	}
	p := e.value[bucketHead:] // a small bucket has its only page here
	if len(p) < pageHead || binary.LittleEndian.Uint16(p[8:]) != flagLeaf {
		return damaged("bucket %q has no page", e.key)
	}
	return c.checkElems(p, true, int(binary.LittleEndian.Uint16(p[10:])), nil, nil, level+1, false)
}
